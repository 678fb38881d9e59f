//! When a matching operation is hit.

use super::{
    past::Past,
    rng::{self, Coordinates, Purpose},
};

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
    /// Hits of a stream are at least this many matches apart, and from its beginning (`gap`); 0 is no condition.
    pub gap: u32,
    /// A [`Model`] as a number; an unknown one is none.
    pub model: u32,
    /// Of [`Model::Gilbert`].
    pub gilbert: Gilbert,
    /// Of [`Model::Markov`].
    pub markov: Markov,
}

/// What decides in place of [`Trigger::threshold`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A chain of two states.
    Gilbert = 1,
    /// A chain of four states.
    Markov = 2,
}

/// The Gilbert–Elliott model: a flow is in a good or in a bad state, and what is hit depends on that.
///
/// The order is netem's (`loss_gilb_ell` of net/sched/sch_netem.c): each operation first may change the state for the
/// next one, and is itself hit by the chance of the state it found. A flow starts in the good state. Elliott,
/// "Estimates of error rates for codes on burst-noise channels", Bell System Technical Journal 42 (1963).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gilbert {
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
const BAD: u32 = 1;

impl Gilbert {
    /// Whether this operation is hit; `past` holds the state of its flow, before and after.
    #[inline(always)]
    const fn wants(&self, at: &Coordinates, past: &mut Past) -> bool {
        let was_bad = past.chance() == BAD;
        let (change, hit) = if was_bad { (self.to_good, self.bad) } else { (self.to_bad, self.good) };
        let changes = chance(at, Purpose::Transition, change);
        past.set_chance(if was_bad != changes { BAD } else { 0 });
        chance(at, Purpose::Trigger, hit)
    }
}

/// The model of four states of tc-netem(8), `loss state`: times in which losses are rare and alone (gaps), and times in which
/// they are not (bursts), and in either a state in which an operation is hit and one in which it is not.
///
/// The order is netem's (`loss_4state` of net/sched/sch_netem.c): one draw chooses the next state, and the operation is hit if
/// that is one of the two. A flow starts in a gap. Salsano, Ludovici, Ordine, "Definition of a general and intuitive loss model
/// for packet networks and its implementation in the Netem module in the Linux kernel" (2009). In each state the chances of
/// leaving it come to at most 2^32.
///
/// It is kept as a table, so that the kernel's verifier has one way through it and not one for each state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Markov {
    /// What follows each state.
    pub states: [State; 4],
}

/// What follows one state of [`Markov`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Chance × 2^32 of `next[0]`, and of one of the first two.
    pub below: [u64; 2],
    /// One of [`GAP`], [`BURST`], [`PAUSE`] and [`ALONE`] each.
    pub next: [u32; 3],
    /// Explicit padding.
    pub _pad: u32,
}

/// State of [`Markov`], as it is remembered: not hit, in a gap.
const GAP: u32 = 0;
/// Hit, in a burst.
const BURST: u32 = 1;
/// Not hit, in a burst.
const PAUSE: u32 = 2;
/// Hit, in a gap.
const ALONE: u32 = 3;

impl Markov {
    /// The model with these chances, each × 2^32: that a burst begins, with a hit (netem's p13); after a hit in a burst, that it is
    /// over (p31), or pauses (p32); after a pause, that it goes on, with a hit (p23); and in a gap, of a hit that stays alone (p14).
    #[must_use]
    pub const fn new([to_burst, to_gap, to_pause, to_hit, alone]: [u64; 5]) -> Self {
        const fn state(below: [u64; 2], next: [u32; 3]) -> State {
            State { below, next, _pad: 0 }
        }
        let mut states = [State { below: [0; 2], next: [0; 3], _pad: 0 }; 4];
        states[GAP as usize] = state([alone, alone + to_burst], [ALONE, BURST, GAP]);
        states[BURST as usize] = state([to_pause, to_pause + to_gap], [PAUSE, GAP, BURST]);
        states[PAUSE as usize] = state([to_hit, to_hit], [BURST, BURST, PAUSE]);
        states[ALONE as usize] = state([CERTAIN, CERTAIN], [GAP, GAP, GAP]);
        Self { states }
    }

