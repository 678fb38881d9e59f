//! What a fault will do to operations that match it: the kernel's own decision, run here.

use fault_common::{
    counters::RuleCounters,
    decide::{Moment, connections::Connections, decide, simulation::Simulation, trigger::Trigger},
    rule::{Rule, Verb},
    who::Stream,
};

use super::{
    plan::{PlannedRule, table},
    tables,
};
use crate::spec::Fault;

/// Bytes of the packets that a simulated `rate` sees.
const FULL_FRAME: u64 = 1514;
/// And of the block operations.
const PAGE: u64 = 4096;

/// What happened to simulated operations of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Operations that passed the filter.
    pub matched: u64,
    /// How many of them were hit.
    pub injected: u64,
    /// Delays of those that were hit, in nanoseconds, sorted; empty for a fault that does not delay.
    pub delays_ns: Vec<u64>,
}

impl Expectation {
    /// The delay that `share` (0 to 1) of the delayed operations stay at or below.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        let last = self.delays_ns.len().checked_sub(1)?;
        let index = (self.delays_ns.len() as f64 * share).ceil() as usize;
        self.delays_ns.get(index.saturating_sub(1).min(last)).copied()
    }
}

/// Runs `operations` operations that pass the rule's filter, in its time window, through
/// [`decide`](fault_common::decide::decide), alone: what other faults of the session take first is left out. A `rate` sees
/// full frames or pages, one after the other.
#[must_use]
pub fn simulate(planned: &PlannedRule, seed: u64, operations: u64) -> Expectation {
    // Of a connection that is one of those the fault looks at, while it is at work.
    let trigger = Trigger { start_ns: 0, end_ns: 0, cycle_ns: 0, cycle_on_ns: 0, ..planned.rule.trigger };
    let rules = [Rule { connections: Connections::default(), trigger, ..planned.rule }];
    let counters = [RuleCounters::default()];
    let mut stream = Stream::new(1);
    let delays = Verb::from_u32(planned.rule.verb).is_some_and(Verb::delays);
    let is_link = planned.rule.verb == Verb::Rate as u32;
    let mut moment = Moment {
        seed,
        stream: stream.number,
        bytes: match (&planned.fault, is_link) {
            (_, false) => 0,
            (Fault::Net(_), true) => FULL_FRAME,
            (Fault::Disk(_) | Fault::File(_) | Fault::Proc(_), true) => PAGE,
        },
        ..Moment::default()
    };
    // One that cannot be read any more is as good as none: it was read when the session was planned.
    let table = table(&planned.fault).and_then(|path| tables::read(&path.value).ok());
    let table = table.as_deref();
    let mut delays_ns = Vec::new();
    for _ in 0..operations {
        let mut world = Simulation { table, ..Simulation::of(&rules, &counters, &mut stream) };
        let outcome = decide(&mut world, 1, &moment);
        if delays && outcome.hits != 0 {
            delays_ns.push(outcome.delay_ns);
        }
        if is_link {
            // The next one comes when this one has gone: what a full frame takes, without any queue.
            moment.elapsed_ns += outcome.delay_ns;
        }
    }
    delays_ns.sort_unstable();
    Expectation { matched: counters[0].matched.load(), injected: counters[0].injected.load(), delays_ns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::plan::Plan,
        spec::{Layer, parse},
    };

    #[test]
    fn a_window_is_open_while_it_is_simulated() {
        let fault = parse(Layer::Net, "rate 10mbit after 1h for 1ms cycle 1ms/1s").expect("a spec");
        let plan = Plan::new(vec![fault], &[None], 1, None).expect("a plan");
        assert_eq!(simulate(&plan.rules[0], 1, 1000).injected, 1000);
    }

    #[test]
    fn a_link_takes_its_time_for_a_full_frame() {
        let fault = parse(Layer::Net, "rate 10mbit").expect("a spec");
        let plan = Plan::new(vec![fault], &[None], 1, None).expect("a plan");
        let expectation = simulate(&plan.rules[0], 1, 1000);
        assert_eq!((expectation.matched, expectation.injected), (1000, 1000));
        assert_eq!(expectation.delays_ns, vec![1514 * 800; 1000]);
    }

    #[test]
    fn a_disk_takes_its_time_for_a_page_or_an_operation() {
        for (spec, ns) in [("rate 4MiB/s", 976_563), ("iops 200", 5_000_000)] {
            let fault = parse(Layer::Disk, spec).expect("a spec");
            let plan = Plan::new(vec![fault], &[None], 1, None).expect("a plan");
            assert_eq!(simulate(&plan.rules[0], 1, 100).delays_ns, vec![ns; 100], "{spec}");
        }
    }
}
