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
}

impl Trigger {
    /// Always.
    pub const ALWAYS: Self =
        Self { threshold: CERTAIN, nth: 0, every: 0, first: 0, times: 0, start_ns: 0, end_ns: 0 };

    /// Whether the rule is in its time window (`after`, `for`). Outside of it nothing matches.
    #[must_use]
    #[inline(always)]
    pub const fn in_window(&self, elapsed_ns: u64) -> bool {
        elapsed_ns >= self.start_ns && (self.end_ns == 0 || elapsed_ns < self.end_ns)
    }

    /// Whether match number `count` (from 1, counted per rule) at these coordinates is hit, the budget
    /// (`times`) apart: that one needs an atomic claim, see [`super::combine::decide`].
    #[must_use]
    #[inline(always)]
    pub const fn wants(&self, count: u64, at: &Coordinates) -> bool {
        if self.nth != 0 && count != self.nth {
            return false;
        }
        if self.first != 0 && count > self.first {
            return false;
        }
        if self.every != 0 && !count.is_multiple_of(self.every) {
            return false;
        }
        self.threshold >= CERTAIN
            || self.threshold != 0 && (rng::draw(at, Purpose::Trigger) >> 32) < self.threshold
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

const _: () = assert!(size_of::<Trigger>() == 56);
