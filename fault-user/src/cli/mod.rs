//! The command line: arguments in, exit status out.

pub mod args;
mod error;
mod explain;
mod finish;
mod inject;
mod leash;
mod manual;
mod play;
mod preset;
mod run;
mod serve;
mod session;
mod sweep;
mod top;

use std::{ffi::OsString, io, process::ExitCode};

use args::Command;

use crate::kernel;

/// How the line begins on standard error that says that faults are active: scripts wait for it.
pub const ACTIVE: &str = "fault: active";

/// The whole of `fault`.
pub fn main<I: IntoIterator<Item = OsString>>(arguments: I) -> ExitCode {
    let cli = match args::parse(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout with status 0, a usage error to stderr with 2. Without either stream there
            // is nobody to tell.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let result = match cli.command {
        Command::Run(arguments) => run::main(&arguments),
        Command::Inject(arguments) => inject::main(&arguments),
        Command::Play(arguments) => play::main(&arguments),
        Command::Preset(arguments) => preset::main(&arguments),
        Command::Serve(arguments) => serve::main(&arguments),
        Command::Top(arguments) => top::main(&arguments),
        Command::Explain(arguments) => explain::main(&arguments),
        Command::Doctor(arguments) => doctor(&arguments),
        Command::Sweep(arguments) => sweep::main(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprint!("{}", error.render());
        ExitCode::from(error.status())
    })
}

fn doctor(arguments: &args::DoctorArgs) -> Result<ExitCode, error::CliError> {
    kernel::doctor::run(arguments.json, &mut io::stdout().lock())
        .map(ExitCode::from)
        .map_err(error::CliError::Stdout)
}
