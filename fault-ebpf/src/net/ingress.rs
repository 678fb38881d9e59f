//! Packets that arrive: `net_ingress`.

use core::ptr;

use aya_ebpf::{macros::classifier, programs::TcContext};
use fault_common::{
    control::Control,
    counters::Counter,
    rule::net::{Direction, protocol},
    tag::Tag,
    who::{EchoKey, EchoState},
};

use super::{
    PASS, Skb,
    candidates::{Candidates, Place, bank},
    coarse_now, cut,
    headers::{self, Headers, Unread, number},
    judge::{Passage, judge},
    segment::Carried,
};
use crate::{
    emit::count,
    kernel,
    maps::{BLANK_ECHO, CONTROL, ECHOES, LOOK_UPS},
    who::socket::{self, Ends, Owner},
};

/// ICMP types (IANA "ICMP Type Numbers").
mod icmp {
    pub const ECHO_REPLY: u32 = 0;
    pub const UNREACHABLE: u32 = 3;
    pub const ECHO_REQUEST: u32 = 8;
    pub const TIME_EXCEEDED: u32 = 11;
    pub const PARAMETER_PROBLEM: u32 = 12;
}

/// `ICMPv6` types (IANA "ICMPv6 Type Numbers").
mod icmpv6 {
    pub const UNREACHABLE: u32 = 1;
    pub const PARAMETER_PROBLEM: u32 = 4;
    pub const ECHO_REQUEST: u32 = 128;
    pub const ECHO_REPLY: u32 = 129;
}

/// tcx (clsact) ingress of a watched interface.
#[classifier]
pub fn net_ingress(ctx: TcContext) -> i32 {
    ingress(ctx.skb.skb)
}

#[inline(always)]
fn ingress(skb: Skb) -> i32 {
    let Some(control) = CONTROL.get(0) else { return PASS };
    if control.active.load() == 0 || bank(control, control.generation.load()).1.net_in == 0 {
        return PASS;
    }
    // SAFETY: `skb` is the context.
    let tag = Tag(unsafe { (*skb).tc_index } as u16);
    if tag.is_decided(Direction::In, kernel::session_bit()) {
        return PASS;
    }
    let headers = match headers::read(skb) {
        Ok(headers) => headers,
        Err(Unread::NotIp) => return PASS,
        Err(Unread::Unparsable) => {
            count(Counter::Unparsable);
            return PASS;
        }
    };
    // In this order by what each costs: a bystander's packet ends here, one of the target that no rule names before
    // its socket is looked up.
    if headers.protocol & (protocol::TCP | protocol::UDP) != 0
        && !socket::is_local_port(headers.protocol == protocol::UDP, headers.destination_port)
    {
        return PASS;
    }
    let place = Place::of(skb, tag, Direction::In);
    let Some(candidates) = Candidates::of(&place, control, &headers) else { return PASS };
    let Some((owner, carried)) = receiver(skb, &headers, candidates.positioned()) else { return PASS };
    let now = coarse_now(control);
    if !control.is_live(now) {
        return PASS;
    }
    if let Some(action) = cut::divert(skb, &candidates, &place) {
        return action;
    }
    judge(&Passage { skb, control, now, headers: &headers, candidates, owner, carried, place })
}

/// What the cutter made of a packet that arrived: as [`net_ingress`] from where it sent it away.
#[inline(always)]
pub fn segment(skb: Skb, control: &Control, place: &Place) -> i32 {
    let Ok(headers) = headers::read(skb) else { return PASS };
    let Some(candidates) = Candidates::of(place, control, &headers) else { return PASS };
    let Some((owner, carried)) = receiver(skb, &headers, candidates.positioned()) else { return PASS };
    let now = coarse_now(control);
    if !control.is_live(now) {
        return PASS;
    }
    judge(&Passage { skb, control, now, headers: &headers, candidates, owner, carried, place: *place })
}

