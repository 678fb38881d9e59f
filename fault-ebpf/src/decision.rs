//! `fault_common::decide` over the maps: the same decision as in userspace, looped by the kernel.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use fault_common::{
    counters::RuleCounters,
    decide::{Instance, Late, Moment, Outcome, Walk, World, delay::Table, past::Past, plain, round},
    limits::MAX_RULES,
    rule::{Rule, block::BioFacts, file::FileFacts, net::PacketFacts},
    who::{Connection, Stream},
};

use crate::{
    block::written,
    maps::{RULE_COUNTERS, RULES, TABLES},
};

/// What a rule's filter looks at.
pub trait Facts: Copy {
    /// Whether they pass the filter of the rule at `place` in [`RULES`].
    fn pass(&self, rule: &Rule, place: u32) -> bool;
    /// The rule in `slot`: whether it ends the walk.
    fn round(slot: u32, walk: *mut Walk<Self>, memory: Memory) -> u32;
}

/// Where decisions are remembered: map values that outlive the program's run.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Numbered, with ordinals of the generation in force.
    pub stream: *mut Stream,
    /// Nothing for bios and files.
    pub connection: *mut Connection,
}

impl Facts for PacketFacts {
    #[inline(always)]
    fn pass(&self, rule: &Rule, _place: u32) -> bool {
        rule.net.matches(self)
    }

    #[inline(always)]
    fn round(slot: u32, walk: *mut Walk<Self>, memory: Memory) -> u32 {
        round_of_packet(slot, walk, memory.stream, memory.connection)
    }
}

impl Facts for BioFacts {
    #[inline(always)]
    fn pass(&self, rule: &Rule, place: u32) -> bool {
        rule.block.matches(self)
            && (rule.block.until_written == 0
                || rule.block.extent(self).is_some_and(|extent| written::has_unwritten(place, extent)))
    }

    #[inline(always)]
    fn round(slot: u32, walk: *mut Walk<Self>, memory: Memory) -> u32 {
        round_of_bio(slot, walk, memory.stream)
    }
}

impl Facts for FileFacts {
    #[inline(always)]
    fn pass(&self, rule: &Rule, _place: u32) -> bool {
        // Patterns are part of the mask of candidates.
        rule.file.matches(self)
    }

    #[inline(always)]
    fn round(slot: u32, walk: *mut Walk<Self>, memory: Memory) -> u32 {
        round_of_file(slot, walk, memory.stream)
    }
}

/// What the decision sees of the kernel, for one slot: each map is asked once.
struct Kernel<'a, F> {
    rule: Option<&'static Rule>,
    counters: Option<&'static RuleCounters>,
    place: u32,
    facts: &'a F,
    memory: Memory,
}

impl<F: Facts> World for Kernel<'_, F> {
    #[inline(always)]
    fn rule(&self, _slot: u32) -> Option<&Rule> {
        self.rule
    }

    #[inline(always)]
    fn counters(&self, _slot: u32) -> Option<&RuleCounters> {
        self.counters
    }

    #[inline(always)]
    fn table(&self, _slot: u32) -> Option<&Table> {
        TABLES.get(self.place)
    }

    #[inline(always)]
    fn wants(&self, _slot: u32, instance: &Instance<'_>, count: u64, past: &mut Past) -> bool {
        let Instance { rule, moment, ordinal } = *instance;
        rule_wants(rule, moment, ordinal, count, past) != 0
    }

    #[inline(always)]
    fn own_ns(&self, _slot: u32, instance: &Instance<'_>, past: &mut Past) -> u64 {
        let Instance { rule, moment, ordinal } = *instance;
        rule_takes(rule, moment, ordinal, past, self.place)
    }

    #[inline(always)]
    fn slot_ns(
        &self,
        _slot: u32,
        instance: &Instance<'_>,
        counters: &RuleCounters,
        late: Late,
    ) -> Option<u64> {
        let Instance { rule, moment, .. } = *instance;
        match rule_waits(rule, moment, counters, late.before_ns, late.own_ns) {
            LOST => None,
            wait => Some(wait),
        }
    }

    #[inline(always)]
    fn matches(&self, rule: &Rule) -> bool {
        self.facts.pass(rule, self.place)
    }

    #[inline(always)]
    fn next_ordinal(&mut self, slot: u32) -> u64 {
        // SAFETY: see `Memory`.
        unsafe { (*self.memory.stream).next(slot) }
    }

    #[inline(always)]
    fn memory(&mut self, slot: u32) -> &mut Past {
        // SAFETY: see `Memory`.
        unsafe { (*self.memory.stream).memory(slot) }
    }

    #[inline(always)]
    fn place(&mut self, slot: u32) -> Option<&mut u32> {
        if self.memory.connection.is_null() {
            return None;
        }
        // SAFETY: see `Memory`; not null.
        Some(unsafe { (*self.memory.connection).place(slot) })
    }
}

