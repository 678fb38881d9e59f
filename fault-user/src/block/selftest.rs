//! Does the hook see anything at all?
//!
//! gcc ≥ 14 and clang ≥ 18 drop the call of `should_fail_bio` when `CONFIG_FAIL_MAKE_REQUEST` is off: the
//! function is there, attaching succeeds, and nothing ever happens. So one real read must be seen by the
//! decider before anything is called active.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aya::maps::{MapError, PerCpuArray};
use fault_common::counters::Counter;

use crate::kernel::load::Loaded;

/// The hook is not known to work.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// No device to read from.
    #[error("there is no block device to test the block I/O hook with")]
    NoDevice,
    /// The device could not be read.
    #[error("testing the block I/O hook: reading {} failed", .path.display())]
    Read {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Attached, and blind.
    #[error(
        "the hook on should_fail_bio is attached, but a read of {} did not reach it: this kernel's compiler \
         removed the call (CONFIG_FAIL_MAKE_REQUEST is off)", .path.display()
    )]
    NotSeen {
        /// The device that was read.
        path: PathBuf,
    },
    /// The counters could not be read.
    #[error("reading the counters of the block I/O hook failed")]
    Counters(#[from] MapError),
}

/// A page, aligned as direct I/O wants it.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// Reads 4 KiB of `device` past the page cache and makes sure that the decider saw it.
pub(super) fn run(loaded: &Loaded, device: &Path) -> Result<(), SelfTestError> {
    let before = seen(loaded)?;
    loaded.control.set_selftest(std::process::id());
    let read = read_directly(device);
    loaded.control.set_selftest(0);
    read.map_err(|source| SelfTestError::Read { path: device.to_path_buf(), source })?;
    if seen(loaded)? == before {
        return Err(SelfTestError::NotSeen { path: device.to_path_buf() });
    }
    Ok(())
}

fn read_directly(device: &Path) -> io::Result<()> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(device)?;
    let mut page = Box::new(Page([0; 4096]));
    file.read_exact_at(&mut page.0, 0)
}

fn seen(loaded: &Loaded) -> Result<u64, MapError> {
    let map = loaded.ebpf.map("COUNTERS").ok_or(MapError::ElementNotFound)?;
    let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map)?;
    Ok(counters.get(&(Counter::SelfTest as u32), 0)?.iter().sum())
}
