//! The lane: where late packets wait.
//!
//! ```text
//! hook ── tag, departure time ──▶ E: macvlan, root qdisc fq ──▶ C: tap ─┐ tcx egress: `lane_exit`
//!   ▲                                                                   │ redirect
//!   └──── the interface it was on: out, or in again, not decided twice ◀┘
//! ```
//! E and C live in the target's namespace, so there is no hop through the per-CPU backlog, and mark, dst,
//! conntrack entry and checksum state stay with the packet. fq holds each packet until its departure time
//! (`skb->tstamp`).
//!
//! *Which fq flow.* fq looks only at the first packet of a flow: one that is late holds up everything behind
//! it, also what should leave earlier. So packets that keep the order of their socket share a flow, and one
//! that overtakes goes into a flow of its departure time. The flow of a packet without socket is its hash;
//! ours is made here and forgotten at the exit.

use core::ptr;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    helpers::generated::{
        bpf_clone_redirect, bpf_redirect, bpf_set_hash, bpf_set_hash_invalid, bpf_skb_set_tstamp,
    },
    macros::classifier,
    programs::TcContext,
};
use fault_common::{counters::Counter, rule::net::Direction, tag::Tag, who::exit_key};

use super::{PASS, Skb, cut::back, swallow};
use crate::{
    emit::{count, count_by},
    kernel,
    maps::LANE_EXITS,
};

/// `BPF_SKB_TSTAMP_UNSPEC` (include/uapi/linux/bpf.h): no departure time.
const STAMP_NONE: u32 = 0;
/// `BPF_SKB_TSTAMP_DELIVERY_MONO`: a departure time, `CLOCK_MONOTONIC`. Linux 5.18.
const STAMP_DEPARTURE: u32 = 1;
/// Packets that overtake share a flow when they leave within this many nanoseconds (as a shift): 65 µs.
const SLICE_SHIFT: u32 = 16;
/// Tells the flows of departure times from those of sockets.
const OVERTAKES: u32 = 1 << 31;
/// `TC_PRIO_CONTROL`: fq sends packets of this priority at once, whatever their time.
const PRIORITY_CONTROL: u32 = 7;
/// The bits of a priority fq looks at (`TC_PRIO_MAX`).
const PRIORITY_MASK: u32 = 15;

/// A packet that is to be late.
pub struct Departure {
    pub skb: Skb,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub now: u64,
    pub delay_ns: u64,
    /// Not before what the same socket sent (received) earlier.
    pub ordered: bool,
    /// A copy goes with it.
    pub twice: bool,
    pub direction: Direction,
    /// With the slot of the interface in it.
    pub tag: Tag,
    /// Number of its stream.
    pub flow: u32,
    /// As in `Owner`.
    pub departure_ns: *mut u64,
}

/// The packet should be late and cannot: it passes at once, counted.
#[inline(always)]
pub fn refuse() -> i32 {
    count(Counter::LaneRefused);
    PASS
}

