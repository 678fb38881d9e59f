//! `--file 'delay D open'` and `mmap`: timed by who calls open(2) and mmap(2).

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    file_errors::Tree,
    timed_calls::{Call, caller, calls, count, under, until_threads_are_in},
};
use crate::{
    driver::{Injection, fault, refused},
    process::Ended,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "open_delay::opens_and_nobody_elses", on: Lane::delays_opens, run: opens },
    Test { name: "open_delay::a_crowd_waits_at_once", on: Lane::tests_late_opens_in_detail, run: crowd },
    Test { name: "open_delay::mmap_of_files", on: Lane::delays_opens, run: mmap },
    Test { name: "open_delay::errors_come_at_once", on: Lane::tests_late_opens_in_detail, run: with_errors },
    Test { name: "open_delay::heal_and_death_wake", on: Lane::delays_opens, run: wake },
    Test {
        name: "open_delay::another_session_in_the_way",
        on: Lane::tests_late_opens_in_detail,
        run: occupied,
    },
    Test {
        name: "open_delay::what_cannot_be_made_is_told",
        on: Lane::tests_late_opens_in_detail,
        run: not_made,
    },
    Test { name: "open_delay::tar_reads_late", on: Lane::delays_opens, run: tar },
    Test { name: "open_delay::beside_late_fsync", on: Lane::tests_disks_in_detail, run: beside_fsync },
    Test { name: "open_delay::is_refused", on: Lane::refuses_late_opens, run: is_refused },
];

const MS: u64 = 1_000_000;

/// In so many threads, once a line of standard input is there: opens each file given after that, making it if need be, and
/// maps it. Prints the file, the call, how long it took in nanoseconds, and the error number.
const OPENER: &str = "
import mmap, os, sys, threading, time
threads, *names = sys.argv[1:]
def timed(name, what, call):
    error, result, began = 0, None, time.monotonic_ns()
    try:
        result = call()
    except OSError as failed:
        error = failed.errno
    print(name, what, time.monotonic_ns() - began, error)
    return result
def work():
    for name in names:
        file = timed(name, 'open', lambda: os.open(name, os.O_RDWR | os.O_CREAT))
        if file is not None:
            if os.fstat(file).st_size:
                timed(name, 'mmap', lambda: mmap.mmap(file, 1))
            os.close(file)
print('ready', file=sys.stderr, flush=True)
sys.stdin.readline()
all = [threading.Thread(target=work) for _ in range(int(threads))]
for thread in all: thread.start()
for thread in all: thread.join()
";

