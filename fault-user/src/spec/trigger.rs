//! Which of the matching operations are hit.

use std::time::Duration;

/// A chance, kept as parts per billion so that no decimal fraction is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probability(u32);

impl Probability {
    /// Parts per billion in certainty.
    pub const BILLION: u32 = 1_000_000_000;
    /// Never: `0%`.
    pub const NEVER: Self = Self(0);
    /// Always: `100%`.
    pub const ALWAYS: Self = Self(Self::BILLION);
    /// The smallest chance that is not zero: `0.0001%`, one in a million.
    pub const SMALLEST: Self = Self(1_000);

    /// A chance in parts per billion: 0, or 1 000 (one in a million) to 1 000 000 000 (always).
    pub const fn from_parts_per_billion(parts: u32) -> Option<Self> {
        match parts {
            0 | 1_000..=Self::BILLION => Some(Self(parts)),
            _ => None,
        }
    }

    /// The chance that it does not happen.
    pub const fn complement(self) -> Self {
        Self(Self::BILLION - self.0)
    }

    /// The chance in parts per billion.
    pub const fn parts_per_billion(self) -> u32 {
        self.0
    }
}

/// Which of the operations that passed the filter are hit. Everything given must agree.
///
/// The counts are of this rule's matches inside its window (`after`, `for`), over the whole target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trigger {
    /// `P%`: each with this chance; none means always.
    pub probability: Option<Probability>,
    /// `burst C%`: with a probability; how much each draw of a socket or thread takes after the one before. netem's
    /// correlation (tc-netem(8)): the more, the longer the bursts, and the further the share of hits from `P`.
    pub burst: Option<Probability>,
    /// `gilbert P R [H [K]]`, in place of a probability.
    pub gilbert: Option<Gilbert>,
    /// `markov P13 [P31 [P32 [P23 [P14]]]]`, in place of a probability.
    pub markov: Option<Markov>,
    /// `gap N`: at least N matches from one hit of a socket or thread to the next, and from its first match: 1 to
    /// [`GAP_MAX`]. Excludes the two models.
    pub gap: Option<u32>,
    /// `nth N`: only the Nth match. From 1. Excludes `every` and `first`.
    pub nth: Option<u64>,
    /// `every N`: the Nth, 2Nth, 3Nth… match. From 1.
    pub every: Option<u64>,
    /// `first N`: only among the first N matches. From 1.
    pub first: Option<u64>,
    /// `times N`: at most N injections. From 1.
    pub times: Option<u64>,
    /// `after D`: not before D has passed since the session became active. At most [`WINDOW_MAX`].
    pub after: Option<Duration>,
    /// `for D`: not once D has passed since it could first hit (that is, since `after`). More than
    /// zero, at most [`WINDOW_MAX`].
    pub window: Option<Duration>,
    /// `cycle ON/OFF`: at work for ON, then idle for OFF, then again, from the moment it could first hit.
    pub cycle: Option<Cycle>,
}

/// A duty cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cycle {
    /// ON: how long operations are hit. More than zero, at most [`WINDOW_MAX`].
    pub on: Duration,
    /// OFF: how long they are left alone after that. More than zero, at most [`WINDOW_MAX`].
    pub off: Duration,
}

/// The Gilbert–Elliott model, for each socket (and direction) or thread by itself: it starts good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gilbert {
    /// P: the chance, at each match, that a good flow turns bad. On average 1/P matches later it does.
    pub to_bad: Probability,
    /// R: the chance that a bad flow turns good: bad times last 1/R matches on average.
    pub to_good: Probability,
    /// H: the chance of a hit in the bad state; always when it is not written. tc-netem(8) calls it `1-h`.
    pub bad: Probability,
    /// K: the chance of a hit in the good state; never when it is not written. tc-netem(8) calls it `1-k`.
    pub good: Probability,
}

/// The model of four states of tc-netem(8) (`loss state`), for each socket (and direction) or thread by itself: it starts in a
/// gap between bursts. In every state the chances of leaving it come to at most 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Markov {
    /// P13: the chance, at each match in a gap, that a burst begins, with a hit.
    pub to_burst: Probability,
    /// P31: after a hit in a burst, that the burst is over; all that `to_burst` lacks of 100 % when it is not written.
    pub to_gap: Probability,
    /// P32: after a hit in a burst, of a match that is not hit though the burst goes on; never when it is not written.
    pub to_pause: Probability,
    /// P23: after such a match, of a hit; always when it is not written.
    pub to_hit: Probability,
    /// P14: in a gap, of a hit that stays alone; never when it is not written.
    pub alone: Probability,
}

impl Markov {
    /// With what tc-netem(8) takes for what is not written.
    pub const fn new(to_burst: Probability) -> Self {
        Self {
            to_burst,
            to_gap: to_burst.complement(),
            to_pause: Probability::NEVER,
            to_hit: Probability::ALWAYS,
            alone: Probability::NEVER,
        }
    }
}

impl Trigger {
    /// Whether no operation can ever be hit (`0%`).
    pub fn is_never(&self) -> bool {
        let model = |model: &Gilbert| model.bad == Probability::NEVER && model.good == Probability::NEVER;
        let states =
            |model: &Markov| model.to_burst == Probability::NEVER && model.alone == Probability::NEVER;
        self.probability == Some(Probability::NEVER)
            || self.gilbert.as_ref().is_some_and(model)
            || self.markov.as_ref().is_some_and(states)
    }

    /// Whether some operations are hit and others are not, while its window is open.
    pub fn is_selective(&self) -> bool {
        let Self {
            probability,
            burst,
            gilbert,
            markov,
            gap,
            nth,
            every,
            first,
            times,
            after: _,
            window: _,
            cycle: _,
        } = self;
        let by_chance = probability.is_some_and(|chance| chance != Probability::ALWAYS)
            || burst.is_some()
            || gilbert.is_some()
            || markov.is_some();
        let by_count = gap.is_some() || [nth, every, first, times].into_iter().any(Option::is_some);
        !self.is_never() && (by_chance || by_count)
    }
}

/// The longest `after` and `for`, and either part of a `cycle`: a year.
pub const WINDOW_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The largest N of `gap`.
pub const GAP_MAX: u32 = 65_535;

/// The largest N of `nth`, `every`, `first` and `times`: 10^18.
pub const COUNT_MAX: u64 = 1_000_000_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_is_zero_or_at_least_one_in_a_million() {
        assert_eq!(Probability::from_parts_per_billion(0), Some(Probability::NEVER));
        assert_eq!(Probability::from_parts_per_billion(1), None);
        assert_eq!(Probability::from_parts_per_billion(999), None);
        assert_eq!(Probability::from_parts_per_billion(1_000), Some(Probability::SMALLEST));
        assert_eq!(Probability::from_parts_per_billion(1_000_000_000), Some(Probability::ALWAYS));
        assert_eq!(Probability::from_parts_per_billion(1_000_000_001), None);
    }
}