/// Sends the packet into the lane: the return value of the hook.
#[inline(always)]
pub fn enter(departure: &Departure) -> i32 {
    let Departure { skb, now, delay_ns, ordered, twice, direction, tag, flow, departure_ns } = *departure;
    let entry = kernel::lane_entry();
    if entry == 0 {
        return refuse();
    }
    // SAFETY: `skb` is the context.
    let (stamp, stamp_type) = unsafe { ((*skb).tstamp, u32::from((*skb).tstamp_type)) };
    let mut base = now;
    // TCP and SO_TXTIME may have asked for a departure time of their own.
    if matches!(direction, Direction::Out) && stamp_type == STAMP_DEPARTURE && stamp > base {
        base = stamp;
    }
    let mut leave = base.wrapping_add(delay_ns);
    // SAFETY: a map value; see `Owner`. Volatile: other CPUs write it too.
    let latest = unsafe { ptr::read_volatile(departure_ns) };
    if ordered && leave < latest {
        leave = latest;
    }
    let flow = if leave >= latest {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(departure_ns, leave) };
        flow & !OVERTAKES
    } else {
        OVERTAKES | (leave >> SLICE_SHIFT) as u32
    };
    // SAFETY: `skb` is the context.
    let before = unsafe { (*skb).tc_index };
    // SAFETY: as above.
    unsafe {
        if bpf_skb_set_tstamp(skb, leave, STAMP_DEPARTURE) != 0 {
            // Not plainly IP: a VLAN tag inside the packet.
            return refuse();
        }
        (*skb).tc_index = u32::from(tag.0);
        if (*skb).priority & PRIORITY_MASK == PRIORITY_CONTROL {
            (*skb).priority = PRIORITY_CONTROL - 1;
        }
        bpf_set_hash(skb, flow);
    }
    if twice {
        // SAFETY: `skb` is the context, and `entry` an interface of its namespace or a number the kernel refuses.
        if unsafe { bpf_clone_redirect(skb, entry, 0) } == 0 {
            count_by(Counter::LaneIn, segments(skb));
        } else {
            count(Counter::CopyFailed);
        }
    }
    // SAFETY: `skb` is the context.
    let has_socket = unsafe { !(*skb).__bindgen_anon_2.sk.is_null() };
    if matches!(direction, Direction::In) && !has_socket {
        count_by(Counter::LaneIn, segments(skb));
        // SAFETY: a helper that only notes its arguments.
        return unsafe { bpf_redirect(entry, 0) as i32 };
    }
    // A clone has no socket: what waits in the lane does not count against the queue limits of its sender,
    // which on its way in is a neighbour's (veth hands packets over with their socket) and is never late.
    // SAFETY: `skb` is the context, and `entry` an interface of its namespace or a number the kernel refuses.
    let failed = unsafe { bpf_clone_redirect(skb, entry, 0) };
    if failed != 0 {
        // SAFETY: `skb` is the context.
        unsafe { restore(skb, stamp, stamp_type, before) };
        return refuse();
    }
    count_by(Counter::LaneIn, segments(skb));
    swallow()
}

/// Packets on the wire this one stands for: the lane may be where a super-packet is cut.
#[inline(always)]
fn segments(skb: Skb) -> u64 {
    // SAFETY: `skb` is the context.
    let segments = unsafe { (*skb).gso_segs };
    if segments == 0 { 1 } else { u64::from(segments) }
}

/// Undoes what [`enter`] did to a packet that does not go into the lane after all.
#[inline(always)]
unsafe fn restore(skb: *mut __sk_buff, stamp: u64, stamp_type: u32, tc_index: u32) {
    // SAFETY: the caller hands the context.
    unsafe {
        bpf_skb_set_tstamp(skb, stamp, stamp_type);
        (*skb).tc_index = tc_index;
        bpf_set_hash_invalid(skb);
    }
}

/// tcx (clsact) egress of the lane's device C: back to the interface the packet was on.
#[classifier]
pub fn lane_exit(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: `skb` is the context.
    let tag = Tag(unsafe { (*skb).tc_index } as u16);
    let exit = LANE_EXITS.get(exit_key(kernel::netns_number(), tag.slot()));
    let Some(exit) = exit.filter(|exit| exit.ifindex != 0 && tag.is_from(kernel::session_bit())) else {
        count(Counter::LaneStray);
        #[cfg(feature = "log")]
        aya_log_ebpf::warn!(&ctx, "lane: a packet that is not ours, tc_index {:x}", tag.0);
        return TC_ACT_SHOT as i32;
    };
    count_by(Counter::LaneOut, segments(skb));
    // SAFETY: `skb` is the context.
    unsafe {
        bpf_skb_set_tstamp(skb, 0, STAMP_NONE);
        bpf_set_hash_invalid(skb);
    }
    back(exit, tag.direction())
}
