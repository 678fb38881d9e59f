//! Packets that leave in groups, as on a medium that is granted from time to time (Wi-Fi, DOCSIS).
//!
//! A packet that comes when no slot is ahead opens one, so and so long after it came; everything that comes until then leaves
//! with it, in order. A slot may be full: then the next one is as long after it. netem computes its `slot` in the same way
//! (`get_slot_next` and `netem_dequeue`, net/sched/sch_netem.c), but when a packet leaves; here it is done when one comes.

use crate::{limits::MAX_PACKET_DELAY_NS, shared::SharedU64};

/// Whoever would wait longer than this, or than 64 times the usual wait, is lost: 1 s.
const QUEUE_NS: u64 = 1_000_000_000;
/// See [`QUEUE_NS`].
const QUEUE_SLOTS: u64 = 64;

/// What one slot holds. All-zero is everything.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// So many packets; 0 is no limit.
    pub packets: u32,
    /// So many bytes, and what the last packet has beyond them; 0 is no limit.
    pub bytes: u32,
}

/// The slots of one direction, which all CPUs use.
///
/// When two CPUs send at the same moment, a slot may take in one packet more than it holds.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Slots {
    /// When the latest one opens: nanoseconds of the session.
    pub opens_ns: SharedU64,
    /// What it still holds: packets in the upper half, bytes in the lower one.
    pub room: SharedU64,
}

/// How long a packet may have to wait, in nanoseconds, where `gap_ns` are usual from one slot to the next.
#[must_use]
#[inline(always)]
pub const fn queue_ns(gap_ns: u64) -> u64 {
    let gap_ns = if gap_ns > MAX_PACKET_DELAY_NS { MAX_PACKET_DELAY_NS } else { gap_ns };
    let slots = gap_ns * QUEUE_SLOTS;
    if slots > QUEUE_NS { slots } else { QUEUE_NS }
}

impl Slot {
    /// Room of an empty slot, as in [`Slots::room`].
    #[inline(always)]
    const fn room(self) -> u64 {
        let packets = if self.packets == 0 { u32::MAX } else { self.packets };
        let bytes = if self.bytes == 0 { u32::MAX } else { self.bytes };
        (packets as u64) << 32 | bytes as u64
    }

    /// What is left of `room` after a packet of so many bytes; `None` when it is full then.
    #[inline(always)]
    const fn take(self, room: u64, bytes: u64) -> Option<u64> {
        let (packets, left) = (room >> 32, room & 0xffff_ffff);
        let packets = if self.packets == 0 { packets } else { packets.saturating_sub(1) };
        let left = if self.bytes == 0 { left } else { left.saturating_sub(bytes) };
        if packets == 0 || left == 0 { None } else { Some(packets << 32 | left) }
    }

    /// Sends a packet that comes at `comes_ns`: how long it waits for its slot, in nanoseconds, or `None` when too many
    /// wait already. If it opens one, or is the last in one, `gap_ns` are from now, or from that slot, to the next;
    /// `usual_ns` are on average.
    #[inline(always)]
    pub fn wait(
        self,
        slots: &Slots,
        comes_ns: u64,
        bytes: u64,
        (gap_ns, usual_ns): (u64, u64),
    ) -> Option<u64> {
        let mut opens = slots.opens_ns.load();
        if opens < comes_ns {
            let next = comes_ns.wrapping_add(gap_ns);
            let found = slots.opens_ns.compare_exchange(opens, next);
            if found == opens {
                slots.room.store(self.room());
                opens = next;
            } else {
                // Somebody was quicker: with them.
                opens = found;
            }
        }
        let wait = opens.saturating_sub(comes_ns);
        if wait > queue_ns(usual_ns) {
            return None;
        }
        let room = slots.room.load();
        match self.take(room, bytes) {
            Some(left) => {
                slots.room.compare_exchange(room, left);
            }
            None => {
                if slots.opens_ns.compare_exchange(opens, opens.wrapping_add(gap_ns)) == opens {
                    slots.room.store(self.room());
                }
            }
        }
        Some(wait)
    }
}

const _: () = assert!(size_of::<Slot>() == 8);
