//! Disk faults under a real file system: databases, page cache, mappings, writeback.

use std::{fs::File, os::unix::process::ExitStatusExt as _, process::Command};

use anyhow::{Context as _, ensure};

use super::{Lane, Test};
use crate::{
    cgroup_lab::CgroupLab,
    disk_lab::{FileSystem, forget_cached},
    driver::{Injection, fault, victim},
    process::{Ended, Process},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "file_system::sqlite_reports_and_survives", on: Lane::has_block, run: sqlite },
    Test { name: "file_system::mapped_page_is_sigbus", on: Lane::has_block, run: mapped_page_is_sigbus },
    Test { name: "file_system::writeback_is_the_writers", on: Lane::has_block, run: writeback },
    Test { name: "file_system::fsync_fails_once", on: Lane::has_block, run: fsync_fails_once },
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
    let timed: crate::victim::report::Timed = target.report()?;
    let report = injection.wait()?;
    ensure!(timed.failed == [0] && timed.errors.get("EIO") == Some(&1), "{timed:?}");
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    Ok(())
}
