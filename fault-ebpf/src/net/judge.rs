//! What happens to a packet of the target.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    btf_maps::lpm_trie::Key,
    helpers::{bpf_ktime_get_ns, generated::bpf_clone_redirect},
};
use fault_common::{
    control::{Bank, Control},
    counters::Counter,
    decide::{Moment, Verdict, combine::DUPLICATE, delay::ORDERED},
    event::{Action, PacketEvent},
    limits::MAX_RULES,
    rule::net::{Direction, PacketFacts, protocol},
    tag::Tag,
    who::{Interface, PeerAddress, Stream, interface_key},
};

use super::{
    PASS, Skb,
    headers::{self, Headers},
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
    /// `CLOCK_MONOTONIC` nanoseconds, to a timer tick.
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
    /// Some of them need the exact time.
    timed: bool,
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
        // SAFETY: sixteen bytes either way; network byte order, IPv4 mapped.
        mask = for_peer(mask, bank, index, unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(remote) });
        if mask & !bank.net_any_iface != 0 {
            let named = interface(skb).map_or(0, |interface| interface.rules[index]);
            mask &= bank.net_any_iface | named;
        }
        (mask != 0).then_some(Self { generation, mask, timed: mask & bank.net_timed != 0 })
    }
}

/// The slots of `mask` whose `to` covers this peer: one look-up, and none when no rule names a peer.
#[inline(always)]
pub fn for_peer(mask: u64, bank: &Bank, index: usize, remote: [u8; 16]) -> u64 {
    if mask & !bank.net_any_peer == 0 {
        return mask;
    }
    let named = PEERS.get(&Key::new(128, PeerAddress(remote))).map_or(0, |rules| rules.0[index]);
    mask & (bank.net_any_peer | named)
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
pub fn prepare(stream: *mut Stream, control: &Control, generation: u32) -> u64 {
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

/// Sends a copy along the way the packet is on. It carries the packet's tag, so nobody decides about it again.
#[inline(always)]
fn duplicate(skb: Skb, direction: Direction) {
    // As for what comes out of the lane: a second receive on loopback would lose the packet's route.
    let again_in = matches!(direction, Direction::In) && interface(skb).is_some_and(|it| it.loopback == 0);
    // SAFETY: `skb` is the context, and its own interface exists.
    let failed = unsafe {
        bpf_clone_redirect(skb, (*skb).ifindex, if again_in { u64::from(BPF_F_INGRESS) } else { 0 })
    };
    if failed != 0 {
        emit::count(Counter::CopyFailed);
    }
}

/// Bytes of the packet on the wire, Ethernet header included: of a super-packet, those of all it will be cut into.
#[inline(always)]
fn wire_bytes(skb: Skb, direction: Direction, headers: &Headers) -> u32 {
    // SAFETY: `skb` is the context.
    let (bytes, on_wire, segments) = unsafe { ((*skb).len, (*skb).wire_len, (*skb).gso_segs) };
    match direction {
        // The queue's own account of it (`qdisc_pkt_len_init`, net/core/dev.c).
        Direction::Out => on_wire,
        Direction::In if segments > 1 => {
            let transport = match headers.protocol {
                // Length of the TCP header in words: the first four bits of the fourth word (RFC 9293).
                protocol::TCP => {
                    headers::load(skb, headers.transport.plus(12)).map_or(20, |[word]| (word >> 28) * 4)
                }
                _ => 8,
            };
            bytes + (segments - 1) * (headers.transport.from_frame() + transport)
        }
        Direction::In => bytes,
    }
}

/// Tells userspace what was done. A function of its own: what it keeps on the stack is not there while rules are walked.
#[inline(never)]
fn report(skb: Skb, what: &emit::What, headers: &Headers, facts: PacketFacts) {
    // SAFETY: sixteen bytes either way.
    let (source, destination): ([u8; 16], [u8; 16]) =
        unsafe { (core::mem::transmute(headers.source), core::mem::transmute(headers.destination)) };
    let (local, remote) = match facts.direction == Direction::Out as u32 {
        true => (source, destination),
        false => (destination, source),
    };
    let packet = PacketEvent {
        local,
        remote,
        local_port: facts.local_port,
        remote_port: facts.remote_port,
        direction: facts.direction,
        protocol: headers.number,
        // SAFETY: `skb` is the context.
        ifindex: unsafe { (*skb).ifindex },
    };
    emit::packet(what, &packet);
}

/// Decides, and does it: the return value of the hook.
#[inline(always)]
pub fn judge(passage: &Passage<'_>) -> i32 {
    let Passage { skb, control, now, direction, headers, candidates, owner } = *passage;
    let Candidates { generation, mask, timed } = candidates;
    // SAFETY: a helper without arguments.
    let now = if timed { unsafe { bpf_ktime_get_ns() } } else { now };
    let (local_port, remote_port) = passage.ports();
    let bytes = wire_bytes(skb, direction, headers);
    let moment = Moment {
        seed: control.seed.load(),
        stream: prepare(owner.stream, control, generation),
        elapsed_ns: now.saturating_sub(control.started_ns.load()),
        bytes: u64::from(bytes),
        link: (direction as u32) >> 1,
    };
    let facts =
        PacketFacts { direction: direction as u32, protocol: headers.protocol, remote_port, local_port };
    let outcome = decision::decide(generation & 1, mask, moment, facts, owner.stream);

    // Not twice: neither on a second interface it crosses nor when it comes back from the lane.
    // SAFETY: `skb` is the context; the kernel keeps the low 16 bits.
    let tag = Tag(unsafe { (*skb).tc_index } as u16).decided(direction, kernel::session_bit(), 0);
    // SAFETY: as above.
    unsafe { (*skb).tc_index = u32::from(tag.0) };
    if outcome.hits == 0 {
        return PASS;
    }
    // The same moment for the link's accounts and for the departure.
    // SAFETY: a helper without arguments.
    let now = if timed { now } else { unsafe { bpf_ktime_get_ns() } };
    let twice = outcome.flags & DUPLICATE != 0;
    let action = match outcome.verdict {
        Verdict::Drop => Action::Drop,
        _ if twice && outcome.delay_ns == 0 => Action::Duplicate,
        _ => Action::Delay,
    };
    if control.events.load() != 0 {
        let what = emit::What {
            time_ns: now,
            hits: outcome.hits,
            delay_ns: outcome.delay_ns,
            cgroup: owner.cgroup,
            generation,
            action: action as u32,
            tgid: owner.tgid,
            bytes,
        };
        report(skb, &what, headers, facts);
    }
    if outcome.verdict == Verdict::Drop {
        return swallow();
    }
    if outcome.delay_ns == 0 {
        if twice {
            duplicate(skb, direction);
        }
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
        twice,
        direction,
        tag: tag.decided(direction, kernel::session_bit(), interface.slot),
        owner,
    })
}
