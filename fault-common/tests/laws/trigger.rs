//! When a matching operation is hit.

use fault_common::decide::{
    past::Past,
    rng::Coordinates,
    simulation::Facts,
    trigger::{CERTAIN, Trigger, threshold_from_ppb},
};
use fault_common::rule::{Layer, Verb};
use proptest::prelude::*;

use crate::{Bench, hits_of, rule};

const OPERATIONS: u64 = 200;

prop_compose! {
    fn trigger()(
        threshold in prop_oneof![Just(0), Just(CERTAIN), 0..CERTAIN],
        nth in prop_oneof![3 => Just(0), 1 => 0..40u64],
        every in prop_oneof![2 => Just(0), 1 => 0..9u64],
        first in prop_oneof![2 => Just(0), 1 => 0..99u64],
        times in prop_oneof![2 => Just(0), 1 => 0..9u64],
    ) -> Trigger {
        Trigger { threshold, nth, every, first, times, ..Trigger::default() }
    }
}

proptest! {
    #[test]
    fn nth_hits_once(n in 1..=OPERATIONS) {
        prop_assert_eq!(hits_of(Trigger { nth: n, ..Trigger::ALWAYS }, OPERATIONS), vec![n]);
    }

    #[test]
    fn every_hits_its_multiples(k in 1..=OPERATIONS) {
        let expected: Vec<u64> = (1..=OPERATIONS / k).map(|i| i * k).collect();
        prop_assert_eq!(hits_of(Trigger { every: k, ..Trigger::ALWAYS }, OPERATIONS), expected);
    }

    #[test]
    fn first_hits_a_prefix(n in 1..=2 * OPERATIONS) {
        let expected: Vec<u64> = (1..=n.min(OPERATIONS)).collect();
        prop_assert_eq!(hits_of(Trigger { first: n, ..Trigger::ALWAYS }, OPERATIONS), expected);
    }

    #[test]
    fn times_takes_the_first_of_what_would_be_hit(unlimited in trigger(), times in 1..20u64) {
        let unlimited = Trigger { times: 0, ..unlimited };
        let mut expected = hits_of(unlimited, OPERATIONS);
        expected.truncate(times as usize);
        prop_assert_eq!(hits_of(Trigger { times, ..unlimited }, OPERATIONS), expected);
    }

    #[test]
    fn conditions_are_a_conjunction(all in trigger()) {
        let all = Trigger { times: 0, ..all };
        let alone = [
            Trigger { threshold: all.threshold, ..Trigger::ALWAYS },
            Trigger { nth: all.nth, ..Trigger::ALWAYS },
            Trigger { every: all.every, ..Trigger::ALWAYS },
            Trigger { first: all.first, ..Trigger::ALWAYS },
        ]
        .map(|one| hits_of(one, OPERATIONS));
        let expected: Vec<u64> =
            (1..=OPERATIONS).filter(|n| alone.iter().all(|hits| hits.contains(n))).collect();
        prop_assert_eq!(hits_of(all, OPERATIONS), expected);
    }

    #[test]
    fn hits_keep_their_distance(threshold in prop_oneof![Just(CERTAIN), 1..CERTAIN], gap in 1..30u32) {
        let hits = hits_of(Trigger { threshold, gap, ..Trigger::ALWAYS }, OPERATIONS);
        let from_the_beginning: Vec<u64> = [0].into_iter().chain(hits.iter().copied()).collect();
        prop_assert!(from_the_beginning.windows(2).all(|pair| pair[1] - pair[0] >= u64::from(gap)), "{hits:?}");
        if threshold == CERTAIN {
            prop_assert_eq!(hits, (1..=OPERATIONS / u64::from(gap)).map(|n| n * u64::from(gap)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_gap_of_one_is_none(trigger in trigger()) {
        prop_assert_eq!(hits_of(Trigger { gap: 1, ..trigger }, OPERATIONS), hits_of(trigger, OPERATIONS));
    }

    #[test]
    fn never_and_always_are_exact(seed: u64, id: u32, stream: u64, ordinal: u64) {
        let at = Coordinates { seed, rule: id, stream, ordinal };
        let never = Trigger { threshold: 0, ..Trigger::ALWAYS };
        prop_assert!(!never.wants(1, &at, &mut Past::default()));
        prop_assert!(Trigger::ALWAYS.wants(1, &at, &mut Past::default()));
    }

    #[test]
    fn a_larger_probability_hits_a_superset(a in 0..=CERTAIN, b in 0..=CERTAIN) {
        let [fewer, more] = [a.min(b), a.max(b)]
            .map(|threshold| hits_of(Trigger { threshold, ..Trigger::ALWAYS }, OPERATIONS));
        prop_assert!(fewer.iter().all(|hit| more.contains(hit)));
    }

    #[test]
    fn window_is_half_open(start in 0..1000u64, length in 1..1000u64, elapsed in 0..3000u64) {
        let window = Trigger { start_ns: start, end_ns: start + length, ..Trigger::ALWAYS };
        prop_assert_eq!(window.in_window(elapsed), (start..start + length).contains(&elapsed));
        let open = Trigger { end_ns: 0, ..window };
        prop_assert_eq!(open.in_window(elapsed), elapsed >= start);
    }

    #[test]
    fn outside_of_its_window_a_rule_counts_nothing(start in 1..1000u64, length in 1..1000u64, nth in 1..50u64) {
        let trigger = Trigger { start_ns: start, end_ns: start + length, nth, ..Trigger::ALWAYS };
        let mut bench = Bench::new(vec![rule(0, Layer::Disk, Verb::Error, trigger)]);
        for elapsed in [0, start - 1, start + length, u64::MAX] {
            prop_assert_eq!(bench.step(Facts::Anything, elapsed, 1).hits, 0);
        }
        prop_assert_eq!(bench.counters[0].matched.load(), 0);
        // The nth operation is the nth of the window.
        let hits: Vec<u64> =
            (1..=60).filter(|_| bench.step(Facts::Anything, start, 1).hits != 0).collect();
        prop_assert_eq!(hits, vec![nth]);
    }

    #[test]
    fn a_cycle_turns_from_the_beginning_of_the_window(
        start in 0..1000u64, on in 1..300u64, off in 1..300u64, turn in 0..50u64, at in 0..600u64, end in 0..50_000u64,
    ) {
        let cycle = Trigger { start_ns: start, cycle_ns: on + off, cycle_on_ns: on, ..Trigger::ALWAYS };
        let at = at % (on + off);
        let elapsed = start + turn * (on + off) + at;
        prop_assert_eq!(cycle.in_window(elapsed), at < on);
        prop_assert!(start == 0 || !cycle.in_window(start - 1));
        // Both windows must be open.
        let ends = Trigger { end_ns: start + 1 + end, ..cycle };
        prop_assert_eq!(ends.in_window(elapsed), at < on && elapsed < start + 1 + end);
    }

    #[test]
    fn no_cycle_overflows(start: u64, cycle_ns: u64, cycle_on_ns: u64, elapsed: u64) {
        let cycle = Trigger { start_ns: start, cycle_ns, cycle_on_ns, ..Trigger::ALWAYS };
        prop_assert!(!cycle.in_window(elapsed) || elapsed >= start);
    }

    #[test]
    fn thresholds_are_monotone(a in 0..=1_000_000_000u64, b in 0..=1_000_000_000u64) {
        prop_assert_eq!(threshold_from_ppb(a.min(b)).max(threshold_from_ppb(a.max(b))), threshold_from_ppb(a.max(b)));
    }

    #[test]
    fn thresholds_are_as_near_as_32_bits_can_be(ppb in 0..=1_000_000_000u64) {
        // |threshold / 2^32 - ppb / 10^9| <= 2^-33, in integers.
        let (wanted, got) = (u128::from(ppb) << 32, u128::from(threshold_from_ppb(ppb)) * 1_000_000_000);
        prop_assert!(wanted.abs_diff(got) <= 500_000_000);
        // From 1 ppm on that is within 0.012 % of what was asked.
        if ppb >= 1000 {
            prop_assert!(wanted.abs_diff(got) * 10_000 <= 12 * wanted / 10);
        }
    }
}

#[test]
fn thresholds_at_the_ends() {
    assert_eq!(threshold_from_ppb(0), 0);
    assert_eq!(threshold_from_ppb(1_000_000_000), CERTAIN);
    assert_eq!(threshold_from_ppb(u64::MAX), CERTAIN);
    assert_eq!(threshold_from_ppb(500_000_000), CERTAIN / 2);
    assert!(threshold_from_ppb(999_999_999) < CERTAIN, "almost certain is not certain");
    assert!(threshold_from_ppb(1) > 0, "almost never is not never");
    assert_eq!(threshold_from_ppb(1000), 4295, "0.0001 %");
}
