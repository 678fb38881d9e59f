//! `--file 'delay D fsync'`: timed by who calls fsync(2).

use std::{fs, process::Command, time::Instant};

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    file_errors::Tree,
    timed_calls::{caller, calls, count, under, until_threads_are_in},
};
use crate::{
    driver::{Injection, fault, refused},
    process::{Ended, Process},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "file_delay::fsync_and_nobody_else", on: Lane::tests_disks_in_detail, run: late },
    Test { name: "file_delay::every_one_waits_or_is_counted", on: Lane::tests_disks_in_detail, run: crowd },
    Test { name: "file_delay::errors_come_at_once", on: Lane::tests_disks_in_detail, run: with_errors },
    Test { name: "file_delay::heal_and_death_wake", on: Lane::tests_disks_in_detail, run: wake },
    Test { name: "file_delay::beside_a_late_disk", on: Lane::tests_disks_in_detail, run: beside_disk },
    Test { name: "file_delay::another_session_in_the_way", on: Lane::tests_disks_in_detail, run: occupied },
    Test { name: "file_delay::sqlite_commits_late", on: Lane::tests_disks_in_detail, run: sqlite },
    Test { name: "file_delay::is_refused", on: Lane::refuses_fsync, run: is_refused },
];

const MS: u64 = 1_000_000;

/// In so many threads, so many times: fsync of the files given after that, one after the other, each written to first. Prints
/// the file, the call, how long it took in nanoseconds, and the error number.
const CALLER: &str = "
import os, sys, threading, time
threads, times, *names = sys.argv[1:]
def call(name):
    file = os.open(name, os.O_RDWR)
    for number in range(int(times)):
        os.pwrite(file, b'x', 0)
        for sync in os.fsync, os.fdatasync:
            error, began = 0, time.monotonic_ns()
            try:
                sync(file)
            except OSError as failed:
                error = failed.errno
            took = time.monotonic_ns() - began
            print(name, sync.__name__, took, error)
def work():
    for name in names:
        call(name)
print('ready', file=sys.stderr, flush=True)
sys.stdin.readline()
all = [threading.Thread(target=work) for _ in range(int(threads))]
for thread in all: thread.start()
for thread in all: thread.join()
";

fn late(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let mut bystander = caller(&tree, CALLER, &["1", "10", "in/a"])?;
    let spec = tree.spec("delay 300ms fsync");
    let mut target = caller(&tree, CALLER, &["1", "10", "in/a", "out/a"])?;
    let injection = Injection::start(&["--pid", &target.pid(), "--file", &spec])?;
    target.release()?;
    bystander.release()?;
    let (felt, others) = (calls(&target.text()?)?, calls(&bystander.text()?)?);
    let report = injection.wait()?;
    for (file, call) in [("in/a", "fsync"), ("in/a", "fdatasync")] {
        let early = count(&felt, |felt| felt.file == file && felt.call == call && felt.took_ns < 300 * MS);
        ensure!(early == 0, "{call} of {file}: {felt:?}");
    }
    // A machine may be late by itself, but not each time.
    for (who, quick) in [
        ("elsewhere", count(&felt, |call| call.file == "out/a" && call.took_ns < 300 * MS)),
        ("bystander", { count(&others, |call| call.took_ns < 300 * MS) }),
    ] {
        ensure!(quick >= 15, "{who}: {quick} of 20 were quick: {felt:?} {others:?}");
    }
    ensure!(felt.iter().chain(&others).all(|call| call.errno == 0), "{felt:?} {others:?}");
    for (counter, expected) in [("parked", 20), ("park_overflow", 0), ("park_failed", 0)] {
        ensure!(report.counter(counter)? == expected, "{counter}: {}", report.json);
    }
    ensure!((report.rule(0, "matched")?, report.rule(0, "injected")?) == (20, 20), "{}", report.json);
    ensure!(report.rule(0, "delay_ns")? == 20 * 300 * MS, "{}", report.json);
    Ok(())
}

/// One waits on each CPU at a time. Who could not is told of, and nobody is missing.
fn crowd(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let (felt, report) =
        under(caller(&tree, CALLER, &["8", "4", "in/a"])?, &[&tree.spec("delay 100ms fsync")])?;
    let (parked, overflow) = (report.counter("parked")?, report.counter("park_overflow")?);
    ensure!(felt.len() == 64 && report.rule(0, "injected")? == 64, "{felt:?} {}", report.json);
    ensure!(parked + overflow == 64 && parked > 0, "{}", report.json);
    let early = count(&felt, |call| call.took_ns < 100 * MS) as u64;
    ensure!(early <= overflow, "{early} were early, {overflow} are told of: {}", report.json);
    ensure!(overflow == 0 || report.stderr.contains("operations were not delayed"), "{}", report.stderr);
    Ok(())
}

