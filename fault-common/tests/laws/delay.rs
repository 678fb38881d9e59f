//! How late a delayed operation is.

use fault_common::{
    decide::{
        delay::{Delay, Distribution, ORDERED, departure},
        past::Past,
        rng::Coordinates,
    },
    limits::MAX_PACKET_DELAY_NS,
};
use proptest::prelude::*;

fn distribution() -> impl Strategy<Value = u32> {
    (0..4u32).prop_map(|number| number)
}

/// Up to ten minutes: what people write.
fn duration() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000u64, 0..1_000_000_000u64, 0..600_000_000_000u64]
}

fn delay(distribution: Distribution, mean_ns: u64, jitter_ns: u64) -> Delay {
    Delay { mean_ns, jitter_ns, distribution: distribution as u32, flags: 0, ..Delay::default() }
}

/// `jitter × factor`, rounded away from zero by what the table's resolution may add.
fn reach(jitter_ns: u64, factor: f64) -> u64 {
    (jitter_ns as f64 * factor) as u64 + 1
}

/// How much wider than its standard deviation netem's Pareto is: 2/√3.
const WIDTH: f64 = 1.154_700_538_379_251_5;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_bit_pattern_overflows(
        mean_ns: u64, jitter_ns: u64, distribution: u32, flags: u32, old: u32, new: u32, draw: u64, past: u64,
    ) {
        let delay = Delay { mean_ns, jitter_ns, distribution, flags, old, new };
        prop_assert!(delay.shape(draw, None) <= MAX_PACKET_DELAY_NS);
        let at = Coordinates { seed: draw, rule: 0, stream: 1, ordinal: 2 };
        prop_assert!(delay.sample(&at, &mut Past(past), None) <= MAX_PACKET_DELAY_NS);
    }

    #[test]
    fn without_jitter_it_is_constant(mean_ns in duration(), distribution in distribution(), seed: u64) {
        let delay = Delay { mean_ns, jitter_ns: 0, distribution, flags: 0, ..Delay::default() };
        prop_assert_eq!(delay.sample(&Coordinates { seed, rule: 3, stream: 4, ordinal: 5 }, &mut Past::default(), None), mean_ns);
        prop_assert_eq!(delay.shape(seed, None).abs_diff(mean_ns), 0);
    }

    #[test]
    fn larger_draws_are_later(
        mean_ns in duration(), jitter_ns in duration(), distribution in distribution(), a: u64, b: u64,
    ) {
        let delay = Delay { mean_ns, jitter_ns, distribution, flags: 0, ..Delay::default() };
        prop_assert!(delay.shape(a.min(b), None) <= delay.shape(a.max(b), None));
    }

    #[test]
    fn uniform_stays_within_the_jitter(mean_ns in duration(), jitter_ns in duration(), draw: u64) {
        let delay = delay(Distribution::Uniform, mean_ns, jitter_ns);
        let bounds = mean_ns.saturating_sub(jitter_ns)..=mean_ns + jitter_ns;
        prop_assert!(bounds.contains(&delay.shape(draw, None)));
    }

    #[test]
    fn uniform_reaches_both_ends(mean_ns in duration(), jitter_ns in 0..2_000_000_000u64) {
        let delay = delay(Distribution::Uniform, mean_ns, jitter_ns);
        prop_assert_eq!(delay.shape(0, None), mean_ns.saturating_sub(jitter_ns));
        prop_assert_eq!(delay.shape(u64::MAX, None), mean_ns + jitter_ns);
    }

    #[test]
    fn normal_ends_at_four_deviations(mean_ns in duration(), jitter_ns in duration(), draw: u64) {
        let late = delay(Distribution::Normal, mean_ns, jitter_ns).shape(draw, None);
        let reach = reach(jitter_ns, 4.0);
        prop_assert!((mean_ns.saturating_sub(reach)..=mean_ns + reach).contains(&late));
    }

    #[test]
    fn pareto_has_a_floor_and_a_long_tail(mean_ns in duration(), jitter_ns in duration(), draw: u64) {
        let late = delay(Distribution::Pareto, mean_ns, jitter_ns).shape(draw, None);
        let (down, up) = (reach(jitter_ns, 0.5775), reach(jitter_ns, 35.3));
        prop_assert!((mean_ns.saturating_sub(down)..=mean_ns.saturating_add(up)).contains(&late));
    }

    #[test]
    fn paretonormal_lies_between(mean_ns in duration(), jitter_ns in duration(), draw: u64) {
        let at = |distribution| delay(distribution, 0, jitter_ns).shape(draw | 1 << 63, None);
        let mixed = at(Distribution::ParetoNormal);
        let (normal, pareto) = (at(Distribution::Normal), reach(at(Distribution::Pareto), WIDTH));
        // Rounding of three tables.
        let slack = jitter_ns / 4096 + 2;
        prop_assert!(mixed + slack >= normal.min(pareto) && mixed <= normal.max(pareto) + slack);
        let late = delay(Distribution::ParetoNormal, mean_ns, jitter_ns).shape(draw, None);
        prop_assert!(late <= mean_ns.saturating_add(reach(jitter_ns, 31.7)));
    }

    #[test]
    fn ordered_departures_never_run_backwards(
        arrivals in prop::collection::vec((0..1_000_000u64, 0..50_000_000u64), 1..50),
    ) {
        let (mut now, mut latest) = (1_000u64, 0u64);
        for (gap, delay_ns) in arrivals {
            now += gap;
            let leaves = departure(now, delay_ns, ORDERED, latest);
            prop_assert!(leaves >= latest && leaves >= now + delay_ns);
            // Never later than needed.
            prop_assert!(leaves == latest || leaves == now + delay_ns);
            latest = leaves;
        }
    }

    #[test]
    fn without_ordered_the_past_does_not_matter(now: u64, delay_ns: u64, latest: u64) {
        prop_assert_eq!(departure(now, delay_ns, 0, latest), now.saturating_add(delay_ns));
    }
}

#[test]
fn what_would_be_negative_is_zero() {
    for distribution in [Distribution::Uniform, Distribution::Normal, Distribution::ParetoNormal] {
        assert_eq!(delay(distribution, 10, 1000).shape(0, None), 0, "{distribution:?}");
    }
}
