//! Numbers that kernel programs and the controller read and write at the same time.
//!
//! `core::sync::atomic` is not enough here: for BPF targets rustc offers neither 32-bit atomics nor
//! read-modify-write operations, though the instruction set has both (`BPF_ATOMIC`, Linux 5.12). On every
//! other target these types are the standard atomics. Nothing here orders other memory for the programs: their
//! operations are relaxed. A `store` of the controller is a release, so that what it prepared before
//! `active` or `generation` is there when they are seen.

use core::cell::UnsafeCell;
use core::fmt;

/// A shared `u32`.
#[repr(transparent)]
#[derive(Default)]
pub struct SharedU32(UnsafeCell<u32>);

/// A shared `u64`.
#[repr(transparent)]
#[derive(Default)]
pub struct SharedU64(UnsafeCell<u64>);

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

// SAFETY: every access below is atomic; in the kernel, a single aligned machine access.
unsafe impl Sync for SharedU32 {}
// SAFETY: as above.
unsafe impl Sync for SharedU64 {}

impl SharedU32 {
    #[cfg(not(target_arch = "bpf"))]
    fn atomic(&self) -> &AtomicU32 {
        // SAFETY: the cell is valid and aligned as long as `self` is, and every access to it is atomic.
        unsafe { AtomicU32::from_ptr(self.0.get()) }
    }

    /// With this value.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value now.
    #[must_use]
    #[inline(always)]
    pub fn load(&self) -> u32 {
        #[cfg(target_arch = "bpf")]
        // SAFETY: the cell is valid and aligned; an aligned 32-bit read is one access.
        return unsafe { self.0.get().read_volatile() };
        #[cfg(not(target_arch = "bpf"))]
        return self.atomic().load(Ordering::Relaxed);
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn store(&self, value: u32) {
        #[cfg(target_arch = "bpf")]
        // SAFETY: as in `load`.
        unsafe {
            self.0.get().write_volatile(value);
        }
        #[cfg(not(target_arch = "bpf"))]
        self.atomic().store(value, Ordering::Release);
    }
}

impl SharedU64 {
    #[cfg(not(target_arch = "bpf"))]
    fn atomic(&self) -> &AtomicU64 {
        // SAFETY: the cell is valid and aligned as long as `self` is, and every access to it is atomic.
        unsafe { AtomicU64::from_ptr(self.0.get()) }
    }

    /// With this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value now.
    #[must_use]
    #[inline(always)]
    pub fn load(&self) -> u64 {
        #[cfg(target_arch = "bpf")]
        // SAFETY: the cell is valid and aligned; an aligned 64-bit read is one access.
        return unsafe { self.0.get().read_volatile() };
        #[cfg(not(target_arch = "bpf"))]
        return self.atomic().load(Ordering::Relaxed);
    }

    /// Replaces the value.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        #[cfg(target_arch = "bpf")]
        // SAFETY: as in `load`.
        unsafe {
            self.0.get().write_volatile(value);
        }
        #[cfg(not(target_arch = "bpf"))]
        self.atomic().store(value, Ordering::Release);
    }

    /// Adds (wrapping) and returns the value from before.
    #[inline(always)]
    pub fn fetch_add(&self, value: u64) -> u64 {
        #[cfg(target_arch = "bpf")]
        {
            use core::intrinsics::{AtomicOrdering, atomic_xadd};
            // SAFETY: the cell is valid and aligned.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), value) }
        }
        #[cfg(not(target_arch = "bpf"))]
        self.atomic().fetch_add(value, Ordering::Relaxed)
    }

    /// Sets the bits that are set in `bits`.
    #[inline(always)]
    pub fn set_bits(&self, bits: u64) {
        #[cfg(target_arch = "bpf")]
        {
            use core::intrinsics::{AtomicOrdering, atomic_or};
            // SAFETY: the cell is valid and aligned.
            unsafe { atomic_or::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), bits) };
        }
        #[cfg(not(target_arch = "bpf"))]
        self.atomic().fetch_or(bits, Ordering::Relaxed);
    }

    /// Clears the bits that are set in `bits`.
    #[inline(always)]
    pub fn clear_bits(&self, bits: u64) {
        #[cfg(target_arch = "bpf")]
        {
            use core::intrinsics::{AtomicOrdering, atomic_and};
            // SAFETY: the cell is valid and aligned.
            unsafe { atomic_and::<u64, u64, { AtomicOrdering::SeqCst }>(self.0.get(), !bits) };
        }
        #[cfg(not(target_arch = "bpf"))]
        self.atomic().fetch_and(!bits, Ordering::Relaxed);
    }

    /// Puts `new` in the place of `expected`; returns the value from before, which is `expected` if it was done.
    #[inline(always)]
    pub fn compare_exchange(&self, expected: u64, new: u64) -> u64 {
        #[cfg(target_arch = "bpf")]
        {
            use core::intrinsics::{AtomicOrdering, atomic_cxchg};
            // SAFETY: the cell is valid and aligned.
            unsafe {
                atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                    self.0.get(),
                    expected,
                    new,
                )
                .0
            }
        }
        #[cfg(not(target_arch = "bpf"))]
        match self.atomic().compare_exchange(expected, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(before) | Err(before) => before,
        }
    }

    /// Subtracts (wrapping) and returns the value from before.
    #[inline(always)]
    pub fn fetch_sub(&self, value: u64) -> u64 {
        self.fetch_add(value.wrapping_neg())
    }
}

impl fmt::Debug for SharedU32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}

impl fmt::Debug for SharedU64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}