fn with_errors(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let specs = ["delay 1s fsync", "error EIO nth 2 fsync"].map(|spec| tree.spec(spec));
    let (felt, report) = under(caller(&tree, CALLER, &["1", "2", "in/a"])?, &[&specs[0], &specs[1]])?;
    let told: Vec<_> = felt.iter().map(|call| (call.took_ns >= 1000 * MS, call.errno)).collect();
    ensure!(told == [(true, 0), (false, libc::EIO), (true, 0), (true, 0)], "{felt:?}");
    ensure!((report.rule(0, "injected")?, report.rule(1, "injected")?) == (3, 1), "{}", report.json);
    ensure!((report.counter("parked")?, report.counter("park_overflow")?) == (3, 0), "{}", report.json);
    Ok(())
}

fn wake(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    for killed in [false, true] {
        let mut target = caller(&tree, CALLER, &["1", "1", "in/a"])?;
        let injection = Injection::start(&["--pid", &target.pid(), "--file", &tree.spec("delay 60s fsync")])?;
        target.release()?;
        until_threads_are_in(&target.pid(), libc::SYS_fsync, 1)?;
        if killed {
            injection.sigkill()?;
        } else {
            let report = injection.heal()?;
            ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
        }
        let felt = calls(&target.text()?)?;
        let right = felt.iter().all(|call| call.errno == 0 && call.took_ns < 40_000 * MS);
        ensure!(felt.len() == 2 && right, "killed {killed}: {felt:?}");
    }
    Ok(())
}

/// One parking lot for both: a disk that is late, and fsync.
fn beside_disk(_: Lane) -> anyhow::Result<()> {
    let files = crate::disk_lab::FileSystem::new()?;
    let path = files.path("data").display().to_string();
    fs::write(&path, "x")?;
    let mut command = Command::new("python3");
    command.args(["-c", CALLER, "1", "3", &path]);
    let mut target = Process::start_until(&mut command, "ready")?;
    let disk = format!("delay 200ms write on {}", crate::disk_lab::FORMATTED);
    let injection =
        Injection::start(&["--pid", &target.pid(), "--file", "delay 300ms fsync", "--disk", &disk])?;
    target.release()?;
    let felt = calls(&target.text()?)?;
    let report = injection.wait()?;
    // The first fsync of a round writes, by itself or by the journal; the fdatasync behind it has nothing to write.
    let early = count(&felt, |call| call.took_ns < 300 * MS || call.errno != 0);
    ensure!(felt.len() == 6 && early == 0, "{felt:?}");
    let both = count(&felt, |call| call.call == "fsync" && call.took_ns >= 500 * MS);
    ensure!(both == 3, "{felt:?}");
    let parked = report.rule(0, "injected")? + report.rule(1, "injected")?;
    ensure!(report.rule(0, "injected")? == 6 && report.rule(1, "injected")? >= 3, "{}", report.json);
    ensure!(report.counter("parked")? <= parked && report.counter("park_overflow")? == 0, "{}", report.json);
    Ok(())
}

fn occupied(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let other = caller(&tree, CALLER, &["1", "1", "out/a"])?;
    let first = Injection::start(&["--pid", &other.pid(), "--file", "error EIO fsync"])?;
    let said = refused(&["run", "--file", "delay 5ms fsync", "--", "true"], 69)?;
    ensure!(said.contains("another session") && said.contains("end that one first"), "{said}");
    first.heal()?;
    // The other way round there is no danger: what comes later runs before.
    let mut late = caller(&tree, CALLER, &["1", "1", "in/a"])?;
    let waits = Injection::start(&["--pid", &late.pid(), "--file", "delay 500ms fsync"])?;
    let (mut failing, second) = (other, ["error EIO fsync"]);
    let fails = Injection::start(&["--pid", &failing.pid(), "--file", second[0]])?;
    late.release()?;
    failing.release()?;
    let (late, failing) = (calls(&late.text()?)?, calls(&failing.text()?)?);
    ensure!(late.iter().all(|call| call.took_ns >= 500 * MS && call.errno == 0), "{late:?}");
    ensure!(failing.iter().all(|call| call.errno == libc::EIO), "{failing:?}");
    fails.wait()?;
    waits.wait().map(drop)
}

fn sqlite(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let script = "create table t(x); insert into t values(1); insert into t values(2); select sum(x) from t;";
    let json = tree.path().join("report.json");
    let mut command = fault(&["run", "--file", "delay 200ms fsync", "--json"]);
    command.arg(&json).args(["--", "sqlite3", "in/db", script]).current_dir(tree.path());
    let begin = Instant::now();
    let ended = Ended::of(&mut command)?;
    let took = begin.elapsed();
    ensure!(ended.status.success() && ended.stdout.trim() == "3", "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json)?)?;
    let injected = report["rules"][0]["injected"].as_u64().context("injected")?;
    // Three transactions, each of which waits for its journal at least.
    ensure!(injected >= 3 && report["counters"]["park_overflow"] == 0, "{report}");
    ensure!(took.as_millis() as u64 >= injected * 200, "{took:?} for {injected}: {report}");
    Ok(())
}

fn is_refused(_: Lane) -> anyhow::Result<()> {
    let said = refused(&["run", "--file", "delay 5ms fsync", "--", "true"], 69)?;
    ensure!(said.trim().lines().count() == 1, "{said}");
    ensure!(said.contains("fsync") && said.contains("CONFIG_FUNCTION_ERROR_INJECTION"), "{said}");
    Ok(())
}
