//! Packets: what leaves and reaches the target's sockets.
//!
//! | file | hook |
//! |---|---|
//! | [`egress`] | tcx (clsact below 6.6) egress of every watched interface |
//! | [`ingress`] | tcx (clsact) ingress of every watched interface |
//! | [`cut`] | the way into the cutter, and tcx (clsact) egress of its far device |
//! | [`lane`] | the way into the delay lane, and tcx (clsact) egress of its far device |
//! | [`calls`] | `cgroup/connect4`, `connect6`, `sendmsg4`, `sendmsg6`, `bind4`, `bind6` at the root of the v2 hierarchy |
//! | [`subflows`] | `sockops` at the root of the v2 hierarchy |
//! | [`sockets`] | `cgroup/sock_create`, `cgroup/post_bind4`, `cgroup/post_bind6` at the root of the v2 hierarchy |
//!
//! What a hook knows of a packet is its [`scene`]: [`headers`] and [`segment`] read what a filter needs, [`candidates`] finds the rules that may look, [`judge`] asks
//! `fault_common::decide` and does what it says; [`corrupt`], [`mark`] and [`reset`] rewrite packets.
//! What is spared in the most common way, [`quick`] lets go without any of that.

mod calls;
mod candidates;
mod corrupt;
mod cut;
mod egress;
mod fields;
mod headers;
mod ingress;
mod judge;
mod lane;
mod mark;
mod quick;
mod reset;
pub mod scene;
pub mod segment;
mod sockets;
mod subflows;

use aya_ebpf::{
    bindings::{__sk_buff, tcx_action_base::TCX_NEXT},
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns, bpf_redirect},
};
use fault_common::control::Control;

/// `struct __sk_buff`, the context of every classifier.
type Skb = *mut __sk_buff;

/// The packet goes on: to the next program on the hook, then to the stack. The same number is
/// `TC_ACT_UNSPEC`, which means just that under clsact.
const PASS: i32 = TCX_NEXT;

/// An interface index no kernel hands out.
const NOWHERE: u32 = 0x7fff_ffff;

/// Loses the packet as a wire does: a redirect to nowhere frees it and tells the sender success.
///
/// `TC_ACT_SHOT` would tell the sender of a local drop, and under tcx `TC_ACT_STOLEN` means "pass"
/// (`tcx_action_code`, include/net/tcx.h). `skb_do_redirect` frees what it cannot deliver and
/// `sch_handle_egress` reports `NET_XMIT_SUCCESS` whatever came of it (net/core/{filter,dev}.c).
#[inline(always)]
fn swallow() -> i32 {
    // SAFETY: a helper that only notes its arguments.
    unsafe { bpf_redirect(NOWHERE, 0) as i32 }
}

/// `CLOCK_MONOTONIC` nanoseconds as of the last timer tick, 1 to 10 ms ago.
///
/// Good enough to tell whether the session lives and which windows (`after`, `for`) are open. Every packet of
/// the target pays for it, and a call of a helper is what packets pay most for: the tick is a load, not a call
/// (`bpf_jiffies64` is inlined, Linux 5.6), and the clock is asked once a tick.
#[inline(always)]
pub fn coarse_now(control: &Control) -> u64 {
    // SAFETY: a helper without arguments.
    let tick = unsafe { bpf_jiffies64() };
    if control.tick.load() == tick {
        return control.tick_ns.load();
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // In this order: who sees the tick sees a clock of that tick, or of a later one.
    control.tick_ns.store(now);
    control.tick.store(tick);
    now
}
