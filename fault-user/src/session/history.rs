//! What the rules had done, every half second: for the report that shows it over time.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::heal::RuleTotals;

/// How often it is written down, at first.
const EVERY: Duration = Duration::from_millis(500);
/// Points of one rule: beyond, every other one is forgotten, and half as many are taken from then on. More than a screen has
/// columns, and less than two hundred kilobytes for all rules.
const MOST: usize = 1200;

/// What one rule had done at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// Nanoseconds since the session became active.
    pub at_ns: u64,
    /// Operations that had passed the filter.
    pub matched: u64,
    /// Operations that had been hit.
    pub injected: u64,
    /// Sum of the delays asked for until then, nanoseconds.
    pub delay_ns: u64,
}

impl Point {
    const fn new(at_ns: u64, totals: &RuleTotals) -> Self {
        Self { at_ns, matched: totals.matched, injected: totals.injected, delay_ns: totals.delay_ns }
    }
}

/// The points of all rules, oldest first, and when the next ones are due.
#[derive(Debug)]
pub(super) struct History {
    began: Instant,
    every: Duration,
    ticks: Interval,
    rules: Vec<Vec<Point>>,
}

impl History {
    /// Of a session that has just become active.
    pub(super) fn new() -> Self {
        let mut history =
            Self { began: Instant::now(), every: EVERY, ticks: interval(EVERY), rules: Vec::new() };
        history.ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        history
    }

    /// Waits until it is time.
    pub(super) async fn due(&mut self) {
        self.ticks.tick().await;
    }

    /// Writes down what the rules have done until now, in the order of the plan.
    pub(super) fn take(&mut self, totals: impl Iterator<Item = RuleTotals>) {
        let at_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        for (place, totals) in totals.enumerate() {
            if self.rules.len() <= place {
                self.rules.push(Vec::new());
            }
            self.rules[place].push(Point::new(at_ns, &totals));
        }
        if self.rules.first().is_some_and(|points| points.len() >= MOST) {
            self.thin();
        }
    }

    fn thin(&mut self) {
        for points in &mut self.rules {
            let mut place = 0;
            points.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
        self.every *= 2;
        self.ticks = interval(self.every);
        self.ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first tick of an interval is at once.
        self.ticks.reset();
    }

    /// The points of each rule, in the order of the plan.
    pub(super) fn into_points(self) -> Vec<Vec<Point>> {
        self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_session_is_written_down_more_and_more_coarsely() {
        let mut history = History::new();
        for taken in 0..3 * MOST as u64 {
            history.due().await;
            history.take([RuleTotals { matched: taken, ..RuleTotals::default() }].into_iter());
        }
        let points = history.into_points().remove(0);
        assert!((MOST / 2..MOST).contains(&points.len()), "{} points", points.len());
        assert!(
            points.windows(2).all(|pair| pair[0].at_ns < pair[1].at_ns && pair[0].matched < pair[1].matched)
        );
        assert_eq!(points[0], Point::default());
    }
}
