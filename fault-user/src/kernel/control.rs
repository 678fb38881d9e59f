//! The control block and the rule counters, mapped into the controller.
//!
//! Mapped rather than written by system call so that a beat, a heal and a change of rules are single stores,
//! and so that nothing on the way to healing can fail.

use std::{
    marker::PhantomData,
    num::NonZeroUsize,
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

use aya::maps::{Map, MapData};
use fault_common::{
    control::{Bank, CgroupTarget, Control},
    counters::RuleCounters,
    limits::{BANKS, MAX_CGROUPS, MAX_RULES},
    rule::Rule,
    shared::SharedU64,
};
use nix::{
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    time::{ClockId, clock_gettime},
};

/// A map could not be mapped.
#[derive(Debug, thiserror::Error)]
#[error("mapping the eBPF map {name} into memory failed")]
pub struct MapIntoMemoryError {
    /// Name of the map.
    name: &'static str,
    /// Why.
    #[source]
    source: nix::Error,
}

/// A `BPF_F_MMAPABLE` array of `T` (Linux 5.5), mapped shared.
pub struct Mapped<T> {
    address: NonNull<T>,
    length: NonZeroUsize,
    entries: usize,
    _entries: PhantomData<T>,
}

// SAFETY: the mapping is plain shared memory; `T` is only handed out by shared reference.
unsafe impl<T: Sync> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps all `entries` of the map behind `fd`.
    ///
    /// # Errors
    /// When mmap(2) fails: the map is not mmapable or too small.
    pub fn new(name: &'static str, fd: BorrowedFd<'_>, entries: usize) -> Result<Self, MapIntoMemoryError> {
        const { assert!(size_of::<T>().is_multiple_of(8), "array maps round the value size up to 8") };
        let fail = |source| MapIntoMemoryError { name, source };
        let length = NonZeroUsize::new(entries * size_of::<T>()).ok_or(fail(nix::Error::EINVAL))?;
        // SAFETY: a fresh shared mapping of a map whose layout is `[T; entries]`.
        let address = unsafe {
            mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd, 0)
        }
        .map_err(fail)?;
        Ok(Self { address: address.cast(), length, entries, _entries: PhantomData })
    }
}

impl<T> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `entries` initialised values for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.entries) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: nothing borrowed from `self` is alive; the range is the one mmap returned.
        if let Err(error) = unsafe { munmap(self.address.cast(), self.length.get()) } {
            debug_assert!(false, "munmap of our own mapping failed: {error}");
        }
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds: what `bpf_ktime_get_ns` returns in the kernel.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// The control block of the session.
pub struct ControlBlock(Mapped<Control>);

impl ControlBlock {
    /// Maps the map `CONTROL`.
    ///
    /// # Errors
    /// See [`Mapped::new`].
    pub fn new(map: &MapData) -> Result<Self, MapIntoMemoryError> {
        Mapped::new("CONTROL", map.fd().as_fd(), 1).map(Self)
    }

    /// Replaces the masks of `bank`, which must not be the one in force.
    pub fn set_bank(&self, bank: u32, masks: Bank) {
        let index = bank as usize % BANKS;
        // SAFETY: inside the mapping; programs read only the bank in force.
        unsafe { (&raw const self.0[0].banks[index]).cast_mut().write_volatile(masks) };
        self.note_whose_bios();
    }

    /// Whose reads are the self-test's from now on; 0 is nobody's.
    pub fn set_selftest(&self, tgid: u32) {
        self.selftest_tgid.store(tgid);
        self.note_whose_bios();
    }

    /// Works out [`Control::everybodys_bios`]: a bio is a cgroup's whoever submits it, and a sector is mended by whoever
    /// writes it.
    fn note_whose_bios(&self) {
        let everybodys = self.selftest_tgid.load() != 0
            || self.cgroup_count.load() != 0
            || self.banks.iter().any(|bank| bank.disk_until_written != 0);
        self.everybodys_bios.store(u32::from(everybodys));
    }

