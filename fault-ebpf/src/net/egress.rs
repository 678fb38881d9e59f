//! Packets that leave: `net_egress`.

use aya_ebpf::{
    bindings::bpf_sock, helpers::generated::bpf_get_socket_cookie, macros::classifier, programs::TcContext,
};
use fault_common::{
    control::Control,
    counters::Counter,
    rule::net::{Direction, protocol},
    tag::Tag,
};

use super::{
    PASS, Skb,
    candidates::{Candidates, Place},
    coarse_now, cut,
    headers::{self, Headers, Unread},
    ingress::remember_echo,
    judge::{Passage, judge},
    segment::{Carried, acknowledged},
};
use crate::{
    emit::count,
    kernel,
    maps::{CONTROL, LOOK_UPS},
    who::socket::{self, Ends, Member},
};

/// tcx (clsact) egress of a watched interface.
#[classifier]
pub fn net_egress(ctx: TcContext) -> i32 {
    egress(ctx.skb.skb)
}

#[inline(always)]
fn egress(skb: Skb) -> i32 {
    // SAFETY: `skb` is the context.
    let sock: *mut bpf_sock = unsafe { (*skb).__bindgen_anon_2.sk };
    // SAFETY: as above.
    let tag = Tag(unsafe { (*skb).tc_index } as u16);
    let member = if sock.is_null() {
        // What another session sent through its lane has lost its socket; anything else is not ours.
        if !tag.is_anyones(Direction::Out) {
            return PASS;
        }
        None
    } else {
        // SAFETY: the socket of the packet, not null.
        match unsafe { socket::member(sock) } {
            None => return PASS,
            some => some,
        }
    };
    if tag.is_decided(Direction::Out, kernel::session_bit()) {
        return PASS;
    }
    let Some(control) = CONTROL.get(0) else { return PASS };
    if control.active.load() == 0 {
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
    let Some(member) = member.or_else(|| look_up(skb, &headers)) else { return PASS };
    if headers.protocol & (protocol::TCP | protocol::UDP) != 0 && headers.source_port != 0 {
        // Ports that no bind announced.
        socket::learn_local_port(headers.protocol == protocol::UDP, headers.source_port);
    }
    let owner = member.owner(Direction::Out);
    if headers.protocol == protocol::ICMP {
        remember_echo(skb, &headers, &owner);
    }
    let place = Place::of(skb, tag, Direction::Out);
    let Some(candidates) = Candidates::of(&place, control, &headers) else { return PASS };
    // Only now: the clock is dearer than to find that no rule names this packet.
    let now = coarse_now(control);
    if !control.is_live(now) {
        return PASS;
    }
    if let Some(action) = cut::divert(skb, &candidates, &place) {
        return action;
    }
    let carried = carried(skb, member, &candidates);
    judge(&Passage { skb, control, now, headers: &headers, candidates, owner, carried, place })
}

/// What the cutter made of a packet that leaves: as [`net_egress`] from where it sent it away.
#[inline(always)]
pub fn segment(skb: Skb, control: &Control, place: &Place) -> i32 {
    // SAFETY: `skb` is the context.
    let sock: *mut bpf_sock = unsafe { (*skb).__bindgen_anon_2.sk };
    let Ok(headers) = headers::read(skb) else { return PASS };
    let member = if sock.is_null() {
        None
    } else {
        // SAFETY: the socket of the packet, not null.
        unsafe { socket::member(sock) }
    };
    let Some(member) = member.or_else(|| look_up(skb, &headers)) else { return PASS };
    let Some(candidates) = Candidates::of(place, control, &headers) else { return PASS };
    let now = coarse_now(control);
    if !control.is_live(now) {
        return PASS;
    }
    let owner = member.owner(Direction::Out);
    let carried = carried(skb, member, &candidates);
    judge(&Passage { skb, control, now, headers: &headers, candidates, owner, carried, place: *place })
}

/// What the connection has carried outwards, if a candidate asks.
#[inline(always)]
fn carried(skb: Skb, member: Member, candidates: &Candidates) -> Carried {
    // SAFETY: `skb` is the context.
    let sock: *mut bpf_sock = unsafe { (*skb).__bindgen_anon_2.sk };
    if !candidates.positioned() || sock.is_null() {
        return Carried::default();
    }
    // SAFETY: the packet's socket, not null.
    unsafe {
        let connected = member.is_original(bpf_get_socket_cookie(skb.cast()));
        acknowledged(sock, connected)
    }
}

/// The sender of a packet without socket.
#[inline(always)]
fn look_up(skb: Skb, headers: &Headers) -> Option<Member> {
    if headers.protocol & (protocol::TCP | protocol::UDP) == 0 {
        return None;
    }
    // SAFETY: of this CPU, where nobody else uses it meanwhile; see `WALKS`.
    let look_up = unsafe { LOOK_UPS.get_ptr_mut(0)?.as_mut() }?;
    look_up.tuple.name(&Ends {
        remote: &headers.destination,
        local: &headers.source,
        remote_port: headers.destination_port,
        local_port: headers.source_port,
        is_v4: headers.is_v4 != 0,
        is_udp: headers.protocol == protocol::UDP,
    });
    // SAFETY: `skb` is the context.
    unsafe { socket::look_up(skb.cast(), &mut look_up.tuple, false) }.map(|(member, _)| member)
}
