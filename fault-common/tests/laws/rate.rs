//! Slow links.

use std::thread;

use fault_common::{
    decide::{
        Verdict,
        past::Past,
        rate::{CATCH_UP_NS, OPERATIONS, PER_CONNECTION, Rate},
        simulation::Facts,
        trigger::Trigger,
    },
    limits::MAX_PARK_NS,
    rule::{Layer, Verb},
    shared::SharedU64,
};
use proptest::prelude::*;

use crate::{Bench, rule};

fn rate(bytes_per_second: u64) -> Rate {
    Rate { bytes_per_second, ..Rate::default() }
}

proptest! {
    #[test]
    fn never_faster_than_the_link_and_never_idle_while_somebody_waits(
        bytes_per_second in prop_oneof![1..100_000u64, 1..10_000_000_000u64],
        packets in prop::collection::vec((0..2_000_000u64, 1..65_536u64), 1..200),
    ) {
        let rate = rate(bytes_per_second);
        let (shared, mut own) = (SharedU64::new(0), 0);
        let (mut now, mut free) = (0u64, 0u64);
        for (pause, bytes) in packets {
            now += pause;
            let own_ns = rate.transmission_ns(bytes);
            let sent = rate.send(&shared, now, own_ns);
            // One link for all or one for each: the same link.
            prop_assert_eq!(sent, Rate { flags: PER_CONNECTION, ..rate }.send_alone(&mut own, now, own_ns));
            match sent {
                None => prop_assert!(free > now + rate.queue_ns(), "lost though there was room"),
                Some(late) => {
                    prop_assert!(free <= now + rate.queue_ns(), "the queue has no end");
                    // The link starts with it when it is free, and needs its time for it.
                    let done = free.max(now) + own_ns;
                    prop_assert_eq!(now + late, done);
                    free = done;
                }
            }
        }
    }

    #[test]
    fn a_disk_is_never_faster_than_asked_beyond_what_it_catches_up(
        bytes_per_second in prop_oneof![1_000..100_000u64, 1..10_000_000_000u64],
        flags in prop_oneof![Just(0), Just(OPERATIONS)],
        operations in prop::collection::vec((0..50_000_000u64, 1..1_048_576u64), 1..100),
    ) {
        let rate = Rate { bytes_per_second, flags, ..Rate::default() };
        let link = SharedU64::new(0);
        let (mut now, mut sum) = (0u64, 0u64);
        let mut ends: Vec<(u64, u64)> = Vec::new();
        for (pause, bytes) in operations {
            now += pause;
            let own = rate.service_ns(bytes);
            let wait = rate.hold(&link, now, own);
            if wait > MAX_PARK_NS {
                break;
            }
            sum += own;
            for (before, end) in &ends {
                prop_assert!(now + wait - end + CATCH_UP_NS >= sum - before, "too fast");
            }
            // Nor does anybody wait who would not have to: the link works whenever it can.
            prop_assert!(wait <= sum, "{wait} ns of {sum}");
            ends.push((sum, now + wait));
        }
    }

    #[test]
    fn what_the_disk_itself_takes_is_caught_up_with(
        operations_per_second in 20..5_000u64,
        disk in prop::collection::vec(0..CATCH_UP_NS, 200),
    ) {
        // One thread: the next operation comes when the disk has done the one before. The disk is quicker than the link on
        // average, or the link would not be what one waits for.
        let rate = Rate { bytes_per_second: operations_per_second, flags: OPERATIONS, ..Rate::default() };
        let own = rate.service_ns(4096);
        let (link, mut now) = (SharedU64::new(0), 0u64);
        for takes in &disk {
            now += rate.hold(&link, now, own) + takes.min(&own);
        }
        let ideal = 200 * own;
        prop_assert!(now >= ideal && now <= ideal + CATCH_UP_NS + own, "{now} ns instead of {ideal}");
    }

    #[test]
    fn a_disk_that_is_hopelessly_behind_gets_no_further_behind(waiting in 1..100u64, bytes in 1..1u64 << 32) {
        let rate = rate(1);
        let free = MAX_PARK_NS + waiting;
        let link = SharedU64::new(free);
        prop_assert_eq!(rate.hold(&link, 0, rate.service_ns(bytes)), free);
        prop_assert_eq!(link.load(), free);
    }

    #[test]
    fn no_bit_pattern_overflows(
        rate: u64, free: u64, now: u64, bytes: u64, overhead: i32, cell: u32, cell_overhead: i32,
    ) {
        let flags = (rate & 2) as u32;
        let rate = Rate { bytes_per_second: rate, flags, overhead, cell, cell_overhead };
        for own_ns in [rate.service_ns(bytes), rate.transmission_ns(bytes), bytes] {
            let _ = rate.hold(&SharedU64::new(free), now, own_ns);
            let _ = rate.send(&SharedU64::new(free), now, own_ns);
            let _ = rate.send_alone(&mut { free }, now, own_ns);
        }
    }
}