/// The target's share in the packet.
#[inline(always)]
fn receiver(skb: Skb, headers: &Headers, positioned: bool) -> Option<(Owner, Carried)> {
    // SAFETY: of this CPU, where nobody else uses it meanwhile; see `WALKS`.
    let look_up = unsafe { LOOK_UPS.get_ptr_mut(0)?.as_mut() }?;
    match headers.protocol {
        protocol::TCP | protocol::UDP => look_up.tuple.name(&Ends {
            remote: &headers.source,
            local: &headers.destination,
            remote_port: headers.source_port,
            local_port: headers.destination_port,
            is_v4: headers.is_v4 != 0,
            is_udp: headers.protocol == protocol::UDP,
        }),
        protocol::ICMP => {
            let kind = u32::from(headers.source_port >> 8);
            let v4 = headers.number == number::ICMP;
            if kind == if v4 { icmp::ECHO_REPLY } else { icmpv6::ECHO_REPLY } {
                return echo(skb, headers).map(|owner| (owner, Carried::default()));
            }
            let is_error = if v4 {
                matches!(kind, icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM)
            } else {
                kind >= icmpv6::UNREACHABLE && kind <= icmpv6::PARAMETER_PROBLEM
            };
            if !is_error {
                return None;
            }
            // An error about something the target sent: the packet it sent is quoted.
            let quoted = &mut look_up.quoted;
            if !headers::read_quoted(skb, headers.transport.plus(8), quoted) {
                return None;
            }
            let is_udp = quoted.number == number::UDP;
            if !is_udp && quoted.number != number::TCP || !socket::is_local_port(is_udp, quoted.source_port) {
                return None;
            }
            look_up.tuple.name(&Ends {
                remote: &quoted.destination,
                local: &quoted.source,
                remote_port: quoted.destination_port,
                local_port: quoted.source_port,
                is_v4: quoted.is_v4 != 0,
                is_udp,
            });
        }
        _ => return None,
    }
    // SAFETY: `skb` is the context.
    let (member, carried) = unsafe { socket::look_up(skb.cast(), &mut look_up.tuple, positioned) }?;
    Some((member.owner(Direction::In), carried))
}

/// Key of an echo request to, or an echo reply from, `peer`.
#[inline(always)]
fn echo_key(skb: Skb, headers: &Headers, peer: [u32; 4]) -> Option<EchoKey> {
    // The identifier is the first half of the second word.
    let [word] = headers::load(skb, headers.transport.plus(4))?;
    Some(EchoKey {
        // SAFETY: sixteen bytes either way.
        peer: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(peer) },
        identifier: (word >> 16) as u16,
        _pad: 0,
        netns: kernel::netns_number(),
    })
}

/// The target's process that waits for this echo reply.
#[inline(always)]
fn echo(skb: Skb, headers: &Headers) -> Option<Owner> {
    let state = ECHOES.get_ptr_mut(echo_key(skb, headers, headers.source)?)?;
    // SAFETY: a map value; racing programs on other CPUs touch plain numbers only.
    unsafe {
        Some(Owner {
            tgid: (*state).tgid,
            cgroup: (*state).cgroup,
            departure_ns: &raw mut (*state).departure_ns,
            stream: &raw mut (*state).stream,
            connection: &raw mut (*state).connection,
            is_connection: 1,
        })
    }
}

/// Remembers an echo request of the target, so that its reply can be told from others'.
#[inline(always)]
pub fn remember_echo(skb: Skb, headers: &Headers, owner: &Owner) {
    let kind = u32::from(headers.source_port >> 8);
    if kind != if headers.number == number::ICMP { icmp::ECHO_REQUEST } else { icmpv6::ECHO_REQUEST } {
        return;
    }
    let Some(key) = echo_key(skb, headers, headers.destination) else { return };
    if ECHOES.get_ptr(key).is_some() {
        return;
    }
    // Too big for the stack.
    let Some(blank) = BLANK_ECHO.get_ptr_mut(0) else { return };
    // SAFETY: a value of this CPU; nothing else but the two fields below is ever written to it.
    let blank: &EchoState = unsafe {
        ptr::write_volatile(&raw mut (*blank).tgid, owner.tgid);
        ptr::write_volatile(&raw mut (*blank).cgroup, owner.cgroup);
        &*blank
    };
    // A full map forgets the oldest request.
    let _ = ECHOES.insert(key, blank, 0);
}
