//! `fault completions` and `fault man`: what clap knows of the command line, for shells and for man(1).

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{
    args::{self, CompletionsArgs, ManArgs},
    error::CliError,
};

pub(super) fn completions(arguments: &CompletionsArgs) -> Result<ExitCode, CliError> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut args::command(), "fault", &mut text);
    print(&text)
}

pub(super) fn man(arguments: &ManArgs) -> Result<ExitCode, CliError> {
    if let Some(directory) = &arguments.directory {
        let failed = |source| CliError::Man { directory: directory.display().to_string(), source };
        clap_mangen::generate_to(args::command(), directory).map_err(failed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(args::command()).render(&mut text).map_err(CliError::Stdout)?;
    print(&text)
}

fn print(text: &[u8]) -> Result<ExitCode, CliError> {
    match io::stdout().lock().write_all(text) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Stdout(error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
