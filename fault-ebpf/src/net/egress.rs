//! Packets that leave: `net_egress`.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_get_socket_cookie,
    macros::classifier,
    programs::TcContext,
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
    coarse_now, cut, fields,
    headers::{self, Headers, Unread, number},
    ingress::remember_echo,
    judge::judge,
    quick,
    scene::{Scene, scene},
    segment::acknowledged,
};
use crate::{
    emit::count,
    kernel,
    maps::CONTROL,
    who::{
        socket::{self, Ends, Member},
        subflow,
    },
};

/// tcx (clsact) egress of a watched interface (Linux 6.2; before, [`net_egress_any`]).
///
/// What a bystander's packet passes is all of this program but calls, so that it lies side by side, in two or three lines of the cache.
/// In between, the network stack runs through more code than the first level of it holds.
#[classifier]
pub fn net_egress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let sock = socket_of(skb);
    if sock.is_null() {
        return without_socket(skb);
    }
    // SAFETY: the socket of the packet, not null.
    let whole = unsafe { fields::full_socket(skb, sock) };
    if whole == 0 || fields::has_storage(whole) {
        return leave(skb);
    }
    if fields::is_kernels(whole) {
        return leave_for_kernel(skb);
    }
    PASS
}

/// [`net_egress`] where a program cannot read what it does not know (`bpf_cast_to_kern_ctx`, Linux 6.2): whose the packet is takes a call.
#[classifier]
pub fn net_egress_any(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    if socket_of(skb).is_null() { without_socket(skb) } else { leave(skb) }
}

/// A packet without socket: of nobody, or of another session, which sent it through its lane.
#[inline(always)]
fn without_socket(skb: Skb) -> i32 {
    // SAFETY: `skb` is the context.
    if Tag(unsafe { (*skb).tc_index } as u16).is_anyones(Direction::Out) { leave(skb) } else { PASS }
}

/// A packet of a socket that the kernel made for itself, and that nobody remembers anything about. It may be a subflow, even of a program
/// that has been there for longer than we.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave_for_kernel(skb: *mut __sk_buff) -> i32 {
    let sock = socket_of(skb);
    // SAFETY: not null.
    if sock.is_null() || unsafe { subflow::may_be(sock) } { leave(skb) } else { PASS }
}

/// [`net_egress`], of a packet that may be the target's.
///
/// A function of its own for the reason given there.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn leave(skb: *mut __sk_buff) -> i32 {
    egress(skb)
}

/// The socket of the packet, as the verifier lets us see it; null when it has none.
#[inline(always)]
fn socket_of(skb: Skb) -> *mut bpf_sock {
    // SAFETY: `skb` is the context.
    unsafe { (*skb).__bindgen_anon_2.sk }
}

#[inline(always)]
fn egress(skb: Skb) -> i32 {
    let sock = socket_of(skb);
    // SAFETY: `skb` is the context.
    let tag = Tag(unsafe { (*skb).tc_index } as u16);
    let member = if sock.is_null() {
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
    if let Some(action) = member.and_then(|member| quick::leaves(skb, control, tag, member)) {
        return action;
    }
    let Some(scene) = scene() else { return PASS };
    match headers::read(skb, &mut scene.headers) {
        Ok(()) => {}
        Err(Unread::NotIp) => return PASS,
        Err(Unread::Unparsable) => {
            count(Counter::Unparsable);
            return PASS;
        }
    }
    scene.place = Place::of(skb, tag, Direction::Out);
    let Some(member) = member.or_else(|| look_up(skb, scene)) else { return PASS };
    let headers = &scene.headers;
    if headers.protocol & (protocol::TCP | protocol::UDP) != 0 && headers.source_port != 0 {
        // Ports that no bind announced.
        socket::learn_local_port(headers.protocol == protocol::UDP, headers.source_port);
    }
    let owner = member.owner(Direction::Out, scene);
    if scene.headers.protocol == protocol::ICMP {
        if control.guarded.load() != 0 && is_discovery(&scene.headers) {
            return PASS;
        }
        remember_echo(skb, scene);
    }
    match candidates(control, scene) {
        None => PASS,
        Some(()) => match cut::divert(skb, scene) {
            Some(action) => action,
            None => {
                measure(skb, member, scene);
                judge(skb, control, scene, &owner)
            }
        },
    }
}

/// Whether this is ICMPv6 neighbour or router discovery, which a daemon sends through a raw socket (RFC 4861: 133 to 137). The
/// kernel's own comes from a socket that is nobody's, and what comes in is never looked for.
#[inline(always)]
fn is_discovery(headers: &Headers) -> bool {
    headers.number != number::ICMP && (133..=137).contains(&(headers.source_port >> 8))
}

/// What the cutter made of a packet that leaves: as [`net_egress`] from where it sent it away.
#[inline(always)]
pub fn segment(skb: Skb, control: &Control, scene: &mut Scene) -> i32 {
    let sock = socket_of(skb);
    let member = if sock.is_null() {
        None
    } else {
        // SAFETY: the socket of the packet, not null.
        unsafe { socket::member(sock) }
    };
    let Some(member) = member.or_else(|| look_up(skb, scene)) else { return PASS };
    if candidates(control, scene).is_none() {
        return PASS;
    }
    let owner = member.owner(Direction::Out, scene);
    measure(skb, member, scene);
    judge(skb, control, scene, &owner)
}

/// Finds the rules that may look, in a session that lives.
#[inline(always)]
fn candidates(control: &Control, scene: &mut Scene) -> Option<()> {
    scene.candidates = Candidates::of(&scene.place, control, &scene.headers)?;
    // Only now: the clock is dearer than to find that no rule names this packet.
    scene.now = coarse_now(control);
    control.is_live(scene.now).then_some(())
}

/// What the connection has carried outwards, if a candidate asks.
#[inline(always)]
fn measure(skb: Skb, member: Member, scene: &mut Scene) {
    scene.carried.is_known = 0;
    let sock = socket_of(skb);
    if !scene.candidates.positioned() || sock.is_null() {
        return;
    }
    // SAFETY: the packet's socket, not null.
    unsafe {
        let connected = member.is_original(bpf_get_socket_cookie(skb.cast()));
        acknowledged(sock, connected, &mut scene.carried);
    }
}

/// The sender of a packet without socket.
#[inline(always)]
fn look_up(skb: Skb, scene: &mut Scene) -> Option<Member> {
    let Scene { headers, tuple, carried, .. } = scene;
    if headers.protocol & (protocol::TCP | protocol::UDP) == 0 {
        return None;
    }
    tuple.name(&Ends {
        remote: &headers.destination,
        local: &headers.source,
        remote_port: headers.destination_port,
        local_port: headers.source_port,
        is_v4: headers.is_v4 != 0,
        is_udp: headers.protocol == protocol::UDP,
    });
    // SAFETY: `skb` is the context.
    unsafe { socket::look_up(skb.cast(), tuple, false, carried) }
}
