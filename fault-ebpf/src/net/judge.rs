//! What happens to a packet of the target.

use core::ptr;

use aya_ebpf::{
    bindings::BPF_F_INGRESS,
    helpers::{bpf_ktime_get_ns, generated::bpf_clone_redirect},
};
use fault_common::{
    control::Control,
    counters::Counter,
    decide::{
        Verdict, Walk,
        combine::{BOTH_ENDS, BREAK_CHECKSUM, DUPLICATE},
        delay::ORDERED,
    },
    event::{Action, PacketEvent},
    limits::MAX_RULES,
    rule::net::{Direction, PacketFacts, protocol},
    who::{Connection, Stream},
};

use super::{
    PASS, Skb,
    candidates::{Candidates, Place},
    corrupt,
    headers::{self, Headers},
    lane::{self, Departure},
    reset,
    segment::{Carried, classify},
    swallow,
};
use crate::{
    decision::{self, Memory},
    emit, kernel,
    maps::WALKS,
    who::socket::Owner,
};

/// A packet of the target on one of our hooks, seen from the target.
pub struct Passage<'a> {
    pub skb: Skb,
    pub control: &'a Control,
    /// `CLOCK_MONOTONIC` nanoseconds, to a timer tick.
    pub now: u64,
    pub headers: &'a Headers,
    pub candidates: Candidates,
    pub owner: Owner,
    /// What its connection has carried in this direction; unknown unless a candidate asks.
    pub carried: Carried,
    pub place: Place,
}

impl Passage<'_> {
    /// Ports of the target and of its peer; 0 for protocols without.
    #[inline(always)]
    fn ports(&self) -> (u16, u16) {
        if self.headers.protocol & (protocol::TCP | protocol::UDP) == 0 {
            return (0, 0);
        }
        match self.place.direction {
            Direction::Out => (self.headers.source_port, self.headers.destination_port),
            Direction::In => (self.headers.destination_port, self.headers.source_port),
        }
    }
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

/// Numbers the connection, as [`prepare`].
#[inline(always)]
pub fn prepare_connection(connection: *mut Connection, control: &Control, generation: u32) -> u64 {
    // SAFETY: a map value; see `Owner`.
    let connection = unsafe { &mut *connection };
    let fresh = connection.number == 0;
    if fresh {
        connection.number = control.connections.fetch_add(1).wrapping_add(1);
    }
    if fresh || connection.generation != generation {
        connection.generation = generation;
        let mut slot = 0;
        while slot < MAX_RULES {
            // SAFETY: as in `prepare`.
            unsafe { ptr::write_volatile(&raw mut connection.places[slot], 0) };
            slot += 1;
        }
    }
    connection.number
}