/// Files that are there, files that are made; the bystander makes and opens files in the same directory meanwhile.
fn opens(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let names = |who: &str| -> Vec<String> {
        (0..5)
            .flat_map(|number| ["in/a".to_owned(), format!("in/{who}{number}"), "out/a".to_owned()])
            .collect()
    };
    let (target_opens, bystander_opens) = (names("target"), names("bystander"));
    let arguments = |names: &[String]| -> Vec<String> {
        std::iter::once("1".to_owned()).chain(names.iter().cloned()).collect()
    };
    let start = |names: &[String]| {
        let arguments = arguments(names);
        caller(&tree, OPENER, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let (mut target, mut bystander) = (start(&target_opens)?, start(&bystander_opens)?);
    let spec = tree.spec("delay 400ms open");
    let injection = Injection::start(&["--pid", &target.pid(), "--file", &spec])?;
    target.release()?;
    bystander.release()?;
    let (felt, others) = (calls(&target.text()?)?, calls(&bystander.text()?)?);
    let report = injection.wait()?;
    let is_open = |call: &Call| call.call == "open";
    let within = |call: &Call| is_open(call) && call.file.starts_with("in/");
    let early = count(&felt, |call| within(call) && call.took_ns < 400 * MS);
    ensure!(count(&felt, within) == 10 && early == 0, "{felt:?}");
    // A machine may be late by itself, but not each time.
    let quick = |call: &Call| is_open(call) && call.took_ns < 300 * MS;
    let elsewhere = count(&felt, |call| quick(call) && !within(call));
    let beside = count(&others, quick);
    ensure!(elsewhere >= 4 && beside >= 13, "{elsewhere} of 5, {beside} of 15: {felt:?} {others:?}");
    ensure!(felt.iter().chain(&others).all(|call| call.errno == 0), "{felt:?} {others:?}");
    for (counter, expected) in [("parked", 10), ("park_overflow", 0), ("park_failed", 0)] {
        ensure!(report.counter(counter)? == expected, "{counter}: {}", report.json);
    }
    ensure!((report.rule(0, "matched")?, report.rule(0, "injected")?) == (10, 10), "{}", report.json);
    ensure!(report.rule(0, "delay_ns")? == 10 * 400 * MS, "{}", report.json);
    Ok(())
}

/// Any number waits at once: 64 in the time of one.
fn crowd(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let (felt, report) = under(caller(&tree, OPENER, &["64", "in/a"])?, &[&tree.spec("delay 5s open")])?;
    let late = |call: &Call| call.call == "open" && call.errno == 0 && call.took_ns >= 5000 * MS;
    ensure!(count(&felt, late) == 64, "{felt:?}");
    for (counter, expected) in [("parked", 64), ("park_overflow", 0), ("park_failed", 0)] {
        ensure!(report.counter(counter)? == expected, "{counter}: {}", report.json);
    }
    ensure!(report.rule(0, "injected")? == 64, "{}", report.json);
    // One after the other on each of two processors would be 160 s for the last one.
    let slowest = felt.iter().map(|call| call.took_ns).max().context("nobody")?;
    ensure!(slowest < 60_000 * MS, "{slowest}");
    Ok(())
}

fn mmap(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let (felt, report) = under(
        caller(&tree, OPENER, &["1", "in/a", "out/a", "in/a"])?,
        &[&tree.spec("delay 300ms mmap nth 2")],
    )?;
    let told: Vec<_> = felt
        .iter()
        .filter(|call| call.call == "mmap")
        .map(|call| (call.file.as_str(), call.took_ns >= 300 * MS, call.errno))
        .collect();
    ensure!(told == [("in/a", false, 0), ("out/a", false, 0), ("in/a", true, 0)], "{felt:?}");
    ensure!((report.rule(0, "matched")?, report.rule(0, "injected")?) == (2, 1), "{}", report.json);
    ensure!(report.counter("parked")? == 1, "{}", report.json);
    Ok(())
}

fn with_errors(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let specs = ["delay 1s open", "error EMFILE nth 2 open"].map(|spec| tree.spec(spec));
    let (felt, report) =
        under(caller(&tree, OPENER, &["1", "in/a", "in/new", "in/a"])?, &[&specs[0], &specs[1]])?;
    let opens = felt.iter().filter(|call| call.call == "open");
    let told: Vec<_> = opens.map(|call| (call.took_ns >= 1000 * MS, call.errno)).collect();
    ensure!(told == [(true, 0), (false, libc::EMFILE), (true, 0)], "{felt:?}");
    ensure!((report.rule(0, "injected")?, report.rule(1, "injected")?) == (2, 1), "{}", report.json);
    ensure!((report.counter("parked")?, report.counter("park_overflow")?) == (2, 0), "{}", report.json);
    Ok(())
}

fn wake(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    for killed in [false, true] {
        let mut target = caller(&tree, OPENER, &["4", "in/a"])?;
        let injection = Injection::start(&["--pid", &target.pid(), "--file", &tree.spec("delay 60s open")])?;
        target.release()?;
        until_threads_are_in(&target.pid(), libc::SYS_openat, 4)?;
        if killed {
            injection.sigkill()?;
        } else {
            let report = injection.heal()?;
            ensure!(report.rule(0, "injected")? == 4, "{}", report.json);
        }
        let felt = calls(&target.text()?)?;
        let woken = count(&felt, |call| call.call == "open" && call.errno == 0 && call.took_ns < 40_000 * MS);
        ensure!(woken == 4, "killed {killed}: {felt:?}");
    }
    Ok(())
}

fn occupied(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let mut late = caller(&tree, OPENER, &["1", "in/a"])?;
    let first = Injection::start(&["--pid", &late.pid(), "--file", &tree.spec("delay 500ms open")])?;
    let said = refused(&["run", "--file", "delay 5ms open", "--", "true"], 69)?;
    ensure!(said.contains("another session") && said.contains("end that one first"), "{said}");
    // Errors are decided about elsewhere, and stand in nobody's way.
    let mut failing = caller(&tree, OPENER, &["1", "in/a"])?;
    let fails = Injection::start(&["--pid", &failing.pid(), "--file", &tree.spec("error EACCES open")])?;
    late.release()?;
    failing.release()?;
    let (late, failing) = (calls(&late.text()?)?, calls(&failing.text()?)?);
    let opens = |calls: &[Call]| count(calls, |call| call.call == "open" && call.took_ns >= 500 * MS);
    ensure!(opens(&late) == 1, "{late:?}");
    ensure!(failing.iter().all(|call| call.errno == libc::EACCES), "{failing:?}");
    fails.wait()?;
    first.wait().map(drop)
}

/// A file is decided about before its file system is asked to make it, and waited for after that: who gets none has not waited.
fn not_made(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    fs::create_dir(tree.path().join("in/full"))?;
    // The one inode is its root's.
    let mounted = tree.shell("mount -t tmpfs -o nr_inodes=1 e2e in/full").status()?;
    ensure!(mounted.success(), "{mounted}");
    let result = caller(&tree, OPENER, &["1", "in/full/new", "in/a"])
        .and_then(|target| under(target, &[&tree.spec("delay 400ms open")]));
    let unmounted = tree.shell("umount in/full").status()?;
    let (felt, report) = result?;
    ensure!(unmounted.success(), "{unmounted}");
    let told: Vec<_> = felt.iter().filter(|call| call.call == "open").collect();
    let [refused, late] = told[..] else { anyhow::bail!("{felt:?}") };
    ensure!(refused.errno == libc::ENOSPC && late.errno == 0 && late.took_ns >= 400 * MS, "{felt:?}");
    ensure!(report.rule(0, "injected")? == 2, "{}", report.json);
    ensure!((report.counter("parked")?, report.counter("park_overflow")?) == (1, 1), "{}", report.json);
    Ok(())
}

fn tar(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    for number in 0..6 {
        fs::write(tree.path().join(format!("in/{number}")), number.to_string())?;
    }
    let json = tree.path().join("report.json");
    let spec = format!("delay 250ms open file {}/in/?", tree.path().display());
    let mut command = fault(&["run", "--file", &spec, "--json"]);
    command.arg(&json).args(["--", "tar", "-cf", "all.tar", "in"]).current_dir(tree.path());
    let ended = Ended::of(&mut command)?;
    ensure!(ended.status.success(), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json)?)?;
    // Seven files, each opened once.
    ensure!(report["rules"][0]["injected"] == 7 && report["counters"]["parked"] == 7, "{report}");
    let listed = Ended::of(Command::new("tar").args(["-tf", "all.tar"]).current_dir(tree.path()))?;
    ensure!(listed.stdout.lines().count() == 8, "{listed:?}");
    Ok(())
}

/// The parkers of fsync have places of their own.
fn beside_fsync(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let script = "import os, time
for number in range(3):
    began = time.monotonic_ns()
    file = os.open('in/a', os.O_RDWR)
    print('in/a open', time.monotonic_ns() - began, 0)
    began = time.monotonic_ns()
    os.fsync(file)
    print('in/a fsync', time.monotonic_ns() - began, 0)
";
    let json = tree.path().join("report.json");
    let [open, sync] = ["delay 200ms open", "delay 400ms fsync"].map(|spec| tree.spec(spec));
    let mut command = fault(&["run", "--file", &open, "--file", &sync, "--json"]);
    command.arg(&json).args(["--", "python3", "-c", script]).current_dir(tree.path());
    let ended = Ended::of(&mut command)?;
    let felt = calls(&ended.stdout)?;
    let early = |call: &Call| call.took_ns < if call.call == "open" { 200 } else { 400 } * MS;
    ensure!(felt.len() == 6 && count(&felt, early) == 0, "{felt:?} {ended:?}");
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json)?)?;
    ensure!(report["counters"]["parked"] == 6 && report["counters"]["park_overflow"] == 0, "{report}");
    Ok(())
}

fn is_refused(lane: Lane) -> anyhow::Result<()> {
    let said = refused(&["run", "--file", "delay 5ms open", "--", "true"], 69)?;
    ensure!(said.trim().lines().count() == 1, "{said}");
    let why = if lane == Lane::Debian61 { "bpf_task_from_pid" } else { "security" };
    ensure!(said.contains(why) && said.contains("file open delay"), "{said}");
    Ok(())
}