/// [`Instance::wants`]; not 1, see [`END`].
///
/// A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rule_wants(
    rule: *const Rule,
    moment: *const Moment,
    ordinal: u64,
    count: u64,
    past: *mut Past,
) -> u32 {
    if rule.is_null() || moment.is_null() || past.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked the sizes.
    let (rule, moment, past) = unsafe { (&*rule, &*moment, &mut *past) };
    if (Instance { rule, moment, ordinal }).wants(count, past) { END } else { 0 }
}

/// [`Instance::own_ns`], of the rule at `place` in [`RULES`]; as [`rule_wants`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rule_takes(
    rule: *const Rule,
    moment: *const Moment,
    ordinal: u64,
    past: *mut Past,
    place: u32,
) -> u64 {
    if rule.is_null() || moment.is_null() || past.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked the sizes.
    let (rule, moment, past) = unsafe { (&*rule, &*moment, &mut *past) };
    (Instance { rule, moment, ordinal }).own_ns(past, TABLES.get(place))
}

/// [`rule_waits`]: too many wait already.
const LOST: u64 = u64::MAX;

/// [`Instance::slot_ns`], or [`LOST`]; as [`rule_wants`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn rule_waits(
    rule: *const Rule,
    moment: *const Moment,
    counters: *const RuleCounters,
    before_ns: u64,
    own_ns: u64,
) -> u64 {
    if rule.is_null() || moment.is_null() || counters.is_null() {
        return LOST;
    }
    // SAFETY: not null, and the verifier has checked the sizes.
    let (rule, moment, counters) = unsafe { (&*rule, &*moment, &*counters) };
    (Instance { rule, moment, ordinal: 0 }).slot_ns(counters, Late { before_ns, own_ns }).unwrap_or(LOST)
}

/// Nothing after this slot. Not 1: of a function that returns 0 or 1 the compiler knows that it need not narrow
/// it down to that for `bpf_loop`, and the verifier, which does not look into global functions, wants it done.
const END: u32 = YES;

/// What a global function returns that has found what it was asked for; else 0. Not 1, for the reason given at [`END`].
pub const YES: u32 = u32::MAX;

#[inline(always)]
fn round_at<F: Facts>(slot: u32, walk: &mut Walk<F>, memory: Memory) -> u32 {
    let Walk { first, candidates, moment, outcome, facts, .. } = walk;
    let slot = slot & (MAX_RULES as u32 - 1);
    let place = *first + slot;
    let mut kernel =
        Kernel { rule: RULES.get(place), counters: RULE_COUNTERS.get(place), place, facts, memory };
    if round(&mut kernel, slot, *candidates, moment, outcome) { END } else { 0 }
}

