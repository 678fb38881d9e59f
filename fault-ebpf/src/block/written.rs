//! Which sectors have been written since the rules came into force: `until-written`.
//!
//! A write counts whoever it is of: the disk does not care who mends a sector, and what the target wrote to the page cache
//! reaches the disk by a kernel thread.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use fault_common::{
    counters::Counter,
    limits::MAX_RULES,
    rule::block::{BioFacts, Extent, WrittenKey, op},
    shared::SharedU64,
};

use super::{bio, fields::Asked};
use crate::{
    emit,
    maps::{RULES, WRITTEN},
};

/// `BPF_NOEXIST`.
const ONLY_NEW: u64 = 1;

/// A `bpf_loop` over the words of an extent.
struct Words {
    extent: Extent,
    place: u32,
    /// 1: a sector that was not written was found.
    unwritten: u32,
}

impl Words {
    /// Runs `step` for each word.
    #[inline(always)]
    fn each(&mut self, step: unsafe extern "C" fn(u64, *mut c_void) -> u64) {
        let count = self.extent.words() as u32;
        // SAFETY: the helper calls `step` with the address of `self`, which lives until it returns.
        unsafe { bpf_loop(count, step as *mut c_void, core::ptr::from_mut(self).cast(), 0) };
    }

    #[inline(always)]
    const fn key(&self, word: u64) -> WrittenKey {
        WrittenKey { place: self.place, _pad: 0, word }
    }
}

#[inline(always)]
fn written(key: &WrittenKey) -> Option<&'static SharedU64> {
    // SAFETY: a map value, which the controller removes only when its rule set is not in force.
    WRITTEN.get_ptr(key).map(|bits| unsafe { &*bits })
}

/// Whether `extent` has a sector that nobody has written since the rule at `place` came into force.
#[inline(always)]
pub fn has_unwritten(place: u32, extent: Extent) -> bool {
    let mut words = Words { extent, place, unwritten: 0 };
    words.each(look_at);
    words.unwritten != 0
}

/// A step of [`has_unwritten`]: 1 ends the loop.
unsafe extern "C" fn look_at(index: u64, words: *mut c_void) -> u64 {
    // SAFETY: see `Words::each`.
    let words = unsafe { &mut *words.cast::<Words>() };
    let (word, bits) = words.extent.word(index);
    let known = written(&words.key(word)).map_or(0, SharedU64::load);
    if bits & !known != 0 {
        words.unwritten = 1;
        return 1;
    }
    0
}

/// A `bpf_loop` over the rules that may want to know.
struct Note {
    facts: BioFacts,
    /// Mask of slots.
    rules: u64,
    /// Index of the bank's first rule.
    first: u32,
}

/// Notes the sectors of a write or discard that goes to the disk, for the rules of `rules`, a mask of slots of `bank`.
#[inline(always)]
pub fn note(bank: u32, rules: u64, bio: u64) {
    let facts = bio::facts::<Asked>(bio);
    if facts.ops & (op::WRITE | op::DISCARD) == 0 || facts.sectors == 0 {
        return;
    }
    let mut note = Note { facts, rules, first: (bank & 1) * MAX_RULES as u32 };
    let step: unsafe extern "C" fn(u64, *mut c_void) -> u64 = note_for;
    // SAFETY: the helper calls `step` with the address of `note`, which lives until it returns.
    unsafe { bpf_loop(MAX_RULES as u32, step as *mut c_void, (&raw mut note).cast(), 0) };
}

/// A step of [`note`]: one slot.
unsafe extern "C" fn note_for(slot: u64, note: *mut c_void) -> u64 {
    // SAFETY: see `note`.
    let note = unsafe { &mut *note.cast::<Note>() };
    let slot = slot as u32 & (MAX_RULES as u32 - 1);
    if note.rules >> slot == 0 {
        return 1;
    }
    let place = note.first + slot;
    if note.rules >> slot & 1 != 0
        && let Some(rule) = RULES.get(place)
        && let Some(extent) = rule.block.extent(&note.facts)
    {
        Words { extent, place, unwritten: 0 }.each(mend);
    }
    0
}

/// A step of [`note_for`]: one word.
unsafe extern "C" fn mend(index: u64, words: *mut c_void) -> u64 {
    // SAFETY: see `Words::each`.
    let words = unsafe { &mut *words.cast::<Words>() };
    let (word, bits) = words.extent.word(index);
    let key = words.key(word);
    if let Some(known) = written(&key) {
        known.set_bits(bits);
        return 0;
    }
    if WRITTEN.insert(key, SharedU64::new(bits), ONLY_NEW).is_ok() {
        return 0;
    }
    // Another CPU was quicker, or there is no memory.
    match written(&key) {
        Some(known) => known.set_bits(bits),
        None => emit::count(Counter::Forgotten),
    }
    0
}
