//! dm-delay, dm-flakey, dm-dust, strace and `fault` side by side, the table of docs/parity-disk.md, and what they cost who
//! is not hit.

use std::process::Command;

use anyhow::ensure;

use super::{
    Setting,
    figure::{Figure, Target},
    parity::publish,
};
use crate::{
    disk_parity::{Outcome, compare, table},
    driver::{Injection, victim},
    process::Process,
    victim::report::Timed,
};

/// A disk that takes no time at all.
const DISK: &str = "/dev/nullb0";
const READS: u64 = 3_000;
const ROUNDS: usize = 5;

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let verdicts = compare()?;
    let differ = verdicts.iter().filter_map(|verdict| match &verdict.outcome {
        Outcome::Same | Outcome::Nearer => None,
        Outcome::Differs(how) => Some((verdict.fault, how.as_str())),
    });
    publish("parity-disk.md", &table(&verdicts), differ)?;
    let count = |wanted: &Outcome| verdicts.iter().filter(|verdict| verdict.outcome == *wanted).count();
    let hit: usize = verdicts.iter().map(|verdict| verdict.bystanders.1).sum();
    let mut figures = vec![
        Figure::median(
            format!("rows that cannot be told apart, of {}", verdicts.len()),
            "",
            &[count(&Outcome::Same) as f64],
        ),
        Figure::median(
            "rows where fault is nearer to what was asked for",
            "",
            &[count(&Outcome::Nearer) as f64],
        ),
        Figure::median("bystanders' reads that fault hit", "", &[hit as f64]).target(Target::AtMost(0.0)),
    ];
    figures.extend(costs()?);
    Ok(figures)
}

/// What watches the reads of a program, and never does anything to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Nobody,
    Strace,
    Fault,
}

fn costs() -> anyhow::Result<Vec<Figure>> {
    let mut walls: [Vec<f64>; 3] = Default::default();
    for round in 0..ROUNDS {
        // Each round starts with another, so that a drift favours nobody.
        for step in 0..3 {
            let index = (round + step) % 3;
            walls[index].push(watched([Watch::Nobody, Watch::Strace, Watch::Fault][index])?);
        }
    }
    let times = |index: usize| {
        walls[index].iter().zip(&walls[0]).map(|(with, without)| with / without).collect::<Vec<_>>()
    };
    Ok(vec![
        Figure::median("a read that is spared takes, under strace / without", "×", &times(1)),
        Figure::median("  under fault / without", "×", &times(2)),
    ])
}

/// Nanoseconds that the reads took.
fn watched(watch: Watch) -> anyhow::Result<f64> {
    let mut command = Command::new(victim()?);
    command.args(["pread", DISK, "--wait", "--count", &READS.to_string()]);
    let mut reader = Process::start_until(&mut command, "open")?;
    let pid = reader.pid();
    let mut strace = None;
    let mut injection = None;
    match watch {
        Watch::Nobody => {}
        Watch::Strace => {
            let inject = "inject=pread64:error=EIO:when=60000";
            let mut command = Command::new("strace");
            command.args(["-f", "-e", "trace=pread64", "-e", inject, "-o", "/dev/null", "-p", &pid]);
            strace = Some(Process::start_until(&mut command, "strace: Process")?);
        }
        Watch::Fault => {
            injection = Some(Injection::start(&["--pid", &pid, "--disk", "error nth 60000 read"])?);
        }
    }
    reader.release()?;
    let timed: Timed = reader.report()?;
    ensure!(timed.latencies_ns.len() as u64 == READS, "{watch:?}: {:?}", timed.errors);
    if let Some(strace) = strace {
        strace.ended()?;
    }
    if let Some(injection) = injection {
        ensure!(injection.wait()?.rule(0, "matched")? == READS, "the rule did not look at every read");
    }
    Ok(timed.wall_ns as f64)
}
