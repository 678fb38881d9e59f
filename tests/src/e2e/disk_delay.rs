//! `delay` and `hang` of block I/O: the parking lot, timed by those who park.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    disk::{read_under, reader},
    jitter::four_distributions,
};
use crate::{
    disk_lab::{BARE, FileSystem, forget_cached},
    disk_parity::{self, Outcome, Verdict},
    driver::{Injection, Report, victim},
    process::Process,
    stats::median,
    victim::report::Timed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "disk_delay::median_within_a_millisecond", on: Lane::tests_disks_in_detail, run: accuracy },
    Test {
        name: "disk_delay::parked_is_not_spinning",
        on: Lane::tests_disks_in_detail,
        run: parked_is_not_spinning,
    },
    Test { name: "disk_delay::thirty_two_at_once", on: Lane::tests_disks_in_detail, run: thirty_two_at_once },
    Test {
        name: "disk_delay::two_thousand_parks_a_second",
        on: Lane::tests_disks_in_detail,
        run: parks_a_second,
    },
    Test { name: "disk_delay::hang_then_error", on: Lane::tests_disks_in_detail, run: hang_then_error },
    Test { name: "disk_delay::distributions", on: Lane::tests_block_jitter, run: distributions },
    Test {
        name: "disk_delay::delays_add_and_errors_win",
        on: Lane::tests_disks_in_detail,
        run: several_faults,
    },
    Test { name: "disk_delay::fio_engines", on: Lane::tests_disks_in_detail, run: fio_engines },
    Test {
        name: "disk_delay::more_reapers_than_processors",
        on: Lane::tests_disks_in_detail,
        run: many_reapers,
    },
    Test {
        name: "disk_delay::buffered_and_mapped",
        on: Lane::tests_disks_in_detail,
        run: buffered_and_mapped,
    },
    Test { name: "parity::disk_tools_cannot_be_told_apart", on: has_device_mapper, run: same_as_others },
];

const MS: u64 = 1_000_000;

/// Whether there are dm-delay, dm-flakey and dm-dust to compare with.
fn has_device_mapper(lane: Lane) -> bool {
    matches!(lane, Lane::Fault)
}

/// The table of docs/parity-disk.md: the same reads fail or are late, and no bystander's.
fn same_as_others(_: Lane) -> anyhow::Result<()> {
    for verdict in disk_parity::compare()? {
        let Verdict { other, fault, saw, bystanders, outcome, .. } = verdict;
        ensure!(!matches!(outcome, Outcome::Differs(_)), "`{other}` and `{fault}`: {outcome:?}: {saw:?}");
        ensure!(bystanders.1 == 0, "`{fault}` hit {} of the bystander's reads", bystanders.1);
    }
    Ok(())
}

/// Reads [`BARE`] under `options` while nothing else runs: two programs would share the emulated CPUs.
fn alone(arguments: &[&str], options: &[&str]) -> anyhow::Result<(Timed, Report)> {
    let mut target = reader(BARE, arguments)?;
    let injection = Injection::start(&[&["--pid", &target.pid()], options].concat())?;
    target.release()?;
    let timed = target.report()?;
    Ok((timed, injection.wait()?))
}

/// Every read was late by `asked` and none failed; nobody was turned away from the parking lot.
fn all_parked(what: &str, timed: &Timed, report: &Report, reads: u64, asked: u64) -> anyhow::Result<()> {
    ensure!(
        timed.errors.is_empty() && timed.latencies_ns.len() as u64 == reads,
        "{what}: {:?}",
        timed.errors
    );
    let early = timed.latencies_ns.iter().filter(|latency| **latency < asked).count();
    ensure!(early == 0, "{what}: {early} of {reads} came back too early: {}", report.json);
    for name in ["park_overflow", "park_failed"] {
        ensure!(report.counter(name)? == 0, "{what}: {}", report.json);
    }
    ensure!(report.rule(0, "injected")? == reads, "{what}: {}", report.json);
    Ok(())
}

