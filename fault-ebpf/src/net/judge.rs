//! What happens to a packet of the target.

use core::ptr;

use aya_ebpf::{btf_maps::lpm_trie::Key, helpers::bpf_ktime_get_ns};
use fault_common::{
    control::{Bank, Control},
    decide::{Moment, Verdict, delay::ORDERED},
    event::{Action, PacketEvent},
    limits::MAX_RULES,
    rule::net::{Direction, PacketFacts, protocol},
    tag::Tag,
    who::{Interface, PeerAddress, Stream, interface_key},
};

use super::{
    PASS, Skb,
    headers::Headers,
    lane::{self, Departure},
    swallow,
};
use crate::{
    decision, emit, kernel,
    maps::{INTERFACES, PEERS},
    who::socket::Owner,
};

/// A packet of the target on one of our hooks, seen from the target.
pub struct Passage<'a> {
    pub skb: Skb,
    pub control: &'a Control,
    /// `CLOCK_MONOTONIC` nanoseconds, coarse.
    pub now: u64,
    pub direction: Direction,
    pub headers: &'a Headers,
    pub candidates: Candidates,
    pub owner: Owner,
}

impl Passage<'_> {
    /// Ports of the target and of its peer; 0 for protocols without.
    #[inline(always)]
    fn ports(&self) -> (u16, u16) {
        if self.headers.protocol & (protocol::TCP | protocol::UDP) == 0 {
            return (0, 0);
        }
        match self.direction {
            Direction::Out => (self.headers.source_port, self.headers.destination_port),
            Direction::In => (self.headers.destination_port, self.headers.source_port),
        }
    }
}

/// The rules that may look at a packet, never none.
#[derive(Clone, Copy)]
pub struct Candidates {
    generation: u32,
    /// Of slots.
    mask: u64,
}

impl Candidates {
    /// By what costs one look-up however many rules there are.
    #[inline(always)]
    pub fn of(skb: Skb, control: &Control, direction: Direction, headers: &Headers) -> Option<Self> {
        let generation = control.generation.load();
        let (index, bank) = bank(control, generation);
        let (mut mask, remote) = match direction {
            Direction::Out => (bank.net_out, headers.destination),
            Direction::In => (bank.net_in, headers.source),
        };
        if mask & !bank.net_any_peer != 0 {
            // SAFETY: sixteen bytes either way; network byte order, IPv4 mapped.
            let address: [u8; 16] = unsafe { core::mem::transmute(remote) };
            let named = PEERS.get(&Key::new(128, PeerAddress(address))).map_or(0, |rules| rules.0[index]);
            mask &= bank.net_any_peer | named;
        }
        if mask & !bank.net_any_iface != 0 {
            let named = interface(skb).map_or(0, |interface| interface.rules[index]);
            mask &= bank.net_any_iface | named;
        }
        (mask != 0).then_some(Self { generation, mask })
    }
}

#[inline(always)]
fn interface(skb: Skb) -> Option<&'static Interface> {
    // SAFETY: `skb` is the context.
    let ifindex = unsafe { (*skb).ifindex };
    // SAFETY: the controller changes entries only while the session is inactive.
    unsafe { INTERFACES.get(interface_key(kernel::netns_number(), ifindex)) }
}

/// The bank in force, and its number.
#[inline(always)]
pub fn bank(control: &Control, generation: u32) -> (usize, &Bank) {
    if generation & 1 == 0 { (0, &control.banks[0]) } else { (1, &control.banks[1]) }
}

/// Numbers the stream if it has no number, and starts its sequences afresh when the rules have changed.
#[inline(always)]
fn prepare(stream: *mut Stream, control: &Control, generation: u32) -> u64 {
    // SAFETY: a map value; see `Owner`.
    let stream = unsafe { &mut *stream };
    let fresh = stream.number == 0;
    if fresh {
        stream.number = control.streams.fetch_add(1).wrapping_add(1);
    }
    if fresh || stream.generation != generation {
        stream.generation = generation;
        let mut slot = 0;
        while slot < MAX_RULES {
            // SAFETY: within the array. Volatile, so that this stays a loop of stores and not a call of memset.
            unsafe { ptr::write_volatile(&raw mut stream.ordinals[slot], 0) };
            slot += 1;
        }
    }
    stream.number
}

/// Decides, and does it: the return value of the hook.
#[inline(always)]
pub fn judge(passage: &Passage<'_>) -> i32 {
    let Passage { skb, control, now, direction, headers, candidates, owner } = *passage;
    let Candidates { generation, mask } = candidates;
    let (local_port, remote_port) = passage.ports();
    // SAFETY: `skb` is the context.
    let bytes = unsafe { (*skb).len };
    let moment = Moment {
        seed: control.seed.load(),
        stream: prepare(owner.stream, control, generation),
        elapsed_ns: now.saturating_sub(control.started_ns.load()),
        bytes: u64::from(bytes),
    };
    let facts =
        PacketFacts { direction: direction as u32, protocol: headers.protocol, remote_port, local_port };
    let outcome = decision::decide(generation & 1, mask, &moment, facts, owner.stream);

    // Not twice: neither on a second interface it crosses nor when it comes back from the lane.
    // SAFETY: `skb` is the context; the kernel keeps the low 16 bits.
    let tag = Tag(unsafe { (*skb).tc_index } as u16).decided(direction, kernel::session_bit(), 0);
    // SAFETY: as above.
    unsafe { (*skb).tc_index = u32::from(tag.0) };
    if outcome.hits == 0 {
        return PASS;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let action = if outcome.verdict == Verdict::Drop { Action::Drop } else { Action::Delay };
    if control.events.load() != 0 {
        // SAFETY: sixteen bytes either way.
        let (source, destination): ([u8; 16], [u8; 16]) =
            unsafe { (core::mem::transmute(headers.source), core::mem::transmute(headers.destination)) };
        let (local, remote) = match direction {
            Direction::Out => (source, destination),
            Direction::In => (destination, source),
        };
        emit::packet(
            &emit::What {
                time_ns: now,
                hits: outcome.hits,
                delay_ns: outcome.delay_ns,
                cgroup: owner.cgroup,
                generation,
                action: action as u32,
                tgid: owner.tgid,
                bytes,
            },
            &PacketEvent {
                local,
                remote,
                local_port,
                remote_port,
                direction: direction as u32,
                protocol: headers.number,
                // SAFETY: `skb` is the context.
                ifindex: unsafe { (*skb).ifindex },
            },
        );
    }
    if outcome.verdict == Verdict::Drop {
        return swallow();
    }
    if outcome.delay_ns == 0 {
        return PASS;
    }
    let Some(interface) = interface(skb).filter(|interface| interface.has_lane != 0) else {
        return lane::refuse();
    };
    lane::enter(&Departure {
        skb,
        now,
        delay_ns: outcome.delay_ns,
        ordered: outcome.flags & ORDERED != 0,
        direction,
        tag: tag.decided(direction, kernel::session_bit(), interface.slot),
        owner,
    })
}
