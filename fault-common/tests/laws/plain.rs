//! The short way to spare an operation comes to what the long one does.

use fault_common::{
    decide::{
        Verdict,
        connections::Connections,
        plain::{lets_go, sole},
        rng::{Purpose, key},
        simulation::Facts,
        trigger::{CERTAIN, Model, Trigger},
    },
    rule::{
        Layer, Rule, Verb,
        net::{Direction, PacketFacts},
    },
};
use proptest::prelude::*;

use crate::{Bench, rule};

/// Triggers of which about half are plain; the others have one condition more.
fn trigger() -> impl Strategy<Value = Trigger> {
    let threshold = prop_oneof![Just(CERTAIN), 0..CERTAIN, 0..CERTAIN / 8];
    let times = prop_oneof![Just(0), 1..6u64];
    (threshold, times, 0..20u32, 1..9u64).prop_map(|(threshold, times, condition, number)| {
        let mut trigger = Trigger { threshold, times, ..Trigger::ALWAYS };
        match condition {
            0 => trigger.nth = number,
            1 => trigger.every = number,
            2 => trigger.first = number,
            3 => trigger.gap = number as u32,
            4 => trigger.correlation = CERTAIN / number,
            5 => trigger.start_ns = number * 10,
            6 => trigger.end_ns = number * 10,
            7 => (trigger.cycle_ns, trigger.cycle_on_ns) = (number * 2, number),
            8 => trigger.model = Model::Gilbert as u32,
            9 => trigger.model = Model::Markov as u32,
            _ => {}
        }
        trigger
    })
}

proptest! {
    #[test]
    fn what_is_let_go_would_have_been_spared(
        trigger in trigger(),
        verb in prop::sample::select(vec![Verb::Drop, Verb::Delay, Verb::Duplicate, Verb::Spare]),
        slot in 0..4usize,
        seed in any::<u64>(),
    ) {
        // Others before it, which do not look at packets.
        let mut rules = vec![rule(9, Layer::Disk, Verb::Error, Trigger::ALWAYS); slot];
        rules.push(rule(3, Layer::Net, verb, trigger));
        let (mut long, mut short) = (Bench::new(rules.clone()), Bench::new(rules.clone()));
        (long.rules, short.rules) = (rules.clone(), rules);
        (long.seed, short.seed) = (seed, seed);
        let packet = Facts::Packet(PacketFacts { direction: Direction::Out as u32, ..PacketFacts::default() });
        let mut let_go = 0;
        for turn in 0..60 {
            let outcome = long.step(packet, turn, 100);
            let rule = Rule { key: key(seed, 3, Purpose::Trigger), ..short.rules[slot] };
            if rule.is_plain() && lets_go(&rule, &short.counters[slot], &mut short.stream, slot as u32) {
                let_go += 1;
                prop_assert_eq!((outcome.verdict, outcome.hits), (Verdict::Pass, 0));
            } else {
                prop_assert_eq!(short.step(packet, turn, 100), outcome);
            }
        }
        let counts = |bench: &Bench| {
            let counters = &bench.counters[slot];
            (counters.matched.load(), counters.injected.load(), counters.claimed.load(), bench.stream.ordinals, bench.stream.memory)
        };
        prop_assert_eq!(counts(&short), counts(&long));
        if trigger.is_chance_alone() && trigger.threshold < CERTAIN / 8 {
            // 59 that may be, each with a chance of at least 7/8: fewer than 20 come by chance once in 10^20.
            prop_assert!(let_go >= 20, "{}", let_go);
        }
    }

    #[test]
    fn the_sole_slot_is_that_of_the_only_bit(mask in prop_oneof![any::<u64>(), 0..16u64, (0..64u32).prop_map(|slot| 1 << slot)]) {
        match sole(mask) {
            Some(slot) => prop_assert_eq!(mask, 1 << slot),
            None => prop_assert!(mask.count_ones() != 1 || mask.trailing_zeros() >= 4),
        }
    }
}

#[test]
fn a_rule_that_looks_at_more_than_chance_is_not_plain() {
    let plain =
        rule(0, Layer::Disk, Verb::Error, Trigger { threshold: CERTAIN / 2, times: 3, ..Trigger::ALWAYS });
    assert!(plain.is_plain());
    assert!(!Rule { trigger: Trigger::ALWAYS, ..plain }.is_plain(), "it lets nothing go");
    let some = Connections { number: 2, ..Connections::default() };
    assert!(!Rule { connections: some, ..plain }.is_plain());
    let mut healing = plain;
    healing.block.until_written = 1;
    assert!(!healing.is_plain());
}
