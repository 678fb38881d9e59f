//! `file GLOB` of block I/O: what is in the files that a pattern names is hit, and nothing else of the same disk, however it is
//! read or written, whatever the files are called in the meantime.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    disk::{Told, read_under, reader},
};
use crate::{
    cgroup_lab::CgroupLab,
    disk_lab::{FileSystem, Kind, forget_cached},
    driver::{Injection, refused, victim},
    net_lab::sh,
    process::{Ended, Process},
    victim::report::Timed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "disk_files::of_a_pattern_and_no_others",
        on: Lane::tests_disks_in_detail,
        run: some_and_no_others,
    },
    Test { name: "disk_files::mapped_pages", on: Lane::tests_disks_in_detail, run: mapped },
    Test {
        name: "disk_files::written_back_by_the_kernel",
        on: Lane::tests_disks_in_detail,
        run: written_back,
    },
    Test {
        name: "disk_files::later_renamed_linked",
        on: Lane::tests_disks_in_detail,
        run: later_renamed_linked,
    },
    Test { name: "disk_files::asynchronous", on: Lane::tests_disks_in_detail, run: asynchronous },
    Test { name: "disk_files::a_database_log_only", on: Lane::tests_disks_in_detail, run: log_only },
    Test { name: "disk_files::refusals", on: Lane::tests_disks_in_detail, run: refusals },
];

const BLOCK: usize = 4096;
const BLOCKS: usize = 16;

/// A file system with some files in it.
fn filled(kind: Kind, names: &[&str]) -> anyhow::Result<FileSystem> {
    let system = FileSystem::of(kind, tempfile::TempDir::new()?)?;
    for name in names {
        if let Some(directory) = Path::new(name).parent() {
            fs::create_dir_all(system.path("").join(directory))?;
        }
        system.file(name, BLOCKS * BLOCK)?;
    }
    Ok(system)
}

fn path(system: &FileSystem, name: &str) -> String {
    system.path(name).to_string_lossy().into_owned()
}

/// Reads of `path` under `spec`; a bystander that reads it at the same time must see nothing.
fn read(path: &str, spec: &str) -> anyhow::Result<Told> {
    forget_cached()?;
    read_under(path, &["--count", &BLOCKS.to_string()], &["--disk", spec])
}

/// The same through the page cache, alone: whoever else reads the file would put it there for the target.
fn read_buffered(path: &str, spec: &str) -> anyhow::Result<Told> {
    forget_cached()?;
    let mut target = reader(path, &["--count", &BLOCKS.to_string(), "--buffered"])?;
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", spec])?;
    target.release()?;
    let victim = target.report()?;
    Ok(Told { victim, bystander: Timed::default(), report: injection.wait()? })
}

/// All reads of the target failed with EIO, or none did, as `hit` says; and the report agrees.
fn all_or_none(told: &Told, hit: bool) -> anyhow::Result<()> {
    let failed = told.victim.errors.get("EIO").copied().unwrap_or(0);
    let expected = if hit { BLOCKS as u64 } else { 0 };
    let injected = told.report.rule(0, "injected")?;
    ensure!(failed == expected, "{failed} of {BLOCKS} failed: {} {:?}", told.report.json, told.victim.errors);
    ensure!((injected > 0) == hit, "{injected} injected: {}", told.report.json);
    ensure!(told.report.rule(0, "matched")? == injected, "{}", told.report.json);
    Ok(())
}

