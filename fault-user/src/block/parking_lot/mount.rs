//! A FUSE file system that is mounted nowhere.
//!
//! `fsmount` gives a mount that belongs to a file descriptor and to no mount namespace: nobody can
//! walk into it, no mount table shows it, and it is gone with its last descriptor. Linux ≥ 5.2.

use super::ParkingLotError;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Both ends: the device that requests are read from, and the mount whose file is parked on.
pub(super) struct Detached {
    pub device: OwnedFd,
    pub mount: OwnedFd,
}

pub(super) fn detached() -> Result<Detached, ParkingLotError> {
    let device =
        rustix::fs::open(c"/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
            .map_err(|e| ParkingLotError::new("open /dev/fuse", e))?;

    let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|e| ParkingLotError::new("create a FUSE file system (fsopen)", e))?;
    let set = |key: &str, value: &str| {
        fsconfig_set_string(context.as_fd(), key, value)
            .map_err(|e| ParkingLotError::new("configure the FUSE file system (fsconfig)", e))
    };
    set("source", "fault-park")?;
    set("fd", &device.as_raw_fd().to_string())?;
    set("rootmode", "40000")?;
    set("user_id", "0")?;
    set("group_id", "0")?;
    fsconfig_create(context.as_fd())
        .map_err(|e| ParkingLotError::new("create the FUSE file system (fsconfig)", e))?;
    let mount = fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
    .map_err(|e| ParkingLotError::new("mount the FUSE file system (fsmount)", e))?;
    Ok(Detached { device, mount })
}
