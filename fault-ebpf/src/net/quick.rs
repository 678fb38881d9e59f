//! The shortest way of a packet of the target: the only rule that may look asks for direction, protocol and ports, chance alone
//! decides, and chance says no.
//!
//! Nothing of it is written down anywhere else than where it must be remembered: no [`scene`](super::scene), of which each line of the
//! cache is paid for. Whatever is less simple finds everything as it was.

use fault_common::{
    control::Control,
    rule::net::{Direction, PacketFacts, protocol},
    tag::Tag,
    who::Stream,
};

use super::{
    PASS, Skb,
    candidates::bank,
    coarse_now,
    headers::{Plain, number},
    judge::prepare,
};
use crate::{
    decision, kernel,
    who::socket::{self, FourTuple, Member},
};

/// A packet that may go the short way.
struct Simple {
    plain: Plain,
    generation: u32,
    /// Of the only rule that may look.
    slot: u32,
    is_udp: bool,
}

impl Simple {
    /// Whether the packet is such a one. A super-packet is not: each of what it is made of has a chance of its own.
    #[inline(always)]
    fn of(skb: Skb, control: &Control, direction: Direction) -> Option<Self> {
        let generation = control.generation.load();
        let (_, bank) = bank(control, generation);
        let mask = control.in_force.load()
            & match direction {
                Direction::Out => bank.net_out,
                Direction::In => bank.net_in,
            };
        // Before the packet is looked at: where rules are less simple, this is all that it costs.
        if mask & !bank.net_simple != 0 {
            return None;
        }
        let slot = fault_common::decide::plain::sole(mask)?;
        let plain = Plain::of(skb)?;
        let is_udp = match plain.number() {
            number::UDP => true,
            number::TCP => false,
            _ => return None,
        };
        // What arrives for a TCP connection keeps its order in the cutter's queue (`cut::divert`).
        let is_diverted = matches!(direction, Direction::In) && !is_udp && mask & bank.net_cut != 0;
        // SAFETY: `skb` is the context.
        if is_diverted || unsafe { (*skb).gso_segs } > 1 {
            return None;
        }
        Some(Self { plain, generation, slot, is_udp })
    }

    /// Whether the packet of this stream, which is the target's, goes on; then it was counted.
    #[inline(always)]
    fn goes_on(&self, facts: &PacketFacts, stream: *mut Stream) -> bool {
        let Some((slot, rule)) = decision::in_slot(self.generation & 1, self.slot) else { return false };
        // Also of a stream of which no packet passes the filter: its number is part of what a seed means.
        prepare(stream, self.generation);
        // SAFETY: a map value; see `Owner`.
        !rule.net.matches(facts)
            || decision::lets_go(self.generation & 1, (slot, rule), unsafe { &mut *stream })
    }

    /// What the rule's filter looks at.
    #[inline(always)]
    fn facts(&self, direction: Direction, local_port: u16, remote_port: u16) -> PacketFacts {
        let protocol = if self.is_udp { protocol::UDP } else { protocol::TCP };
        PacketFacts {
            direction: direction as u32,
            protocol,
            local_port,
            remote_port,
            ..PacketFacts::default()
        }
    }
}

/// A packet that leaves, of `member`: the return value of the hook, or nothing if it takes more than this to tell.
#[inline(always)]
pub fn leaves(skb: Skb, control: &Control, tag: Tag, member: Member) -> Option<i32> {
    let simple = Simple::of(skb, control, Direction::Out)?;
    let (local_port, remote_port) = (simple.plain.source_port(), simple.plain.destination_port());
    if local_port == 0 {
        return None;
    }
    // Ports that no bind announced.
    socket::learn_local_port(simple.is_udp, local_port);
    if !control.is_live(coarse_now(control)) {
        return Some(PASS);
    }
    let facts = simple.facts(Direction::Out, local_port, remote_port);
    simple.goes_on(&facts, member.stream(Direction::Out)).then(|| decided(skb, tag, Direction::Out))
}

/// A packet that arrives at a port of the target's: as [`leaves`].
#[inline(always)]
pub fn arrives(skb: Skb, control: &Control, tag: Tag) -> Option<i32> {
    let simple = Simple::of(skb, control, Direction::In)?;
    let (local_port, remote_port) = (simple.plain.destination_port(), simple.plain.source_port());
    let tuple = FourTuple {
        saddr: simple.plain.source(),
        daddr: simple.plain.destination(),
        sport: remote_port.to_be(),
        dport: local_port.to_be(),
    };
    // SAFETY: `skb` is the context.
    let Some(member) = (unsafe { socket::look_up_v4(skb.cast(), &tuple, simple.is_udp) }) else {
        return Some(PASS);
    };
    if !control.is_live(coarse_now(control)) {
        return Some(PASS);
    }
    let facts = simple.facts(Direction::In, local_port, remote_port);
    simple.goes_on(&facts, member.stream(Direction::In)).then(|| decided(skb, tag, Direction::In))
}

/// Not twice: neither on a second interface it crosses nor when it comes back from the lane.
#[inline(always)]
fn decided(skb: Skb, tag: Tag, direction: Direction) -> i32 {
    let tag = tag.decided(direction, kernel::session_bit(), 0);
    // SAFETY: `skb` is the context; the kernel keeps the low 16 bits.
    unsafe { (*skb).tc_index = u32::from(tag.0) };
    PASS
}
