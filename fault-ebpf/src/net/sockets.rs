//! Sockets the target makes, and the ports they are bound to.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::{bpf_get_current_cgroup_id, bpf_get_socket_cookie},
    macros::cgroup_sock,
    programs::SockContext,
};

use crate::{
    maps::CONTROL,
    who::{socket, task},
};

/// What every hook here answers: the system call goes on.
const ALLOW: i32 = 1;

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

/// `cgroup/sock_create`: marks the sockets of the target. Runs for every `AF_INET` and `AF_INET6` socket.
#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let Some(control) = CONTROL.get(0) else { return ALLOW };
    let tgid = task::current_tgid();
    if !task::is_current_target(control, tgid) {
        return ALLOW;
    }
    // SAFETY: the context of a socket hook stands for the socket.
    let state = unsafe { socket::storage(ctx.sock, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
    if !state.is_null() {
        // SAFETY: a map value, not null, of a socket nobody else knows yet.
        unsafe {
            (*state).tgid = tgid;
            (*state).cgroup = bpf_get_current_cgroup_id();
            (*state).cookie = bpf_get_socket_cookie(ctx.sock.cast());
            (*state).member = 1;
        }
    }
    ALLOW
}

/// `cgroup/post_bind4`: the target's socket got a port.
#[cgroup_sock(post_bind4)]
pub fn sock_bind4(ctx: SockContext) -> i32 {
    bound(ctx.sock)
}

/// `cgroup/post_bind6`: as [`sock_bind4`].
#[cgroup_sock(post_bind6)]
pub fn sock_bind6(ctx: SockContext) -> i32 {
    bound(ctx.sock)
}

#[inline(always)]
fn bound(sock: *mut bpf_sock) -> i32 {
    // SAFETY: the context of a socket hook stands for the socket.
    let (state, protocol, port) = unsafe { (socket::storage(sock, 0), (*sock).protocol, (*sock).src_port) };
    // SAFETY: a map value, not null.
    if !state.is_null()
        && unsafe { (*state).member } != 0
        && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)
    {
        socket::learn_local_port(protocol == IPPROTO_UDP, port as u16);
    }
    ALLOW
}
