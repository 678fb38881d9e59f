//! Freezing a cgroup, and thawing it (`cgroup.freeze`, Documentation/admin-guide/cgroup-v2.rst, Linux 5.2).

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CgroupError, members::is_gone};

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
pub fn freeze(cgroup: &Path) -> Result<(), CgroupError> {
    fs::write(file(cgroup), "1").map_err(change("freeze", cgroup))
}

/// Everybody goes on. A cgroup that is gone stands still no longer.
///
/// # Errors
/// When it may not be changed.
pub fn thaw(cgroup: &Path) -> Result<(), CgroupError> {
    match fs::write(file(cgroup), "0") {
        Err(error) if is_gone(&error) => Ok(()),
        result => result.map_err(change("thaw", cgroup)),
    }
}

fn change(operation: &'static str, cgroup: &Path) -> impl FnOnce(std::io::Error) -> CgroupError {
    let path = cgroup.into();
    move |source| CgroupError::Change { operation, path, source }
}
