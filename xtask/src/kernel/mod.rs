//! Kernels to boot: built from source or unpacked from a distribution's package, cached outside
//! the clone and shared by all clones.

mod config;
mod debian;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::lane::{Lane, Origin};

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The compressed image QEMU loads.
    pub image: PathBuf,
    /// `…/lib/modules/VERSION` if the kernel needs modules.
    pub modules: Option<PathBuf>,
}

/// The kernel of `lane`, from the cache if it is there. `update` looks for a newer one first.
pub fn ensure(lane: Lane, update: bool) -> Result<Kernel> {
    match lane.origin() {
        Origin::Built { overrides } => source::ensure(lane, overrides, update),
        Origin::Debian { series } => debian::ensure(lane, series, update),
    }
}

/// Removes `dir` if it is there.
pub fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}
