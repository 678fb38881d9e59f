//! `fault serve`: the controller as a service.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use super::{args::ServeArgs, error::CliError, session};
use crate::{
    serve::{self, Options, Token},
    session::keeper::Keeper,
};

pub(super) fn main(arguments: &ServeArgs) -> Result<ExitCode, CliError> {
    if arguments.openapi {
        let result = writeln!(io::stdout().lock(), "{}", serve::openapi());
        return match result {
            // Whoever reads has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Stdout(error)),
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    let addresses = arguments.listen.iter().map(|listen| listen.parse());
    let addresses = addresses.collect::<Result<Vec<_>, _>>().map_err(serve::ServeError::from)?;
    let token = arguments.token_file.as_deref().map(Token::read).transpose();
    let token = token.map_err(|error| serve::ServeError::from(serve::ListenError::from(error)))?;
    session::require_root()?;
    let keeper = Arc::new(Keeper::fork()?);
    let users = arguments.allow_uid.clone();
    let options = Options { addresses, token, users, sessions: arguments.max_sessions };
    let ready = |places: &str| eprintln!("fault: serving on {places}");
    session::runtime()?.block_on(serve::serve(options, keeper, ready))?;
    Ok(ExitCode::SUCCESS)
}
