//! `cargo xtask test`: unit and property tests, then the end-to-end tests on this machine's kernel
//! and on every lane.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

mod piece;
mod report;

use self::piece::{Piece, Rooms};
use self::report::{Part, Report, Row, failures, last_result, row};
use crate::lane::Lane;
use crate::progress::{seconds, share_terminal};
use crate::setup::{self, Need};
use crate::vm::{self, Clock, Machine};
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
    /// How many VMs at once.
    pub jobs: usize,
    /// A VM that takes longer has failed.
    pub timeout: Duration,
    /// The machine every lane boots on; its clock is [`Plan::clock`], and a lane that cannot have as many processors has fewer.
    pub machine: Machine,
    /// What its clocks count, if not what is best for the tests it runs.
    pub clock: Option<Clock>,
}

impl Plan {
    fn clock_of(&self, piece: Piece) -> Clock {
        self.clock.unwrap_or(piece.clock())
    }
}

/// Runs the plan to its end, prints a summary, and says whether everything passed.
pub fn run(plan: &Plan) -> Result<bool> {
    let mut needs = vec![Need::Ebpf, Need::Tests];
    if !plan.lanes.is_empty() {
        needs.push(Need::Vm);
    }
    setup::ensure(&needs)?;

    let mut report = Report::default();
    // Kernels that are missing are compiled beside what leaves a processor idle now and then, and before anything is timed.
    share_terminal();
    let kernels = std::thread::scope(|scope| {
        let kernels = scope.spawn(|| kernels(&plan.lanes));
        if plan.host {
            report.part("unit, property", || cargo_test(plan.filter.as_deref()));
        }
        let built = workspace::build(&["fault-user", "fault-tests"], plan.profile);
        let kernels = kernels.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        built.map(|()| kernels)
    })?;
    if plan.host && !host::is_root() {
        report.skipped(HERE, "needs root");
    }
    report.rows.extend(end_to_end(plan, kernels));
    eprint!("{}{}", report.failures(), report.table());
    Ok(report.passed())
}

/// What became of the kernels of some lanes.
struct Kernels {
    /// Lanes that have one.
    bootable: Vec<Lane>,
    /// Why others have none.
    rows: Vec<Row>,
}

/// Makes the kernels of `lanes`, one after the other: each uses all processors, as long as nothing else does (`nice`).
fn kernels(lanes: &[Lane]) -> Kernels {
    let mut kernels = Kernels { bootable: Vec::new(), rows: Vec::new() };
    for lane in lanes {
        match kernel::ensure(*lane, false) {
            Ok(_) => kernels.bootable.push(*lane),
            Err(error) => kernels.rows.push(row(&format!("kernel of lane {lane}"), || Err(error))),
        }
    }
    kernels
}

/// The end-to-end tests without a VM.
const HERE: &str = "end to end, this kernel";

/// Runs the tests on this machine's kernel and on every lane, several VMs at once. Tests that would see how busy the machine is and
/// must not come before everything else, or after it.
fn end_to_end(plan: &Plan, kernels: Kernels) -> Vec<Row> {
    let here = plan.host && host::is_root();
    let named = plan.filter.is_some();
    let Kernels { bootable, mut rows } = kernels;
    rows.extend(here.then(|| native((!named).then_some(Rooms::Timed), plan)));
    let pieces = piece::pieces(&bootable, named);
    let (alone, together): (Vec<_>, Vec<_>) =
        pieces.into_iter().partition(|piece| piece.minds_company(plan.clock_of(*piece)));
    // Not beside as many VMs as there may be: it would be one too many.
    let here = (here && !named).then_some(Job::Here(Rooms::Patient));
    let together: Vec<_> = here.into_iter().chain(together.into_iter().map(Job::Lane)).collect();
    let alone: Vec<_> = alone.into_iter().map(Job::Lane).collect();
    rows.extend(work_off(&together, plan.jobs, plan));
    rows.extend(work_off(&alone, 1, plan));
    rows
}

