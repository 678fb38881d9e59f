//! Several rules, one operation.

use fault_common::{
    counters::RuleCounters,
    decide::{
        Moment, Outcome, Verdict,
        combine::{BOTH_ENDS, BREAK_CHECKSUM, DUPLICATE, MARK},
        connections::Connections,
        decide,
        delay::{Delay, ORDERED},
        past::Past,
        rate::{OPERATIONS, PER_CONNECTION, Rate},
        rng::{Coordinates, Purpose, draw},
        simulation::{Facts, Simulation},
        trigger::{CERTAIN, Trigger},
    },
    limits::{MAX_PARK_NS, MAX_RULES},
    rule::{
        Corruption, Layer, Rule, Verb,
        block::{BioFacts, op},
        file::{FileFacts, OPS},
        net::{BOTH_DIRECTIONS, Direction, PacketFacts, protocol},
    },
    who::{Connection, Stream},
};
use proptest::prelude::*;

use crate::{Bench, rule};

fn verb(layer: Layer) -> impl Strategy<Value = Verb> {
    let verbs = match layer {
        Layer::Net => {
            vec![Verb::Drop, Verb::Reset, Verb::Mark, Verb::Corrupt, Verb::Duplicate, Verb::Rate, Verb::Delay]
        }
        Layer::Disk => vec![Verb::Error, Verb::Rate, Verb::Delay, Verb::DelayThenError],
        Layer::File => vec![Verb::Fail],
        Layer::Proc => vec![Verb::Delay],
    };
    prop::sample::select(verbs)
}

prop_compose! {
    fn some_rule(layer: Layer)(
        verb in verb(layer),
        threshold in prop_oneof![Just(CERTAIN), 0..CERTAIN],
        (nth, every) in prop_oneof![3 => Just((0, 0)), 1 => (0..20u64, Just(0)), 1 => (Just(0), 1..5u64)],
        times in prop_oneof![3 => Just(0), 1 => 1..5u64],
        ops in prop_oneof![Just(0), 1..8u32],
        directions in 1..4u32,
        mean_ns in 0..1_000_000u64,
        jitter_ns in 0..1_000_000u64,
        distribution in 0..4u32,
        flags in 0..2u32,
        bytes_per_second in prop_oneof![1..100_000u64, 1..1_000_000_000u64],
    ) -> Rule {
        let mut rule = rule(0, layer, verb, Trigger { threshold, nth, every, times, ..Trigger::ALWAYS });
        rule.delay = Delay { mean_ns, jitter_ns, distribution, flags, ..Delay::default() };
        if verb == Verb::Rate {
            // Of its connection, or of operations.
            let flags = if layer == Layer::Net { flags * PER_CONNECTION } else { flags * OPERATIONS };
            rule.rate = Rate { bytes_per_second, flags, ..Rate::default() };
        }
        if verb == Verb::Corrupt {
            rule.corruption = Corruption { bits: 1 + flags, fix_checksum: flags };
        }
        rule.block.ops = ops;
        rule.file.ops = ops;
        rule.net.directions = directions;
        rule
    }
}

/// A rule set of both layers, numbered as on the command line.
fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let any = prop_oneof![some_rule(Layer::Net), some_rule(Layer::Disk), some_rule(Layer::File)];
    prop::collection::vec(any, 1..=MAX_RULES).prop_map(|mut rules| {
        for (id, rule) in rules.iter_mut().enumerate() {
            rule.id = id as u32;
        }
        rules
    })
}

fn operation() -> impl Strategy<Value = Facts> {
    let packet = (1..3u32).prop_map(|direction| {
        Facts::Packet(PacketFacts {
            direction,
            protocol: protocol::TCP,
            remote_port: 80,
            local_port: 40000,
            ..PacketFacts::default()
        })
    });
    let bio = prop::sample::select(vec![op::READ, op::WRITE, op::FLUSH, op::WRITE | op::FLUSH])
        .prop_map(|ops| Facts::Bio(BioFacts { ops, sectors: 8, ..BioFacts::default() }));
    let file = (0..OPS as u32).prop_map(|number| Facts::File(FileFacts { ops: 1 << number, _pad: 0 }));
    prop_oneof![packet, bio, file]
}

