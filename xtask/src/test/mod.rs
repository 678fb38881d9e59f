//! `cargo xtask test`: unit and property tests, then the end-to-end tests on this machine's kernel
//! and on every lane, one boot each.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

mod report;

use self::report::{Part, Report, Row, failures, last_result, row};
use crate::lane::Lane;
use crate::progress::seconds;
use crate::setup::{self, Need};
use crate::vm::{self, Machine};
use crate::workspace::{self, Profile};
use crate::{exec, host, kernel};

/// The program with the end-to-end tests, of package fault-tests.
const E2E: &str = "fault-e2e";

/// What to test.
pub struct Plan {
    /// Kernels to boot; empty for none.
    pub lanes: Vec<Lane>,
    /// Run what needs no VM.
    pub host: bool,
    /// The build the end-to-end tests run.
    pub profile: Profile,
    /// Only tests whose name contains this.
    pub filter: Option<String>,
    /// How many lanes at once; an emulated machine keeps one processor busy.
    pub jobs: usize,
    /// A lane that takes longer has failed.
    pub timeout: Duration,
    /// The machine every lane boots on.
    pub machine: Machine,
}

/// Runs the plan to its end, prints a summary, and says whether everything passed.
pub fn run(plan: &Plan) -> Result<bool> {
    let mut needs = vec![Need::Ebpf, Need::Tests];
    if !plan.lanes.is_empty() {
        needs.push(Need::Vm);
    }
    setup::ensure(&needs)?;

    let mut report = Report::default();
    if plan.host {
        report.part("unit, property", || cargo_test(plan.filter.as_deref()));
    }
    workspace::build(&["fault-user", "fault-tests"], plan.profile)?;
    if plan.host && !host::is_root() {
        report.skipped(HERE, "needs root");
    }
    report.rows.extend(end_to_end(plan));
    eprint!("{}{}", report.failures(), report.table());
    Ok(report.passed())
}

/// The end-to-end tests without a VM.
const HERE: &str = "end to end, this kernel";

/// Runs the tests on this machine's kernel, and then the lanes, `plan.jobs` at a time: an emulated machine keeps a
/// processor busy, and whoever shares it with other tests is late by what is not its own. Kernels are made first, one after
/// the other: that uses all processors anyway, and it is not part of a lane's time.
fn end_to_end(plan: &Plan) -> Vec<Row> {
    let queue: Vec<(Lane, Result<()>)> =
        plan.lanes.iter().map(|lane| (*lane, kernel::ensure(*lane, false).map(drop))).collect();
    let count = queue.len();
    let workers = plan.jobs.min(count);
    // The longest first, so that nobody waits for it at the end.
    let mut queue: Vec<_> = queue.into_iter().enumerate().collect();
    queue.sort_by_key(|(_, (lane, _))| std::cmp::Reverse(weight(*lane)));
    let queue = Mutex::new(queue.into_iter());
    let rows = Mutex::new(Vec::with_capacity(count));
    let work = || {
        // In a statement of its own: the guard must not live while the lane runs.
        while let Some((place, (lane, kernel))) = next(&queue) {
            let label = (workers > 1).then(|| lane.name().to_owned());
            let row =
                row(&format!("end to end, lane {lane}"), || kernel.and_then(|()| in_vm(lane, plan, label)));
            lock(&rows).push((place, row));
        }
    };
    let here = plan.host && host::is_root();
    let mut ended = Vec::from_iter(here.then(|| row(HERE, || native(plan))));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(place, _)| *place);
    ended.extend(rows.into_iter().map(|(_, row)| row));
    ended
}

/// About how long the tests of a lane take, in minutes.
const fn weight(lane: Lane) -> u32 {
    match lane {
        Lane::Fault => 20,
        Lane::Debian61 => 18,
        Lane::Debian612 => 12,
        Lane::FmodOnly => 15,
    }
}

fn next<T>(queue: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    lock(queue).next()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cargo_test(filter: Option<&str>) -> Result<Part> {
    let mut cmd = Command::new("cargo");
    cmd.current_dir(host::workspace()).args(["test", "--workspace"]).args(filter);
    let status = exec::status(&mut cmd)?;
    Ok(Part { passed: status.success(), ..Part::default() })
}

/// Arguments of the end-to-end program on `lane`.
fn e2e_args(lane: &str, filter: Option<&str>) -> Vec<String> {
    let mut args = vec!["--lane".to_owned(), lane.to_owned()];
    args.extend(filter.map(str::to_owned));
    args
}

fn native(plan: &Plan) -> Result<Part> {
    let program = plan.profile.output_dir().join(E2E);
    let mut command = Command::new(program);
    command.args(e2e_args("native", plan.filter.as_deref()));
    let mut output = String::new();
    let end = exec::run_lines(&mut command, |line| {
        println!("native: {line}");
        output.push_str(line);
        output.push('\n');
    });
    let detail = last_result(&output).unwrap_or_default().to_owned();
    Ok(Part { passed: end.is_ok(), detail, failures: failures(&output) })
}

fn in_vm(lane: Lane, plan: &Plan, label: Option<String>) -> Result<Part> {
    let mut command = vec![E2E.to_owned()];
    command.extend(e2e_args(lane.name(), plan.filter.as_deref()));
    let outcome = vm::run(&vm::Request {
        lane,
        machine: plan.machine.clone(),
        timeout: plan.timeout,
        share: None,
        path: vec![plan.profile.output_dir()],
        command,
        label,
    })
    .with_context(|| format!("lane {lane}"))?;
    let mut detail = last_result(&outcome.stdout_tail).unwrap_or_default().to_owned();
    match outcome.status {
        0 => {}
        124 => detail = format!("not finished after {}", seconds(plan.timeout)),
        125 => "the VM died".clone_into(&mut detail),
        _ => {}
    }
    if outcome.splat {
        detail.push_str(" (the kernel complained, see above)");
    }
    let failures = failures(&outcome.stdout_tail);
    Ok(Part { passed: outcome.status == 0 && !outcome.splat, detail, failures })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_to_end_program_knows_its_lane() {
        assert_eq!(e2e_args("debian-6.1", Some("drop")), ["--lane", "debian-6.1", "drop"]);
    }
}