fn some_and_no_others(_: Lane) -> anyhow::Result<()> {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let system = filled(kind, &["wal/1", "wal/deep/er/2", "data/1"])?;
        let spec = format!("error read file {}/wal/**", system.mount_point());
        for (name, hit) in [("wal/deep/er/2", true), ("data/1", false)] {
            let path = path(&system, name);
            all_or_none(&read(&path, &spec)?, hit).with_context(|| format!("{kind:?} {name}"))?;
            let buffered = read_buffered(&path, &spec)?;
            all_or_none(&buffered, hit).with_context(|| format!("{kind:?} {name}, buffered"))?;
        }
        if kind != Kind::Ext4 {
            continue;
        }
        // With a place on the disk, both must agree; and a delay is as much a fault as an error.
        let elsewhere = format!("error read on /dev/vdb file {}/wal/**", system.mount_point());
        all_or_none(&read(&path(&system, "wal/1"), &elsewhere)?, false)?;
        let late = format!("delay 50ms read file {}/wal/1", system.mount_point());
        for (name, hit) in [("wal/1", true), ("data/1", false)] {
            let told = read(&path(&system, name), &late)?;
            let slow = told.victim.latencies_ns.iter().filter(|latency| **latency >= 50_000_000).count();
            let expected = if hit { BLOCKS } else { 0 };
            ensure!(told.report.rule(0, "injected")? == expected as u64, "{name}: {}", told.report.json);
            ensure!(slow >= expected, "{name}: {slow} late: {:?}", told.victim);
        }
    }
    Ok(())
}

fn mapped(_: Lane) -> anyhow::Result<()> {
    let system = filled(Kind::Ext4, &["wal/1", "data/1"])?;
    let spec = format!("error read file {}/wal/*", system.mount_point());
    for (name, hit) in [("wal/1", true), ("data/1", false)] {
        system.file(name, 1 << 20)?;
        let mut touch = Command::new(victim()?);
        touch.args(["touch", &path(&system, name), "--wait", "--count", "8"]);
        let mut target = Process::start_until(&mut touch, "open")?;
        let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
        target.release()?;
        let (ended, report) = (target.ended()?, injection.wait()?);
        ensure!((ended.status.signal() == Some(libc::SIGBUS)) == hit, "{name}: {ended:?} {}", report.json);
    }
    Ok(())
}

/// Written into the page cache by a target, and to the disk by the kernel's threads. Of two files of one writer, one fails.
fn written_back(_: Lane) -> anyhow::Result<()> {
    let system = filled(Kind::Ext4, &["wal/1", "data/1"])?;
    let group = CgroupLab::new("file-writer")?;
    let open = ["wal/1", "data/1"].map(|name| OpenOptions::new().write(true).open(system.path(name)));
    let spec = format!("error write file {}/wal/*", system.mount_point());
    let injection = Injection::start(&["--cgroup", &group.path(), "--disk", &spec])?;
    for name in ["wal/1", "data/1"] {
        let output = format!("of={}", path(&system, name));
        let dd = ["if=/dev/zero", &output, "bs=64k", "count=16", "conv=notrunc", "status=none"];
        Process::start(group.command("dd").args(dd))?.text()?;
    }
    nix::unistd::sync();
    let [wal, data] = open.map(|file| file.and_then(|file: File| file.sync_data()));
    let report = injection.heal()?;
    let error = wal.as_ref().err().and_then(std::io::Error::raw_os_error);
    ensure!(error == Some(libc::EIO), "the log was written: {wal:?} {}", report.json);
    ensure!(data.is_ok(), "the data was not: {data:?} {}", report.json);
    // To the byte: all of one file, and nothing else the file system wrote.
    ensure!(report.rule(0, "bytes")? == 1 << 20, "{}", report.json);
    Ok(())
}

/// Files that come after the fault, that get another name while they are open, and that have several.
fn later_renamed_linked(_: Lane) -> anyhow::Result<()> {
    let system = filled(Kind::Ext4, &["wal/old", "data/1", "data/2", "data/3"])?;
    fs::hard_link(system.path("data/3"), system.path("wal/3"))?;
    let spec = format!("error read file {}/wal/*", system.mount_point());
    // By the other name, and the kernel has forgotten both when the fault is armed.
    all_or_none(&read(&path(&system, "data/3"), &spec)?, true).context("a second name")?;

    let arguments = ["--count", &BLOCKS.to_string()];
    for (from, to, hit) in [("wal/old", "data/old", false), ("data/1", "wal/1", true)] {
        forget_cached()?;
        let mut target = reader(&path(&system, from), &arguments)?;
        let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
        fs::rename(system.path(from), system.path(to))?;
        target.release()?;
        let victim: Timed = target.report()?;
        let report = injection.wait()?;
        let told = Told { victim, bystander: Timed::default(), report };
        all_or_none(&told, hit).with_context(|| format!("{from} became {to}"))?;
    }

    // What is there only later; written before the target reads it.
    let mut shell = Command::new("sh");
    let (new, other) = (path(&system, "wal/new"), path(&system, "data/new"));
    let script = format!(
        "read go; for f in {new} {other}; do dd if=/dev/zero of=$f bs=4096 count=8 conv=fsync status=none; \
         dd if=$f of=/dev/null bs=4096 iflag=direct status=none; echo $?; done"
    );
    let mut target = Process::start(shell.args(["-c", &script]))?;
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
    target.release()?;
    let ended = target.ended()?;
    injection.wait()?;
    ensure!(ended.stdout.split_whitespace().eq(["1", "0"]), "{ended:?}");
    Ok(())
}

