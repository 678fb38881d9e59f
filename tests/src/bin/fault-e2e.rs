//! The end-to-end tests. `fault-e2e --lane NAME [libtest arguments]`, as root, on the kernel of that lane.

use std::process::ExitCode;

use clap::Parser as _;
use fault_tests::e2e::{Lane, main as run};

#[derive(clap::Parser)]
struct Cli {
    /// The kernel this runs on.
    #[arg(long, value_enum, default_value_t = Lane::Native)]
    lane: Lane,
    /// Arguments of the test harness: a filter, --list, --nocapture …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let harness = std::iter::once("fault-e2e".to_owned()).chain(cli.rest);
    run(cli.lane, libtest_mimic::Arguments::from_iter(harness))
}
