//! Packets that leave: `net_egress`.

use aya_ebpf::{bindings::bpf_sock, macros::classifier, programs::TcContext};
use fault_common::{
    counters::Counter,
    rule::net::{Direction, protocol},
    tag::Tag,
};

use super::{
    PASS, Skb, coarse_now,
    headers::{self, Headers, Unread},
    ingress::remember_echo,
    judge::{Candidates, Passage, judge},
};
use crate::{
    emit::count,
    kernel,
    maps::CONTROL,
    who::socket::{self, Member, Tuple},
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
    let Some(candidates) = Candidates::of(skb, control, Direction::Out, &headers) else { return PASS };
    // Only now: the clock is dearer than to find that no rule names this packet.
    let now = coarse_now(control);
    if !control.is_live(now) {
        return PASS;
    }
    judge(&Passage { skb, control, now, direction: Direction::Out, headers: &headers, candidates, owner })
}

/// The sender of a packet without socket.
#[inline(always)]
fn look_up(skb: Skb, headers: &Headers) -> Option<Member> {
    if headers.protocol & (protocol::TCP | protocol::UDP) == 0 {
        return None;
    }
    let tuple = Tuple {
        remote: headers.destination,
        local: headers.source,
        remote_port: headers.destination_port,
        local_port: headers.source_port,
        is_v4: headers.is_v4,
        is_udp: headers.protocol == protocol::UDP,
    };
    // SAFETY: `skb` is the context.
    unsafe { socket::look_up(skb.cast(), &tuple) }
}
