//! Packets that arrive: `net_ingress`.

use core::ptr;

use aya_ebpf::{bindings::__sk_buff, macros::classifier, programs::TcContext};
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
    judge::judge,
    quick,
    scene::{Scene, scene},
};
use crate::{
    emit::count,
    kernel,
    maps::{BLANK_ECHO, CONTROL, ECHOES},
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
    let skb = ctx.skb.skb;
    // Nearly every packet of a bystander ends here. All of this program but a call, for the reason given at `net_egress`.
    if let Some((is_udp, port)) = headers::quick_port(skb)
        && !socket::is_local_port(is_udp, port)
    {
        return PASS;
    }
    arrive(skb)
}

/// [`net_ingress`], of a packet that may be for the target.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn arrive(skb: *mut __sk_buff) -> i32 {
    ingress(skb)
}

#[inline(always)]
fn ingress(skb: Skb) -> i32 {
    // In this order by what each costs: a packet of the target that no rule names ends before its socket is looked up.
    let Some(control) = CONTROL.get(0) else { return PASS };
    if control.active.load() == 0 || bank(control, control.generation.load()).1.net_in == 0 {
        return PASS;
    }
    // SAFETY: `skb` is the context.
    let tag = Tag(unsafe { (*skb).tc_index } as u16);
    if tag.is_decided(Direction::In, kernel::session_bit()) {
        return PASS;
    }
    if let Some(action) = quick::arrives(skb, control, tag) {
        return action;
    }
    let Some(scene) = scene() else { return PASS };
    scene.place = Place::of(skb, tag, Direction::In);
    let Some(owner) = owner(skb, control, scene, approach(skb, FRESH)) else { return PASS };
    match cut::divert(skb, scene) {
        Some(action) => action,
        None => judge(skb, control, scene, &owner),
    }
}

/// What the cutter made of a packet that arrived: as [`net_ingress`] from where it sent it away.
#[inline(always)]
pub fn segment(skb: Skb, control: &Control, scene: &mut Scene) -> i32 {
    match owner(skb, control, scene, approach(skb, IS_READ)) {
        Some(owner) => judge(skb, control, scene, &owner),
        None => PASS,
    }
}

/// For [`approach`]: the headers have to be read.
const FRESH: u32 = 0;
/// For [`approach`]: the headers are in the scene.
const IS_READ: u32 = 1;

/// [`approach`] found nothing to do.
const NOTHING: u32 = 0;
/// [`approach`]: the socket named in the scene's tuple is asked.
const ASK_SOCKET: u32 = 1;
/// [`approach`]: whoever sent the echo request is asked.
const ASK_ECHOES: u32 = 2;

/// Reads the packet of the scene unless that is done, finds the rules that may look, and says who is to be asked whose it is.
/// The scene's place is known.
///
/// A global function: the verifier looks at it once, and what comes after it is not looked at once for each way through
/// it. (Linux 6.1 took half of the time it takes to load the program for that.)
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn approach(skb: *mut __sk_buff, is_read: u32) -> u32 {
    let (Some(scene), Some(control)) = (scene(), CONTROL.get(0)) else { return NOTHING };
    if is_read == FRESH {
        match headers::read(skb, &mut scene.headers) {
            Ok(()) => {}
            Err(Unread::NotIp) => return NOTHING,
            Err(Unread::Unparsable) => {
                count(Counter::Unparsable);
                return NOTHING;
            }
        }
        let headers = &scene.headers;
        if headers.protocol & (protocol::TCP | protocol::UDP) != 0
            && !socket::is_local_port(headers.protocol == protocol::UDP, headers.destination_port)
        {
            return NOTHING;
        }
    }
    let Some(candidates) = Candidates::of(&scene.place, control, &scene.headers) else { return NOTHING };
    scene.candidates = candidates;
    scene.carried.is_known = 0;
    scene.carried.bound = 0;
    receiver(skb, scene)
}

/// Who is to be asked for the receiver.
#[inline(always)]
fn receiver(skb: Skb, scene: &mut Scene) -> u32 {
    let Scene { headers, tuple, quoted, .. } = scene;
    match headers.protocol {
        protocol::TCP | protocol::UDP => tuple.name(&Ends {
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
                return ASK_ECHOES;
            }
            let is_error = if v4 {
                matches!(kind, icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM)
            } else {
                kind >= icmpv6::UNREACHABLE && kind <= icmpv6::PARAMETER_PROBLEM
            };
            // An error about something the target sent: the packet it sent is quoted.
            if !is_error || !headers::read_quoted(skb, headers.transport.plus(8), quoted) {
                return NOTHING;
            }
            let is_udp = quoted.number == number::UDP;
            if !is_udp && quoted.number != number::TCP || !socket::is_local_port(is_udp, quoted.source_port) {
                return NOTHING;
            }
            tuple.name(&Ends {
                remote: &quoted.destination,
                local: &quoted.source,
                remote_port: quoted.destination_port,
                local_port: quoted.source_port,
                is_v4: quoted.is_v4 != 0,
                is_udp,
            });
        }
        _ => return NOTHING,
    }
    ASK_SOCKET
}

/// The target's share in the packet, in a session that lives; `whom` is what [`approach`] said.
#[inline(always)]
fn owner(skb: Skb, control: &Control, scene: &mut Scene, whom: u32) -> Option<Owner> {
    let owner = match whom {
        ASK_SOCKET => {
            let positioned = scene.candidates.positioned();
            // SAFETY: `skb` is the context.
            let member =
                unsafe { socket::look_up(skb.cast(), &mut scene.tuple, positioned, &mut scene.carried) }?;
            member.owner(Direction::In, scene)
        }
        ASK_ECHOES => echo(skb, scene)?,
        _ => return None,
    };
    scene.now = coarse_now(control);
    control.is_live(scene.now).then_some(owner)
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
fn echo(skb: Skb, scene: &mut Scene) -> Option<Owner> {
    let state = ECHOES.get_ptr_mut(echo_key(skb, &scene.headers, scene.headers.source)?)?;
    // SAFETY: a map value; racing programs on other CPUs touch plain numbers only.
    unsafe {
        scene.tgid = (*state).tgid;
        scene.cgroup = (*state).cgroup;
        scene.is_connection = 1;
        Some(Owner {
            departure_ns: &raw mut (*state).departure_ns,
            stream: &raw mut (*state).stream,
            connection: &raw mut (*state).connection,
        })
    }
}

/// Remembers an echo request of the target, so that its reply can be told from others'.
#[inline(always)]
pub fn remember_echo(skb: Skb, scene: &Scene) {
    let headers = &scene.headers;
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
        ptr::write_volatile(&raw mut (*blank).tgid, scene.tgid);
        ptr::write_volatile(&raw mut (*blank).cgroup, scene.cgroup);
        &*blank
    };
    // A full map forgets the oldest request.
    let _ = ECHOES.insert(key, blank, 0);
}
