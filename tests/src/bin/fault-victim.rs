//! Programs that live through faults and say what they saw.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    fault_tests::victim::run(fault_tests::victim::Cli::parse())
}
