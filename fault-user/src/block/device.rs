//! `on DEVICE|MOUNTPOINT`: which block device is meant.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::exit::Class;

/// A block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    /// The kernel's `dev_t`: major << 20 | minor.
    pub dev: u32,
    /// Not a partition: what happens on its partitions happens on it too.
    pub whole_disk: bool,
}

/// `on` names no block device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Nothing there.
    #[error("there is no device or mount point {}", .path.display())]
    NotFound {
        /// As written.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory in the middle of a file system.
    #[error("{} is neither a block device nor a mount point; it lies on {} mounted at {}", .path.display(), .device, .mount_point.display())]
    NotAMountPoint {
        /// As written.
        path: PathBuf,
        /// What its file system is on.
        device: String,
        /// Where that is mounted.
        mount_point: PathBuf,
    },
    /// tmpfs, overlay, network file systems …
    #[error("the {kind} file system at {} is on no block device", .path.display())]
    NoBlockDevice {
        /// As written.
        path: PathBuf,
        /// Type of the file system.
        kind: String,
        /// What its files are on instead.
        instead: Instead,
    },
    /// The mount table could not be read.
    #[error("reading the mount table failed")]
    Mounts(#[source] procfs::ProcError),
}

/// What the files of a file system without a block device are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Memory: tmpfs, or the kernel's own files.
    Memory,
    /// Another machine.
    Network,
    /// Overlay: what is written goes to this directory.
    Directory(PathBuf),
    /// Devices of its own keeping, or a program.
    Unknown,
}

impl Instead {
    /// Of a file system of this type; `upper` is the directory that an overlay writes to.
    fn of(kind: &str, upper: Option<PathBuf>) -> Self {
        match (kind, upper) {
            ("overlay", Some(upper)) => Self::Directory(upper),
            (
                "tmpfs" | "ramfs" | "devtmpfs" | "proc" | "sysfs" | "cgroup" | "cgroup2" | "hugetlbfs"
                | "debugfs" | "tracefs" | "bpf" | "configfs" | "securityfs" | "mqueue",
                _,
            ) => Self::Memory,
            ("nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "afs" | "9p" | "glusterfs" | "fuse.sshfs", _) => {
                Self::Network
            }
            _ => Self::Unknown,
        }
    }

    /// What to do about it.
    fn help(&self) -> String {
        match self {
            Self::Memory => "its files are in memory, which no block I/O is made for".to_owned(),
            Self::Network => {
                "its files are on another machine: hit the packets to it, with `--net`".to_owned()
            }
            Self::Directory(upper) => {
                format!("what is written to it goes to {}: name the device that is on", upper.display())
            }
            Self::Unknown => "if it keeps its files on disks, name those".to_owned(),
        }
    }
}

impl DeviceError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::NotFound { .. } | Self::Mounts(_) => "`lsblk` and `findmnt` list them".to_owned(),
            Self::NotAMountPoint { mount_point, .. } => format!("name {}", mount_point.display()),
            Self::NoBlockDevice { instead, .. } => instead.help(),
        }
    }

    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } | Self::NotAMountPoint { .. } | Self::NoBlockDevice { .. } => Class::Usage,
            Self::Mounts(_) => Class::Other,
        }
    }
}

/// The device that `name` means: a block device (with or without `/dev/`), or where a file system is mounted.
///
/// # Errors
/// See [`DeviceError`].
pub fn resolve(name: &Path) -> Result<DeviceNumber, DeviceError> {
    let mut path = name.to_path_buf();
    if name.components().count() == 1 && !name.exists() {
        path = Path::new("/dev").join(name);
    }
    let not_found = |source| DeviceError::NotFound { path: name.to_path_buf(), source };
    let metadata = fs::metadata(&path).map_err(not_found)?;
    if metadata.file_type().is_block_device() {
        return Ok(device(metadata.rdev()));
    }
    let path = path.canonicalize().map_err(not_found)?;
    mounted_at(name, &path)
}

