//! `cargo xtask demo` and `cargo xtask bench`: programs of package fault-tests, run on this
//! machine's kernel and in the VM.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::lane::Lane;
use crate::setup::{self, Need};
use crate::vm::{self, Machine};
use crate::workspace::{self, Profile};
use crate::{exec, host};

/// A program that measures; figures of a debug build would mean nothing.
const PROFILE: Profile = Profile::Release;

/// Where to run it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// This machine's kernel.
    Native,
    /// The VM of lane `fault`.
    Vm,
}

/// One program, run in one or both places.
pub struct Run<'a> {
    /// Its name.
    pub program: &'a str,
    /// Where, in this order.
    pub places: &'a [Place],
    /// The VM is killed after this long.
    pub timeout: Duration,
    /// The VM.
    pub machine: Machine,
    /// So many VMs at once, each of which sees what the others leave in the shared directory.
    pub machines: usize,
    /// Passed on as they are.
    pub args: &'a [String],
}

/// Runs `PROGRAM --lane native` here and `PROGRAM --lane fault` in the VM. What it writes to
/// `$FAULT_JOB` ends up in `target/PROGRAM/native` and `target/PROGRAM/fault`.
pub fn run(run: &Run<'_>) -> Result<bool> {
    let mut needs = vec![Need::Ebpf, Need::Tests];
    if run.program == "fault-bench" {
        needs.push(Need::Bench);
    }
    setup::ensure(&needs)?;
    workspace::build(&["fault-user", "fault-tests"], PROFILE)?;
    let mut passed = true;
    for place in run.places {
        passed &= match place {
            Place::Native if !host::is_root() => {
                eprintln!("{}: skipped on this machine's kernel, needs root", run.program);
                true
            }
            Place::Native => native(run)?,
            Place::Vm => in_vm(run)?,
        };
    }
    Ok(passed)
}

fn native(run: &Run<'_>) -> Result<bool> {
    let directory = PROFILE.output_dir();
    let results = results(run.program, "native")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(directory.clone()).chain(std::env::split_paths(&path)))
        .context("putting `fault` on PATH")?;
    let mut cmd = Command::new(directory.join(run.program));
    cmd.args(["--lane", "native"]).args(run.args).env("PATH", path).env("FAULT_JOB", &results);
    Ok(exec::status(&mut cmd)?.success())
}

fn in_vm(run: &Run<'_>) -> Result<bool> {
    let lane = Lane::Fault;
    let mut command = vec![run.program.to_owned(), "--lane".to_owned(), lane.name().to_owned()];
    command.extend(run.args.iter().cloned());
    let share = results(run.program, lane.name())?;
    let one = |label: Option<String>| {
        vm::run(&vm::Request {
            lane,
            machine: run.machine.clone(),
            timeout: run.timeout,
            share: Some(share.clone()),
            path: vec![PROFILE.output_dir()],
            command: command.clone(),
            label,
        })
    };
    let outcomes: Vec<_> = match run.machines {
        0 | 1 => vec![one(None)],
        machines => std::thread::scope(|scope| {
            let started: Vec<_> = (1..=machines)
                .map(|number| scope.spawn(move || one(Some(format!("machine {number}")))))
                .collect();
            let joined = started.into_iter().map(|thread| thread.join());
            joined
                .map(|ended| ended.unwrap_or_else(|_| Err(anyhow!("the thread of a VM panicked"))))
                .collect()
        }),
    };
    let mut passed = true;
    for outcome in outcomes {
        let outcome = outcome?;
        passed &= outcome.status == 0 && !outcome.splat;
    }
    Ok(passed)
}

/// The directory a program leaves files in.
pub fn results(program: &str, place: &str) -> Result<PathBuf> {
    let dir = host::target_dir().join(Path::new(program)).join(place);
    host::make_dir(&dir)?;
    Ok(dir)
}