    /// As [`Gilbert::wants`].
    #[inline(always)]
    const fn wants(&self, at: &Coordinates, past: &mut Past) -> bool {
        let draw = rng::draw(at, Purpose::Trigger) >> 32;
        let State { below, next, .. } = &self.states[past.chance() as usize & 3];
        let chosen = (draw >= below[0]) as usize + (draw >= below[1]) as usize;
        let next = next[chosen];
        past.set_chance(next);
        // Those that are hits have odd numbers.
        next & 1 != 0
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
        gap: 0,
        model: 0,
        gilbert: Gilbert { to_bad: 0, to_good: 0, bad: 0, good: 0 },
        markov: Markov { states: [State { below: [0; 2], next: [0; 3], _pad: 0 }; 4] },
    };

    /// Whether the rule is in its time window (`after`, `for`, `cycle`). Outside of it nothing matches.
    #[must_use]
    #[inline(always)]
    pub const fn in_window(&self, elapsed_ns: u64) -> bool {
        elapsed_ns >= self.start_ns
            && (self.end_ns == 0 || elapsed_ns < self.end_ns)
            && (self.cycle_ns == 0 || (elapsed_ns - self.start_ns) % self.cycle_ns < self.cycle_on_ns)
    }

    /// Whether match number `count` (from 1, counted per rule) at these coordinates is hit, the budget
    /// (`times`) apart: that one needs an atomic claim, see [`super::combine::decide`].
    ///
    /// `past` is what the stream remembers for this rule; what it holds
    /// before ordinal 0 does not matter. The sequence of a stream goes on also where a count says no, but not within a gap.
    #[must_use]
    #[inline(always)]
    pub const fn wants(&self, count: u64, at: &Coordinates, past: &mut Past) -> bool {
        if at.ordinal == 0 {
            past.set_run(0);
            past.set_chance(if self.correlation == 0 {
                0
            } else {
                (rng::draw(at, Purpose::Past) >> 32) as u32
            });
        }
        let run = past.run();
        // Within a gap chance is not asked.
        let hit = run as u32 + 1 >= self.gap && self.by_chance(at, past) && self.by_count(count);
        if self.gap != 0 {
            past.set_run(if hit { 0 } else { run.saturating_add(1) });
        }
        hit
    }

    /// Whether chance wants a hit.
    #[inline(always)]
    const fn by_chance(&self, at: &Coordinates, past: &mut Past) -> bool {
        const GILBERT: u32 = Model::Gilbert as u32;
        const MARKOV: u32 = Model::Markov as u32;
        match self.model {
            GILBERT => self.gilbert.wants(at, past),
            MARKOV => self.markov.wants(at, past),
            _ if self.correlation != 0 => self.correlated(at, past) < self.threshold,
            _ => chance(at, Purpose::Trigger, self.threshold),
        }
    }

    /// Whether match number `count` may be hit.
    #[inline(always)]
    const fn by_count(&self, count: u64) -> bool {
        (self.nth == 0 || count == self.nth)
            && (self.first == 0 || count <= self.first)
            && (self.every == 0 || count.is_multiple_of(self.every))
    }

    /// The next 32 bits of a correlated sequence: `value × (1 - ρ) + last × ρ`, as netem's `get_crandom`
    /// (net/sched/sch_netem.c). The more correlation, the less such numbers stray from the middle, so the share of hits
    /// is not the probability asked for; that, too, is netem's.
    #[inline(always)]
    const fn correlated(&self, at: &Coordinates, past: &mut Past) -> u64 {
        let weight = if self.correlation > CERTAIN { CERTAIN } else { self.correlation };
        // Both below 2^32, so that the products fit.
        let (value, last) = (rng::draw(at, Purpose::Trigger) >> 32, past.chance() as u64);
        let next = (value * (CERTAIN - weight) + last * weight) >> 32;
        past.set_chance(next as u32);
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

const _: () = assert!(size_of::<Trigger>() == 88 + size_of::<Gilbert>() + size_of::<Markov>());
const _: () = assert!(size_of::<Gilbert>() == 32);
const _: () = assert!(size_of::<Markov>() == 128);
