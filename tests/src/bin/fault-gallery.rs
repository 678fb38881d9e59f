//! The gallery. `fault-gallery [NAME…]`, as root, on the kernel of lane `fault`; leaves its pages in `$FAULT_JOB/gallery`.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser as _;
use fault_tests::{e2e::Lane, gallery};

#[derive(clap::Parser)]
#[command(about = "Partial failures on systems everybody knows; writes $FAULT_JOB/gallery")]
struct Cli {
    /// The kernel this runs on. The gallery needs everything.
    #[arg(long, value_enum, default_value_t = Lane::Fault)]
    lane: Lane,
    /// Only these scenarios.
    names: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.lane != Lane::Fault {
        eprintln!("fault-gallery: only in the VM of lane `fault`, which has disks to spoil");
        return ExitCode::FAILURE;
    }
    let job = std::env::var_os("FAULT_JOB").map_or_else(|| PathBuf::from("."), PathBuf::from);
    match gallery::run(&cli.names, &job.join("gallery")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fault-gallery: {error:#}");
            ExitCode::FAILURE
        }
    }
}
