//! Asked for p, hit how often? Exact binomial (Clopper–Pearson) bounds at 99.9 %.

use fault_common::{
    counters::RuleCounters,
    decide::{
        Moment, decide,
        past::Past,
        simulation::Simulation,
        trigger::{Trigger, threshold_from_ppb},
    },
    rule::{Layer, Rule, Verb},
    who::Stream,
};

use crate::{ALPHA, at, bounds::clopper_pearson};

fn trigger(ppb: u64) -> Trigger {
    Trigger { threshold: threshold_from_ppb(ppb), ..Trigger::ALWAYS }
}

/// The probability a threshold stands for, which the 32 bits may put 0.012 % beside the one asked for.
fn meant(trigger: &Trigger) -> f64 {
    trigger.threshold as f64 / (1u64 << 32) as f64
}

#[track_caller]
fn assert_rate(what: &str, trigger: &Trigger, draws: u64, hits: u64, alpha: f64) {
    let p = meant(trigger);
    assert!(clopper_pearson(draws, p, hits, alpha), "{what}: p = {p}, {hits} hits of {draws}");
}

/// One long stream, through the whole decision.
fn through_decide(ppb: u64, draws: u64) {
    let trigger = trigger(ppb);
    let rules = [Rule { layer: Layer::Net as u32, verb: Verb::Drop as u32, trigger, ..Rule::default() }];
    let counters = [RuleCounters::default()];
    let mut stream = Stream::new(1);
    let moment = Moment { seed: 2026, stream: 1, bytes: 1500, ..Moment::default() };
    let mut hits = 0;
    for _ in 0..draws {
        let mut world = Simulation::of(&rules, &counters, &mut stream);
        hits += decide(&mut world, 1, &moment).hits;
    }
    assert_rate("decide", &trigger, draws, hits, ALPHA);
    assert_eq!(counters[0].injected.load(), hits);
}

#[test]
fn one_in_a_million() {
    // 10^8 draws: 100 hits expected, 69 to 135 accepted.
    let trigger = trigger(1_000);
    let draws = 100_000_000;
    let hits = (0..draws)
        .filter(|&ordinal| trigger.wants(1, &at(1, 0, 1, ordinal), &mut Past::default()))
        .count() as u64;
    assert_rate("1e-6", &trigger, draws, hits, ALPHA);
}

#[test]
fn one_in_a_million_over_many_short_streams() {
    // 10^7 sockets of one packet each, and 10^6 of ten: 10 and 10 hits expected.
    let trigger = trigger(1_000);
    for (streams, length) in [(10_000_000u64, 1u64), (1_000_000, 10)] {
        let hits = (1..=streams)
            .flat_map(|stream| (0..length).map(move |ordinal| at(3, 2, stream, ordinal)))
            .filter(|at| trigger.wants(1, at, &mut Past::default()))
            .count() as u64;
        assert_rate("1e-6 over streams", &trigger, streams * length, hits, ALPHA / 2.0);
    }
}

#[test]
fn one_in_ten_thousand() {
    through_decide(100_000, 20_000_000);
}

#[test]
fn one_percent() {
    through_decide(10_000_000, 10_000_000);
}

#[test]
fn ten_percent() {
    through_decide(100_000_000, 10_000_000);
}

#[test]
fn one_half() {
    through_decide(500_000_000, 10_000_000);
}

#[test]
fn all_but_one_in_a_thousand() {
    through_decide(999_000_000, 10_000_000);
}

#[test]
fn any_seed_any_rule_any_stream() {
    // 4096 combinations, 20 000 draws each, at 1 %, 10 % and 50 %; 0.1 % for all of them together.
    let seeds = [0, 1, 2, 3, 42, 0xdead_beef, u64::MAX - 1, u64::MAX];
    let rules = [0, 1, 2, 3, 4, 5, 62, 63];
    let streams: Vec<u64> = (0..60).chain([1 << 20, 1 << 32, 1 << 63, u64::MAX]).collect();
    let (triggers, draws) = ([10_000_000, 100_000_000, 500_000_000].map(trigger), 20_000);
    let cells = (seeds.len() * rules.len() * streams.len() * triggers.len()) as f64;
    for seed in seeds {
        for rule in rules {
            for &stream in &streams {
                let mut hits = [0u64; 3];
                for ordinal in 0..draws {
                    let at = at(seed, rule, stream, ordinal);
                    for (hits, trigger) in hits.iter_mut().zip(&triggers) {
                        *hits += u64::from(trigger.wants(1, &at, &mut Past::default()));
                    }
                }
                for (hits, trigger) in hits.iter().zip(&triggers) {
                    let what = format!("seed {seed} rule {rule} stream {stream}");
                    assert_rate(&what, trigger, draws, *hits, ALPHA / cells);
                }
            }
        }
    }
}
