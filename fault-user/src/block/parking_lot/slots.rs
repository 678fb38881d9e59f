//! The table of deadlines that the kernel programs write and the answering side reads.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Deadlines by page of the parking file: absolute CLOCK_MONOTONIC nanoseconds, 0 = answer at once.
///
/// Shared memory: usually a `BPF_F_MMAPABLE` array with 8-byte values, so that neither side needs a
/// system call to tell the other.
#[derive(Debug)]
pub struct Slots {
    table: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the table is shared memory of atomics that lives until `Slots` is dropped; any thread may
// read and write them.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    /// Maps a BPF array of `len` 8-byte values created with `BPF_F_MMAPABLE` (Linux ≥ 5.5).
    pub fn of_map(map: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        Self::map(Some(map), len)
    }

    /// A table of its own, for parking without kernel programs.
    pub fn anonymous(len: u32) -> io::Result<Self> {
        Self::map(None, len)
    }

    fn map(map: Option<BorrowedFd<'_>>, len: u32) -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
        let bytes = Self::bytes(len as usize);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address the kernel chooses; nothing else points into it.
        let start = unsafe {
            match map {
                Some(fd) => mmap(std::ptr::null_mut(), bytes, prot, MapFlags::SHARED, fd, 0)?,
                None => mmap_anonymous(std::ptr::null_mut(), bytes, prot, MapFlags::SHARED)?,
            }
        };
        let table = NonNull::new(start.cast::<AtomicU64>())
            .ok_or_else(|| io::Error::other("mmap returned a null address"))?;
        Ok(Self { table, len: len as usize })
    }

    fn bytes(len: usize) -> usize {
        (len * size_of::<u64>()).next_multiple_of(rustix::param::page_size()).max(1)
    }

    /// How many pages can be parked on.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no slot at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When to answer a read of page `slot`; out of range means at once.
    pub fn deadline(&self, slot: u64) -> u64 {
        if slot >= self.len as u64 {
            return 0;
        }
        // SAFETY: `slot` is inside the mapped table, which outlives `self`; atomics may be shared.
        unsafe { self.table.add(slot as usize).as_ref() }.load(Ordering::Acquire)
    }

    /// Sets the deadline of `slot` the way the kernel programs do. Out of range does nothing.
    pub fn set_deadline(&self, slot: u64, deadline_ns: u64) {
        if slot < self.len as u64 {
            // SAFETY: as in `deadline`.
            unsafe { self.table.add(slot as usize).as_ref() }.store(deadline_ns, Ordering::Release);
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length and nobody borrows from it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.table.as_ptr().cast(), Self::bytes(self.len)) };
        debug_assert!(unmapped.is_ok());
    }
}
