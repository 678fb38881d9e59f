//! What happens to a packet of the target.

use core::ptr;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_ktime_get_ns};
use fault_common::{
    control::Control,
    counters::Counter,
    decide::{
        Verdict,
        combine::{BOTH_ENDS, BREAK_CHECKSUM, DUPLICATE, MARK},
        delay::ORDERED,
    },
    event::{Action, PacketEvent},
    limits::MAX_RULES,
    rule::net::{Direction, PacketFacts, protocol},
    shared::SharedU64,
    who::{Connection, Stream},
};

use super::{
    PASS, Skb,
    candidates::Candidates,
    corrupt,
    cut::copy,
    headers::{self, Headers},
    lane::{self, Departure},
    mark, reset,
    scene::{Scene, scene},
    segment::classify,
    swallow,
};
use crate::{
    decision::{self, Memory},
    emit, kernel,
    maps::CONTROL,
    who::socket::Owner,
};

/// Ports of the target and of its peer; 0 for protocols without.
#[inline(always)]
const fn ports(headers: &Headers, direction: Direction) -> (u16, u16) {
    if headers.protocol & (protocol::TCP | protocol::UDP) == 0 {
        return (0, 0);
    }
    match direction {
        Direction::Out => (headers.source_port, headers.destination_port),
        Direction::In => (headers.destination_port, headers.source_port),
    }
}

/// What a stream or a connection remembers begins afresh when it has no number yet, which it is given, and when the rules
/// have changed.
#[inline(always)]
fn renew(
    number: &mut u64,
    of_generation: &mut u32,
    by_slot: &mut [u32; MAX_RULES],
    numbered: &SharedU64,
    generation: u32,
) {
    if *number == 0 {
        *number = numbered.fetch_add(1).wrapping_add(1);
    }
    *of_generation = generation;
    let mut slot = 0;
    while slot < MAX_RULES {
        // SAFETY: within the array. Volatile, so that this stays a loop of stores and not a call of memset.
        unsafe { ptr::write_volatile(&raw mut by_slot[slot], 0) };
        slot += 1;
    }
}

/// [`renew`], of a stream. A function of its own, away from the code of every packet: it runs once for each rule set.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn renew_stream(stream: *mut Stream, generation: u32) -> u32 {
    if let Some(control) = CONTROL.get(0)
        && !stream.is_null()
    {
        // SAFETY: not null, and the verifier has checked the size; see `Owner`.
        let Stream { number, generation: of, ordinals, .. } = unsafe { &mut *stream };
        renew(number, of, ordinals, &control.streams, generation);
    }
    0
}

/// The stream's number, with its sequences in step with the rule set in force.
#[inline(always)]
pub fn prepare(stream: *mut Stream, generation: u32) -> u64 {
    // SAFETY: a map value; see `Owner`.
    unsafe {
        if (*stream).number == 0 || (*stream).generation != generation {
            renew_stream(stream, generation);
        }
        (*stream).number
    }
}

