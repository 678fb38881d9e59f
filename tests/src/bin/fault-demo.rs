//! Real programs live through partial failure while their neighbours notice nothing. `fault-demo --lane NAME`.

use std::process::ExitCode;

use clap::Parser as _;
use fault_tests::{demo, e2e::Lane};

#[derive(clap::Parser)]
struct Cli {
    /// The kernel this runs on.
    #[arg(long, value_enum, default_value_t = Lane::Native)]
    lane: Lane,
}

fn main() -> ExitCode {
    match demo::run(Cli::parse().lane) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fault-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
