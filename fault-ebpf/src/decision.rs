//! `fault_common::decide` over the maps: the same decision as in userspace, looped by the kernel.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use fault_common::{
    counters::RuleCounters,
    decide::{Moment, Outcome, World, round},
    limits::MAX_RULES,
    rule::{Rule, block::BioFacts, net::PacketFacts},
    who::Stream,
};

use crate::maps::{RULE_COUNTERS, RULES};

/// What a rule's filter looks at.
pub trait Facts: Copy {
    /// Whether they pass the rule's filter.
    fn pass(&self, rule: &Rule) -> bool;
}

impl Facts for PacketFacts {
    #[inline(always)]
    fn pass(&self, rule: &Rule) -> bool {
        rule.net.matches(self)
    }
}

impl Facts for BioFacts {
    #[inline(always)]
    fn pass(&self, rule: &Rule) -> bool {
        rule.block.matches(self)
    }
}

/// What the decision sees of the kernel.
struct Kernel<F> {
    /// Index of the bank's first rule.
    first: u32,
    facts: F,
    stream: *mut Stream,
}

impl<F: Facts> World for Kernel<F> {
    #[inline(always)]
    fn rule(&self, slot: u32) -> Option<&Rule> {
        RULES.get(self.first + slot)
    }

    #[inline(always)]
    fn counters(&self, slot: u32) -> Option<&RuleCounters> {
        RULE_COUNTERS.get(self.first + slot)
    }

    #[inline(always)]
    fn matches(&self, rule: &Rule) -> bool {
        self.facts.pass(rule)
    }

    #[inline(always)]
    fn next_ordinal(&mut self, slot: u32) -> u64 {
        // SAFETY: a map value that outlives the program's run.
        unsafe { (*self.stream).next(slot) }
    }
}

/// What travels through `bpf_loop`.
struct Walk<F> {
    world: Kernel<F>,
    candidates: u64,
    moment: Moment,
    outcome: Outcome,
}

/// One round of `bpf_loop`, which counts from 0 and starts at slot 1: 1 ends the loop.
unsafe extern "C" fn walk<F: Facts>(slot: u64, context: *mut c_void) -> u64 {
    // SAFETY: `decide` below hands the address of its `Walk<F>`.
    let walk = unsafe { &mut *context.cast::<Walk<F>>() };
    let slot = (slot as u32 + 1) & (MAX_RULES as u32 - 1);
    u64::from(round(&mut walk.world, slot, walk.candidates, &walk.moment, &mut walk.outcome))
}

/// What the rules of `candidates` (a mask of slots of `bank`, 0 or 1) make of an operation.
///
/// `stream` must be a map value (or null never), numbered, with ordinals of the generation in force.
#[inline(always)]
pub fn decide<F: Facts>(
    bank: u32,
    candidates: u64,
    moment: &Moment,
    facts: F,
    stream: *mut Stream,
) -> Outcome {
    let mut walk_state = Walk {
        world: Kernel { first: bank * MAX_RULES as u32, facts, stream },
        candidates,
        moment: *moment,
        outcome: Outcome::default(),
    };
    // The first slot here: most sessions have one rule, and two calls are a good part of what it costs.
    let state = &mut walk_state;
    if !round(&mut state.world, 0, candidates, moment, &mut state.outcome) {
        let callback: unsafe extern "C" fn(u64, *mut c_void) -> u64 = walk::<F>;
        // SAFETY: the helper calls `walk` with the address of `walk_state`, which lives until it returns.
        unsafe { bpf_loop(MAX_RULES as u32 - 1, callback as *mut c_void, (&raw mut *state).cast(), 0) };
    }
    walk_state.outcome
}
