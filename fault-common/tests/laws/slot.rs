//! Packets that leave in groups, against netem's queue, played event by event.

use std::collections::VecDeque;

use fault_common::decide::slot::{Slot, Slots, queue_ns};
use proptest::prelude::*;

/// `netem_dequeue` and `get_slot_next` (net/sched/sch_netem.c) with a gap that is always the same: when each packet that came
/// leaves. Packets are (when, bytes), in order.
fn netem(slot: Slot, gap_ns: u64, packets: &[(u64, u64)]) -> Vec<u64> {
    let full = |limit: u32| if limit == 0 { i64::MAX } else { i64::from(limit) };
    let (mut next, mut packets_left, mut bytes_left) = (0, 0, 0);
    let mut leave = Vec::new();
    let (mut queue, mut coming) = (VecDeque::new(), packets.iter().copied().peekable());
    let mut now = 0;
    loop {
        while let Some(packet) = coming.next_if(|(at, _)| *at <= now) {
            queue.push_back(packet);
        }
        if let Some(&(came, bytes)) = queue.front() {
            if next < came {
                (next, packets_left, bytes_left) = (now + gap_ns, full(slot.packets), full(slot.bytes));
            }
            if next <= now {
                queue.pop_front();
                leave.push(now);
                packets_left -= 1;
                bytes_left -= i64::try_from(bytes).unwrap();
                if packets_left <= 0 || bytes_left <= 0 {
                    (next, packets_left, bytes_left) = (now + gap_ns, full(slot.packets), full(slot.bytes));
                }
                continue;
            }
        }
        // The next thing to happen: a packet comes, or the slot opens for those that wait.
        let opens = (!queue.is_empty()).then_some(next);
        let comes = coming.peek().map(|(at, _)| *at);
        match [opens, comes].into_iter().flatten().min() {
            Some(at) => now = at,
            None => return leave,
        }
    }
}

/// The same, by what is computed when a packet comes.
fn ours(slot: Slot, gap_ns: u64, packets: &[(u64, u64)]) -> Vec<Option<u64>> {
    let slots = Slots::default();
    let send = |&(at, bytes): &(u64, u64)| Some(at + slot.wait(&slots, at, bytes, (gap_ns, gap_ns))?);
    packets.iter().map(send).collect()
}

proptest! {
    #[test]
    fn packets_leave_when_netem_lets_them(
        gap_ns in 1..50_000u64,
        most in 0..6u32,
        bytes in prop_oneof![Just(0), 1..5000u32],
        packets in prop::collection::vec((1..20_000u64, 1..1500u64), 1..60),
    ) {
        let slot = Slot { packets: most, bytes };
        let mut now = 0;
        let packets: Vec<(u64, u64)> = packets
            .into_iter()
            .map(|(pause, bytes)| {
                now += pause;
                (now, bytes)
            })
            .collect();
        // Less than what the queue holds: nothing is lost.
        let expected: Vec<_> = netem(slot, gap_ns, &packets).into_iter().map(Some).collect();
        prop_assert_eq!(ours(slot, gap_ns, &packets), expected);
    }

    #[test]
    fn nobody_waits_longer_than_the_queue_holds(gap_ns in 1..1_000_000_000u64, packets in 1..4u32) {
        let slot = Slot { packets, bytes: 0 };
        let slots = Slots::default();
        let waits: Vec<_> = (0..2000).map(|_| slot.wait(&slots, 1, 100, (gap_ns, gap_ns))).collect();
        let most = queue_ns(gap_ns);
        prop_assert!(waits.iter().flatten().all(|wait| *wait <= most));
        // The longest wait leaves no room for one more slot, if the queue was filled at all.
        let longest = waits.iter().flatten().max().copied().unwrap_or_default();
        prop_assert_eq!(waits.contains(&None), longest + gap_ns > most);
        prop_assert!(most >= 1_000_000_000 && most >= 64 * gap_ns);
    }

    #[test]
    fn no_bit_pattern_overflows(
        packets: u32, bytes: u32, opens: u64, room: u64, comes: u64, size: u64, gap: u64, usual: u64,
    ) {
        let slots = Slots::default();
        slots.opens_ns.store(opens);
        slots.room.store(room);
        let _ = Slot { packets, bytes }.wait(&slots, comes, size, (gap, usual));
    }
}