/// What is done beside other things.
#[derive(Clone, Copy)]
enum Job {
    /// Tests on this machine's kernel.
    Here(Rooms),
    /// Tests in a VM.
    Lane(Piece),
}

impl Job {
    /// Does it; `labelled` if its output comes in between that of others.
    fn run(self, labelled: bool, plan: &Plan) -> Row {
        match self {
            Self::Here(rooms) => native(Some(rooms), plan),
            Self::Lane(piece) => {
                let label = labelled.then(|| piece.to_string());
                row(&format!("end to end, {piece}"), || in_vm(piece, plan, label))
            }
        }
    }
}

/// So many jobs at once, in this order.
fn work_off(jobs: &[Job], at_once: usize, plan: &Plan) -> Vec<Row> {
    let workers = at_once.clamp(1, jobs.len().max(1));
    let queue = Mutex::new(jobs.iter().enumerate());
    let rows = Mutex::new(Vec::with_capacity(jobs.len()));
    let work = || {
        // In a statement of its own: the guard must not live while the job runs.
        while let Some((place, job)) = next(&queue) {
            let row = job.run(workers > 1, plan);
            lock(&rows).push((place, row));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
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

/// The end-to-end tests without a VM: all of them, or those of some rooms.
fn native(rooms: Option<Rooms>, plan: &Plan) -> Row {
    let name = rooms.map_or(HERE.to_owned(), |rooms| format!("{HERE}, {}", rooms.name()));
    row(&name, || {
        let program = plan.profile.output_dir().join(E2E);
        let mut command = Command::new(program);
        command.args(["--lane", "native"]);
        command.args(rooms.into_iter().flat_map(|rooms| ["--rooms", rooms.name()]));
        command.args(&plan.filter);
        let mut output = String::new();
        let end = exec::run_lines(&mut command, |line| {
            println!("native: {line}");
            output.push_str(line);
            output.push('\n');
        });
        let detail = last_result(&output).unwrap_or_default().to_owned();
        Ok(Part { passed: end.is_ok(), detail, failures: failures(&output) })
    })
}

fn in_vm(piece: Piece, plan: &Plan, label: Option<String>) -> Result<Part> {
    let mut command = vec![E2E.to_owned()];
    command.extend(piece.args());
    command.extend(plan.filter.clone());
    let clock = plan.clock_of(piece);
    let cpus = piece.cpus(clock).unwrap_or(plan.machine.cpus);
    let request = vm::Request {
        lane: piece.lane,
        machine: Machine { clock, cpus, ..plan.machine.clone() },
        timeout: plan.timeout,
        share: None,
        path: vec![plan.profile.output_dir()],
        command,
        label,
    };
    let mut outcome = vm::run(&request).with_context(|| piece.to_string())?;
    // QEMU 7.2 loses a guest now and then when its clock counts instructions. A kernel that is stuck says so after twenty seconds of
    // its own time (a soft lockup, a stall of RCU), and one that said so is not asked again. Nor is one that stands still twice.
    let once_more = outcome.stood_still;
    if once_more {
        eprintln!("{piece}: once more, in a new VM");
        outcome = vm::run(&request).with_context(|| piece.to_string())?;
    }
    let mut detail = last_result(&outcome.stdout_tail).unwrap_or_default().to_owned();
    match outcome.status {
        0 => {}
        124 => detail = format!("not finished after {}", seconds(plan.timeout)),
        125 if outcome.stood_still => "the VM stood still twice".clone_into(&mut detail),
        125 => "the VM died".clone_into(&mut detail),
        _ => {}
    }
    if once_more {
        detail.push_str(" (its first VM stood still, see above)");
    }
    if outcome.splat {
        detail.push_str(" (the kernel complained, see above)");
    }
    let failures = failures(&outcome.stdout_tail);
    Ok(Part { passed: outcome.status == 0 && !outcome.splat, detail, failures })
}
