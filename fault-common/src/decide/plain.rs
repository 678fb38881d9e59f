//! The decision in its most common case, short: one rule looks, chance alone decides, and chance says no.
//!
//! What is spared is most of what a target does, and to spare it this way costs it a fraction of the walk through all rules.
//! Whatever else may come of the operation is left to [`decide`](super::decide), which finds everything as it was.

use super::{
    rng,
    trigger::{CERTAIN, Trigger},
};
use crate::{counters::RuleCounters, limits::MAX_RULES, rule::Rule, who::Stream};

/// Slots that [`sole`] knows: most sessions have one rule, or a few.
const FIRST: u32 = 4;

/// The slot of the only bit of `candidates`, if it is one of the first slots.
#[must_use]
#[inline(always)]
pub const fn sole(candidates: u64) -> Option<u32> {
    let mut slot = 0;
    while slot < FIRST {
        if candidates == 1 << slot {
            return Some(slot);
        }
        slot += 1;
    }
    None
}

impl Trigger {
    /// Whether nothing but chance, and a budget, decides about a match, whenever it comes; and whether chance may say no.
    #[must_use]
    pub const fn is_chance_alone(&self) -> bool {
        // Every field by name: a new kind of condition does not compile until it is thought of here.
        let Self {
            threshold,
            nth,
            every,
            first,
            times: _,
            start_ns,
            end_ns,
            cycle_ns,
            cycle_on_ns: _,
            correlation,
            gap,
            model,
            gilbert: _,
            markov: _,
        } = *self;
        let of_count = nth | every | first | gap as u64;
        let of_time = start_ns | end_ns | cycle_ns;
        let of_past = correlation | model as u64;
        threshold < CERTAIN && of_count | of_time | of_past == 0
    }
}

impl Rule {
    /// Whether [`lets_go`] may be asked about what passed the rule's filter.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.trigger.is_chance_alone() && self.connections.are_all() && self.block.until_written == 0
    }
}

/// Whether the [plain](Rule::is_plain) rule in `slot`, whose filter the operation has passed and which alone may look at it, lets
/// it go; then it is counted. Else it is to be decided about, and nothing has changed.
///
/// `stream` is numbered, and its ordinals are of the rule set in force.
#[must_use]
#[inline(always)]
pub fn lets_go(rule: &Rule, counters: &RuleCounters, stream: &mut Stream, slot: u32) -> bool {
    let ordinal = &mut stream.ordinals[slot as usize & (MAX_RULES - 1)];
    // With its first match a stream forgets the rule set before.
    if *ordinal == 0
        || rng::draw_with(rule.key, stream.number, *ordinal as u64) >> 32 < rule.trigger.threshold
    {
        return false;
    }
    *ordinal = ordinal.wrapping_add(1);
    counters.matched.fetch_add(1);
    true
}