/// What the counters of a rule should say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    matched: u64,
    injected: u64,
    bytes: u64,
    delay_ns: u64,
    overflowed: u64,
    /// When the link is free.
    free_ns: u128,
}

/// How long a packet of `bytes` takes at a rate, as one would write it down.
fn on_the_link(bytes: u64, rate: &Rate) -> u128 {
    (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(rate.bytes_per_second))
}

fn passes(rule: &Rule, facts: Facts) -> bool {
    match facts {
        Facts::Packet(packet) => rule.layer == Layer::Net as u32 && rule.net.matches(&packet),
        Facts::Bio(bio) => rule.layer == Layer::Disk as u32 && rule.block.matches(&bio),
        Facts::File(file) => rule.layer == Layer::File as u32 && rule.file.matches(&file),
        Facts::Anything => true,
    }
}

/// The decision as DESIGN.md §3 says it, without masks, slots in a map, or atomics. `rules` as stored.
fn model(rules: &[Rule], tallies: &mut [Tally], seed: u64, facts: Facts, bytes: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut waits = 0;
    for (slot, (rule, tally)) in rules.iter().zip(tallies).enumerate() {
        if outcome.verdict != Verdict::Pass || !passes(rule, facts) {
            continue;
        }
        let at = Coordinates { seed, rule: rule.id, stream: 1, ordinal: tally.matched };
        tally.matched += 1;
        let budget_left = rule.trigger.times == 0 || tally.injected < rule.trigger.times;
        if !rule.trigger.wants(tally.matched, &at, &mut Past::default()) || !budget_left {
            continue;
        }
        tally.injected += 1;
        tally.bytes += bytes;
        let verb = Verb::from_u32(rule.verb).unwrap();
        outcome.hits |= 1 << slot;
        if matches!(verb, Verb::Delay | Verb::DelayThenError) {
            let delay_ns = rule.delay.sample(&at, &mut Past::default(), None);
            outcome.delay_ns += delay_ns;
            outcome.flags |= rule.delay.flags;
            tally.delay_ns += delay_ns;
        }
        let mut lost = false;
        if verb == Verb::Rate && rule.layer == Layer::Disk as u32 {
            let longest = u128::from(MAX_PARK_NS);
            let mut wait = tally.free_ns;
            if wait <= longest {
                let units = if rule.rate.flags & OPERATIONS != 0 { 1 } else { bytes };
                tally.free_ns += on_the_link(units, &rule.rate);
                wait = tally.free_ns;
            }
            tally.overflowed += u64::from(wait > longest);
            let delay_ns = u64::try_from(wait.min(longest)).unwrap();
            waits = waits.max(delay_ns);
            outcome.flags |= ORDERED;
            tally.delay_ns += delay_ns;
        } else if verb == Verb::Rate {
            // All of it happens at the beginning of the session.
            lost = tally.free_ns > on_the_link(64 * 1514, &rule.rate).max(1_000_000_000);
            if lost {
                tally.overflowed += 1;
            } else {
                tally.free_ns += on_the_link(bytes, &rule.rate);
                let delay_ns = u64::try_from(tally.free_ns).unwrap();
                waits = waits.max(delay_ns);
                outcome.flags |= ORDERED;
                tally.delay_ns += delay_ns;
            }
        }
        if verb == Verb::Duplicate {
            outcome.flags |= DUPLICATE;
        }
        if verb == Verb::Reset && rule.net.directions == BOTH_DIRECTIONS {
            outcome.flags |= BOTH_ENDS;
        }
        if verb == Verb::Corrupt {
            outcome.corrupt_bits += rule.corruption.bits;
            outcome.corrupt_where = draw(&at, Purpose::Corruption);
            outcome.flags |= if rule.corruption.fix_checksum == 0 { BREAK_CHECKSUM } else { 0 };
        }
        outcome.verdict = match verb {
            Verb::Rate if lost => Verdict::Drop,
            // The packets here cannot be marked.
            Verb::Drop | Verb::Mark => Verdict::Drop,
            Verb::Error | Verb::DelayThenError | Verb::Fail => Verdict::Error,
            Verb::Reset => Verdict::Reset,
            Verb::Spare | Verb::Delay | Verb::Rate | Verb::Slot | Verb::Duplicate | Verb::Corrupt => {
                Verdict::Pass
            }
        };
    }
    outcome.delay_ns += waits;
    outcome.link_ns = waits;
    outcome
}

