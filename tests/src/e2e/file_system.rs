//! Disk faults under a real file system: databases, page cache, mappings, writeback.

use std::{
    fs::File,
    os::unix::{fs::FileExt as _, process::ExitStatusExt as _},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::{Lane, Test};
use crate::{
    cgroup_lab::CgroupLab,
    disk_lab::{Extent, FileSystem, Kind, forget_cached},
    driver::{Injection, fault, victim},
    process::{Ended, Process},
    victim::report::Timed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "file_system::sqlite_reports_and_survives", on: Lane::tests_disks_in_detail, run: sqlite },
    Test {
        name: "file_system::mapped_page_is_sigbus",
        on: Lane::tests_disks_in_detail,
        run: mapped_page_is_sigbus,
    },
    Test { name: "file_system::writeback_is_the_writers", on: Lane::tests_disks_in_detail, run: writeback },
    Test { name: "file_system::fsync_fails_once", on: Lane::tests_disks_in_detail, run: fsync_fails_once },
    Test {
        name: "file_system::failing_and_not_failed",
        on: Lane::tests_disks_in_detail,
        run: failing_and_not_failed,
    },
    Test { name: "file_system::errors_are_told_once", on: Lane::tests_disks_in_detail, run: told_once },
];

fn query(database: &str, sql: &str) -> anyhow::Result<Ended> {
    Ended::of(Command::new("sqlite3").args([database, sql]))
}

fn sqlite(_: Lane) -> anyhow::Result<()> {
    let system = FileSystem::new()?;
    let database = system.path("victim.db").to_string_lossy().into_owned();
    let other = system.path("bystander.db").to_string_lossy().into_owned();
    let fill = "create table t(n integer primary key, s text);
        with recursive c(n) as (select 1 union all select n + 1 from c where n < 2000)
        insert into t select n, hex(randomblob(200)) from c;";
    for database in [&database, &other] {
        ensure!(query(database, fill)?.status.success(), "filling {database}");
    }
    let mount = system.mount_point();
    for (fault_spec, sql) in [
        (format!("error read on {mount}"), "select sum(length(s)) from t;"),
        (format!("error write on {mount}"), "update t set s = upper(s) || 'x';"),
    ] {
        forget_cached()?;
        let arguments = ["run", "--quiet", "--disk", &fault_spec, "--", "sqlite3", &database, sql];
        let hit = Ended::of(&mut fault(&arguments))?;
        ensure!(!hit.status.success(), "{fault_spec}: sqlite noticed nothing: {hit:?}");
        ensure!(hit.stderr.contains("disk I/O error"), "{fault_spec}: {hit:?}");
        let spared = query(&other, sql)?;
        ensure!(spared.status.success(), "{fault_spec}: the bystander: {spared:?}");
        forget_cached()?;
        for (database, who) in [(&database, "target"), (&other, "bystander")] {
            let check = query(database, "pragma integrity_check; select count(*) from t;")?;
            ensure!(check.stdout == "ok\n2000\n", "{fault_spec}: {who} after healing: {check:?}");
        }
    }
    Ok(())
}

fn mapped_page_is_sigbus(_: Lane) -> anyhow::Result<()> {
    let system = FileSystem::new()?;
    let file = system.file("data", 1 << 20)?;
    // The kernel tries a page that cannot be read once more, without the lock of the address space.
    let spec = format!("error read on {}", system.mount_point());
    let map = || {
        Process::start_until(Command::new(victim()?).args(["touch", &file, "--wait", "--count", "8"]), "open")
    };
    let (mut target, mut bystander) = (map()?, map()?);
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
    target.release()?;
    let ended = target.ended()?;
    let report = injection.wait()?;
    ensure!(ended.status.signal() == Some(libc::SIGBUS), "no SIGBUS: {ended:?} {}", report.json);
    ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
    bystander.release()?;
    let ended = bystander.ended()?;
    ensure!(ended.status.success(), "{ended:?}");
    Ok(())
}

fn writeback(_: Lane) -> anyhow::Result<()> {
    // Two cgroups write 4 MiB each into the page cache of one file system; a kernel thread writes both out.
    let system = FileSystem::new()?;
    let (target, other) = (CgroupLab::new("writer")?, CgroupLab::new("writer-not")?);
    let files = ["victim", "bystander"].map(|name| system.path(name));
    // Opened before anything fails: an error of writing back is told to whoever had the file open.
    let mut open = Vec::new();
    for file in &files {
        open.push(File::create(file).with_context(|| file.display().to_string())?);
    }
    let spec = format!("error write on {}", system.mount_point());
    let injection = Injection::start(&["--cgroup", &target.path(), "--disk", &spec])?;
    for (cgroup, file) in [&target, &other].into_iter().zip(&files) {
        let output = format!("of={}", file.display());
        let dd = ["if=/dev/zero", &output, "bs=64k", "count=64", "conv=notrunc", "status=none"];
        Process::start(cgroup.command("dd").args(dd))?.text()?;
    }
    // By this process, which is neither: the kernel's threads do the writing.
    nix::unistd::sync();
    let results: Vec<_> = open.iter().map(File::sync_data).collect();
    let report = injection.heal()?;
    let target_error = results[0].as_ref().err().and_then(std::io::Error::raw_os_error);
    ensure!(target_error == Some(libc::EIO), "the target's writes were written: {}", report.json);
    ensure!(results[1].is_ok(), "the bystander's writes failed: {:?}", results[1]);
    // To the byte: the target's data, and nothing of the bystander's.
    ensure!(report.rule(0, "bytes")? == 4 << 20, "{}", report.json);
    Ok(())
}