fn accuracy(_: Lane) -> anyhow::Result<()> {
    for (ms, reads) in [(1, 41), (5, 41), (20, 21), (100, 13), (500, 9)] {
        felt(ms, reads)?;
    }
    Ok(())
}

/// A delay of `ms` is felt as such by the victim's clock, at the median of so many reads. It is the clock of a machine whose time is its
/// instructions: a busy host is not seen.
fn felt(ms: u64, reads: u64) -> anyhow::Result<()> {
    let spec = format!("delay {ms}ms read on {BARE}");
    let count = reads.to_string();
    // What the disk itself takes is no part of the delay: a bystander of the same session knows.
    let (mut target, mut bystander) =
        (reader(BARE, &["--count", &count])?, reader(BARE, &["--count", "41"])?);
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
    bystander.release()?;
    let other: Timed = bystander.report()?;
    target.release()?;
    let timed: Timed = target.report()?;
    all_parked(&spec, &timed, &injection.wait()?, reads, ms * MS)?;
    let (victim, disk) = (median(&timed.latencies_ns), median(&other.latencies_ns));
    ensure!(disk < victim, "{spec}: the bystander was late, too: {disk} ns");
    eprintln!("{spec}: median {victim} ns, of the disk itself {disk} ns");
    ensure!(
        victim <= ms * MS + MS + disk,
        "{spec}: felt as {victim} ns at the median, of which the disk has {disk} ns"
    );
    Ok(())
}

fn parked_is_not_spinning(_: Lane) -> anyhow::Result<()> {
    let spec = format!("delay 200ms read on {BARE}");
    let (timed, report) = alone(&["--count", "10"], &["--disk", &spec])?;
    all_parked(&spec, &timed, &report, 10, 200 * MS)?;
    let (cpu, wall) = (timed.cpu_ns, timed.wall_ns);
    ensure!(wall >= 2000 * MS && cpu < wall / 20, "{cpu} ns of CPU in {wall} ns");
    Ok(())
}

fn thirty_two_at_once(_: Lane) -> anyhow::Result<()> {
    // 32 threads × 8 reads × 100 ms are 25.6 s one after the other, 12.8 s two at a time, 0.8 s all at once.
    let spec = format!("delay 100ms read on {BARE}");
    let told = read_under(BARE, &["--threads", "32", "--count", "8"], &["--disk", &spec])?;
    all_parked(&spec, &told.victim, &told.report, 256, 100 * MS)?;
    let wall = told.victim.wall_ns;
    ensure!(wall < 2 * 800 * MS, "{wall} ns: not all were parked at once: {}", told.report.json);
    ensure!(told.bystander.wall_ns < wall / 2, "the bystander was late, too: {} ns", told.bystander.wall_ns);
    ensure!(told.report.counter("parked")? == 256, "{}", told.report.json);
    Ok(())
}

fn parks_a_second(_: Lane) -> anyhow::Result<()> {
    // 32 threads × 250 reads of 1 ms.
    let spec = format!("delay 1ms read on {BARE}");
    let (timed, report) = alone(&["--threads", "32", "--count", "250"], &["--disk", &spec])?;
    all_parked(&spec, &timed, &report, 8000, MS)?;
    let rate = 8000.0 / (timed.wall_ns as f64 / 1e9);
    eprintln!("{rate:.0} parks a second");
    ensure!(rate >= 2000.0, "{rate:.0} parks a second: {}", report.json);
    Ok(())
}

fn hang_then_error(_: Lane) -> anyhow::Result<()> {
    let spec = format!("hang 600ms nth 2 read then error on {BARE}");
    let told = read_under(BARE, &["--count", "5"], &["--disk", &spec])?;
    ensure!(told.victim.failed == [1] && told.victim.errors.get("EIO") == Some(&1), "{:?}", told.victim);
    ensure!(told.victim.failed_latencies_ns[0] >= 600 * MS, "failed without hanging: {:?}", told.victim);
    ensure!(told.victim.latencies_ns.iter().all(|latency| *latency < 600 * MS), "{:?}", told.victim);
    let spec = format!("hang 600ms nth 2 read on {BARE}");
    let told = read_under(BARE, &["--count", "5"], &["--disk", &spec])?;
    let late: Vec<bool> = told.victim.latencies_ns.iter().map(|latency| *latency >= 600 * MS).collect();
    ensure!(late == [false, true, false, false, false], "{:?}", told.victim);
    Ok(())
}

