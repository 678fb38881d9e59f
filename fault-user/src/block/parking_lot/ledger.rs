//! What the answering process tells its owner: a page of counters both have mapped.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// Buckets of the lateness histogram: bucket `i` counts answers late by less than 2^i µs, the last
/// one everything else.
pub const LATE_BUCKETS: usize = 20;

/// Counters shared by owner and answering process. All are monotonic except `parked`.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub parked: AtomicU32,
    pub parked_max: AtomicU32,
    /// Reads answered, parked or not.
    pub answered: AtomicU64,
    /// Reads whose deadline had passed when they came in.
    pub at_once: AtomicU64,
    /// Reads answered before their deadline because more were waiting than the lot has slots.
    pub full: AtomicU64,
    /// Reads answered before their deadline because of `release_all` or a silent owner.
    pub released: AtomicU64,
    pub late: [AtomicU64; LATE_BUCKETS],
    /// Owner → answering process: let everybody go, from now on.
    pub release: AtomicU32,
    /// errno of the start-up step that failed in the answering process (0: none), and which.
    pub failure: AtomicI32,
    pub failed_step: AtomicU32,
}

impl Counters {
    pub(super) fn answered_late_by(&self, late_ns: u64) {
        let bucket = (64 - (late_ns / 1000).leading_zeros() as usize).min(LATE_BUCKETS - 1);
        self.late[bucket].fetch_add(1, Ordering::Relaxed);
    }
}

/// One shared anonymous page holding [`Counters`]; survives `fork` as the same memory.
#[derive(Debug)]
pub(super) struct Ledger(NonNull<Counters>);

const PAGE_LEN: usize = 4096;
const _: () = assert!(size_of::<Counters>() <= PAGE_LEN);

// SAFETY: the page holds nothing but atomics and lives until the ledger is dropped.
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

impl Ledger {
    pub(super) fn new() -> io::Result<Self> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        // SAFETY: a fresh zeroed mapping; all-zero bytes are a valid `Counters`.
        let page = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                PAGE_LEN,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
            )?
        };
        NonNull::new(page.cast()).map(Self).ok_or_else(|| io::Error::other("mmap returned a null address"))
    }
}

impl Deref for Ledger {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        // SAFETY: the page is mapped until drop and holds a valid `Counters`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nobody borrows from it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), PAGE_LEN) };
        debug_assert!(unmapped.is_ok());
    }
}
