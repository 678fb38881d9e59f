//! Scratch disks of the test machine: one bare, one with a file system on it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::net_lab::sh;

/// A disk without a file system, 1 GiB.
pub const BARE: &str = "/dev/vdb";
/// The disk that holds the file system of [`FileSystem`].
pub const FORMATTED: &str = "/dev/vda";

/// A file system on [`FORMATTED`], or another disk, mounted until the end of the test.
pub struct FileSystem {
    disk: &'static str,
    directory: tempfile::TempDir,
    kind: Kind,
}

/// What is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Small, with its inodes and its small journal written at once, so that nothing but the test does I/O later.
    Ext4,
    /// As large as the disk.
    Xfs,
}

impl Kind {
    fn mkfs(self, disk: &str) -> String {
        match self {
            Self::Ext4 => {
                let options = "-E lazy_itable_init=0,lazy_journal_init=0 -N 8192 -J size=4";
                format!("mkfs.ext4 -q -F {options} {disk} 262144")
            }
            Self::Xfs => format!("mkfs.xfs -q -f {disk}"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

impl FileSystem {
    /// Formats with ext4 and mounts.
    ///
    /// # Errors
    /// When mkfs or mount does.
    pub fn new() -> anyhow::Result<Self> {
        Self::of(Kind::Ext4, tempfile::TempDir::new()?)
    }

    /// The same, mounted on a directory of the caller's choice.
    ///
    /// # Errors
    /// When mkfs or mount does.
    pub fn on(directory: tempfile::TempDir) -> anyhow::Result<Self> {
        Self::of(Kind::Ext4, directory)
    }

    /// Formats with `kind` and mounts on `directory`.
    ///
    /// # Errors
    /// When mkfs or mount does.
    pub fn of(kind: Kind, directory: tempfile::TempDir) -> anyhow::Result<Self> {
        Self::on_disk(FORMATTED, kind, directory)
    }

    /// The same on a disk of the caller's choice.
    ///
    /// # Errors
    /// When mkfs or mount does.
    pub fn on_disk(disk: &'static str, kind: Kind, directory: tempfile::TempDir) -> anyhow::Result<Self> {
        sh(&kind.mkfs(disk))?;
        sh(&format!("mount -t {} {disk} {}", kind.name(), directory.path().display()))?;
        Ok(Self { disk, directory, kind })
    }

    /// Mounts it afresh: nothing of it is in memory, not even what its journal still holds on to.
    ///
    /// # Errors
    /// When umount or mount does.
    pub fn mount_afresh(&self) -> anyhow::Result<()> {
        let place = self.mount_point();
        sh(&format!("umount {place}"))?;
        sh(&format!("mount -t {} {} {place}", self.kind.name(), self.disk)).map(drop)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount_point(&self) -> String {
        self.directory.path().to_string_lossy().into_owned()
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file in it with `size` bytes that are on the disk and not in the page cache.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, size: usize) -> anyhow::Result<String> {
        let path = self.path(name);
        fs::write(&path, vec![0xa5; size]).with_context(|| path.display().to_string())?;
        forget_cached()?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("umount {}", self.mount_point())) {
            eprintln!("removing the file system: {error}");
        }
    }
}

/// A partition of [`BARE`], known to the kernel only, until the end of the test.
pub struct Partition {
    /// Its device.
    pub device: String,
}

impl Partition {
    /// The kernel is told of one; nothing is written to the disk. In sectors of 512 bytes.
    ///
    /// # Errors
    /// When addpart(8) does.
    pub fn new(number: u32, start: u64, length: u64) -> anyhow::Result<Self> {
        sh(&format!("addpart {BARE} {number} {start} {length}"))?;
        Ok(Self { device: format!("{BARE}{number}") })
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let number = self.device.trim_start_matches(BARE);
        if let Err(error) = sh(&format!("delpart {BARE} {number}")) {
            eprintln!("removing the partition: {error}");
        }
    }
}

/// Writes out what is dirty and drops what is clean: the next read is a read of the disk.
///
/// # Errors
/// When the kernel refuses.
pub fn forget_cached() -> anyhow::Result<()> {
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").context("dropping caches")
}

/// The same of one file, without what everything else would have to read again.
///
/// # Errors
/// When it cannot be opened or written.
pub fn forget_file(path: &Path) -> anyhow::Result<()> {
    let file = fs::File::open(path).with_context(|| path.display().to_string())?;
    file.sync_all()?;
    Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

/// A piece of a file that lies in one piece on its disk; in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// From the start of the file.
    pub logical: u64,
    /// From the start of the block device its file system is on.
    pub physical: u64,
    /// How many.
    pub length: u64,
}

impl Extent {
    /// The longest of `file`, as filefrag(8) tells once everything is written.
    ///
    /// # Errors
    /// When it does not, or there is none.
    pub fn longest(file: &str) -> anyhow::Result<Self> {
        nix::unistd::sync();
        let text = sh(&format!("filefrag -b512 -e {file}"))?;
        text.lines()
            .filter_map(Self::of_line)
            .max_by_key(|extent| extent.length)
            .with_context(|| format!("no extent in {text}"))
    }

    /// `ext: logical: physical: length: …`, ranges as `first.. last`.
    fn of_line(line: &str) -> Option<Self> {
        let mut fields = line.split(':').skip(1).map(str::trim);
        let mut first = || fields.next()?.split("..").next()?.trim().parse().ok();
        Some(Self { logical: first()?, physical: first()?, length: first()? })
    }
}