fn mounted_at(name: &Path, path: &Path) -> Result<DeviceNumber, DeviceError> {
    let mounts = procfs::process::Process::myself()
        .and_then(|process| process.mountinfo())
        .map_err(DeviceError::Mounts)?;
    // The last mount whose directory is the path or above it: later mounts cover earlier ones.
    let mount = mounts
        .0
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .enumerate()
        .max_by_key(|(order, mount)| (mount.mount_point.components().count(), *order))
        .map(|(_, mount)| mount)
        .ok_or_else(|| DeviceError::NotFound {
            path: name.to_path_buf(),
            source: io::Error::from(io::ErrorKind::NotFound),
        })?;
    let source = mount.mount_source.unwrap_or_default();
    if mount.mount_point != path {
        return Err(DeviceError::NotAMountPoint {
            path: name.to_path_buf(),
            device: source,
            mount_point: mount.mount_point,
        });
    }
    let mut parts = mount.majmin.split(':').map(str::parse::<u32>);
    if let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next())
        && major != 0
    {
        return Ok(device(libc::makedev(major, minor)));
    }
    // btrfs and others have a device number of their own, but name their device.
    match fs::metadata(&source) {
        Ok(metadata) if metadata.file_type().is_block_device() => Ok(device(metadata.rdev())),
        _ => {
            let upper = mount.super_options.get("upperdir").cloned().flatten().map(PathBuf::from);
            let instead = Instead::of(&mount.fs_type, upper);
            Err(DeviceError::NoBlockDevice { path: name.to_path_buf(), kind: mount.fs_type, instead })
        }
    }
}

/// How many sectors of 512 bytes `device` has; nothing when it is gone.
#[must_use]
pub fn sectors(device: DeviceNumber) -> Option<u64> {
    let (major, minor) = (device.dev >> 20, device.dev & 0xf_ffff);
    fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/size")).ok()?.trim().parse().ok()
}

/// From the number that stat(2) gives.
fn device(number: libc::dev_t) -> DeviceNumber {
    let (major, minor) = (libc::major(number), libc::minor(number));
    DeviceNumber {
        dev: major << 20 | minor,
        whole_disk: !Path::new(&format!("/sys/dev/block/{major}:{minor}/partition")).exists(),
    }
}

/// Some device whose first sectors can be read without harm, for the self-test: the largest one.
pub(super) fn any_readable() -> Option<PathBuf> {
    let mut best: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir("/sys/block").ok()?.flatten() {
        let size = fs::read_to_string(entry.path().join("size"))
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(0);
        let removable =
            fs::read_to_string(entry.path().join("removable")).is_ok_and(|text| text.trim() == "1");
        let node = Path::new("/dev").join(entry.file_name());
        if size >= 8 && !removable && node.exists() && best.as_ref().is_none_or(|(most, _)| size > *most) {
            best = Some((size, node));
        }
    }
    best.map(|(_, node)| node)
}

/// The device node with this kernel number.
pub(super) fn node(device: DeviceNumber) -> Option<PathBuf> {
    let (major, minor) = (device.dev >> 20, device.dev & 0xf_ffff);
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="))?;
    Some(Path::new("/dev").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_named() {
        let error = resolve(Path::new("/dev/no-such-disk")).expect_err("no such device");
        assert_eq!(error.to_string(), "there is no device or mount point /dev/no-such-disk");
        assert_eq!(error.class(), Class::Usage);
    }

    #[test]
    fn a_file_system_without_a_device_is_refused() {
        let error = resolve(Path::new("/proc")).expect_err("proc is on no device");
        assert_eq!(error.to_string(), "the proc file system at /proc is on no block device");
        assert!(error.help().contains("in memory"), "{}", error.help());
    }

    #[test]
    fn what_to_do_depends_on_what_the_files_are_on() {
        let upper = PathBuf::from("/var/lib/upper");
        assert_eq!(Instead::of("overlay", Some(upper.clone())), Instead::Directory(upper));
        assert_eq!(Instead::of("overlay", None), Instead::Unknown);
        assert_eq!(Instead::of("tmpfs", None), Instead::Memory);
        assert_eq!(Instead::of("nfs4", None), Instead::Network);
        assert_eq!(Instead::of("zfs", None), Instead::Unknown);
        assert!(Instead::Network.help().contains("--net"));
    }

    #[test]
    fn a_directory_inside_a_file_system_is_told_from_a_mount_point() {
        let error = resolve(Path::new("/proc/self/fd")).expect_err("not a mount point");
        assert!(error.to_string().contains("neither a block device nor a mount point"), "{error}");
        assert!(error.to_string().ends_with("mounted at /proc"), "{error}");
    }

    #[test]
    fn disks_and_partitions_are_told_apart() {
        for entry in fs::read_dir("/sys/class/block").expect("sysfs").flatten() {
            let node = Path::new("/dev").join(entry.file_name());
            if !node.exists() {
                continue;
            }
            let device = resolve(&node).expect("a block device");
            let size = fs::read_to_string(entry.path().join("size")).expect("a size");
            assert_eq!(sectors(device).map(|sectors| sectors.to_string()).as_deref(), Some(size.trim()));
            assert_eq!(device.whole_disk, !entry.path().join("partition").exists(), "{}", node.display());
            assert_eq!(super::node(device), Some(node));
        }
    }
}
