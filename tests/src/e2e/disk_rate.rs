//! `rate` and `iops` of block I/O: what fio and dd measure is what was asked for, however they ask.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;

use super::{
    Lane, Test,
    disk::{read_under, reader},
};
use crate::{
    disk_lab::{BARE, FileSystem, forget_cached},
    driver::{Injection, Report},
    process::Process,
    victim::report::{Timed, now_ns},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "disk_rate::iops_of_fio", on: Lane::tests_disks_in_detail, run: iops },
    Test { name: "disk_rate::bytes_of_fio", on: Lane::tests_disks_in_detail, run: bytes },
    Test { name: "disk_rate::buffered_dd", on: Lane::tests_disks_in_detail, run: buffered },
    Test { name: "disk_rate::reads_and_writes_share_or_not", on: Lane::tests_disks_in_detail, run: shared },
    Test { name: "disk_rate::counts_what_is_cut_once", on: Lane::tests_disks_in_detail, run: cut },
    Test { name: "disk_rate::heal_ends_the_wait", on: Lane::tests_disks_in_detail, run: heal },
];

/// What one run of fio says.
#[derive(Debug)]
struct Run {
    /// Operations and bytes.
    done: (f64, f64),
    /// Seconds.
    took: f64,
    report: Report,
}

impl Run {
    /// Operations a second.
    fn iops(&self) -> f64 {
        self.done.0 / self.took
    }

    /// Bytes a second.
    fn rate(&self) -> f64 {
        self.done.1 / self.took
    }
}

fn fio_job(job: &str) -> Command {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!(
            "read x; exec fio --name=j --filename={BARE} --direct=1 --thread --group_reporting --size=64M \
             --randseed=1 --output-format=json {job}"
        ),
    ]);
    command
}

/// Reads and writes together, of fio's report.
fn done(json: &serde_json::Value) -> anyhow::Result<((f64, f64), f64)> {
    let job = &json["jobs"][0];
    ensure!(job["error"] == 0, "{json}");
    let of =
        |way: &str, field: &str| job[way][field].as_f64().with_context(|| format!("{way}.{field}: {json}"));
    let sum = |field: &str| anyhow::Ok(of("read", field)? + of("write", field)?);
    let took = of("read", "runtime")?.max(of("write", "runtime")?);
    Ok(((sum("total_ios")?, sum("io_bytes")?), took / 1000.0))
}

/// fio under a fault, and a bystander's fio at the same time that must be done with as much in a fraction of the time.
fn fio(spec: &str, job: &str) -> anyhow::Result<Run> {
    let start = || Process::start(&mut fio_job(job));
    let (mut target, mut bystander) = (start()?, start()?);
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &format!("{spec} on {BARE}")])?;
    bystander.release()?;
    let (_, spared) = done(&bystander.report()?)?;
    target.release()?;
    let (done, took) = done(&target.report()?)?;
    let report = injection.wait()?;
    ensure!(spared < took / 2.0, "{spec}, {job}: the bystander took {spared} s of {took} s");
    ensure!(report.counter("park_failed")? == 0, "{}", report.json);
    ensure!(report.counter("park_overflow")? == 0, "{}", report.json);
    ensure!(report.rule(0, "overflowed")? == 0, "{}", report.json);
    Ok(Run { done, took, report })
}

/// Within 5 % of what was asked for.
fn near(what: &str, measured: f64, asked: f64) -> anyhow::Result<()> {
    eprintln!("{what}: {measured:.1} of {asked:.0}");
    ensure!((measured / asked - 1.0).abs() <= 0.05, "{what}: {measured:.1} instead of {asked:.0}");
    Ok(())
}

fn iops(_: Lane) -> anyhow::Result<()> {
    for job in [
        "--rw=randread --bs=4k --ioengine=psync --number_ios=600",
        "--rw=randread --bs=4k --ioengine=psync --numjobs=6 --number_ios=100",
        "--rw=randwrite --bs=16k --ioengine=libaio --iodepth=8 --number_ios=600",
        "--rw=randread --bs=4k --ioengine=io_uring --iodepth=8 --number_ios=600",
    ] {
        let run = fio("iops 200", job)?;
        near(&format!("iops 200, {job}"), run.iops(), 200.0)?;
        ensure!(run.report.rule(0, "injected")? as f64 >= run.done.0, "{}", run.report.json);
    }
    Ok(())
}