/// A slot of a rule for packets.
///
/// A global function: the verifier looks at it once and by itself, instead of several times for each round
/// of the loop until nothing changes any more. That is a good part of the time it takes to load a program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn round_of_packet(
    slot: u32,
    walk: *mut Walk<PacketFacts>,
    stream: *mut Stream,
    connection: *mut Connection,
) -> u32 {
    if walk.is_null() || stream.is_null() || connection.is_null() {
        return END;
    }
    // SAFETY: not null, and the verifier has checked the size.
    round_at(slot, unsafe { &mut *walk }, Memory { stream, connection })
}

/// A slot of a rule for bios; as [`round_of_packet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn round_of_bio(slot: u32, walk: *mut Walk<BioFacts>, stream: *mut Stream) -> u32 {
    if walk.is_null() || stream.is_null() {
        return END;
    }
    // SAFETY: not null, and the verifier has checked the size.
    round_at(slot, unsafe { &mut *walk }, Memory { stream, connection: core::ptr::null_mut() })
}

/// A slot of a rule for operations on files; as [`round_of_packet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn round_of_file(slot: u32, walk: *mut Walk<FileFacts>, stream: *mut Stream) -> u32 {
    if walk.is_null() || stream.is_null() {
        return END;
    }
    // SAFETY: not null, and the verifier has checked the size.
    round_at(slot, unsafe { &mut *walk }, Memory { stream, connection: core::ptr::null_mut() })
}

/// What `bpf_loop` hands to each round.
struct Loop<F> {
    walk: *mut Walk<F>,
    memory: Memory,
}

/// One round of `bpf_loop`, which counts from 0 and starts at slot 1: 1 ends the loop.
unsafe extern "C" fn next<F: Facts>(index: u64, context: *mut c_void) -> u64 {
    // SAFETY: `decide` below hands the address of its `Loop<F>`.
    let context = unsafe { &*context.cast::<Loop<F>>() };
    u64::from(F::round(index as u32 + 1, context.walk, context.memory) != 0)
}

/// The only one of `candidates`, a mask of slots of `bank` (0 or 1), if there is one and its slot is among the first: that slot, and
/// the rule.
#[inline(always)]
pub fn sole(bank: u32, candidates: u64) -> Option<(u32, &'static Rule)> {
    in_slot(bank, plain::sole(candidates)?)
}

/// A slot, and the rule of `bank` that is in it.
#[inline(always)]
pub fn in_slot(bank: u32, slot: u32) -> Option<(u32, &'static Rule)> {
    RULES.get((bank & 1) * MAX_RULES as u32 + slot).map(|rule| (slot, rule))
}

/// [`plain::lets_go`] of a rule of `bank`.
#[inline(always)]
pub fn lets_go(bank: u32, (slot, rule): (u32, &Rule), stream: &mut Stream) -> bool {
    RULE_COUNTERS
        .get((bank & 1) * MAX_RULES as u32 + slot)
        .is_some_and(|counters| plain::lets_go(rule, counters, stream, slot))
}

/// Decides about the operation that `walk` describes (its moment and its facts are written already): what the rules of
/// `candidates`, a mask of slots of `bank` (0 or 1), make of it. That is in `walk`, too, afterwards.
///
/// Nobody else may use `walk` meanwhile. It is better not on the stack, of which the kernel gives 512 bytes to the
/// program, the callback of `bpf_loop` and the round together.
#[inline(always)]
pub fn decide<F: Facts>(walk: &mut Walk<F>, bank: u32, candidates: u64, memory: Memory) {
    walk.first = bank * MAX_RULES as u32;
    walk.candidates = candidates;
    walk.outcome = Outcome::default();
    // The first slot without the helper, which is a good part of what a decision costs: most sessions have one rule.
    if F::round(0, walk, memory) == 0 {
        let mut context = Loop { walk, memory };
        let callback: unsafe extern "C" fn(u64, *mut c_void) -> u64 = next::<F>;
        // SAFETY: the helper calls `next` with the address of `context`, which lives until it returns.
        unsafe { bpf_loop(MAX_RULES as u32 - 1, callback as *mut c_void, (&raw mut context).cast(), 0) };
    }
}