fn fsync_fails_once(_: Lane) -> anyhow::Result<()> {
    // The dirty page under the first fsync fails, the retry succeeds.
    let system = FileSystem::new()?;
    let file = system.file("data", 1 << 16)?;
    let spec = format!("error nth 1 write on {}", system.mount_point());
    let options = ["--disk", &spec];
    let arguments = ["--write", "--buffered", "--fsync", "--count", "4"];
    let mut target = super::disk::reader(&file, &arguments)?;
    let injection = Injection::start(&[&["--pid", &target.pid()], &options[..]].concat())?;
    target.release()?;
    let timed: Timed = target.report()?;
    let report = injection.wait()?;
    ensure!(timed.failed == [0] && timed.errors.get("EIO") == Some(&1), "{timed:?}");
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    Ok(())
}

/// What a dying disk is like: writes go through, nearly all reads do, and three blocks take three seconds each to say no.
fn failing_and_not_failed(_: Lane) -> anyhow::Result<()> {
    const BLOCKS: u64 = 64;
    const BAD: std::ops::Range<u64> = 20..23;
    const STALL: u64 = 3_000_000_000;
    let system = FileSystem::new()?;
    let (old, new) = (system.file("old", BLOCKS as usize * 4096)?, system.file("new", 1 << 16)?);
    let extent = Extent::longest(&old)?;
    ensure!((extent.logical, extent.length) == (0, BLOCKS * 8), "a new file on a new disk: {extent:?}");
    let sectors = format!("{}..{}", extent.physical + BAD.start * 8, extent.physical + BAD.end * 8);
    let spec = format!("hang 3s then error read sectors {sectors} on {}", system.mount_point());
    let count = BLOCKS.to_string();
    let read = ["--count", &count];
    let (mut reader, mut bystander) = (super::disk::reader(&old, &read)?, super::disk::reader(&old, &read)?);
    let mut writer = super::disk::reader(&new, &["--write", "--buffered", "--fsync", "--count", "16"])?;
    let injection = Injection::start(&["--pid", &reader.pid(), "--pid", &writer.pid(), "--disk", &spec])?;
    for process in [&mut reader, &mut writer, &mut bystander] {
        process.release()?;
    }
    let (written, spared): (Timed, Timed) = (writer.report()?, bystander.report()?);
    let timed: Timed = reader.report()?;
    let report = injection.wait()?;
    ensure!(written.errors.is_empty() && written.latencies_ns.len() == 16, "writes: {written:?}");
    ensure!(spared.errors.is_empty() && spared.wall_ns < STALL, "the bystander: {spared:?}");
    let expected: Vec<u64> = BAD.collect();
    ensure!(timed.failed == expected && timed.errors.get("EIO") == Some(&3), "{timed:?}");
    ensure!(timed.failed_latencies_ns.iter().all(|latency| *latency >= STALL), "{timed:?}");
    ensure!(timed.latencies_ns.iter().all(|latency| *latency < STALL), "{timed:?}");
    ensure!(report.rule(0, "injected")? == 3, "{}", report.json);
    Ok(())
}

/// An error of writing back is told once to each descriptor that was open when it happened, whatever came of later writes;
/// one that is opened afterwards hears of it only if nobody has yet (`errseq_t`, Documentation/core-api/errseq.rst, Linux
/// 4.13 for ext4 and xfs alike).
fn told_once(_: Lane) -> anyhow::Result<()> {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let system = FileSystem::of(kind, tempfile::TempDir::new()?)?;
        let path = system.path("data");
        let open = || File::options().write(true).create(true).truncate(false).open(&path);
        let (first, second) = (open()?, open()?);
        // Blocks that exist, so that only the data is written.
        first.write_all_at(&[1; 8192], 0)?;
        first.sync_all()?;
        second.sync_all()?;
        // This process is the target: the write is submitted by whoever calls fsync(2).
        let me = std::process::id().to_string();
        let spec = format!("error times 1 write on {}", system.mount_point());
        let injection = Injection::start(&["--pid", &me, "--only", "--disk", &spec])?;
        first.write_all_at(&[2; 4096], 0)?;
        let told = [&first, &first, &second, &second].map(|file| errno(file.sync_data()));
        let later = errno(open()?.sync_data());
        let report = injection.heal()?;
        ensure!(told == [libc::EIO, 0, libc::EIO, 0], "{kind:?}: fsync said {told:?}: {}", report.json);
        ensure!(later == 0, "{kind:?}: who opened it afterwards was told {later}");
        ensure!(report.rule(0, "injected")? == 1, "{kind:?}: {}", report.json);
        // The page is clean and lost: what a second fsync that succeeds does not say.
        drop((first, second));
        system.mount_afresh()?;
        let on_disk = std::fs::read(&path)?;
        ensure!(on_disk[0] == 1, "{kind:?}: the page was written after all: {}", on_disk[0]);
    }
    Ok(())
}

/// 0 for success.
fn errno(result: std::io::Result<()>) -> i32 {
    result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}
