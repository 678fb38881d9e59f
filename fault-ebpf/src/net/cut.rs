//! The cutter: where super-packets become the packets of the wire before rules look at them.
//!
//! ```text
//! hook ── tag ──▶ K: a device that takes no super-packets ──▶ L: tap ─┐ tcx egress: `net_segment`
//!   ▲                                                                 │ decides about each packet
//!   └──── the interface it was on: out, or in again ◀─────────────────┘
//! ```
//! TCP hands down up to 64 KB at once, which the network card cuts (TSO), and what arrives is put together again (GRO). To lose
//! one of forty-four segments they must be apart. The kernel cuts what a device cannot take (`validate_xmit_skb`,
//! net/core/dev.c), in the same context: nothing waits, nothing is queued, nothing overtakes. K is a macvlan that takes one
//! segment at a time, or, where a rule needs the checksum in the packet as on the wire, a VLAN device, which has no
//! checksum offload either.

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT},
    helpers::generated::{bpf_clone_redirect, bpf_redirect, bpf_redirect_neigh, bpf_skb_vlan_pop},
    macros::classifier,
    programs::TcContext,
};
use fault_common::{
    counters::Counter,
    rule::net::{Direction, protocol},
    tag::Tag,
    who::{LaneExit, exit_key},
};

use super::{
    PASS, Skb,
    candidates::Place,
    egress, headers, ingress,
    scene::{Scene, scene},
};
use crate::{
    emit::{count, count_by},
    kernel,
    maps::{CONTROL, LANE_EXITS},
};

/// Sends the packet to be cut if that must be before a decision: the return value of the hook.
#[inline(always)]
pub fn divert(skb: Skb, scene: &Scene) -> Option<i32> {
    let Scene { headers, candidates, place, carried, .. } = scene;
    // SAFETY: `skb` is the context.
    let (segments, tagged) = unsafe { ((*skb).gso_segs, (*skb).vlan_present != 0) };
    let is_super = segments > 1;
    // What comes in again waits in the CPU's queue of received packets: a single segment that did not would overtake those
    // of the super-packet before it.
    let keeps_order = matches!(place.direction, Direction::In) && headers.protocol == protocol::TCP;
    if !candidates.checksummed() && !(candidates.cut() && (is_super || keeps_order)) {
        return None;
    }
    let entry = kernel::cutter_entry();
    let interface = place.interface().filter(|interface| interface.has_cutter != 0);
    // A VLAN device would put its own tag in the place of that of the packet. And what arrives for a socket that is bound
    // to its interface would not find that again from ours.
    let cannot = entry == 0
        || tagged && kernel::cutter_tags() != 0
        || matches!(place.direction, Direction::In) && carried.bound != 0;
    let Some(interface) = interface.filter(|_| !cannot) else {
        if is_super {
            count(Counter::Uncut);
        }
        return None;
    };
    count_by(Counter::CutIn, if is_super { segments as u64 } else { 1 });
    let tag = place.tag.decided(place.direction, kernel::session_bit(), interface.slot);
    // SAFETY: `skb` is the context; the helper only notes its arguments.
    unsafe {
        (*skb).tc_index = u32::from(tag.0);
        Some(bpf_redirect(entry, 0) as i32)
    }
}

/// tcx (clsact) egress of the cutter's device L: decides about each packet, and sends it back.
#[classifier]
pub fn net_segment(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: `skb` is the context. The tag of the packet itself never comes here.
    let failed = kernel::cutter_tags() != 0 && unsafe { bpf_skb_vlan_pop(skb) } != 0;
    // SAFETY: as above.
    let tag = Tag(unsafe { (*skb).tc_index } as u16);
    let exit = LANE_EXITS.get(exit_key(kernel::netns_number(), tag.slot()));
    let exit = exit.filter(|exit| exit.ifindex != 0 && tag.is_from(kernel::session_bit()) && !failed);
    let Some(exit) = exit else {
        count(Counter::LaneStray);
        return TC_ACT_SHOT as i32;
    };
    count(Counter::CutOut);
    let direction = tag.direction();
    let action = match (CONTROL.get(0), scene()) {
        (Some(control), Some(scene)) => {
            scene.place = Place { ifindex: exit.ifindex, direction, tag, is_cut: true };
            match (headers::read(skb, &mut scene.headers), direction) {
                (Err(_), _) => PASS,
                (Ok(()), Direction::Out) => egress::segment(skb, control, scene),
                (Ok(()), Direction::In) => ingress::segment(skb, control, scene),
            }
        }
        _ => PASS,
    };
    if action != PASS {
        return action;
    }
    back(exit, direction)
}

/// Sends what comes out of our devices to where it was: the return value of the hook.
///
/// A VLAN device has dropped a packet's route (`vlan_transfer_features`, net/8021q), which loopback needs: it is looked up
/// again (Linux 5.10).
#[inline(always)]
pub fn back(exit: &LaneExit, direction: Direction) -> i32 {
    let flags = way(direction, exit.loopback != 0);
    // SAFETY: helpers that only note their arguments.
    unsafe {
        if exit.loopback != 0 && kernel::cutter_tags() != 0 {
            return bpf_redirect_neigh(exit.ifindex, core::ptr::null_mut(), 0, 0) as i32;
        }
        bpf_redirect(exit.ifindex, flags) as i32
    }
}

/// Sends a copy by the interface of `place`: on, or towards the target. It carries the packet's tag, so nobody decides about it
/// again.
#[inline(always)]
pub fn copy(skb: Skb, place: &Place, direction: Direction) {
    let loopback = place.interface().is_some_and(|interface| interface.loopback != 0);
    // What has lost its route, see `back`: a copy is not given another.
    let lost = loopback && place.is_cut && kernel::cutter_tags() != 0;
    // SAFETY: `skb` is the context, and its own interface exists.
    if lost || unsafe { bpf_clone_redirect(skb, place.ifindex, way(direction, loopback)) } != 0 {
        count(Counter::CopyFailed);
    }
}

/// Flags of a redirect. On the way in through loopback a packet carries its route, and a second receive would lose it: it goes
/// out through loopback again and is recognised as decided on both hooks.
#[inline(always)]
fn way(direction: Direction, loopback: bool) -> u64 {
    if matches!(direction, Direction::In) && !loopback { u64::from(BPF_F_INGRESS) } else { 0 }
}
