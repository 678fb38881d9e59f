//! When a matching operation is hit.

use super::rng::{self, Coordinates, Purpose};

/// [`Trigger::threshold`] of certainty: every draw of 32 bits lies below it.
pub const CERTAIN: u64 = 1 << 32;

/// When a rule hits an operation that passed its filter. All conditions must hold; all-zero but for
/// [`Trigger::threshold`] is no condition.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trigger {
    /// Probability × 2^32, from 0 (never) to [`CERTAIN`] (always).
    pub threshold: u64,
    /// Only the nth match of the rule, from 1; 0 is no condition.
    pub nth: u64,
    /// Only every kth match of the rule (k, 2k, 3k …); 0 is no condition.
    pub every: u64,
    /// Only the first n matches of the rule; 0 is no condition.
    pub first: u64,
    /// At most this many injections; 0 is no condition.
    pub times: u64,
    /// Not before this many nanoseconds of the session.
    pub start_ns: u64,
    /// Not from this many nanoseconds of the session on; 0 is no end.
    pub end_ns: u64,
    /// Length of one turn of a duty cycle (`cycle`) in nanoseconds, at most 2 × 365 days; 0 is no cycle.
    pub cycle_ns: u64,
    /// How much of each turn, from its beginning, is in the window, in nanoseconds. The first turn begins at
    /// [`Trigger::start_ns`].
    pub cycle_on_ns: u64,
    /// Weight of the previous draw of the same stream in the next one × 2^32 (`burst`); 0 is independence.
    pub correlation: u64,
    /// A chain of states in place of [`Trigger::threshold`].
    pub gilbert: Gilbert,
}

/// The Gilbert–Elliott model: a flow is in a good or in a bad state, and what is hit depends on that.
///
/// The order is netem's (`loss_gilb_ell` of net/sched/sch_netem.c): each operation first may change the state for the
/// next one, and is itself hit by the chance of the state it found. A flow starts in the good state. Elliott,
/// "Estimates of error rates for codes on burst-noise channels", Bell System Technical Journal 42 (1963).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gilbert {
    /// 1: the model decides; 0: there is none.
    pub on: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// Chance × 2^32 that a good flow turns bad (netem's p).
    pub to_bad: u64,
    /// Chance × 2^32 that a bad flow turns good (netem's r).
    pub to_good: u64,
    /// Chance × 2^32 of a hit in the bad state (netem's 1-h).
    pub bad: u64,
    /// Chance × 2^32 of a hit in the good state (netem's 1-k).
    pub good: u64,
}

/// The bad state, as it is remembered; 0 is the good one.
const BAD: u64 = 1;

impl Gilbert {
    /// Whether this operation is hit; `state` is that of its flow, before and after.
    #[inline(always)]
    const fn wants(&self, at: &Coordinates, state: &mut u64) -> bool {
        let was_bad = at.ordinal != 0 && *state == BAD;
        let (change, hit) = if was_bad { (self.to_good, self.bad) } else { (self.to_bad, self.good) };
        let changes = chance(at, Purpose::Transition, change);
        *state = if was_bad != changes { BAD } else { 0 };
        chance(at, Purpose::Trigger, hit)
    }
}

/// Whether a draw at these coordinates falls below `threshold` (a probability × 2^32).
#[inline(always)]
const fn chance(at: &Coordinates, purpose: Purpose, threshold: u64) -> bool {
    threshold >= CERTAIN || threshold != 0 && (rng::draw(at, purpose) >> 32) < threshold
}

impl Trigger {
    /// Always.
    pub const ALWAYS: Self = Self {
        threshold: CERTAIN,
        nth: 0,
        every: 0,
        first: 0,
        times: 0,
        start_ns: 0,
        end_ns: 0,
        cycle_ns: 0,
        cycle_on_ns: 0,
        correlation: 0,
        gilbert: Gilbert { on: 0, _pad: 0, to_bad: 0, to_good: 0, bad: 0, good: 0 },
    };

    /// Whether the rule is in its time window (`after`, `for`, `cycle`). Outside of it nothing matches.
    #[must_use]
    #[inline(always)]
    pub const fn in_window(&self, elapsed_ns: u64) -> bool {
        elapsed_ns >= self.start_ns
            && (self.end_ns == 0 || elapsed_ns < self.end_ns)
            && (self.cycle_ns == 0 || (elapsed_ns - self.start_ns) % self.cycle_ns < self.cycle_on_ns)
    }

    /// Whether decisions depend on what the same stream met before.
    #[must_use]
    #[inline(always)]
    pub const fn remembers(&self) -> bool {
        self.correlation != 0 || self.gilbert.on != 0
    }

    /// Whether match number `count` (from 1, counted per rule) at these coordinates is hit, the budget
    /// (`times`) apart: that one needs an atomic claim, see [`super::combine::decide`].
    ///
    /// `memory` is what the stream remembers for this rule if it [remembers](Self::remembers) anything; what it holds
    /// before ordinal 0 does not matter. The sequence of a stream goes on also where a count says no.
    #[must_use]
    #[inline(always)]
    pub const fn wants(&self, count: u64, at: &Coordinates, memory: &mut u64) -> bool {
        let by_chance = if self.gilbert.on != 0 {
            self.gilbert.wants(at, memory)
        } else if self.correlation != 0 {
            self.correlated(at, memory) < self.threshold
        } else {
            chance(at, Purpose::Trigger, self.threshold)
        };
        if self.nth != 0 && count != self.nth {
            return false;
        }
        if self.first != 0 && count > self.first {
            return false;
        }
        if self.every != 0 && !count.is_multiple_of(self.every) {
            return false;
        }
        by_chance
    }

    /// The next 32 bits of a correlated sequence: `value × (1 - ρ) + last × ρ`, as netem's `get_crandom`
    /// (net/sched/sch_netem.c). The more correlation, the less such numbers stray from the middle, so the share of hits
    /// is not the probability asked for; that, too, is netem's.
    #[inline(always)]
    const fn correlated(&self, at: &Coordinates, memory: &mut u64) -> u64 {
        let weight = if self.correlation > CERTAIN { CERTAIN } else { self.correlation };
        // Below 2^32, so that the products fit, also if somebody else's memory were handed in.
        let last = if at.ordinal == 0 { rng::draw(at, Purpose::Past) >> 32 } else { *memory & (CERTAIN - 1) };
        let value = rng::draw(at, Purpose::Trigger) >> 32;
        let next = (value * (CERTAIN - weight) + last * weight) >> 32;
        *memory = next;
        next
    }
}

/// The threshold of a probability given in parts per billion (0 ..= 1 000 000 000), rounded to nearest.
///
/// 2^32 steps: 0.0001 % (1e-6) is 4295 of them, off by less than 0.01 %.
#[must_use]
pub const fn threshold_from_ppb(ppb: u64) -> u64 {
    if ppb >= 1_000_000_000 {
        return CERTAIN;
    }
    (ppb * CERTAIN + 500_000_000) / 1_000_000_000
}

const _: () = assert!(size_of::<Trigger>() == 80 + size_of::<Gilbert>());
const _: () = assert!(size_of::<Gilbert>() == 40);