fn distributions(_: Lane) -> anyhow::Result<()> {
    // 512 samples each: a KS distance of 0.086 is rejected at 99.9 %. What 32 wakes at once add to a constant delay is up
    // to 2 ms in the emulated machine, and less where they are spread: 0.07 of that distance, in the steep Pareto.
    four_distributions(150.0 * MS as f64, |spec| {
        let arguments = ["--threads", "32", "--count", "16"];
        let spec = format!("{spec} read on {BARE}");
        let (timed, report) = alone(&arguments, &["--seed", "42", "--disk", &spec])?;
        all_parked(&spec, &timed, &report, 512, 0)?;
        Ok(timed.latencies_ns)
    })
}

fn several_faults(_: Lane) -> anyhow::Result<()> {
    let specs = [
        format!("delay 40ms read on {BARE}"),
        format!("delay 60ms read on {BARE} sectors 32..64"),
        format!("error read on {BARE} nth 3"),
    ];
    let options = ["--disk", &specs[0], "--disk", &specs[1], "--disk", &specs[2]];
    let told = read_under(BARE, &["--count", "8"], &options)?;
    ensure!(told.victim.failed == [2], "{:?}", told.victim);
    // Reads 0, 1 and 3 lie before sector 32; 4 to 7 behind it.
    let (one, both) = told.victim.latencies_ns.split_at(3);
    ensure!(one.iter().all(|latency| (40 * MS..100 * MS).contains(latency)), "{:?}", told.victim);
    ensure!(both.iter().all(|latency| *latency >= 100 * MS), "{:?}", told.victim);
    for (id, injected) in [(0, 7), (1, 4), (2, 1)] {
        ensure!(told.report.rule(id, "injected")? == injected, "rule {id}: {}", told.report.json);
    }
    Ok(())
}

/// Mean completion latency of fio's reads, in nanoseconds, and how many there were.
fn fio(json: &serde_json::Value) -> anyhow::Result<(f64, u64)> {
    let read = &json["jobs"][0]["read"];
    let mean = read["lat_ns"]["mean"].as_f64().with_context(|| format!("fio: {json}"))?;
    Ok((mean, read["total_ios"].as_u64().context("total_ios")?))
}

fn fio_engines(_: Lane) -> anyhow::Result<()> {
    const READS: u64 = 80;
    const DELAY: f64 = 100.0 * MS as f64;
    for (engine, depth) in [("psync", 1), ("libaio", 8), ("io_uring", 8)] {
        let job = format!(
            "read x; exec fio --name=j --filename={BARE} --readonly --direct=1 --rw=randread --bs=4k --randseed=1 \
             --ioengine={engine} --iodepth={depth} --number_ios={READS} --size=1G --thread --output-format=json"
        );
        let start = || Process::start(Command::new("sh").args(["-c", &job]));
        let (mut target, mut bystander) = (start()?, start()?);
        let injection =
            Injection::start(&["--pid", &target.pid(), "--disk", &format!("delay 100ms read on {BARE}")])?;
        target.release()?;
        let json = target.report()?;
        bystander.release()?;
        let other = bystander.report()?;
        let report = injection.wait()?;
        let ((mean, reads), (spared, other_reads)) = (fio(&json)?, fio(&other)?);
        ensure!(reads == READS && other_reads == READS, "{engine}: {reads} and {other_reads} reads");
        ensure!(json["jobs"][0]["error"] == 0, "{engine}: {json}");
        ensure!(mean >= DELAY, "{engine}: {mean} ns on average: {}", report.json);
        ensure!(spared < DELAY / 2.0, "{engine}: the bystander was late, too: {spared} ns");
        ensure!(report.rule(0, "injected")? >= READS, "{engine}: {}", report.json);
        let runtime = json["jobs"][0]["read"]["runtime"].as_f64().context("runtime")?;
        eprintln!("{engine} depth {depth}: {:.0} IOPS, {mean:.0} ns", READS as f64 / runtime * 1000.0);
    }
    Ok(())
}

