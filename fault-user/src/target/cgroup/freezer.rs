//! Freezing a cgroup, and thawing it (`cgroup.freeze`, Documentation/admin-guide/cgroup-v2.rst, Linux 5.2).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use rustix::fs::{XattrFlags, getxattr, removexattr, setxattr};

use super::{CgroupError, members::is_gone};

/// Extended attribute of a cgroup that we have frozen, so that it can be told from one that others have.
const MARK: &str = "trusted.fault.frozen";

/// Held by whoever has frozen a cgroup, as long as it lives.
#[derive(Debug)]
pub struct Freeze(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// The file that says whether a cgroup and everything below it shall stand still.
fn file(cgroup: &Path) -> PathBuf {
    cgroup.join("cgroup.freeze")
}

/// Whether somebody has asked for this cgroup to stand still.
///
/// # Errors
/// When the kernel does not say: the root of the hierarchy cannot be frozen, and has no such file.
pub fn is_frozen(cgroup: &Path) -> Result<bool, CgroupError> {
    let path = file(cgroup);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim() == "1"),
        Err(source) => Err(CgroupError::Read { path, source }),
    }
}

/// Whether everybody in `cgroup` and below stands still, as the kernel says; also when it is gone.
#[must_use]
pub fn stands_still(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join("cgroup.events"));
    events.map_or(true, |events| events.lines().any(|line| line == "frozen 1"))
}

/// Everybody in `cgroup` and below stands still from now on: at once who runs a program, who waits in the kernel when it
/// comes back from there.
///
/// # Errors
/// When it is gone, or may not be changed.
pub fn freeze(cgroup: &Path) -> Result<Freeze, CgroupError> {
    let lock = File::open(file(cgroup)).and_then(|file| {
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| io::Error::from(error))
    });
    let lock = lock.map_err(change("lock cgroup.freeze of", cgroup))?;
    setxattr(cgroup, MARK, b"", XattrFlags::empty()).map_err(|error| change("mark", cgroup)(error.into()))?;
    fs::write(file(cgroup), "1").map_err(change("freeze", cgroup))?;
    Ok(Freeze(lock))
}

/// Whether we have frozen `cgroup`, and whoever it was no longer lives.
#[must_use]
pub fn is_forgotten(cgroup: &Path) -> bool {
    getxattr(cgroup, MARK, &mut [0; 1]).is_ok()
        && File::open(file(cgroup)).is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_ok())
}

/// Everybody goes on. A cgroup that is gone stands still no longer.
///
/// # Errors
/// When it may not be changed.
pub fn thaw(cgroup: &Path) -> Result<(), CgroupError> {
    match fs::write(file(cgroup), "0") {
        Err(error) if is_gone(&error) => return Ok(()),
        result => result.map_err(change("thaw", cgroup))?,
    }
    // It goes on; without a mark, or gone meanwhile, all the same.
    _ = removexattr(cgroup, MARK);
    Ok(())
}

fn change(operation: &'static str, cgroup: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = cgroup.into();
    move |source| CgroupError::Change { operation, path, source }
}
