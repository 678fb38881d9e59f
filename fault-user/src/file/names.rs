//! Names of files that the kernel must not forget: those of block operations are compared with all names of the file that it
//! has in memory, and of a file with several names it may have only the one by which the target opened it.

use std::{
    ops::ControlFlow,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::PathBuf,
};

use rustix::fs::{Mode, OFlags, open};

use super::places::{Pattern, Place};

/// Files with several names that are held.
const MOST: usize = 512;

/// Descriptors that hold every name that a pattern for block operations matches now, of files that have several.
#[must_use]
pub fn hold<'a>(places: &[Place], patterns: impl Iterator<Item = Pattern<'a>>) -> Vec<OwnedFd> {
    let mut held = Vec::new();
    for pattern in patterns.filter(|pattern| pattern.on_disk) {
        for place in places {
            let Some(root) = place.root() else { continue };
            let root = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
            let components = place.canonical(pattern.glob.components());
            super::present::each(&root, &components, |path| {
                let is_linked = path.symlink_metadata().is_ok_and(|file| file.is_file() && file.nlink() > 1);
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                // What is gone meanwhile needs not be held.
                if is_linked && let Ok(file) = open(path, flags, Mode::empty()) {
                    held.push(file);
                }
                if held.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
    }
    held
}
