//! `fault serve`: the controller as a service.

use std::{process::ExitCode, sync::Arc};

use super::{args::ServeArgs, error::CliError, session};
use crate::{
    serve::{self, Options},
    session::keeper::Keeper,
};

pub(super) fn main(arguments: &ServeArgs) -> Result<ExitCode, CliError> {
    let path = serve::path(&arguments.listen).map_err(serve::ServeError::from)?;
    session::require_root()?;
    let keeper = Arc::new(Keeper::fork()?);
    let options = Options { path, users: arguments.allow_uid.clone(), sessions: arguments.max_sessions };
    let listen = &arguments.listen;
    let ready = || eprintln!("fault: serving on {listen}");
    session::runtime()?.block_on(serve::serve(options, keeper, ready))?;
    Ok(ExitCode::SUCCESS)
}
