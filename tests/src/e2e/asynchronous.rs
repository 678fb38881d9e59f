//! Asynchronous block I/O that is late: its programs come when the target needs them, and not before.

use std::{
    collections::HashSet,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{Lane, Test, death::instants, disk::reader};
use crate::{
    bench::bpf::attached,
    cgroup_lab::CgroupLab,
    disk_lab::BARE,
    driver::Injection,
    process::{Process, descendants},
    residue::Picture,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "asynchronous::who_has_none_costs_nobody",
        on: Lane::tests_disks_in_detail,
        run: none_attached,
    },
    Test {
        name: "asynchronous::depth_is_kept_from_the_first_operation",
        on: Lane::tests_disks_in_detail,
        run: begins_later,
    },
    Test {
        name: "asynchronous::what_was_there_before_is_found",
        on: Lane::tests_disks_in_detail,
        run: was_there_before,
    },
    Test {
        name: "asynchronous::who_joins_late_is_noticed",
        on: Lane::tests_disks_in_detail,
        run: joins_late,
    },
    Test {
        name: "asynchronous::sigkill_while_the_programs_come",
        on: Lane::tests_disks_in_detail,
        run: killed_meanwhile,
    },
];

/// Engines of fio.
const LIBAIO: &str = "libaio";
const URING: &str = "io_uring";
/// What is attached for each.
const OF_LIBAIO: [&str; 5] = ["park_reaper", "aio_reaps", "aio_reaped", "aio_submitted", "aio_destroyed"];
const OF_URING: [&str; 1] = ["punt_uring"];
/// How long it may take until that is attached on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Programs for `engine`, and for the other one.
fn programs(engine: &str) -> (&'static [&'static str], &'static [&'static str]) {
    if engine == LIBAIO { (&OF_LIBAIO, &OF_URING) } else { (&OF_URING, &OF_LIBAIO) }
}

fn are_all_in(names: &[&str], attached: &HashSet<String>) -> bool {
    names.iter().all(|name| attached.contains(*name))
}

fn is_any_in(names: &[&str], attached: &HashSet<String>) -> bool {
    names.iter().any(|name| attached.contains(*name))
}

