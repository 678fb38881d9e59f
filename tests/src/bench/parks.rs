//! How many tasks a second the parking lot takes in and lets go.

use std::process::Command;

use anyhow::ensure;

use super::{
    Setting,
    figure::{Figure, Target},
};
use crate::{
    driver::{Injection, victim},
    process::Process,
    victim::report::Timed,
};

/// A disk that takes no time at all.
const DISK: &str = "/dev/nullb0";
const ROUNDS: usize = 3;
const THREADS: u64 = 32;
/// Reads of each thread.
const READS: u64 = 250;

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let mut rates = Vec::new();
    let mut late = Vec::new();
    for _ in 0..ROUNDS {
        let mut command = Command::new(victim()?);
        command.args(["pread", DISK, "--wait"]);
        command.args(["--threads", &THREADS.to_string(), "--count", &READS.to_string()]);
        let mut target = Process::start_until(&mut command, "open")?;
        let spec = format!("delay 1ms read on {DISK}");
        let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
        target.release()?;
        let timed: Timed = target.report()?;
        let report = injection.wait()?;
        let reads = THREADS * READS;
        ensure!(timed.latencies_ns.len() as u64 == reads, "reads failed: {:?}", timed.errors);
        ensure!(timed.latencies_ns.iter().all(|latency| *latency >= 1_000_000), "not every read was parked");
        ensure!(report.counter("parked")? == reads, "{}", report.json);
        ensure!(report.counter("park_overflow")? == 0, "{}", report.json);
        rates.push(reads as f64 / (timed.wall_ns as f64 / 1e9));
        late.push(crate::stats::median(&timed.latencies_ns) as f64 / 1e6);
    }
    Ok(vec![
        Figure::median("parks a second, 32 threads, 1 ms", "", &rates).target(Target::AtLeast(2000.0)),
        Figure::median("  median delay felt", "ms", &late),
    ])
}
