//! `error` of block I/O: the operations asked for and no other, with either backend; honest refusal where there is none.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{Lane, Test};
use crate::{
    disk_lab::{BARE, FileSystem, Partition},
    driver::{Injection, Report, fault, refused, victim},
    process::{Ended, Process},
    stats::binomial,
    victim::report::Timed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "disk::error_triggers_are_exact", on: Lane::has_block, run: error_triggers },
    Test { name: "disk::error_probability_is_binomial", on: Lane::has_block, run: error_probability },
    Test { name: "disk::operations", on: Lane::has_block, run: operations },
    Test { name: "disk::sectors", on: Lane::has_block, run: sectors },
    Test { name: "disk::devices_partitions_mount_points", on: Lane::has_block, run: devices },
    Test { name: "disk::dd_stops_at_the_nth", on: Lane::has_block, run: dd_stops_at_the_nth },
    Test { name: "disk::cgroup_target", on: Lane::has_block, run: cgroup_target },
    Test { name: "disk::two_sessions_compose", on: Lane::has_block, run: two_sessions_compose },
    Test { name: "disk::forced_backends", on: Lane::has_block, run: forced_backends },
    Test { name: "disk::refused_without_block_hooks", on: Lane::refuses_block, run: refused_honestly },
];

/// `fault-victim pread --wait`: the device is open before the fault exists.
pub fn reader(path: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(victim()?);
    command.args(["pread", path, "--wait"]).args(arguments);
    Process::start_until(&mut command, "open")
}

/// How many threads of a process are inside of pread(2) or pwrite(2).
pub fn parked(pid: &str) -> anyhow::Result<usize> {
    let calls = [libc::SYS_pread64, libc::SYS_pwrite64].map(|number| format!("{number} "));
    Ok(std::fs::read_dir(format!("/proc/{pid}/task"))?
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("syscall")).ok())
        .filter(|text| calls.iter().any(|call| text.starts_with(call)))
        .count())
}

