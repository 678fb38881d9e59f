//! Where the fields of kernel structures are that packets are asked about. The loader finds out (`fault_user::kernel::globals`) and
//! sets these.

use core::ptr;

use aya_ebpf::{
    Global,
    bindings::{BPF_TCP_NEW_SYN_RECV, BPF_TCP_TIME_WAIT, bpf_sock},
};

use super::Skb;
use crate::{globals::fields, kernel};

fields! {
    /// `sk_buff.sk`.
    BUFFER_SOCKET,
    /// `sock.sk_bpf_storage`; 0: this kernel has no such field.
    SOCKET_STORAGE,
}

/// Whether no program of anybody remembers anything about the socket of the packet, as far as that can be told without a call:
/// most bystanders' sockets are like that.
///
/// # Safety
/// `sock` must be the socket of the packet, and not null.
#[inline(always)]
pub unsafe fn is_blank(skb: Skb, sock: *mut bpf_sock) -> bool {
    // SAFETY: the field is readable for every kind of socket.
    let state = unsafe { (*sock).state };
    // A request, and what remains of a connection, are smaller and have no such field.
    if state == BPF_TCP_NEW_SYN_RECV || state == BPF_TCP_TIME_WAIT || SOCKET_STORAGE.load() == 0 {
        return false;
    }
    let buffer = kernel::buffer(skb);
    if buffer == 0 {
        return false;
    }
    let sock = pointer(buffer, &BUFFER_SOCKET);
    sock != 0 && pointer(sock, &SOCKET_STORAGE) == 0
}

/// The pointer at `field` of the structure at `structure`, by a load: the verifier knows what it points to.
#[inline(always)]
fn pointer(structure: u64, field: &Global<u32>) -> u64 {
    // SAFETY: the verifier refuses a load that is not of a field; where the pointer may be stale the kernel makes it one that may fail
    // and then gives zero (`BPF_PROBE_MEM`). Volatile: nobody else may tell when these change.
    unsafe { ptr::read_volatile((structure + field.load() as u64) as *const u64) }
}
