//! Counters that several CPUs share, with as many real threads.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use fault_common::{
    counters::RuleCounters,
    decide::{
        Moment, decide,
        simulation::Simulation,
        trigger::{CERTAIN, Trigger},
    },
    rule::{Layer, Rule, Verb},
    who::Stream,
};

use crate::rule;

const THREADS: u64 = 8;
const OPERATIONS: u64 = 40_000;
const TOTAL: u64 = THREADS * OPERATIONS;

/// Runs all threads against one rule; returns how many operations were hit, counted by the threads.
fn storm(rule: &Rule, counters: &RuleCounters) -> u64 {
    let start = Barrier::new(THREADS as usize);
    let hammer = |number: u64| {
        let mut stream = Stream::new(number);
        let moment = Moment { seed: 7, stream: number, bytes: 10, ..Moment::default() };
        start.wait();
        let hit = |_: &u64| {
            let mut world =
                Simulation::of(std::slice::from_ref(rule), std::slice::from_ref(counters), &mut stream);
            decide(&mut world, 1, &moment).hits != 0
        };
        (0..OPERATIONS).filter(hit).count() as u64
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS).map(|number| scope.spawn(move || hammer(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn check(trigger: Trigger, expected: u64) {
    let rule = rule(0, Layer::Disk, Verb::Error, trigger);
    let counters = RuleCounters::default();
    let hits = storm(&rule, &counters);
    assert_eq!(hits, expected, "{trigger:?}");
    assert_eq!(counters.injected.load(), hits, "{trigger:?}");
    assert_eq!(counters.matched.load(), TOTAL, "{trigger:?}");
    assert_eq!(counters.bytes.load(), 10 * hits, "{trigger:?}");
}

#[test]
fn counted_triggers_are_exact() {
    check(Trigger::ALWAYS, TOTAL);
    check(Trigger { nth: 12_345, ..Trigger::ALWAYS }, 1);
    check(Trigger { every: 7, ..Trigger::ALWAYS }, TOTAL / 7);
    check(Trigger { first: 99_999, ..Trigger::ALWAYS }, 99_999);
    check(Trigger { times: 1, ..Trigger::ALWAYS }, 1);
    check(Trigger { times: 54_321, ..Trigger::ALWAYS }, 54_321);
    check(Trigger { times: 1000, threshold: CERTAIN / 2, ..Trigger::ALWAYS }, 1000);
    check(Trigger { times: 1000, every: 3, ..Trigger::ALWAYS }, 1000);
}

#[test]
fn nobody_ever_sees_more_injections_than_the_budget() {
    let rule = rule(0, Layer::Net, Verb::Drop, Trigger { times: 500, ..Trigger::ALWAYS });
    let counters = RuleCounters::default();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(counters.injected.load());
            }
            most
        });
        assert_eq!(storm(&rule, &counters), 500);
        done.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() <= 500);
    });
    // The counter of claims stays bounded too: at most one per thread too late.
    assert!(counters.claimed.load() <= 500 + THREADS);
}

#[test]
fn probability_per_stream_does_not_depend_on_the_scheduler() {
    let trigger = Trigger { threshold: CERTAIN / 10, ..Trigger::ALWAYS };
    let rule = rule(0, Layer::Net, Verb::Drop, trigger);
    let runs = [(); 3].map(|()| storm(&rule, &RuleCounters::default()));
    assert_eq!(runs, [runs[0]; 3]);
}

/// The last injection of a budget, and two threads that let go of it at the same instant, 20 000 times.
#[test]
fn the_last_injection_goes_to_one_of_two() {
    const ROUNDS: usize = 20_000;
    let rule = rule(0, Layer::Disk, Verb::Error, Trigger { times: 1, ..Trigger::ALWAYS });
    let counters: Vec<RuleCounters> = (0..ROUNDS).map(|_| RuleCounters::default()).collect();
    let arrived = AtomicU64::new(0);
    let (rule, counters, arrived) = (&rule, &counters, &arrived);
    let race = |number: u64| {
        let mut stream = Stream::new(number);
        let moment = Moment { seed: 7, stream: number, bytes: 10, ..Moment::default() };
        let mut hits = 0;
        for (round, counters) in counters.iter().enumerate() {
            arrived.fetch_add(1, Ordering::AcqRel);
            let mut spins = 0u32;
            while arrived.load(Ordering::Acquire) < 2 * (round as u64 + 1) {
                spins += 1;
                // The other one may be waiting for this very CPU.
                if spins.is_multiple_of(1000) {
                    thread::yield_now();
                }
                std::hint::spin_loop();
            }
            let mut world =
                Simulation::of(std::slice::from_ref(rule), std::slice::from_ref(counters), &mut stream);
            hits += decide(&mut world, 1, &moment).hits;
        }
        hits
    };
    let hits: u64 = thread::scope(|scope| {
        let threads = [1, 2].map(|number| scope.spawn(move || race(number)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(hits, ROUNDS as u64);
    assert!(counters.iter().all(|counters| counters.injected.load() == 1 && counters.matched.load() == 2));
}