/// libaio and io_uring, which reach the disk by their own ways.
fn asynchronous(_: Lane) -> anyhow::Result<()> {
    let system = filled(Kind::Ext4, &["wal/1", "data/1"])?;
    let spec = format!("error read file {}/wal/*", system.mount_point());
    for engine in ["libaio", "io_uring"] {
        for (name, hit) in [("wal/1", true), ("data/1", false)] {
            let job = format!(
                "read go; exec fio --name=x --filename={} --ioengine={engine} --direct=1 --rw=read --bs=4k --size=64k \
                 --iodepth=4",
                path(&system, name)
            );
            let mut target = Process::start(Command::new("sh").args(["-c", &job]))?;
            let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
            target.release()?;
            let ended = target.ended()?;
            let report = injection.wait()?;
            ensure!(ended.status.success() != hit, "{engine} {name}: {ended:?} {}", report.json);
            ensure!((report.rule(0, "injected")? > 0) == hit, "{engine} {name}: {}", report.json);
        }
    }
    Ok(())
}

/// SQLite whose rollback journal cannot be written, and whose database can.
fn log_only(_: Lane) -> anyhow::Result<()> {
    let system = FileSystem::new()?;
    let database = path(&system, "bank.db");
    let query = |sql: &str| Ended::of(Command::new("sqlite3").args([&database, sql]));
    ensure!(query("create table t(n); insert into t values(1);")?.status.success());
    forget_cached()?;
    let spec = format!("error write file {}/*-journal", system.mount_point());
    let run = |sql: &str| {
        let arguments = ["run", "--quiet", "--disk", &spec, "--", "sqlite3", &database, sql];
        Ended::of(&mut crate::driver::fault(&arguments))
    };
    let hit = run("insert into t values(2);")?;
    ensure!(!hit.status.success() && hit.stderr.contains("disk I/O error"), "{hit:?}");
    let read = run("select count(*) from t;")?;
    ensure!(read.stdout == "1\n", "reading the database: {read:?}");
    let after = query("insert into t values(3); select count(*) from t; pragma integrity_check;")?;
    ensure!(after.stdout == "2\nok\n", "after healing: {after:?}");
    Ok(())
}

fn refusals(_: Lane) -> anyhow::Result<()> {
    let directory = tempfile::TempDir::new()?;
    let mount = directory.path().display().to_string();
    sh(&format!("mount -t tmpfs e2e {mount}"))?;
    fs::write(directory.path().join("here"), "")?;
    let run = |spec: &str| refused(&["run", "--disk", spec, "--", "true"], 2);
    let spec = format!("error read file {mount}/*");
    let dry = refused(&["run", "--dry-run", "--disk", &spec, "--", "true"], 2);
    let said = run(&spec);
    sh(&format!("umount {mount}"))?;
    let (said, dry) = (said?, dry?);
    ensure!(dry == said, "dry run: {dry}");
    ensure!(said.contains("tmpfs") && said.contains("--file") && said.trim().lines().count() == 1, "{said}");
    for (spec, word) in [
        ("error flush file /x", "flush"),
        ("error discard file /x", "discard"),
        ("error meta file /x", "meta"),
        ("error read file x", "pattern"),
    ] {
        let said = run(spec)?;
        ensure!(said.contains(word), "{spec}: {said}");
    }
    Ok(())
}
