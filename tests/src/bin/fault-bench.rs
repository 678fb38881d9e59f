//! The benchmarks. `fault-bench --lane NAME [BENCHMARK…]`, as root, on the kernel of that lane.

use std::process::ExitCode;

use clap::Parser as _;
use fault_tests::bench::{Lane, main as run};

#[derive(clap::Parser)]
#[command(about = "What fault costs; writes $FAULT_JOB/bench.json")]
struct Cli {
    /// The kernel this runs on.
    #[arg(long, value_enum, default_value_t = Lane::Native)]
    lane: Lane,
    /// How long `soak` takes.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Only benchmarks whose name contains one of these: packet, arming, bystander, proxy, prefixes; flow, bio,
    /// parks, parity, prefixes. `soak` runs in both places, and only when it is named.
    names: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    run(cli.lane, cli.minutes, &cli.names)
}
