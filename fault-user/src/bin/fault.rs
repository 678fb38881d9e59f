//! The `fault` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fault_user::cli::main(std::env::args_os())
}
