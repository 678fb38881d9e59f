//! When something is in force: pure arithmetic on nanoseconds of the scenario.

use std::time::Duration;

/// Steps of a ramp, unless they would come closer than [`SHORTEST_STEP_NS`].
pub const RAMP_STEPS: u64 = 100;
/// The shortest step of a ramp: 10 ms.
pub const SHORTEST_STEP_NS: u64 = 10_000_000;

/// Times of a phase, or of a fault in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// When it comes into force for the first time.
    pub at: u64,
    /// For how long each time; none is to the end.
    pub length: Option<u64>,
    /// From one beginning to the next; none is once. Not less than `length`.
    pub every: Option<u64>,
    /// How often; none is again and again.
    pub times: Option<u64>,
    /// How long its ramp takes, from the beginning of each time.
    pub ramp: Option<u64>,
}

/// One of the times that something is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence {
    /// Which, from 0.
    pub number: u64,
    /// When it began.
    pub start: u64,
}

impl Schedule {
    /// The last occurrence that had begun at `now`, over or not.
    fn latest(&self, now: u64) -> Option<Occurrence> {
        let since = now.checked_sub(self.at)?;
        let number = self.every.map_or(0, |every| since / every.max(1));
        let number = number.min(self.times.map_or(u64::MAX, |times| times.saturating_sub(1)));
        let start = self.at.saturating_add(number.saturating_mul(self.every.unwrap_or(0)));
        Some(Occurrence { number, start })
    }

    /// The occurrence that is in force at `now`.
    #[must_use]
    pub fn occurrence(&self, now: u64) -> Option<Occurrence> {
        let occurrence = self.latest(now)?;
        let is_over = self.length.is_some_and(|length| now - occurrence.start >= length);
        (!is_over).then_some(occurrence)
    }

    /// How far the ramp is at `now`: step, and number of steps. `now` is in an occurrence.
    #[must_use]
    pub fn step(&self, now: u64) -> Option<(u64, u64)> {
        let (ramp, occurrence) = (self.ramp?, self.occurrence(now)?);
        let steps = steps(ramp);
        let since = u128::from(now - occurrence.start);
        let step = since * u128::from(steps) / u128::from(ramp.max(1));
        Some((u64::try_from(step).unwrap_or(steps).min(steps), steps))
    }

    /// When something changes next, behind `now`.
    #[must_use]
    pub fn next(&self, now: u64) -> Option<u64> {
        let Some(latest) = self.latest(now) else { return Some(self.at) };
        let end = self.length.map(|length| latest.start.saturating_add(length));
        let again = self.every.filter(|_| self.times.is_none_or(|times| latest.number + 1 < times));
        let again = again.map(|every| latest.start.saturating_add(every));
        let step = self.ramp.and_then(|ramp| {
            let (done, steps) = self.step(now)?;
            // Rounded up: at that moment the step has been reached.
            let due = (u128::from(done + 1) * u128::from(ramp)).div_ceil(u128::from(steps));
            (done < steps).then(|| latest.start.saturating_add(u64::try_from(due).unwrap_or(u64::MAX)))
        });
        [end, again, step].into_iter().flatten().filter(|due| *due > now).min()
    }

    /// When it is over for good; none is never.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        let length = self.length?;
        let last = match (self.every, self.times) {
            (Some(every), Some(times)) => every.saturating_mul(times.saturating_sub(1)),
            (Some(_), None) => return None,
            (None, _) => 0,
        };
        Some(self.at.saturating_add(last).saturating_add(length))
    }
}

const fn steps(ramp: u64) -> u64 {
    let most = ramp / SHORTEST_STEP_NS;
    if most == 0 {
        1
    } else if most < RAMP_STEPS {
        most
    } else {
        RAMP_STEPS
    }
}

/// `from` on its way to `to`, `step` of `steps` done.
#[must_use]
pub fn between(from: u64, to: u64, (step, steps): (u64, u64)) -> u64 {
    let (from, to, step, steps) =
        (i128::from(from), i128::from(to), i128::from(step), i128::from(steps.max(1)));
    u64::try_from(from + (to - from) * step / steps).unwrap_or(0)
}