/// Waits until `count` threads of a process are inside of pread(2) or pwrite(2), all at once: a disk that is not delayed never has
/// so many there.
pub fn wait_until_parked(pid: &str, count: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let inside = parked(pid)?;
        if inside >= count {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{inside} of {count} threads are parked");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a reader, a bystander that does the same at the same time, and the report say.
pub struct Told {
    /// The target.
    pub victim: Timed,
    /// The other.
    pub bystander: Timed,
    /// `--json`.
    pub report: Report,
}

/// Runs a reader of `path` under `options` (`--disk SPEC` and more), and a bystander; the latter must see nothing.
pub fn read_under(path: &str, arguments: &[&str], options: &[&str]) -> anyhow::Result<Told> {
    let (mut target, mut bystander) = (reader(path, arguments)?, reader(path, arguments)?);
    let injection = Injection::start(&[&["--pid", &target.pid()], options].concat())?;
    target.release()?;
    bystander.release()?;
    let (victim, bystander): (Timed, Timed) = (target.report()?, bystander.report()?);
    let report = injection.wait()?;
    ensure!(bystander.errors.is_empty(), "{options:?}: the bystander saw {:?}", bystander.errors);
    Ok(Told { victim, bystander, report })
}

/// The operations that failed, which must all have failed with EIO, as often as the report says.
fn failed(told: &Told) -> anyhow::Result<Vec<u64>> {
    let mut failed = told.victim.failed.clone();
    failed.sort_unstable();
    let eio = told.victim.errors.get("EIO").copied().unwrap_or(0);
    ensure!(eio == failed.len() as u64, "other errors than EIO: {:?}", told.victim.errors);
    ensure!(told.report.rule(0, "injected")? == eio, "{eio} failed: {}", told.report.json);
    Ok(failed)
}

fn exact(backend: &[&str]) -> anyhow::Result<()> {
    for (spec, expected) in [
        ("error nth 3 read", vec![2]),
        ("error times 4 read", vec![0, 1, 2, 3]),
        ("error every 7 read", vec![6, 13, 20, 27]),
        ("error first 5 read", vec![0, 1, 2, 3, 4]),
        ("error every 3 first 9", vec![2, 5, 8]),
        ("error every 10 times 2", vec![9, 19]),
    ] {
        let on = format!("{spec} on {BARE}");
        let told = read_under(BARE, &["--count", "30"], &[&["--disk", &on], backend].concat())?;
        ensure!(failed(&told)? == expected, "{spec}: {:?} failed", told.victim.failed);
        ensure!(told.report.rule(0, "matched")? == 30, "{spec}: {}", told.report.json);
    }
    Ok(())
}

fn error_triggers(_: Lane) -> anyhow::Result<()> {
    exact(&[])
}

fn error_probability(_: Lane) -> anyhow::Result<()> {
    // 2 000 reads by four threads: 10 % is told from 13 %.
    let options = ["--disk", &format!("error 10% read on {BARE}")];
    let told = read_under(BARE, &["--threads", "4", "--count", "500"], &options)?;
    let hits = failed(&told)?.len() as u64;
    binomial("reads failed", hits, 2000, 0.1).map_err(anyhow::Error::msg)
}

fn operations(_: Lane) -> anyhow::Result<()> {
    let write = &["--write", "--count", "8"][..];
    let sync = &["--write", "--fsync", "--count", "8"][..];
    let all: Vec<u64> = (0..8).collect();
    for (spec, arguments, hit) in [
        ("error write", write, true),
        ("error read", write, false),
        ("error flush", write, false),
        ("error flush", sync, true),
        ("error read write", &["--count", "8"], true),
        ("error write flush", &["--count", "8"], false),
    ] {
        let options = ["--disk", &format!("{spec} on {BARE}")];
        let told = read_under(BARE, arguments, &options)?;
        let expected = if hit { all.clone() } else { Vec::new() };
        ensure!(failed(&told)? == expected, "{spec} {arguments:?}: {:?} failed", told.victim.failed);
    }
    Ok(())
}

fn sectors(_: Lane) -> anyhow::Result<()> {
    // Reads of eight sectors each, from 0.
    for (range, expected) in [
        ("80..96", vec![10, 11]),
        ("84..85", vec![10]),
        ("87..89", vec![10, 11]),
        ("0..1", vec![0]),
        ("2000000..2000001", vec![]),
    ] {
        let options = ["--disk", &format!("error read sectors {range} on {BARE}")];
        let told = read_under(BARE, &["--count", "16"], &options)?;
        ensure!(failed(&told)? == expected, "{range}: {:?} failed", told.victim.failed);
    }
    Ok(())
}

fn devices(_: Lane) -> anyhow::Result<()> {
    let system = FileSystem::new()?;
    let file = system.file("data", 1 << 20)?;
    let partition = Partition::new(1, 2048, 65536)?;
    let other = Partition::new(2, 2048 + 65536, 65536)?;
    let device = &partition.device;
    for (filter, path, expected) in [
        (format!("on {}", system.mount_point()), file.as_str(), vec![0, 1, 2, 3]),
        (format!("on {}", system.mount_point()), BARE, vec![]),
        (format!("on {BARE}"), &file, vec![]),
        (format!("on {device}"), device, vec![0, 1, 2, 3]),
        (format!("on {device}"), &other.device, vec![]),
        // A disk is all of its partitions.
        (format!("on {BARE}"), device, vec![0, 1, 2, 3]),
        // Sectors are those of what `on` names: these are of the partition, and the disk's beginning is not there.
        (format!("on {device} sectors 8..16"), device, vec![1]),
        (format!("on {BARE} sectors 0..2048"), device, vec![]),
        (format!("on {BARE} sectors 2056..2064"), device, vec![1]),
    ] {
        let told = read_under(path, &["--count", "4"], &["--disk", &format!("error read {filter}")])?;
        ensure!(failed(&told)? == expected, "{filter}, {path}: {:?} failed", told.victim.failed);
    }
    Ok(())
}

fn dd_stops_at_the_nth(_: Lane) -> anyhow::Result<()> {
    let spec = format!("error nth 5 read on {BARE}");
    let input = format!("if={BARE}");
    let dd = ["dd", &input, "of=/dev/null", "bs=4k", "count=16", "iflag=direct"];
    let ended = Ended::of(&mut fault(&[&["run", "--quiet", "--disk", &spec, "--"], &dd[..]].concat()))?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    ensure!(ended.stderr.contains("Input/output error"), "{ended:?}");
    ensure!(ended.stderr.contains("4+0 records in"), "{ended:?}");
    let bystander = Ended::of(Command::new(dd[0]).args(&dd[1..]))?;
    ensure!(bystander.status.success(), "{bystander:?}");
    Ok(())
}

fn cgroup_target(_: Lane) -> anyhow::Result<()> {
    let target = crate::cgroup_lab::CgroupLab::new("disk")?;
    let deeper = target.child("deeper")?;
    let program = victim()?;
    let read = |command: &mut Command| {
        Process::start_until(command.args(["pread", BARE, "--wait", "--count", "10"]), "open")
    };
    let mut inside = read(&mut deeper.command(&program))?;
    let mut outside = read(&mut Command::new(&program))?;
    let spec = format!("error every 2 read on {BARE}");
    let injection = Injection::start(&["--cgroup", &target.path(), "--disk", &spec])?;
    inside.release()?;
    outside.release()?;
    let (hit, spared): (Timed, Timed) = (inside.report()?, outside.report()?);
    let report = injection.heal()?;
    ensure!(hit.failed == [1, 3, 5, 7, 9], "{hit:?}");
    ensure!(spared.failed.is_empty(), "bystander: {spared:?}");
    ensure!(report.rule(0, "injected")? == 5, "{}", report.json);
    Ok(())
}

fn two_sessions_compose(_: Lane) -> anyhow::Result<()> {
    let (mut target, mut bystander) = (reader(BARE, &["--count", "30"])?, reader(BARE, &["--count", "30"])?);
    let pid = target.pid();
    let start = |spec: &str| Injection::start(&["--pid", &pid, "--disk", &format!("{spec} on {BARE}")]);
    let (first, second) = (start("error every 2 read")?, start("error every 3 read")?);
    target.release()?;
    bystander.release()?;
    let (hit, spared): (Timed, Timed) = (target.report()?, bystander.report()?);
    let (first, second) = (first.wait()?, second.wait()?);
    ensure!(spared.errors.is_empty(), "bystander: {spared:?}");
    // Whoever is asked second does not see what the first has failed: either way 20 of 30 fail.
    ensure!(hit.failed.len() == 20, "{:?} failed: {} {}", hit.failed, first.json, second.json);
    ensure!(first.rule(0, "injected")? + second.rule(0, "injected")? == 20, "{} {}", first.json, second.json);
    Ok(())
}

fn forced_backends(lane: Lane) -> anyhow::Result<()> {
    exact(&["--block-backend", "fmod_ret"])?;
    let kprobe = ["--block-backend", "kprobe"];
    let target = reader(BARE, &[])?;
    let pid = target.pid();
    let inject = |spec: &str, status| {
        refused(&[&["inject", "--pid", &pid, "--disk", spec], &kprobe[..]].concat(), status)
    };
    if lane == Lane::Fault {
        exact(&kprobe)?;
        // A kprobe cannot sleep.
        for spec in ["delay 10ms", "hang 1s then error"] {
            let said = inject(spec, 69)?;
            ensure!(said.contains("kprobe"), "{said}");
        }
        return Ok(());
    }
    let said = inject("error read", 69)?;
    ensure!(said.to_lowercase().contains("override"), "it does not say what is missing: {said}");
    Ok(())
}

fn refused_honestly(_: Lane) -> anyhow::Result<()> {
    let target = Process::start(Command::new("cat").arg("-"))?;
    let pid = target.pid();
    for spec in ["error read", "delay 30ms", "hang 1s then error"] {
        for backend in ["auto", "fmod_ret", "kprobe"] {
            let arguments = ["inject", "--pid", &pid, "--disk", spec, "--block-backend", backend];
            let said = refused(&arguments, 69).with_context(|| format!("{spec}, {backend}"))?;
            ensure!(said.trim().lines().count() <= 4, "{spec}, {backend}: not a sentence: {said}");
        }
    }
    // Nothing half armed: not the loss either.
    refused(&["run", "--net", "drop 5%", "--disk", "error read", "--", "true"], 69).map(drop)
}
