//! Calls that fail before anything is sent: connect(2), sendto(2) or sendmsg(2) of a UDP socket that names a peer, bind(2).

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_set_retval,
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use fault_common::{
    decide::Walk,
    event::{Action, PacketEvent},
    limits::MAX_RULES,
    rule::net::{Direction, PacketFacts, call, protocol},
};

use super::{
    candidates::{bank, for_peer},
    coarse_now,
    judge::{prepare, prepare_connection},
};
use crate::{
    decision::{self, Memory},
    emit,
    maps::{CONTROL, RULES},
    who::socket,
};

/// The call goes on.
const ALLOW: i32 = 1;
/// It ends with what `bpf_set_retval` said.
const FAIL: i32 = 0;

const IPPROTO_ICMP: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_ICMPV6: u32 = 58;
const IPPROTO_MPTCP: u32 = 262;

/// `cgroup/connect4`.
#[cgroup_sock_addr(connect4)]
pub fn call_connect4(ctx: SockAddrContext) -> i32 {
    call(ctx.sock_addr, v4(ctx.sock_addr), call::CONNECT)
}

/// `cgroup/connect6`.
#[cgroup_sock_addr(connect6)]
pub fn call_connect6(ctx: SockAddrContext) -> i32 {
    call(ctx.sock_addr, v6(ctx.sock_addr), call::CONNECT)
}

/// `cgroup/sendmsg4`.
#[cgroup_sock_addr(sendmsg4)]
pub fn call_sendmsg4(ctx: SockAddrContext) -> i32 {
    call(ctx.sock_addr, v4(ctx.sock_addr), call::SENDMSG)
}

/// `cgroup/sendmsg6`.
#[cgroup_sock_addr(sendmsg6)]
pub fn call_sendmsg6(ctx: SockAddrContext) -> i32 {
    call(ctx.sock_addr, v6(ctx.sock_addr), call::SENDMSG)
}

/// `cgroup/bind4`.
#[cgroup_sock_addr(bind4)]
pub fn call_bind4(ctx: SockAddrContext) -> i32 {
    call(ctx.sock_addr, NOBODY, call::BIND)
}

/// `cgroup/bind6`.
#[cgroup_sock_addr(bind6)]
pub fn call_bind6(ctx: SockAddrContext) -> i32 {
    call(ctx.sock_addr, NOBODY, call::BIND)
}

/// Who binds has no peer: `::`.
const NOBODY: [u32; 4] = [0; 4];

/// The peer, network byte order, IPv4 mapped.
#[inline(always)]
fn v4(addr: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: the context.
    [0, 0, 0xffff_u32.to_be(), unsafe { (*addr).user_ip4 }]
}

/// As [`v4`].
#[inline(always)]
fn v6(addr: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: the context; word by word, as the verifier wants it.
    unsafe {
        let words = &raw const (*addr).user_ip6;
        let word = |index| words.cast::<u32>().add(index).read_volatile();
        [word(0), word(1), word(2), word(3)]
    }
}

#[inline(always)]
fn call(addr: *mut bpf_sock_addr, remote: [u32; 4], what: u32) -> i32 {
    let Some(control) = CONTROL.get(0) else { return ALLOW };
    let generation = control.generation.load();
    let (index, bank) = bank(control, generation);
    let mut mask = bank.net_calls & control.in_force.load();
    if control.active.load() == 0 || mask == 0 {
        return ALLOW;
    }
    // SAFETY: the context; its socket is whole.
    let sock: *mut bpf_sock = unsafe { (*addr).__bindgen_anon_1.sk };
    if sock.is_null() {
        return ALLOW;
    }
    // SAFETY: a socket, not null.
    let state = unsafe { socket::storage(sock, 0) };
    // SAFETY: a map value, not null.
    if state.is_null() || unsafe { (*state).member } == 0 {
        return ALLOW;
    }
    // SAFETY: sixteen bytes either way.
    let address: [u8; 16] = unsafe { core::mem::transmute(remote) };
    mask = for_peer(mask, bank, index, address);
    let now = coarse_now(control);
    if mask & !bank.net_spare == 0 || !control.is_live(now) {
        return ALLOW;
    }
    // SAFETY: the context.
    let (number, port) = unsafe { ((*addr).protocol, u16::from_be((*addr).user_port as u16)) };
    let (local_port, remote_port) = match what {
        call::BIND => (port, 0),
        // SAFETY: a socket, not null.
        _ => (unsafe { (*sock).src_port } as u16, port),
    };
    let facts = PacketFacts {
        direction: Direction::Out as u32,
        protocol: match number {
            IPPROTO_TCP | IPPROTO_MPTCP => protocol::TCP,
            IPPROTO_UDP => protocol::UDP,
            IPPROTO_ICMP | IPPROTO_ICMPV6 => protocol::ICMP,
            _ => protocol::OTHER,
        },
        remote_port,
        local_port,
        call: what,
        ..PacketFacts::default()
    };
    // SAFETY: a map value, not null.
    let stream = unsafe { &raw mut (*state).streams[0] };
    // SAFETY: as above.
    let (connection, listening) = unsafe { (&raw mut (*state).connection, (*state).listening != 0) };
    // On the stack: a call can be preempted by another one on its CPU.
    let mut walk = Walk::<PacketFacts> { facts, ..Walk::default() };
    walk.moment.seed = control.seed.load();
    walk.moment.stream = prepare(stream, generation);
    walk.moment.elapsed_ns = control.elapsed_ns(now);
    if mask & bank.net_connections != 0 && !listening {
        walk.moment.connection = prepare_connection(connection, control, generation);
    }
    decision::decide(&mut walk, generation & 1, mask, Memory { stream, connection });
    let outcome = &walk.outcome;
    if outcome.hits == 0 {
        return ALLOW;
    }
    // SAFETY: a map value, not null.
    let (tgid, cgroup) = unsafe { ((*state).tgid, (*state).cgroup) };
    if control.tells(now) {
        let what = emit::What {
            time_ns: now,
            hits: outcome.hits,
            delay_ns: 0,
            cgroup,
            generation,
            action: Action::Fail as u32,
            tgid,
            bytes: 0,
        };
        report(&what, &address, facts, number);
    }
    fail(generation, outcome.hits)
}

/// Ends the call with the errno of the rule that hit it: such rules end the matter, so there is one.
#[inline(always)]
fn fail(generation: u32, hits: u64) -> i32 {
    let place = (generation & 1) * MAX_RULES as u32 + (hits.trailing_zeros() & (MAX_RULES as u32 - 1));
    let Some(rule) = RULES.get(place) else { return ALLOW };
    // SAFETY: a helper that only notes its argument (Linux 5.18).
    unsafe { bpf_set_retval(-(rule.errno as i32)) };
    FAIL
}

/// Tells userspace. A function of its own: what it keeps on the stack is not there while rules are walked.
#[inline(never)]
fn report(what: &emit::What, remote: &[u8; 16], facts: PacketFacts, number: u32) {
    let packet = PacketEvent {
        local: [0; 16],
        remote: *remote,
        local_port: facts.local_port,
        remote_port: facts.remote_port,
        direction: facts.direction,
        protocol: number,
        ifindex: 0,
    };
    emit::packet(what, &packet);
}