/// The connections of 10 000 that a rule with this choice hits, one packet each way from each of them.
fn hit_connections(connections: Connections, seed: u64) -> Vec<u64> {
    let picky = Rule { connections, ..rule(0, Layer::Net, Verb::Drop, Trigger::ALWAYS) };
    let counters = [RuleCounters::default()];
    let mut hit = Vec::new();
    for number in 1..=10_000 {
        let mut connection = Connection::new(number);
        let hits = [0, 1].map(|link| {
            let mut stream = Stream::new(number * 2 + link);
            let moment = Moment {
                seed,
                stream: stream.number,
                connection: number,
                link: link as u32,
                ..Moment::default()
            };
            let mut world = Simulation {
                rules: &[picky],
                counters: &counters,
                stream: &mut stream,
                table: None,
                connection: Some(&mut connection),
                facts: Facts::Anything,
            };
            decide(&mut world, 1, &moment).hits
        });
        assert_eq!(hits[0], hits[1], "both directions of connection {number} share its fate");
        if hits[0] != 0 {
            hit.push(number);
        }
    }
    hit
}

#[test]
fn some_of_many_connections() {
    assert_eq!(hit_connections(Connections { number: 7, ..Connections::default() }, 1), [7]);
    assert_eq!(hit_connections(Connections::default(), 1).len(), 10_000);
    let share =
        |percent| Connections { by_chance: 1, share: CERTAIN / 100 * percent, ..Connections::default() };
    assert_eq!(hit_connections(share(0), 1), []);
    // 99.9 % of Binomial(10 000, 0.2) lies within 2000 ± 132.
    let fifth = hit_connections(share(20), 1);
    assert!(fifth.len().abs_diff(2000) <= 132, "{}", fifth.len());
    assert_eq!(fifth, hit_connections(share(20), 1), "the same seed chooses the same");
    assert_ne!(fifth, hit_connections(share(20), 2));
}

#[test]
fn counters_that_were_reset_are_those_of_a_new_rule() {
    let spent = Trigger { times: 1, ..Trigger::ALWAYS };
    let mut bench = Bench::new(vec![
        rule(0, Layer::Net, Verb::Duplicate, spent),
        Rule {
            rate: Rate { bytes_per_second: 1000, ..Rate::default() },
            ..rule(1, Layer::Net, Verb::Rate, Trigger::ALWAYS)
        },
    ]);
    let first = bench.step(Facts::Anything, 0, 100);
    assert_eq!(first.hits, 0b11);
    assert_ne!(bench.step(Facts::Anything, 0, 100), first, "the budget is spent and the link busy");
    for counters in &bench.counters {
        counters.reset();
    }
    // As after a change of rules: streams begin again, too.
    bench.stream = Stream::new(1);
    assert_eq!(bench.step(Facts::Anything, 0, 100), first);
}

#[test]
fn what_can_be_marked_is_marked_and_goes_on_and_the_rest_is_lost() {
    let late = Rule {
        delay: Delay { mean_ns: 1_000_000, ..Delay::default() },
        ..rule(1, Layer::Net, Verb::Delay, Trigger::ALWAYS)
    };
    let rules = [rule(0, Layer::Net, Verb::Mark, Trigger { nth: 1, ..Trigger::ALWAYS }), late];
    for (can_mark, verdict, delay_ns, flags) in
        [(1, Verdict::Pass, 1_000_000, MARK), (0, Verdict::Drop, 0, 0)]
    {
        let counters = [RuleCounters::default(), RuleCounters::default()];
        let mut stream = Stream::new(1);
        let moment = Moment { stream: 1, can_mark, ..Moment::default() };
        let outcome = decide(&mut Simulation::of(&rules, &counters, &mut stream), 0b11, &moment);
        assert_eq!((outcome.verdict, outcome.delay_ns, outcome.flags), (verdict, delay_ns, flags));
        assert_eq!((counters[0].injected.load(), counters[0].marked.load()), (1, can_mark.into()));
    }
}

