//! `fua`, `discard`, `meta`, `sync`: what real programs ask of a disk, told apart.

use std::{os::unix::fs::FileExt as _, process::Command};

use anyhow::{Context as _, ensure};

use super::{Lane, Test, disk::reader};
use crate::{
    disk_lab::{BARE, FileSystem, forget_cached},
    driver::{Injection, fault},
    net_lab::sh,
    process::Ended,
    victim::report::Timed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "disk_kinds::writes_of_dd", on: Lane::tests_disks_in_detail, run: writes },
    Test { name: "disk_kinds::discards", on: Lane::tests_disks_in_detail, run: discards },
    Test { name: "disk_kinds::metadata_of_ext4", on: Lane::tests_disks_in_detail, run: metadata },
    Test { name: "disk_kinds::fio_with_dsync", on: Lane::tests_disks_in_detail, run: fio },
];

/// Runs `program` under a fault, and then by itself, which must succeed; whether it failed with EIO under the fault.
fn fails(spec: &str, program: &[&str]) -> anyhow::Result<bool> {
    let ended = Ended::of(&mut fault(&[&["run", "--quiet", "--disk", spec, "--"], program].concat()))?;
    let bystander = Ended::of(Command::new(program[0]).args(&program[1..]))?;
    ensure!(bystander.status.success(), "{program:?}: {bystander:?}");
    let said = ended.stderr.contains("Input/output error");
    ensure!(ended.status.success() != said, "{spec}, {program:?}: {ended:?}");
    Ok(said)
}

fn each(program: &[&str], cases: &[(&str, bool)]) -> anyhow::Result<()> {
    for (filter, hit) in cases {
        let failed = fails(&format!("error {filter} on {BARE}"), program)?;
        ensure!(failed == *hit, "{filter}, {program:?}: {}", if failed { "failed" } else { "did not fail" });
    }
    Ok(())
}

fn writes(_: Lane) -> anyhow::Result<()> {
    let output = format!("of={BARE}");
    let dd =
        |flags: &'static str| ["dd", "if=/dev/zero", &output, "bs=4k", "count=4", flags].map(str::to_owned);
    let on = |flags, cases: &[(&str, bool)]| {
        let dd = dd(flags);
        each(&dd.each_ref().map(String::as_str), cases)
    };
    on(
        "oflag=direct",
        &[
            ("write", true),
            ("sync", true),
            ("write sync", true),
            ("fua", false),
            ("write fua", false),
            ("fua sync", false),
            ("meta", false),
            ("read", false),
            ("discard", false),
            ("read discard sync", false),
            // Of the kinds any, of the flags all.
            ("write discard sync", true),
        ],
    )?;
    on(
        "oflag=direct,dsync",
        &[("fua", true), ("write fua", true), ("write flush fua sync", true), ("fua meta", false)],
    )?;
    let input = format!("if={BARE}");
    let read = ["dd", &input, "of=/dev/null", "bs=4k", "count=4", "iflag=direct"];
    each(&read, &[("read", true), ("read sync", true), ("read meta", false), ("write sync", false)])?;
    // Through the page cache: fsync writes the pages, then flushes.
    on("conv=fsync", &[("write sync", true), ("flush", true), ("fua", false), ("write meta", false)])?;
    pushed_out()
}

