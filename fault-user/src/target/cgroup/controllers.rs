//! Which controllers a cgroup hands out to its children.

use std::{collections::BTreeSet, fs, io, path::Path};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::CgroupError;

/// Extended attribute of a session's cgroup.
const MARK: &str = "trusted.fault.controllers";

const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// The controllers in `cgroup.controllers` or `cgroup.subtree_control`; none if that cannot be read.
#[must_use]
pub fn controllers(cgroup: &Path, file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(cgroup.join(file)).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Hands out controllers to the children of `cgroup`.
///
/// # Errors
/// When the kernel refuses, e.g. because `cgroup` holds processes and is not the root.
pub fn enable(cgroup: &Path, names: &[String]) -> Result<(), CgroupError> {
    write(cgroup, '+', names).map_err(|source| CgroupError::Change {
        operation: "enable controllers in",
        path: cgroup.into(),
        source,
    })
}

/// Takes back what was handed out because of `child`, except what another [marked](mark) child still needs (its
/// session takes that back), and unless somebody has passed it on to grandchildren. Not handed out is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn disable(cgroup: &Path, child: &Path, names: &[String]) -> Result<(), CgroupError> {
    let needed = needed_by_children(cgroup, child);
    let names: Vec<String> = names.iter().filter(|name| !needed.contains(*name)).cloned().collect();
    if names.is_empty() {
        return Ok(());
    }
    match write(cgroup, '-', &names) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOENT | libc::ENODEV)) => {
            Ok(())
        }
        result => result.map_err(|source| CgroupError::Change {
            operation: "disable controllers in",
            path: cgroup.into(),
            source,
        }),
    }
}

fn write(cgroup: &Path, sign: char, names: &[String]) -> io::Result<()> {
    let words: Vec<String> = names.iter().map(|name| format!("{sign}{name}")).collect();
    fs::write(cgroup.join(SUBTREE_CONTROL), words.join(" "))
}

/// Notes on the directory of a session's cgroup that its parent hands out `names` because of it. The note goes with
/// the directory.
///
/// # Errors
/// When the file system takes no extended attributes.
pub fn mark(cgroup: &Path, names: &[String]) -> Result<(), CgroupError> {
    setxattr(cgroup, MARK, names.join(" ").as_bytes(), XattrFlags::empty())
        .map_err(|error| CgroupError::Change { operation: "mark", path: cgroup.into(), source: error.into() })
}

/// What the marked children of `cgroup` need, without the one named.
#[must_use]
pub fn needed_by_children(cgroup: &Path, except: &Path) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        let mut value = [0; 64];
        // Files and other people's directories have no mark.
        let length = getxattr(entry.path(), MARK, &mut value);
        if let Ok(length) = length
            && entry.path() != except
        {
            needed.extend(String::from_utf8_lossy(&value[..length]).split(' ').map(str::to_owned));
        }
    }
    needed
}