#[test]
fn what_belongs_to_no_connection_is_none_of_some() {
    let connections = Connections { by_chance: 1, share: CERTAIN, ..Connections::default() };
    let picky = Rule { connections, ..rule(0, Layer::Net, Verb::Drop, Trigger::ALWAYS) };
    let mut bench = Bench::new(vec![picky]);
    assert_eq!(bench.step(Facts::Anything, 0, 1), Outcome::default());
    assert_eq!(bench.counters[0].matched.load(), 0);
}

proptest! {
    #[test]
    fn decide_is_the_model(rules in rules(), operations in prop::collection::vec((operation(), 0..65536u64), 0..100)) {
        let mut bench = Bench::new(rules);
        let mut tallies = vec![Tally::default(); bench.rules.len()];
        let mut spared = vec![0u64; bench.rules.len()];
        for (facts, bytes) in operations {
            let before: Vec<u64> = bench.counters.iter().map(|counters| counters.matched.load()).collect();
            let outcome = bench.step(facts, 0, bytes);
            prop_assert_eq!(outcome, model(&bench.rules, &mut tallies, bench.seed, facts, bytes));
            for (slot, spared) in spared.iter_mut().enumerate() {
                let matched = bench.counters[slot].matched.load() - before[slot];
                *spared += matched - (outcome.hits >> slot & 1);
            }
        }
        for ((counters, tally), spared) in bench.counters.iter().zip(tallies).zip(spared) {
            let said = Tally {
                matched: counters.matched.load(),
                injected: counters.injected.load(),
                bytes: counters.bytes.load(),
                delay_ns: counters.delay_ns.load(),
                overflowed: counters.overflowed.load(),
                free_ns: tally.free_ns,
            };
            prop_assert_eq!(&said, &tally);
            prop_assert_eq!(said.matched, said.injected + spared);
        }
    }

    #[test]
    fn terminal_verbs_win_whatever_the_order(rules in rules(), facts in operation()) {
        let always = |mut rule: Rule| {
            rule.trigger = Trigger::ALWAYS;
            rule
        };
        let rules: Vec<Rule> = rules.into_iter().map(always).collect();
        let verbs: Vec<Verb> = rules
            .iter()
            .filter(|rule| passes(rule, facts))
            .map(|rule| Verb::from_u32(rule.verb).unwrap())
            .collect();
        let outcome = Bench::new(rules.clone()).step(facts, 0, 1);
        if let Some(instant) = verbs.iter().find(|verb| matches!(verb, Verb::Drop | Verb::Error | Verb::Fail)) {
            let verdict = if *instant == Verb::Drop { Verdict::Drop } else { Verdict::Error };
            prop_assert_eq!((outcome.verdict, outcome.delay_ns), (verdict, 0));
        } else if verbs.contains(&Verb::DelayThenError) {
            prop_assert_eq!(outcome.verdict, Verdict::Error);
        } else if verbs.contains(&Verb::Reset) {
            prop_assert_eq!(outcome.verdict, Verdict::Reset);
        } else if verbs.contains(&Verb::Mark) {
            prop_assert_eq!(outcome.verdict, Verdict::Drop);
        } else {
            prop_assert_eq!(outcome.verdict, Verdict::Pass);
        }
        // Whoever came first decides, nobody after it is looked at.
        prop_assert_eq!(outcome.hits.count_ones() <= 1, verbs.len() <= 1 || outcome.verdict != Verdict::Pass);
    }

    #[test]
    fn exceptions_spare_from_everything_and_are_no_hits(rules in rules(), facts in operation(), layer in 0..3usize) {
        let layer = [Layer::Net, Layer::Disk, Layer::File][layer];
        let mut exception = rule(MAX_RULES as u32, layer, Verb::Spare, Trigger::ALWAYS);
        exception.net.directions = Direction::Out as u32;
        let spared = passes(&exception, facts);
        let with: Vec<Rule> = rules.iter().copied().skip(1).chain([exception]).collect();
        let mut bench = Bench::new(with);
        let outcome = bench.step(facts, 0, 1);
        let matched: u64 = bench.counters.iter().map(|counters| counters.matched.load()).sum();
        if spared {
            prop_assert_eq!((outcome, matched), (Outcome::default(), 1));
        } else {
            let without = rules.into_iter().skip(1).collect();
            let expected = Bench::new(without).step(facts, 0, 1);
            prop_assert_eq!((outcome.verdict, outcome.delay_ns), (expected.verdict, expected.delay_ns));
        }
    }

    #[test]
    fn delays_add(means in prop::collection::vec(0..1_000_000_000u64, 1..=MAX_RULES), ordered in 0..2u32) {
        let mut rules: Vec<Rule> = means
            .iter()
            .enumerate()
            .map(|(id, &mean_ns)| {
                let mut rule = rule(id as u32, Layer::Net, Verb::Delay, Trigger::ALWAYS);
                rule.delay.mean_ns = mean_ns;
                rule
            })
            .collect();
        rules[0].delay.flags = ordered * ORDERED;
        let outcome = Bench::new(rules).step(Facts::Anything, 0, 1);
        prop_assert_eq!(outcome.delay_ns, means.iter().sum::<u64>());
        prop_assert_eq!(outcome.flags, ordered * ORDERED);
        prop_assert_eq!(outcome.hits.count_ones() as usize, means.len());
    }

    #[test]
    fn same_seed_same_faults_whatever_else_happens(
        threshold in 1..CERTAIN,
        interleaving in prop::collection::vec(0..3u64, 1..200),
    ) {
        let trigger = Trigger { threshold, ..Trigger::ALWAYS };
        let rules = vec![rule(5, Layer::Net, Verb::Drop, trigger)];
        let alone = |number: u64, count: usize| -> Vec<bool> {
            let mut bench = Bench::new(rules.clone());
            bench.stream.number = number;
            (0..count).map(|_| bench.step(Facts::Anything, 0, 1).hits != 0).collect()
        };
        let mut streams = [0, 1, 2].map(fault_common::who::Stream::new);
        let mut together = vec![Vec::new(); 3];
        let mut bench = Bench::new(rules.clone());
        for number in interleaving {
            std::mem::swap(&mut bench.stream, &mut streams[number as usize]);
            together[number as usize].push(bench.step(Facts::Anything, 0, 1).hits != 0);
            std::mem::swap(&mut bench.stream, &mut streams[number as usize]);
        }
        for (number, outcomes) in together.into_iter().enumerate() {
            prop_assert_eq!(&outcomes, &alone(number as u64, outcomes.len()));
        }
    }

    #[test]
    fn numbers_that_are_no_verb_do_nothing(verb in prop_oneof![Just(0), 13u32..]) {
        let mut unknown = rule(0, Layer::Net, Verb::Drop, Trigger::ALWAYS);
        unknown.verb = verb;
        let mut bench = Bench::new(vec![unknown]);
        prop_assert_eq!(bench.step(Facts::Anything, 0, 1), Outcome::default());
        prop_assert_eq!(bench.counters[0].matched.load(), 0);
    }
}