#[test]
fn a_changed_rule_set_starts_with_a_free_link() {
    let mut rule = rule(0, Layer::Net, Verb::Rate, Trigger::ALWAYS);
    rule.rate = Rate { bytes_per_second: 1000, flags: PER_CONNECTION, ..Rate::default() };
    let mut bench = Bench::new(vec![rule]);
    // Of the rule that was in this slot before, on a clock that has started afresh since.
    bench.stream.memory[0] = Past(1 << 50);
    let outcome = bench.step(Facts::Anything, 0, 1000);
    assert_eq!((outcome.verdict, outcome.delay_ns), (Verdict::Pass, 1_000_000_000));
    assert_eq!(bench.step(Facts::Anything, 0, 1000).delay_ns, 2_000_000_000, "and then remembers");
}

#[test]
fn what_a_link_adds_is_netems_arithmetic() {
    // 1 ns a byte. ATM (tc-netem(8)): cells of 48 bytes and 5 of header; a packet of 100 bytes with 8 more fills three.
    let atm = Rate { overhead: 8, cell: 48, cell_overhead: 5, ..rate(1_000_000_000) };
    for (bytes, on_link) in [(1, 53), (40, 53), (41, 106), (88, 106), (100, 159), (1500, 32 * 53)] {
        assert_eq!(atm.transmission_ns(bytes), on_link, "{bytes} bytes");
    }
    let less = Rate { overhead: -14, ..rate(1_000_000_000) };
    assert_eq!([1514, 15, 14, 3].map(|bytes| less.transmission_ns(bytes)), [1500, 1, 0, 0]);
    let smaller = Rate { cell: 100, cell_overhead: -20, ..rate(1_000_000_000) };
    assert_eq!([1, 100, 101].map(|bytes| smaller.transmission_ns(bytes)), [80, 80, 160]);
}

#[test]
fn a_queue_holds_a_second_or_64_frames() {
    assert_eq!(rate(125_000).transmission_ns(1250), 10_000_000);
    assert_eq!(rate(3).transmission_ns(1), 333_333_334, "rounded up");
    assert_eq!(rate(1_250_000).queue_ns(), 1_000_000_000);
    assert_eq!(rate(1514).queue_ns(), 64_000_000_000);
}

#[test]
fn whoever_sends_at_the_same_time_shares_the_link() {
    // Four threads, 10 000 packets of 1 µs each, all at moment 0: every microsecond belongs to one of them.
    let (rate, link) = (rate(1_000_000_000), SharedU64::new(0));
    let mut late: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..10_000)
                        .filter_map(|_| rate.send(&link, 0, rate.transmission_ns(1000)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a sender")).collect()
    });
    late.sort_unstable();
    assert_eq!(late, (1..=40_000).map(|packet| packet * 1000).collect::<Vec<u64>>());
}
