//! `fault top`: what is being injected on this machine.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use super::{args::TopArgs, error::CliError};
use crate::{
    beacon::client,
    top::{self, text},
};

pub(super) fn main(arguments: &TopArgs) -> Result<ExitCode, CliError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(CliError::NotRootToLook);
    }
    if !arguments.once && !arguments.json && io::stdout().is_terminal() {
        top::live().map_err(CliError::Terminal)?;
        return Ok(ExitCode::SUCCESS);
    }
    let everyone = client::look();
    let printed = if arguments.json { text::json(&everyone) } else { text::table(&everyone) };
    match io::stdout().write_all(printed.as_bytes()) {
        // Whoever read it has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Stdout(error)),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}
