//! Sockets the kernel makes on behalf of the target's MPTCP sockets: `net_subflow`.

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB},
    helpers::generated::bpf_get_socket_cookie,
    macros::sock_ops,
    programs::SockOpsContext,
};

use crate::who::{socket, subflow};

/// `sockops` of the cgroup: before the first packet of a connection, and when a socket begins to listen. Answers nothing: the
/// kernel keeps its own choice where a callback asks for one.
#[sock_ops]
pub fn net_subflow(ctx: SockOpsContext) -> u32 {
    let op = ctx.op();
    if op != BPF_SOCK_OPS_TCP_CONNECT_CB && op != BPF_SOCK_OPS_TCP_LISTEN_CB {
        return 1;
    }
    // SAFETY: the context; the helper takes it for its socket.
    let (sock, cookie) = unsafe { ((*ctx.ops).__bindgen_anon_2.sk, bpf_get_socket_cookie(ctx.ops.cast())) };
    // SAFETY: not null, and a socket by the type of the field.
    if !sock.is_null() && !unsafe { subflow::enlist(sock, cookie) }.is_null() {
        socket::learn_local_port(false, ctx.local_port() as u16);
    }
    1
}
