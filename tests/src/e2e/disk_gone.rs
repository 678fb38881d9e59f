//! Devices that vanish, sectors that are not there, file systems that are on no device.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};

use super::{Lane, Test, disk::reader};
use crate::{
    disk_lab::{BARE, Partition},
    driver::{Injection, refused},
    net_lab::sh,
    victim::report::Timed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "disk_gone::while_somebody_is_parked", on: Lane::tests_disks_in_detail, run: parked },
    Test { name: "disk_gone::beyond_the_end", on: Lane::tests_disks_in_detail, run: beyond_the_end },
    Test {
        name: "disk_gone::file_systems_without_a_device",
        on: Lane::tests_disks_in_detail,
        run: no_device,
    },
];

/// A disk in memory that can be pulled out: null_blk, made by way of configfs.
struct Pullable {
    configuration: tempfile::TempDir,
    device: String,
}

impl Pullable {
    fn new() -> anyhow::Result<Self> {
        let configuration = tempfile::TempDir::new()?;
        sh(&format!("mount -t configfs none {}", configuration.path().display()))?;
        let mut disk = Self { configuration, device: String::new() };
        fs::create_dir(disk.directory()).context("a null_blk by configfs")?;
        for (name, value) in [("memory_backed", "1"), ("size", "64"), ("power", "1")] {
            fs::write(disk.directory().join(name), value).context(name)?;
        }
        // Older kernels number them.
        let index = fs::read_to_string(disk.directory().join("index"))?;
        let names = ["/dev/pullable".to_owned(), format!("/dev/nullb{}", index.trim())];
        disk.device =
            names.into_iter().find(|name| fs::exists(name).unwrap_or(false)).context("its device")?;
        Ok(disk)
    }

    fn directory(&self) -> PathBuf {
        self.configuration.path().join("nullb/pullable")
    }

    fn pull(&self) -> anyhow::Result<()> {
        fs::write(self.directory().join("power"), "0").context("pulling the disk")
    }
}

impl Drop for Pullable {
    fn drop(&mut self) {
        // Pulled already, or never made.
        let _ = self.pull();
        let _ = fs::remove_dir(self.directory());
        if let Err(error) = sh(&format!("umount {}", self.configuration.path().display())) {
            eprintln!("removing the null_blk: {error}");
        }
    }
}

fn parked(_: Lane) -> anyhow::Result<()> {
    for then in ["delay 2s", "rate 2KiB/s", "hang 2s then error"] {
        let disk = Pullable::new()?;
        let mut target = reader(&disk.device, &["--count", "3"])?;
        let spec = format!("{then} read on {}", disk.device);
        let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
        target.release()?;
        std::thread::sleep(Duration::from_millis(700));
        disk.pull()?;
        let timed: Timed = target.report()?;
        let report = injection.wait()?;
        // The first waited and found nobody; those after it did not get that far.
        ensure!(timed.latencies_ns.is_empty() && timed.failed == [0, 1, 2], "{then}: {timed:?}");
        ensure!(timed.failed_latencies_ns[0] >= 1_900_000_000, "{then}: {timed:?}");
        ensure!(report.rule(0, "injected")? >= 1, "{then}: {}", report.json);
        ensure!(report.counter("park_failed")? == 0, "{then}: {}", report.json);
        // And by now it is not there.
        let said = refused(&["run", "--disk", &spec, "--", "true"], 2)?;
        ensure!(said.contains(&disk.device), "{said}");
    }
    Ok(())
}

fn beyond_the_end(_: Lane) -> anyhow::Result<()> {
    let partition = Partition::new(1, 2048, 65536)?;
    let end = fs::read_to_string("/sys/block/vdb/size")?.trim().parse::<u64>()?;
    for (on, start, stop, fits) in [
        (BARE, end - 8, end, true),
        (BARE, end - 8, end + 1, false),
        (BARE, end, end + 8, false),
        (&partition.device, 65528, 65536, true),
        (&partition.device, 65528, 65537, false),
    ] {
        let spec = format!("error read sectors {start}..{stop} on {on}");
        let arguments = ["run", "--quiet", "--disk", &spec, "--", "true"];
        if fits {
            let ended = crate::process::Ended::of(&mut crate::driver::fault(&arguments))?;
            ensure!(ended.status.success(), "{spec}: {ended:?}");
            continue;
        }
        let said = refused(&arguments, 2)?;
        ensure!(said.contains("goes beyond") && said.contains(&format!("{start}..{stop}")), "{spec}: {said}");
        ensure!(said.lines().any(|line| line.contains('^')), "{spec}: points nowhere: {said}");
    }
    Ok(())
}

fn no_device(_: Lane) -> anyhow::Result<()> {
    let place = tempfile::TempDir::new()?;
    let path = |name: &str| place.path().join(name).to_string_lossy().into_owned();
    let said = |on: &str| refused(&["run", "--disk", &format!("error read on {on}"), "--", "true"], 2);
    for name in ["memory", "overlay"] {
        fs::create_dir(path(name))?;
    }
    let (memory, overlay) = (path("memory"), path("overlay"));
    let mounted = (|| {
        sh(&format!("mount -t tmpfs tmpfs {memory}"))?;
        for name in ["lower", "upper", "work"] {
            fs::create_dir(format!("{memory}/{name}"))?;
        }
        let layers = format!("lowerdir={memory}/lower,upperdir={memory}/upper,workdir={memory}/work");
        sh(&format!("mount -t overlay overlay -o {layers} {overlay}"))
    })();
    let answers = mounted.and_then(|_| Ok((said(&memory)?, said(&overlay)?)));
    for place in [&overlay, &memory] {
        // Not mounted if mounting failed, which is told below.
        let _ = sh(&format!("umount {place}"));
    }
    let (of_memory, of_overlay) = answers?;
    ensure!(of_memory.contains("the tmpfs file system") && of_memory.contains("in memory"), "{of_memory}");
    ensure!(of_overlay.contains("the overlay file system"), "{of_overlay}");
    ensure!(of_overlay.contains(&format!("{memory}/upper")), "{of_overlay}");
    Ok(())
}
