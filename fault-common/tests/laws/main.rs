//! Laws of the rule layout and of the decision, under proptest and under real threads.

mod combine;
mod control;
mod corruption;
mod delay;
mod filters;
mod glob;
mod plain;
mod rate;
mod slot;
mod tag;
mod threads;
mod trigger;

use fault_common::{
    counters::RuleCounters,
    decide::{
        Moment, Outcome, decide,
        simulation::{Facts, Simulation, candidates},
        trigger::Trigger,
    },
    rule::{Layer, Rule, Verb, net::BOTH_DIRECTIONS},
    who::Stream,
};

/// A rule that looks at everything of its layer.
fn rule(id: u32, layer: Layer, verb: Verb, trigger: Trigger) -> Rule {
    let mut rule = Rule { id, layer: layer as u32, verb: verb as u32, trigger, ..Rule::default() };
    rule.net.directions = BOTH_DIRECTIONS;
    rule
}

/// Rules, their counters, and one stream.
struct Bench {
    rules: Vec<Rule>,
    counters: Vec<RuleCounters>,
    stream: Stream,
    seed: u64,
}

impl Bench {
    fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(Rule::storage_order);
        let counters = rules.iter().map(|_| RuleCounters::default()).collect();
        Self { rules, counters, stream: Stream::new(1), seed: 42 }
    }

    fn step(&mut self, facts: Facts, elapsed_ns: u64, bytes: u64) -> Outcome {
        let mask = candidates(&self.rules, facts);
        let moment =
            Moment { seed: self.seed, stream: self.stream.number, elapsed_ns, bytes, ..Moment::default() };
        let mut world = Simulation {
            rules: &self.rules,
            counters: &self.counters,
            stream: &mut self.stream,
            table: None,
            connection: None,
            facts,
        };
        decide(&mut world, mask, &moment)
    }

    /// Numbers (from 1) of the operations that were hit, of `count`.
    fn hits(&mut self, count: u64) -> Vec<u64> {
        (1..=count).filter(|_| self.step(Facts::Anything, 0, 1).hits != 0).collect()
    }
}

/// Numbers of the operations that a single `drop` rule with this trigger hits, of `count`.
fn hits_of(trigger: Trigger, count: u64) -> Vec<u64> {
    Bench::new(vec![rule(0, Layer::Net, Verb::Drop, trigger)]).hits(count)
}
