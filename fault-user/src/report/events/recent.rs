//! The last events of a session, and how late those of each rule were: for the live view.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Lines kept.
const KEPT: usize = 16;

/// Upper ends of the steps of the histogram, nanoseconds: 1, 2 and 5 of each power of ten from 1 µs to 100 s. What is longer
/// is in a last step without an end.
pub const DELAY_STEPS_NS: [u64; 25] = {
    let mut steps = [0; 25];
    let mut place = 0;
    let mut decade = 1_000;
    while place < steps.len() {
        steps[place] = decade * [1, 2, 5][place % 3];
        place += 1;
        if place % 3 == 0 {
            decade *= 10;
        }
    }
    steps
};

/// Events by the step their delay is in.
type Steps = [u64; DELAY_STEPS_NS.len() + 1];

/// See the module. Shared by the session, which adds, and whoever looks, who copies.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Vec<u8>>,
    delays: BTreeMap<u32, Steps>,
}

impl Recent {
    /// One event more: the rule that decided, the delay asked for, the line without its end.
    pub(super) fn add(&self, rule: Option<u32>, delay_ns: u64, line: &[u8]) {
        let mut kept = self.kept();
        let mut place =
            if kept.lines.len() < KEPT { None } else { kept.lines.pop_front() }.unwrap_or_default();
        place.clear();
        place.extend_from_slice(line);
        kept.lines.push_back(place);
        if let (Some(rule), 1..) = (rule, delay_ns) {
            let steps = kept.delays.entry(rule).or_insert([0; DELAY_STEPS_NS.len() + 1]);
            steps[DELAY_STEPS_NS.partition_point(|end| *end < delay_ns)] += 1;
        }
    }

    /// The last events, oldest first, each a JSON object.
    #[must_use]
    pub fn lines(&self) -> Vec<Vec<u8>> {
        self.kept().lines.iter().cloned().collect()
    }

    /// How many events of `rule` asked for a delay of each step, if any did.
    #[must_use]
    pub fn delays(&self, rule: u32) -> Option<Steps> {
        self.kept().delays.get(&rule).copied()
    }

    /// Rules got other numbers.
    pub(crate) fn forget_delays(&self) {
        self.kept().delays.clear();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every change of it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_delays_are_sorted() {
        let recent = Recent::default();
        for number in 0..100_u64 {
            recent.add(Some(3), number * 1_000_000, number.to_string().as_bytes());
        }
        let lines = recent.lines();
        assert_eq!((lines.len(), &lines[0][..], &lines[KEPT - 1][..]), (KEPT, &b"84"[..], &b"99"[..]));
        let steps = recent.delays(3).expect("delays");
        let of =
            |ms: u64| steps[DELAY_STEPS_NS.iter().position(|end| *end == ms * 1_000_000).expect("a step")];
        // 1; 2; 3..=5; 6..=10; 11..=20; 21..=50; 51..=99.
        assert_eq!([1, 2, 5, 10, 20, 50, 100].map(of), [1, 1, 3, 5, 10, 30, 49]);
        assert_eq!(steps.iter().sum::<u64>(), 99, "what was not late has no delay");
        assert!(recent.delays(4).is_none());
        recent.add(Some(4), u64::MAX, b"");
        assert_eq!(recent.delays(4).expect("delays").last(), Some(&1));
    }
}
