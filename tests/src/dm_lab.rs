//! Devices of device-mapper over a scratch disk, removed when dropped.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::{net_lab::sh, process::Ended};

/// One device.
pub struct DmDevice {
    name: &'static str,
    /// Its node.
    pub path: String,
}

impl DmDevice {
    /// All of `disk` through `target`; `arguments` stand behind the disk and its offset in the table (dmsetup(8)).
    ///
    /// # Errors
    /// When the kernel lacks the target, or dmsetup fails.
    pub fn new(name: &'static str, target: &str, disk: &str, arguments: &str) -> anyhow::Result<Self> {
        let short = disk.strip_prefix("/dev/").context("a device is below /dev")?;
        let sectors = std::fs::read_to_string(format!("/sys/block/{short}/size"))?;
        let table = format!("0 {} {target} {disk} 0 {arguments}", sectors.trim());
        let made = Ended::of(Command::new("dmsetup").args(["create", name, "--table", &table]))?;
        ensure!(made.status.success(), "{table}: {made:?}");
        let mut device = Self { name, path: String::new() };
        // The kernel's own node: that in /dev/mapper is made by udev, some time later.
        let node = sh(&format!("dmsetup info --columns --noheadings -o blkdevname {name}"))?;
        device.path = format!("/dev/{}", node.trim());
        Ok(device)
    }

    /// Tells its target something.
    ///
    /// # Errors
    /// When it does not understand.
    pub fn tell(&self, words: &str) -> anyhow::Result<()> {
        sh(&format!("dmsetup message {} 0 {words}", self.name)).map(drop)
    }
}

impl Drop for DmDevice {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("dmsetup remove --retry {}", self.name)) {
            eprintln!("removing {}: {error}", self.name);
        }
    }
}
