//! Kernels to boot: built from source or unpacked from a distribution's package, cached outside
//! the clone and shared by all clones.

mod config;
mod debian;
mod source;

use std::path::PathBuf;

use anyhow::Result;

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
