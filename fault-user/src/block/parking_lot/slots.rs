//! The table of parking places: the kernel programs write it, the answering side reads it.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use fault_common::who::ParkingPlace;

/// The parking places by page of the parking file.
///
/// Shared memory: usually a `BPF_F_MMAPABLE` array, so that neither side needs a system call to tell
/// the other.
#[derive(Debug)]
pub struct Slots {
    table: NonNull<ParkingPlace>,
    len: usize,
}

// SAFETY: the table is shared memory of atomic numbers that lives until `Slots` is dropped; any thread may
// read and write them.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    /// Maps a BPF array of `len` [`ParkingPlace`]s created with `BPF_F_MMAPABLE` (Linux ≥ 5.5).
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
        let table = NonNull::new(start.cast::<ParkingPlace>())
            .ok_or_else(|| io::Error::other("mmap returned a null address"))?;
        Ok(Self { table, len: len as usize })
    }

    fn bytes(len: usize) -> usize {
        (len * size_of::<ParkingPlace>()).next_multiple_of(rustix::param::page_size()).max(1)
    }

    /// How many pages can be parked on.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no slot at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place of page `slot`; `None` when there is no such page.
    fn place(&self, slot: u64) -> Option<&ParkingPlace> {
        let inside = slot < self.len as u64;
        // SAFETY: `slot` is inside the mapped table, which outlives `self`; its numbers may be shared.
        inside.then(|| unsafe { self.table.add(slot as usize).as_ref() })
    }

    /// When to answer a read of page `slot`, CLOCK_MONOTONIC nanoseconds; 0, also out of range, means at once.
    pub fn deadline(&self, slot: u64) -> u64 {
        self.place(slot).map_or(0, |place| place.deadline_ns.load())
    }

    /// When the task that last parked on page `slot` ran again, CLOCK_MONOTONIC nanoseconds; 0 if nobody did.
    pub fn woke(&self, slot: u64) -> u64 {
        self.place(slot).map_or(0, |place| place.woke_ns.load())
    }

    /// Sets the deadline of `slot` the way the kernel programs do. Out of range does nothing.
    pub fn set_deadline(&self, slot: u64, deadline_ns: u64) {
        if let Some(place) = self.place(slot) {
            place.deadline_ns.store(deadline_ns);
        }
    }

    /// Says that the task on page `slot` runs again, the way the kernel programs do.
    pub fn set_woke(&self, slot: u64, now_ns: u64) {
        if let Some(place) = self.place(slot) {
            place.woke_ns.store(now_ns);
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
