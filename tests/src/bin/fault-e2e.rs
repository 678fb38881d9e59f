//! The end-to-end tests. `fault-e2e --lane NAME [libtest arguments]`, as root, on the kernel of that lane.

use std::process::ExitCode;

use clap::Parser as _;
use fault_tests::e2e::{Lane, Part, Rooms, Shard, main as run};

#[derive(clap::Parser)]
struct Cli {
    /// The kernel this runs on.
    #[arg(long, value_enum, default_value_t = Lane::Native)]
    lane: Lane,
    /// Only tests that mind a busy machine, or only those that do not (default: both).
    #[arg(long, value_enum)]
    rooms: Option<Rooms>,
    /// Only the Nth part of M, as N/M.
    #[arg(long, default_value_t)]
    shard: Shard,
    /// Arguments of the test harness: a filter, --list, --nocapture …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let harness = std::iter::once("fault-e2e".to_owned()).chain(cli.rest);
    let part = Part { rooms: cli.rooms, shard: cli.shard };
    run(cli.lane, part, libtest_mimic::Arguments::from_iter(harness))
}