#[test]
fn rules_that_are_no_candidates_are_not_looked_at() {
    let drop = rule(0, Layer::Net, Verb::Drop, Trigger::ALWAYS);
    let mut bench = Bench::new(vec![drop]);
    let read = Facts::Bio(BioFacts { ops: op::READ, sectors: 8, ..BioFacts::default() });
    assert_eq!(bench.step(read, 0, 4096), Outcome::default());
    assert_eq!(bench.counters[0].matched.load(), 0);
    let packet =
        PacketFacts { direction: Direction::Out as u32, protocol: protocol::UDP, ..Default::default() };
    assert_eq!(bench.step(Facts::Packet(packet), 0, 100).verdict, Verdict::Drop);
}

#[test]
fn the_last_slot_works_and_missing_rules_do_not() {
    let rules: Vec<Rule> = (0..MAX_RULES as u32)
        .map(|id| rule(id, Layer::Net, Verb::Delay, Trigger { threshold: 0, ..Trigger::ALWAYS }))
        .collect();
    let mut bench = Bench::new(rules);
    bench.rules[MAX_RULES - 1].trigger = Trigger::ALWAYS;
    assert_eq!(bench.step(Facts::Anything, 0, 1).hits, 1 << 63);
    // Fewer rules than the mask says: what a swap of rule sets may show for an instant.
    let moment = Moment { seed: 1, stream: 1, bytes: 1, ..Moment::default() };
    let mut world = Simulation {
        rules: &[],
        counters: &[],
        stream: &mut bench.stream,
        table: None,
        connection: None,
        facts: Facts::Anything,
    };
    assert_eq!(decide(&mut world, u64::MAX, &moment), Outcome::default());
}