/// What posix_fadvise(2) pushes out is written, and nobody waits for it: it is lost without a word, so the disk is asked.
fn pushed_out() -> anyhow::Result<()> {
    let disk = || std::fs::File::options().read(true).write(true).open(BARE).context(BARE);
    let written = |spec: &str| -> anyhow::Result<bool> {
        disk()?.write_all_at(&[0; 65536], 0)?;
        forget_cached()?;
        // Without fsync: dd's own `nocache` is the only thing that writes before the device is closed.
        let dd = format!("yes | dd of={BARE} bs=1M count=1 iflag=fullblock oflag=nocache conv=notrunc");
        let run = ["run", "--quiet", "--disk", spec, "--", "sh", "-c", &dd];
        let ended = Ended::of(&mut fault(&run))?;
        ensure!(ended.status.success(), "{spec}: {ended:?}");
        forget_cached()?;
        let mut found = [0; 4096];
        disk()?.read_exact_at(&mut found, 0)?;
        // The kernel remembers an error that nobody was told of for the next who asks: not for the next test.
        let _ = disk()?.sync_all();
        Ok(found.starts_with(b"y\n"))
    };
    ensure!(written(&format!("error read on {BARE}"))?, "nothing was written without a fault");
    ensure!(written(&format!("error write sync on {BARE}"))?, "nobody waits for it, and `sync` hit it");
    ensure!(!written(&format!("error write on {BARE}"))?, "`write` did not hit it");
    Ok(())
}

fn discards(_: Lane) -> anyhow::Result<()> {
    let discard = ["blkdiscard", "--force", "--offset", "0", "--length", "1048576", BARE];
    each(
        &discard,
        &[
            ("discard", true),
            ("write discard", true),
            ("write", false),
            ("read flush", false),
            ("discard sectors 2047..2048", true),
            ("discard sectors 2048..4096", false),
        ],
    )?;
    let zero = ["blkdiscard", "--force", "--zeroout", "--offset", "0", "--length", "1048576", BARE];
    each(&zero, &[("write", true), ("discard", false)])
}

fn metadata(_: Lane) -> anyhow::Result<()> {
    let system = FileSystem::new()?;
    let file = system.file("data", 1 << 20)?;
    let directory = system.path("many");
    std::fs::create_dir(&directory)?;
    for number in 0..200 {
        std::fs::write(directory.join(format!("{number:060}")), "x")?;
    }
    let place = system.mount_point();
    let listing = format!("ls -l {}", directory.display());
    for (filter, hit) in [
        ("read meta", true),
        ("meta", true),
        ("read meta sectors 0..1", false),
        ("write meta", false),
        ("read fua sync write", false),
        ("read write meta", true),
    ] {
        system.mount_afresh()?;
        let spec = format!("error {filter} on {place}");
        let run = ["run", "--quiet", "--disk", &spec, "--", "sh", "-c", &listing];
        let ended = Ended::of(&mut fault(&run))?;
        ensure!(ended.stderr.contains("Input/output error") == hit, "{filter}: {}", ended.stderr);
        system.mount_afresh()?;
        sh(&listing).map(drop).with_context(|| format!("{filter}: the bystander"))?;
    }
    // Data is no metadata: the file is open, and what it needs to know of the blocks is in memory.
    forget_cached()?;
    let mut target = reader(&file, &["--count", "16"])?;
    let spec = format!("error read meta on {place}");
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
    target.release()?;
    let timed: Timed = target.report()?;
    let report = injection.wait()?;
    // The map of a file this small lies in its inode.
    ensure!(timed.errors.is_empty() && timed.latencies_ns.len() == 16, "{timed:?} {}", report.json);
    Ok(())
}

fn fio(_: Lane) -> anyhow::Result<()> {
    let fio = |engine: &str, sync: &str| {
        let job = format!(
            "fio --name=j --filename={BARE} --direct=1 --rw=write --bs=4k --size=64k --ioengine={engine} {sync}"
        );
        ["sh", "-c", &job].map(str::to_owned)
    };
    for engine in ["psync", "libaio", "io_uring"] {
        let (plain, durable) = (fio(engine, ""), fio(engine, "--sync=dsync"));
        let failed = |spec: &str, job: &[String; 3]| -> anyhow::Result<bool> {
            let run = ["run", "--quiet", "--disk", spec, "--", &job[0], &job[1], &job[2]];
            Ok(!Ended::of(&mut fault(&run))?.status.success())
        };
        let spec = format!("error write fua nth 5 on {BARE}");
        ensure!(failed(&spec, &durable)?, "{engine}: dsync writes are not `fua`");
        ensure!(!failed(&spec, &plain)?, "{engine}: plain writes are `fua`");
    }
    Ok(())
}