    /// Replaces the cgroups aimed at, at any time: a program that reads in between sees an entry as it was, as it will
    /// be, or empty. (An id with the level of another one is nobody's: ids are not given twice.)
    pub fn set_cgroups(&self, cgroups: &[CgroupTarget]) {
        for (index, cgroup) in cgroups.iter().enumerate().take(MAX_CGROUPS) {
            let entry = (&raw const self.0[0].cgroups[index]).cast_mut();
            // SAFETY: inside the mapping, which only this thread writes to; each field is a single aligned access.
            unsafe {
                if (&raw const (*entry).id).read_volatile() == cgroup.id {
                    continue;
                }
                (&raw mut (*entry).id).write_volatile(0);
                fence(Ordering::SeqCst);
                (&raw mut (*entry).level).write_volatile(cgroup.level);
                fence(Ordering::SeqCst);
                (&raw mut (*entry).id).write_volatile(cgroup.id);
            }
        }
        self.cgroup_count.store(cgroups.len().min(MAX_CGROUPS) as u32);
        self.note_whose_bios();
    }
}

impl Deref for ControlBlock {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.0[0]
    }
}

/// The counters of all rules of both banks.
pub struct CounterBlock(Mapped<RuleCounters>);

impl CounterBlock {
    /// Maps the map `RULE_COUNTERS`.
    ///
    /// # Errors
    /// See [`Mapped::new`].
    pub fn new(map: &MapData) -> Result<Self, MapIntoMemoryError> {
        Mapped::new("RULE_COUNTERS", map.fd().as_fd(), MAX_RULES * BANKS).map(Self)
    }

    /// The counters of the rule in `slot` of `bank`.
    #[must_use]
    pub fn rule(&self, bank: u32, slot: u32) -> &RuleCounters {
        &self.0[(bank as usize % BANKS) * MAX_RULES + slot as usize % MAX_RULES]
    }
}

/// Words of 8 bytes in a [`Rule`].
pub const RULE_WORDS: usize = size_of::<Rule>() / 8;

/// A rule of the map `RULES`, word by word.
#[repr(transparent)]
pub struct RuleWords([SharedU64; RULE_WORDS]);

const _: () = assert!(size_of::<RuleWords>() == size_of::<Rule>());

/// The rules of both banks, for turning single numbers of rules in force.
pub struct RuleBlock(Mapped<RuleWords>);

impl RuleBlock {
    /// Maps the map `RULES`.
    ///
    /// # Errors
    /// See [`Mapped::new`].
    pub fn new(map: &MapData) -> Result<Self, MapIntoMemoryError> {
        Mapped::new("RULES", map.fd().as_fd(), MAX_RULES * BANKS).map(Self)
    }

    /// Word `word` (below [`RULE_WORDS`]) of the rule in `slot` of `bank`.
    #[must_use]
    pub fn word(&self, bank: u32, slot: u32, word: usize) -> &SharedU64 {
        &self.0[(bank as usize % BANKS) * MAX_RULES + slot as usize % MAX_RULES].0[word % RULE_WORDS]
    }
}

impl CounterBlock {
    /// Sets the counters of a rule to zero, before its bank is in force.
    pub fn reset(&self, bank: u32, slot: u32) {
        self.rule(bank, slot).reset();
    }
}

/// The data behind any map, whatever its type.
#[must_use]
pub fn map_data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::BloomFilter(data)
        | Map::CgroupArray(data)
        | Map::CgroupStorage(data)
        | Map::CgrpStorage(data)
        | Map::CpuMap(data)
        | Map::DevMap(data)
        | Map::DevMapHash(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::InodeStorage(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuCgroupStorage(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::PerfEventArray(data)
        | Map::ProgramArray(data)
        | Map::Queue(data)
        | Map::ReusePortSockArray(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)
        | Map::SockHash(data)
        | Map::SockMap(data)
        | Map::Stack(data)
        | Map::StackTraceMap(data)
        | Map::Unsupported(data)
        | Map::XskMap(data) => data,
    }
}