/// What is for `engine` and nothing of the other's becomes attached.
fn must_come(engine: &str) -> anyhow::Result<()> {
    let (its, others) = programs(engine);
    let begin = Instant::now();
    loop {
        let now = attached()?;
        if are_all_in(its, &now) {
            ensure!(!is_any_in(others, &now), "{engine}: {now:?}");
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "{engine}: {now:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// fio with eight operations under way, in a shell that waits for a line.
fn fio(engine: &str, more: &str) -> anyhow::Result<Process> {
    let job = format!(
        "read x; exec fio --name=j --filename={BARE} --readonly --direct=1 --rw=randread --bs=4k --randseed=1 \
         --ioengine={engine} --iodepth=8 {more} --size=512M --thread --output-format=json"
    );
    Process::start(Command::new("sh").args(["-c", &job]))
}

/// Whether `pid` or a child of it has a libaio context or a ring, as the kernel tells.
fn has_begun(pid: u32) -> bool {
    std::iter::once(pid).chain(descendants(pid)).any(|pid| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        maps.contains("/[aio]")
            || descriptors
                .filter_map(|entry| std::fs::read_link(entry.path()).ok())
                .any(|link| link.to_string_lossy().contains("[io_uring]"))
    })
}

/// Starts it and waits until it reads.
fn reading(engine: &str, more: &str) -> anyhow::Result<Process> {
    let mut process = fio(engine, more)?;
    let pid = process.pid().parse()?;
    process.release()?;
    let begin = Instant::now();
    while !has_begun(pid) {
        ensure!(begin.elapsed() < PATIENCE, "{engine}: fio does not begin");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}

/// Neither when it is armed nor after late reads.
fn none_attached(_: Lane) -> anyhow::Result<()> {
    let mut target = reader(BARE, &["--threads", "4", "--count", "20"])?;
    let injection =
        Injection::start(&["--pid", &target.pid(), "--disk", &format!("delay 20ms read on {BARE}")])?;
    target.release()?;
    thread::sleep(Duration::from_millis(150));
    let now = attached()?;
    ensure!(is_any_in(&["park_bio"], &now), "{now:?}");
    ensure!(!is_any_in(&OF_LIBAIO, &now) && !is_any_in(&OF_URING, &now), "{now:?}");
    target.ended()?;
    let report = injection.wait()?;
    ensure!(report.rule(0, "injected")? == 80, "{}", report.json);
    Ok(())
}

/// A target that begins after the fault does. Its first operation is already one of those whose submitter goes on.
fn begins_later(_: Lane) -> anyhow::Result<()> {
    const DELAY_MS: u64 = 1000;
    for engine in [LIBAIO, URING] {
        let mut target = fio(engine, "--number_ios=16")?;
        let spec = format!("delay {DELAY_MS}ms read on {BARE}");
        let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
        let before = attached()?;
        ensure!(!is_any_in(&OF_LIBAIO, &before) && !is_any_in(&OF_URING, &before), "{before:?}");
        target.release()?;
        must_come(engine)?;
        let json: serde_json::Value = target.report()?;
        let report = injection.wait()?;
        let read = &json["jobs"][0]["read"];
        let runtime = read["runtime"].as_u64().context("runtime")?;
        ensure!(read["total_ios"] == 16 && json["jobs"][0]["error"] == 0, "{engine}: {json}");
        ensure!(report.rule(0, "injected")? == 16, "{engine}: {}", report.json);
        let punted = report.counter("punted")?;
        eprintln!(
            "{engine}: 16 reads, 8 at once, each {DELAY_MS} ms late, in {runtime} ms; {punted} went to workers"
        );
        if engine == LIBAIO {
            // Two rounds of eight, and not one more for a submitter that waits.
            ensure!((2 * DELAY_MS..3 * DELAY_MS - 200).contains(&runtime), "{engine}: {runtime} ms");
        } else {
            // The kernel may be late to make a worker for one of the eight; one after the other they would take 16 delays.
            ensure!(punted == 16, "{engine}: {}", report.json);
            ensure!((2 * DELAY_MS..5 * DELAY_MS).contains(&runtime), "{engine}: {runtime} ms");
        }
    }
    Ok(())
}

/// Found when the fault is armed, and its depth is kept.
fn was_there_before(_: Lane) -> anyhow::Result<()> {
    for engine in [LIBAIO, URING] {
        let target = reading(engine, "--time_based --runtime=60")?;
        let spec = format!("delay 20ms read on {BARE}");
        let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
        let now = attached()?;
        let (its, others) = programs(engine);
        ensure!(are_all_in(its, &now) && !is_any_in(others, &now), "{engine}: {now:?}");
        let begin = Instant::now();
        thread::sleep(Duration::from_secs(3));
        let turns = begin.elapsed().as_millis() as u64 / 20;
        let report = injection.heal()?;
        drop(target);
        // Eight at once; were submitters to wait, one in each turn.
        let late = report.rule(0, "injected")?;
        ensure!(late > 4 * turns, "{engine}: {late} reads in {turns} turns: {}", report.json);
    }
    Ok(())
}

/// The controller dies while it attaches, and the target waits for it in the call that makes a context or a ring.
fn killed_meanwhile(_: Lane) -> anyhow::Result<()> {
    const READS: u64 = 64;
    for engine in [LIBAIO, URING] {
        // Attaching takes up to half a second on an emulated machine.
        for after in instants(4, 600) {
            let before = Picture::take()?;
            let mut target = fio(engine, &format!("--number_ios={READS}"))?;
            let spec = format!("delay 60s read on {BARE}");
            let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
            target.release()?;
            thread::sleep(Duration::from_millis(after));
            injection.sigkill()?;
            let killed = Instant::now();
            let what = format!("{engine}, killed after {after} ms");
            let json: serde_json::Value = target.report().with_context(|| what.clone())?;
            let took = killed.elapsed();
            let job = &json["jobs"][0];
            ensure!(job["read"]["total_ios"] == READS && job["error"] == 0, "{what}: {json}");
            ensure!(took < PATIENCE, "{what}: the target ended {took:?} later");
            before.must_return().with_context(|| what.clone())?;
        }
    }
    Ok(())
}

/// A process with a context or a ring that becomes part of the target: its first late operation tells.
fn joins_late(_: Lane) -> anyhow::Result<()> {
    for engine in [LIBAIO, URING] {
        let cgroup = CgroupLab::new("joins")?;
        let _inhabitant = Process::start(cgroup.command("sleep").arg("100"))?;
        let spec = format!("delay 20ms read on {BARE}");
        let late = reading(engine, "--time_based --runtime=60")?;
        let injection = Injection::start(&["--cgroup", &cgroup.path(), "--disk", &spec])?;
        let before = attached()?;
        ensure!(!is_any_in(&OF_LIBAIO, &before) && !is_any_in(&OF_URING, &before), "{before:?}");
        cgroup.adopt(&late.pid())?;
        must_come(engine)?;
        let report = injection.heal()?;
        ensure!(report.rule(0, "injected")? > 0, "{engine}: {}", report.json);
        drop(late);
    }
    Ok(())
}
