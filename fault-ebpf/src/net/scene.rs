//! What a hook knows of the packet it looks at.
//!
//! It lies in a map and not on the stack, of which the kernel gives 512 bytes to a program and everything it calls. The
//! hooks run with softirqs off, so a CPU looks at one packet at a time; only what a hook sends on may meet another hook,
//! and whoever sends on has read before what it still needs.

use fault_common::{decide::Walk, rule::net::PacketFacts};

use super::{
    candidates::{Candidates, Place},
    headers::Headers,
    reset::Rst,
    segment::Carried,
};
use crate::{maps::SCENES, who::socket::Tuple};

/// The packet that this CPU looks at. A field is written before it is read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scene {
    pub headers: Headers,
    pub place: Place,
    pub candidates: Candidates,
    /// What its connection has carried in this direction; unknown unless a candidate asks.
    pub carried: Carried,
    /// `CLOCK_MONOTONIC` nanoseconds, to a timer tick.
    pub now: u64,
    /// Of the target.
    pub cgroup: u64,
    /// Process of the target.
    pub tgid: u32,
    /// 0: the packet belongs to a listener, and to no connection yet.
    pub is_connection: u32,
    /// The decision.
    pub walk: Walk<PacketFacts>,
    /// For the look-up of its socket.
    pub tuple: Tuple,
    /// Of the packet that it quotes, if it is an ICMP error.
    pub quoted: Headers,
    /// For `reset`.
    pub rst: Rst,
}

/// That of this CPU.
#[inline(always)]
pub fn scene() -> Option<&'static mut Scene> {
    // SAFETY: see above; a hook asks once.
    unsafe { SCENES.get_ptr_mut(0)?.as_mut() }
}
