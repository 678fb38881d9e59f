//! What is counted. The tool's own counters are a report, never a proof: tests count at the far end.

use crate::{decide::slot::Slots, shared::SharedU64};

/// Of one rule, shared by all CPUs; lies in the kernel map `RULE_COUNTERS`. `matched = injected + spared`.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RuleCounters {
    /// Operations that passed the filter.
    pub matched: SharedU64,
    /// Operations that were hit.
    pub injected: SharedU64,
    /// Bytes of the operations that were hit.
    pub bytes: SharedU64,
    /// Sum of the delays that were asked for, in nanoseconds.
    pub delay_ns: SharedU64,
    /// Injections claimed from a budget (`times`), possibly more than there were: one for each CPU that came
    /// too late. Apart from `injected` so that no reader ever sees that one exceed the budget.
    pub claimed: SharedU64,
    /// When the link of a `rate` is free again, out and in; nanoseconds of the session.
    pub link_free_ns: [SharedU64; 2],
    /// Packets lost because the queue before that link was full, or bios that would have waited for it longer than
    /// anybody can be parked, and went ahead after that; they count as injected.
    pub overflowed: SharedU64,
    /// Connections that a rule with `connection N` has met.
    pub connections: SharedU64,
    /// Packets that were marked in place of being lost (`ecn`); they count as injected.
    pub marked: SharedU64,
    /// Of a `slot`, out and in.
    pub slots: [Slots; 2],
}

impl RuleCounters {
    /// As of a rule that has met nothing yet. Only while its rule set is not in force.
    pub fn reset(&self) {
        // Every field by name: one that is added and forgotten here does not compile.
        let Self {
            matched,
            injected,
            bytes,
            delay_ns,
            claimed,
            link_free_ns: [link_out, link_in],
            overflowed,
            connections,
            marked,
            slots: [slots_out, slots_in],
        } = self;
        let counts =
            [matched, injected, bytes, delay_ns, claimed, link_out, link_in, overflowed, connections, marked];
        counts.into_iter().for_each(|counter| counter.store(0));
        for Slots { opens_ns, room } in [slots_out, slots_in] {
            opens_ns.store(0);
            room.store(0);
        }
    }
}

/// Of the whole session; indices of the per-CPU kernel map `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Packets whose headers could not be parsed; they pass untouched.
    Unparsable = 0,
    /// Packets sent into the lane. A super-packet (GSO) counts as the packets it becomes on the wire: the lane
    /// may be where it is cut.
    LaneIn = 1,
    /// Packets that came out of the lane, counted in the same way.
    LaneOut = 2,
    /// Packets in the lane that are not ours (there should be none).
    LaneStray = 3,
    /// Packets that could not be put into the lane and passed undelayed.
    LaneRefused = 4,
    /// Events the ring buffer had no room for.
    EventsLost = 5,
    /// Tasks that were parked.
    Parked = 6,
    /// Delays nobody could park for: every parker was busy on that CPU, or the call failed before it could wait.
    ParkOverflow = 7,
    /// Parks that failed (helper gone).
    ParkFailed = 8,
    /// Bios that were not parked because the task must not sleep (memory reclaim).
    ParkForbidden = 9,
    /// Reads of the self-test that reached the hook.
    SelfTest = 10,
    /// io_uring submissions handed to the ring's workers.
    Punted = 11,
    /// Copies of packets that could not be made: they arrive once.
    CopyFailed = 12,
    /// Super-packets that were decided about as one, because they could not be cut into the packets of the wire.
    Uncut = 13,
    /// Packets that should have been changed (`corrupt`, `reset`) and could not be; they pass untouched.
    Unchanged = 14,
    /// Packets sent into the cutter, counted as those of the wire they are cut into.
    CutIn = 15,
    /// Packets that came out of the cutter.
    CutOut = 16,
    /// Sixty-four sectors each that were written and could not be remembered as such (`until-written`): they stay bad.
    Forgotten = 17,
    /// fsyncs of the target by way of io_uring, which no hook stops; they pass untouched.
    UringSync = 18,
    /// Operations on files whose path is too long for a pattern, or could not be read; no pattern matched them.
    PathUnknown = 19,
    /// Block operations whose pages are no file's, and which are not of the kernel's common way of direct I/O; no pattern matched
    /// them.
    BioFileUnknown = 20,
}

/// Number of [`Counter`]s.
pub const COUNTERS: u32 = Counter::ALL.len() as u32;

impl Counter {
    /// All of them, each at its own index.
    pub const ALL: [Self; 21] = [
        Self::Unparsable,
        Self::LaneIn,
        Self::LaneOut,
        Self::LaneStray,
        Self::LaneRefused,
        Self::EventsLost,
        Self::Parked,
        Self::ParkOverflow,
        Self::ParkFailed,
        Self::ParkForbidden,
        Self::SelfTest,
        Self::Punted,
        Self::CopyFailed,
        Self::Uncut,
        Self::Unchanged,
        Self::CutIn,
        Self::CutOut,
        Self::Forgotten,
        Self::UringSync,
        Self::PathUnknown,
        Self::BioFileUnknown,
    ];
}

const _: () = {
    let mut index = 0;
    while index < Counter::ALL.len() {
        assert!(Counter::ALL[index] as usize == index);
        index += 1;
    }
};

const _: () = assert!(size_of::<RuleCounters>() == 14 * 8);