/// Sends a copy along the way the packet is on. It carries the packet's tag, so nobody decides about it again.
#[inline(always)]
fn duplicate(skb: Skb, place: &Place) {
    // As for what comes out of the lane: a second receive on loopback would lose the packet's route.
    let again_in =
        matches!(place.direction, Direction::In) && place.interface().is_some_and(|it| it.loopback == 0);
    // SAFETY: `skb` is the context, and its own interface exists.
    let failed = unsafe {
        bpf_clone_redirect(skb, place.ifindex, if again_in { u64::from(BPF_F_INGRESS) } else { 0 })
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
fn report(walk: &Walk<PacketFacts>, headers: &Headers, place: &Place, owner: &Owner, generation: u32) {
    // SAFETY: sixteen bytes either way.
    let (source, destination): ([u8; 16], [u8; 16]) =
        unsafe { (core::mem::transmute(headers.source), core::mem::transmute(headers.destination)) };
    let (local, remote) = match place.direction {
        Direction::Out => (source, destination),
        Direction::In => (destination, source),
    };
    let outcome = &walk.outcome;
    let action = match outcome.verdict {
        Verdict::Drop => Action::Drop,
        Verdict::Reset => Action::Reset,
        Verdict::Pass | Verdict::Error if outcome.delay_ns != 0 => Action::Delay,
        Verdict::Pass | Verdict::Error if outcome.corrupt_bits != 0 => Action::Corrupt,
        Verdict::Pass | Verdict::Error => Action::Duplicate,
    };
    let what = emit::What {
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        hits: outcome.hits,
        delay_ns: outcome.delay_ns,
        cgroup: owner.cgroup,
        generation,
        action: action as u32,
        tgid: owner.tgid,
        bytes: walk.moment.bytes as u32,
    };
    let packet = PacketEvent {
        local,
        remote,
        local_port: walk.facts.local_port,
        remote_port: walk.facts.remote_port,
        direction: place.direction as u32,
        protocol: headers.number,
        ifindex: place.ifindex,
    };
    emit::packet(&what, &packet);
}

/// Writes down what the decision looks at. A function of its own, as [`report`].
#[inline(never)]
fn describe(passage: &Passage<'_>, walk: &mut Walk<PacketFacts>, now: u64) {
    let Passage { skb, control, headers, candidates, owner, carried, place, .. } = passage;
    let (local_port, remote_port) = passage.ports();
    let facts = &mut walk.facts;
    facts.direction = place.direction as u32;
    facts.protocol = headers.protocol;
    facts.local_port = local_port;
    facts.remote_port = remote_port;
    facts.call = 0;
    facts.segment = 0;
    facts.position = 0;
    if candidates.classified() {
        let segment = classify(*skb, headers);
        facts.segment = segment.kind;
        facts.position = carried.position(&segment);
    }
    let moment = &mut walk.moment;
    moment.seed = control.seed.load();
    moment.stream = prepare(owner.stream, control, candidates.generation);
    moment.elapsed_ns = now.saturating_sub(control.started_ns.load());
    moment.bytes = u64::from(wire_bytes(*skb, place.direction, headers));
    moment.link = (place.direction as u32) >> 1;
    moment.connection = 0;
    if candidates.connected() && owner.is_connection != 0 {
        moment.connection = prepare_connection(owner.connection, control, candidates.generation);
    }
}

/// Does what was decided: the return value of the hook. A function of its own, as [`report`].
#[inline(never)]
fn act(passage: &Passage<'_>, walk: &Walk<PacketFacts>, now: u64) -> i32 {
    let Passage { skb, control, headers, candidates, owner, carried, place, .. } = passage;
    let (skb, direction) = (*skb, place.direction);
    if control.events.load() != 0 {
        report(walk, headers, place, owner, candidates.generation);
    }
    // Read before anything is sent on: what is may meet another hook, which decides here again.
    let (verdict, delay_ns, flags) = (walk.outcome.verdict, walk.outcome.delay_ns, walk.outcome.flags);
    let (corrupt_bits, corrupt_where) = (walk.outcome.corrupt_bits, walk.outcome.corrupt_where);
    let tag = place.tag.decided(direction, kernel::session_bit(), 0);
    match verdict {
        Verdict::Drop => return swallow(),
        Verdict::Reset => {
            let ends = if flags & BOTH_ENDS != 0 { reset::Ends::Both } else { reset::Ends::Receiver };
            if !reset::reset(skb, headers, place, tag, ends, carried) {
                emit::count(Counter::Unchanged);
            }
            return PASS;
        }
        Verdict::Pass | Verdict::Error => {}
    }
    if corrupt_bits != 0 {
        let breaks = flags & BREAK_CHECKSUM != 0;
        // Without the cutter the checksum is not in the packet yet, and nobody would look at it.
        if breaks && !place.is_cut || !corrupt::corrupt(skb, headers, corrupt_bits, corrupt_where, breaks) {
            emit::count(Counter::Unchanged);
        }
    }
    let twice = flags & DUPLICATE != 0;
    if delay_ns == 0 {
        if twice {
            duplicate(skb, place);
        }
        return PASS;
    }
    let Some(interface) = place.interface().filter(|interface| interface.has_lane != 0) else {
        return lane::refuse();
    };
    lane::enter(&Departure {
        skb,
        // The same moment for the link's accounts and for the departure.
        // SAFETY: a helper without arguments.
        now: if candidates.timed() { now } else { unsafe { bpf_ktime_get_ns() } },
        delay_ns,
        ordered: flags & ORDERED != 0,
        twice,
        direction,
        tag: tag.decided(direction, kernel::session_bit(), interface.slot),
        owner: *owner,
    })
}

/// Decides, and does it: the return value of the hook.
#[inline(always)]
pub fn judge(passage: &Passage<'_>) -> i32 {
    let Passage { skb, now, candidates, owner, place, .. } = *passage;
    // SAFETY: nobody else uses it meanwhile, see `WALKS`.
    let Some(walk) = WALKS.get_ptr_mut(0).and_then(|walk| unsafe { walk.as_mut() }) else { return PASS };
    // SAFETY: a helper without arguments.
    let now = if candidates.timed() { unsafe { bpf_ktime_get_ns() } } else { now };
    describe(passage, walk, now);
    let memory = Memory { stream: owner.stream, connection: owner.connection };
    decision::decide(walk, candidates.generation & 1, candidates.mask, memory);

    // Not twice: neither on a second interface it crosses nor when it comes back from the lane.
    let tag = place.tag.decided(place.direction, kernel::session_bit(), 0);
    // SAFETY: `skb` is the context; the kernel keeps the low 16 bits.
    unsafe { (*skb).tc_index = u32::from(tag.0) };
    if walk.outcome.hits == 0 { PASS } else { act(passage, walk, now) }
}