fn bytes(_: Lane) -> anyhow::Result<()> {
    const RATE: f64 = (4 << 20) as f64;
    for job in [
        "--rw=read --bs=64k --ioengine=psync --io_size=12M",
        "--rw=randread --bs=4k --ioengine=psync --numjobs=4 --io_size=3M",
        "--rw=write --bs=16k --ioengine=psync --io_size=12M",
        "--rw=read --bs=4M --ioengine=psync --io_size=16M",
        "--rw=randread --bs=32k --ioengine=libaio --iodepth=16 --io_size=12M",
    ] {
        let run = fio("rate 4MiB/s", job)?;
        near(&format!("rate 4MiB/s, {job}"), run.rate(), RATE)?;
    }
    Ok(())
}

fn buffered(_: Lane) -> anyhow::Result<()> {
    const SIZE: usize = 12 << 20;
    let system = FileSystem::new()?;
    let file = system.file("data", SIZE)?;
    let script = format!("read x; exec dd if={file} of=/dev/null bs=64k status=none");
    let start = || Process::start(Command::new("sh").args(["-c", &script]));
    let (mut target, mut bystander) = (start()?, start()?);
    let spec = format!("rate 4MiB/s read on {}", system.mount_point());
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
    let time = |process: &mut Process| {
        let begin = now_ns();
        process.release().map(|()| begin)
    };
    let begin = time(&mut target)?;
    target.text()?;
    let took = (now_ns() - begin) as f64 / 1e9;
    let report = injection.wait()?;
    forget_cached()?;
    let begin = time(&mut bystander)?;
    bystander.text()?;
    let spared = (now_ns() - begin) as f64 / 1e9;
    ensure!(report.rule(0, "bytes")? >= SIZE as u64, "{}", report.json);
    // dd does not wait for what is read ahead beyond its last read, and its start takes time.
    ensure!((2.7..3.6).contains(&took), "12 MiB took {took} s at 4 MiB/s: {}", report.json);
    ensure!(spared < took / 2.0, "the bystander took {spared} s");
    Ok(())
}

fn shared(_: Lane) -> anyhow::Result<()> {
    let job = "--rw=randrw --rwmixread=50 --bs=4k --ioengine=psync --numjobs=4 --number_ios=150";
    let run = fio("iops 200", job)?;
    near("reads and writes together", run.iops(), 200.0)?;
    // Reads alone: writes are as quick as ever.
    let run = fio("iops 100 read", job)?;
    let reads = run.report.rule(0, "injected")? as f64;
    near("reads among writes", reads / run.took, 100.0)?;
    ensure!(run.iops() > 150.0, "writes waited, too: {run:?}");
    Ok(())
}

/// How much [`BARE`] takes at once, in KiB, until the end of the test.
struct AtOnce(String);

impl AtOnce {
    const FILE: &str = "/sys/block/vdb/queue/max_sectors_kb";

    fn new(kib: u32) -> anyhow::Result<Self> {
        let before = std::fs::read_to_string(Self::FILE)?;
        std::fs::write(Self::FILE, kib.to_string())?;
        Ok(Self(before.trim().to_owned()))
    }
}

impl Drop for AtOnce {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(Self::FILE, &self.0) {
            eprintln!("{}: {error}", Self::FILE);
        }
    }
}

fn cut(_: Lane) -> anyhow::Result<()> {
    // Each read of 1 MiB is cut fifteen times, and what is left comes by again.
    let _at_once = AtOnce::new(64)?;
    let told = read_under(BARE, &["--count", "4", "--size", "1048576"], &["--disk", "rate 2MiB/s read"])?;
    let (bytes, matched) = (told.report.rule(0, "bytes")?, told.report.rule(0, "matched")?);
    ensure!(matched > 4, "nothing was cut: {}", told.report.json);
    ensure!(bytes == 4 << 20, "{bytes} bytes: {}", told.report.json);
    let took = told.victim.wall_ns as f64 / 1e9;
    near("4 MiB in parts", 4.0 / took, 2.0)
}

fn heal(_: Lane) -> anyhow::Result<()> {
    // At 4 KiB/s, 128 KiB take 32 s.
    let mut target = reader(BARE, &["--count", "1", "--size", "131072"])?;
    let spec = format!("rate 4KiB/s read on {BARE}");
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
    let begin = Instant::now();
    target.release()?;
    std::thread::sleep(Duration::from_secs(2));
    injection.signal(Signal::SIGTERM)?;
    let timed: Timed = target.report()?;
    let took = begin.elapsed();
    let report = injection.wait()?;
    ensure!(timed.errors.is_empty() && timed.latencies_ns[0] >= 1_000_000_000, "did not wait: {timed:?}");
    ensure!(took < Duration::from_secs(16), "{took:?}: {}", report.json);
    Ok(())
}