/// The connection's number, as [`prepare`].
#[inline(always)]
pub fn prepare_connection(connection: *mut Connection, control: &Control, generation: u32) -> u64 {
    // SAFETY: a map value; see `Owner`.
    let Connection { number, generation: of, places, .. } = unsafe { &mut *connection };
    if *number == 0 || *of != generation {
        renew(number, of, places, &control.connections, generation);
    }
    *number
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
fn report(scene: &Scene) {
    let Scene { walk, headers, place, .. } = scene;
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
        Verdict::Pass | Verdict::Error if outcome.flags & MARK != 0 => Action::Mark,
        Verdict::Pass | Verdict::Error => Action::Duplicate,
    };
    let what = emit::What {
        time_ns: scene.now,
        hits: outcome.hits,
        delay_ns: outcome.delay_ns,
        cgroup: scene.cgroup,
        generation: scene.candidates.generation,
        action: action as u32,
        tgid: scene.tgid,
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

/// Writes down what the decision looks at.
#[inline(always)]
fn describe(skb: Skb, control: &Control, scene: &mut Scene, memory: Memory) {
    let now = scene.now;
    let Scene { headers, place, candidates, carried, walk, .. } = scene;
    let (local_port, remote_port) = ports(headers, place.direction);
    let facts = &mut walk.facts;
    facts.direction = place.direction as u32;
    facts.protocol = headers.protocol;
    facts.local_port = local_port;
    facts.remote_port = remote_port;
    facts.call = 0;
    facts.segment = 0;
    facts.position = 0;
    if candidates.classified() {
        let segment = classify(skb, headers);
        facts.segment = segment.kind;
        facts.position = carried.position(&segment);
    }
    let moment = &mut walk.moment;
    moment.seed = control.seed.load();
    moment.stream = prepare(memory.stream, candidates.generation);
    moment.elapsed_ns = now.saturating_sub(control.started_ns.load());
    moment.bytes = u64::from(wire_bytes(skb, place.direction, headers));
    moment.link = (place.direction as u32) >> 1;
    moment.can_mark = if candidates.marked() { u32::from(mark::can_be(skb, headers)) } else { 0 };
    moment.connection = 0;
    if candidates.connected() && scene.is_connection != 0 {
        moment.connection = prepare_connection(memory.connection, control, candidates.generation);
    }
}

/// Whether the only candidate, a plain rule, has nothing to do with the packet, or lets it go.
#[inline(always)]
fn is_let_go(control: &Control, scene: &Scene, stream: *mut Stream) -> bool {
    let Scene { headers, place, candidates, .. } = scene;
    let bank = candidates.generation & 1;
    if candidates.demand() || candidates.mask & control.banks[bank as usize].plain == 0 {
        return false;
    }
    let Some((slot, rule)) = decision::sole(bank, candidates.mask) else { return false };
    let (local_port, remote_port) = ports(headers, place.direction);
    let facts = PacketFacts {
        direction: place.direction as u32,
        protocol: headers.protocol,
        local_port,
        remote_port,
        ..PacketFacts::default()
    };
    // Also of a stream of which no packet passes the filter: its number is part of what a seed means.
    prepare(stream, candidates.generation);
    if !rule.net.matches(&facts) {
        return true;
    }
    // SAFETY: a map value; see `Owner`.
    decision::lets_go(bank, (slot, rule), unsafe { &mut *stream })
}

/// Does what was decided about the packet of the scene: the return value of the hook. `departure_ns` is that of [`Owner`].
///
/// A global function, as [`decide_packet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn act_packet(skb: *mut __sk_buff, stream: *mut Stream, departure_ns: *mut u64) -> i32 {
    if stream.is_null() || departure_ns.is_null() {
        return PASS;
    }
    let Some(scene) = scene() else { return PASS };
    // Read before anything is sent on: what is may meet another hook, which decides here again.
    let (verdict, delay_ns, flags) =
        (scene.walk.outcome.verdict, scene.walk.outcome.delay_ns, scene.walk.outcome.flags);
    let (bits, random) = (scene.walk.outcome.corrupt_bits, scene.walk.outcome.corrupt_where);
    let (place, now) = (scene.place, scene.now);
    let tag = place.tag.decided(place.direction, kernel::session_bit(), 0);
    match verdict {
        Verdict::Drop => return swallow(),
        Verdict::Reset => {
            let ends = if flags & BOTH_ENDS != 0 { reset::Ends::Both } else { reset::Ends::Receiver };
            if !reset::reset(skb, scene, tag, ends) {
                emit::count(Counter::Unchanged);
            }
            return PASS;
        }
        Verdict::Pass | Verdict::Error => {}
    }
    if bits != 0 {
        let breaks = flags & BREAK_CHECKSUM != 0;
        // Without the cutter the checksum is not in the packet yet, and nobody would look at it.
        if breaks && !place.is_cut || !corrupt::corrupt(skb, &scene.headers, bits, random, breaks) {
            emit::count(Counter::Unchanged);
        }
    }
    if flags & MARK != 0 && !mark::mark(skb) {
        emit::count(Counter::Unchanged);
    }
    let twice = flags & DUPLICATE != 0;
    if delay_ns == 0 {
        if twice {
            copy(skb, &place, place.direction);
        }
        return PASS;
    }
    let Some(interface) = place.interface().filter(|interface| interface.has_lane != 0) else {
        return lane::refuse();
    };
    lane::enter(&Departure {
        skb,
        now,
        delay_ns,
        ordered: flags & ORDERED != 0,
        twice,
        direction: place.direction,
        tag: tag.decided(place.direction, kernel::session_bit(), interface.slot),
        // SAFETY: not null, and the verifier has checked the size.
        flow: unsafe { (*stream).number } as u32,
        departure_ns,
    })
}

/// Decides about the packet of the scene, which is complete but for that. 0: nothing happens to it.
///
/// A global function: the verifier looks at it once and by itself, instead of once for every way that leads here. That is
/// a good part of the time it takes to load a program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn decide_packet(
    skb: *mut __sk_buff,
    stream: *mut Stream,
    connection: *mut Connection,
) -> u32 {
    if stream.is_null() || connection.is_null() {
        return 0;
    }
    let (Some(scene), Some(control)) = (scene(), CONTROL.get(0)) else { return 0 };
    let memory = Memory { stream, connection };
    let timed = scene.candidates.timed();
    if timed {
        // SAFETY: a helper without arguments.
        scene.now = unsafe { bpf_ktime_get_ns() };
    }
    describe(skb, control, scene, memory);
    let Candidates { generation, mask, .. } = scene.candidates;
    decision::decide(&mut scene.walk, generation & 1, mask, memory);
    if scene.walk.outcome.hits == 0 {
        return 0;
    }
    if !timed {
        // The same moment for the link's accounts and for the departure; for the rest it need not have been exact.
        // SAFETY: a helper without arguments.
        scene.now = unsafe { bpf_ktime_get_ns() };
    }
    if control.tells(scene.now) {
        report(scene);
    }
    HIT
}

/// [`decide_packet`]: something happens. Not 1, for the reason given at `decision::END`.
const HIT: u32 = u32::MAX;

/// Decides, and does it: the return value of the hook. The scene is complete but for the decision.
#[inline(always)]
pub fn judge(skb: Skb, control: &Control, scene: &Scene, owner: &Owner) -> i32 {
    // Not twice: neither on a second interface it crosses nor when it comes back from the lane.
    let tag = scene.place.tag.decided(scene.place.direction, kernel::session_bit(), 0);
    // SAFETY: `skb` is the context; the kernel keeps the low 16 bits.
    unsafe { (*skb).tc_index = u32::from(tag.0) };
    // Before the calls: each return from one costs as much as a good part of this.
    if is_let_go(control, scene, owner.stream) || decide_packet(skb, owner.stream, owner.connection) == 0 {
        return PASS;
    }
    act_packet(skb, owner.stream, owner.departure_ns)
}