/// Six threads reap on two processors, where one waits on each: who comes back early submits the next no sooner than a slow
/// disk would let it.
fn many_reapers(_: Lane) -> anyhow::Result<()> {
    // Ten rounds of four operations for each thread. The last round may be reaped early, and nothing follows it.
    const ROUNDS: u64 = 10;
    const DELAY_MS: u64 = 100;
    let job = format!(
        "read x; exec fio --name=j --filename={BARE} --readonly --direct=1 --rw=randread --bs=4k --randseed=1 \
         --ioengine=libaio --iodepth=4 --numjobs=6 --number_ios={} --size=1G --thread --group_reporting \
         --output-format=json",
        4 * ROUNDS
    );
    let mut target = Process::start(Command::new("sh").args(["-c", &job]))?;
    let spec = format!("delay {DELAY_MS}ms read on {BARE}");
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
    target.release()?;
    let json: serde_json::Value = target.report()?;
    let report = injection.wait()?;
    let (_, reads) = fio(&json)?;
    let runtime = json["jobs"][0]["read"]["runtime"].as_u64().context("runtime")?;
    ensure!(reads == 6 * 4 * ROUNDS && json["jobs"][0]["error"] == 0, "{reads} reads: {json}");
    ensure!(runtime >= (ROUNDS - 1) * DELAY_MS, "{runtime} ms: {}", report.json);
    ensure!(report.counter("park_overflow")? > 0, "nobody was one too many: {}", report.json);
    Ok(())
}

fn buffered_and_mapped(_: Lane) -> anyhow::Result<()> {
    let system = FileSystem::new()?;
    // Apart by more than read-ahead: each page is a read of its own.
    let file = system.file("data", 4 << 20)?;
    let options = ["--disk", &format!("delay 50ms read on {}", system.mount_point())];
    let mut command = Command::new(victim()?);
    let touch = ["touch", &file, "--wait", "--count", "16", "--stride", "262144"];
    let mut target = Process::start_until(command.args(touch), "open")?;
    let injection = Injection::start(&[&["--pid", &target.pid()], &options[..]].concat())?;
    target.release()?;
    let timed: Timed = target.report()?;
    let report = injection.wait()?;
    ensure!(timed.latencies_ns.len() == 16, "{timed:?}");
    ensure!(timed.latencies_ns.iter().all(|latency| *latency >= 50 * MS), "{timed:?} {}", report.json);
    ensure!(timed.cpu_ns < timed.wall_ns / 4, "{timed:?}");
    forget_cached()?;
    // Read-ahead makes few large reads of many small ones; the first read at least waits for the disk.
    let read = ["pread", &file, "--buffered", "--wait", "--count", "64", "--size", "65536"];
    let start = || Process::start_until(Command::new(victim()?).args(read), "open");
    let (mut target, mut bystander) = (start()?, start()?);
    let injection = Injection::start(&[&["--pid", &target.pid()], &options[..]].concat())?;
    target.release()?;
    let timed: Timed = target.report()?;
    let report = injection.wait()?;
    forget_cached()?;
    bystander.release()?;
    let other: Timed = bystander.report()?;
    let injected = report.rule(0, "injected")?;
    ensure!(timed.latencies_ns.len() == 64 && timed.latencies_ns[0] >= 50 * MS, "{timed:?}");
    // Every injected delay was spent by the reader itself, in turn.
    ensure!(injected > 0 && timed.wall_ns >= injected * 50 * MS, "{} ns: {}", timed.wall_ns, report.json);
    ensure!(report.rule(0, "bytes")? >= 4 << 20, "{}", report.json);
    ensure!(other.wall_ns < timed.wall_ns, "the bystander was late, too: {} ns", other.wall_ns);
    Ok(())
}
