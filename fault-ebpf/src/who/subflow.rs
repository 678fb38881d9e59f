//! MPTCP: a program holds one socket, and the packets belong to others, its *subflows*, which the kernel makes for itself
//! (`mptcp_subflow_create_socket`, net/mptcp/subflow.c) and which no hook of socket(2) sees.
//!
//! A subflow is enlisted when it connects or listens (`net/subflows.rs`), before its first packet; what it accepts is a copy of
//! it. Those that were there before the session are enlisted by their first packet.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, BPF_TCP_LISTEN, bpf_sock},
    helpers::generated::bpf_skc_to_mptcp_sock,
};
use fault_common::who::SocketState;

use super::socket::{is_local_port, storage};
use crate::kernel;

/// `SO_COOKIE` of no socket: what a listener accepts is never taken for the listener itself.
const NOBODYS: u64 = u64::MAX;
/// Not known: the socket is taken for the one this was written for.
const UNKNOWN: u64 = 0;

/// Whether `sock`, which has no state, may be a subflow of the target: its port was learned with the program's socket.
///
/// # Safety
/// As for [`adopt`].
#[inline(always)]
pub unsafe fn may_be(sock: *mut bpf_sock) -> bool {
    // SAFETY: the field is readable for every kind of socket.
    kernel::mptcp() != 0 && is_local_port(false, unsafe { (*sock).src_port } as u16)
}

/// The state of a subflow without one, if the program's socket behind it is the target's and has been for longer than the
/// session; else null.
///
/// # Safety
/// `sock` must not be null, and the verifier must know it as a socket.
#[inline(always)]
pub unsafe fn adopt(sock: *mut bpf_sock) -> *mut SocketState {
    // First, because it spares bystanders the rest.
    // SAFETY: the caller's promise.
    if unsafe { !may_be(sock) } {
        return core::ptr::null_mut();
    }
    // SAFETY: the caller's promise; the field is readable for every kind of socket.
    unsafe { enlist(sock, if (*sock).state == BPF_TCP_LISTEN { NOBODYS } else { UNKNOWN }) }
}

/// Makes a subflow the target's if the program's socket behind it is; its state, or null. Linux 5.19, with MPTCP.
///
/// # Safety
/// As for [`adopt`].
#[inline(always)]
pub unsafe fn enlist(sock: *mut bpf_sock, cookie: u64) -> *mut SocketState {
    // SAFETY: the caller's promise; a subflow holds the socket it stands for.
    unsafe {
        let whole = bpf_skc_to_mptcp_sock(sock.cast());
        if whole.is_null() {
            return core::ptr::null_mut();
        }
        let whole = storage(whole.cast(), 0);
        if whole.is_null() || (*whole).member == 0 {
            return core::ptr::null_mut();
        }
        let state = storage(sock, u64::from(BPF_SK_STORAGE_GET_F_CREATE));
        if !state.is_null() {
            (*state).tgid = (*whole).tgid;
            (*state).cgroup = (*whole).cgroup;
            (*state).cookie = cookie;
            (*state).member = 1;
        }
        state
    }
}