/// Nanoseconds.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All moments at which something changes.
    fn edges(schedule: &Schedule, until: u64) -> Vec<u64> {
        let first = (schedule.at == 0).then_some(0);
        let mut edges: Vec<u64> = first.into_iter().collect();
        let mut now = 0;
        while let Some(next) = schedule.next(now).filter(|next| *next <= until) {
            edges.push(next);
            now = next;
        }
        edges
    }

    #[test]
    fn once_and_again() {
        let once = Schedule { at: 10, length: Some(5), ..Schedule::default() };
        assert_eq!(edges(&once, 1000), [10, 15]);
        assert_eq!(once.end(), Some(15));
        assert_eq!(once.occurrence(9), None);
        assert_eq!(once.occurrence(10), Some(Occurrence { number: 0, start: 10 }));
        assert_eq!(once.occurrence(15), None);
        let thrice = Schedule { every: Some(20), times: Some(3), ..once };
        assert_eq!(edges(&thrice, 1000), [10, 15, 30, 35, 50, 55]);
        assert_eq!(thrice.end(), Some(55));
        assert_eq!(thrice.occurrence(52), Some(Occurrence { number: 2, start: 50 }));
        let forever = Schedule { every: Some(20), ..once };
        assert_eq!(forever.end(), None);
        assert_eq!(edges(&forever, 60), [10, 15, 30, 35, 50, 55]);
        let to_the_end = Schedule { at: 7, ..Schedule::default() };
        assert_eq!((edges(&to_the_end, 1000), to_the_end.end()), (vec![7], None));
    }

    #[test]
    fn back_to_back_occurrences_begin_where_the_last_ends() {
        let schedule =
            Schedule { at: 0, length: Some(5), every: Some(5), times: Some(3), ..Schedule::default() };
        assert_eq!(edges(&schedule, 100), [0, 5, 10, 15]);
        assert_eq!(schedule.occurrence(5), Some(Occurrence { number: 1, start: 5 }));
        assert_eq!(schedule.occurrence(15), None);
    }

    #[test]
    fn ramps_have_a_hundred_steps_or_fewer() {
        const S: u64 = 1_000_000_000;
        let ramp = |over| Schedule { at: S, length: Some(60 * S), ramp: Some(over), ..Schedule::default() };
        // Begin, hundred steps, end.
        assert_eq!(edges(&ramp(30 * S), u64::MAX).len(), 1 + 100 + 1);
        assert_eq!(edges(&ramp(S / 2), u64::MAX).len(), 1 + 50 + 1);
        assert_eq!(edges(&ramp(1), u64::MAX).len(), 1 + 1 + 1);
        assert_eq!(ramp(30 * S).step(S), Some((0, 100)));
        assert_eq!(ramp(30 * S).step(16 * S), Some((50, 100)));
        assert_eq!(ramp(30 * S).step(31 * S), Some((100, 100)));
        assert_eq!(ramp(30 * S).step(60 * S), Some((100, 100)));
    }

    #[test]
    fn ramps_go_both_ways_and_arrive() {
        assert_eq!([0, 50, 100].map(|step| between(0, 300, (step, 100))), [0, 150, 300]);
        assert_eq!([0, 50, 100].map(|step| between(u64::MAX, 0, (step, 100)))[2], 0);
        assert_eq!(between(300, 100, (25, 100)), 250);
    }

    proptest! {
        /// Every change of state is an edge, edges are in order, and there is always a next one until the end.
        #[test]
        fn nothing_changes_between_edges(
            at in 0u64..1000, length in proptest::option::of(1u64..300), pause in 0u64..300,
            times in proptest::option::of(1u64..6), repeats: bool, ramp in proptest::option::of(1u64..500),
        ) {
            let every = length.filter(|_| repeats).map(|length| length + pause);
            let times = every.and(times);
            // Ramp steps are never shorter than 10 ms, so one step here.
            let schedule = Schedule { at, length, every, times, ramp };
            let state = |now| (schedule.occurrence(now), schedule.step(now));
            let until = 4000;
            let edges = edges(&schedule, until);
            prop_assert!(edges.is_sorted_by(|a, b| a < b));
            for now in 1..until {
                if state(now) != state(now - 1) {
                    prop_assert!(edges.contains(&now), "{now} {:?} {edges:?}", state(now));
                }
            }
            if let Some(end) = schedule.end() {
                prop_assert_eq!(schedule.next(end), None);
                prop_assert_eq!(schedule.occurrence(end), None);
            }
        }
    }
}
