//! Fields of kernel structures that packets are asked about.
//!
//! Where they are is a constant of the program and not a global: a bystander's packet would wait for the line of the cache that
//! globals lie in.

use core::ptr;

use aya_ebpf::bindings::{BPF_TCP_NEW_SYN_RECV, BPF_TCP_TIME_WAIT, bpf_sock};

use super::Skb;
use crate::kernel;

/// The kernel's own `struct sock` of the packet; 0 for what is less than that, or where it cannot be told without a call.
///
/// # Safety
/// `sock` must be the socket of the packet, and not null.
#[inline(always)]
pub unsafe fn full_socket(skb: Skb, sock: *mut bpf_sock) -> u64 {
    // SAFETY: the field is readable for every kind of socket.
    let state = unsafe { (*sock).state };
    // A request, and what remains of a connection, are smaller.
    if state == BPF_TCP_NEW_SYN_RECV || state == BPF_TCP_TIME_WAIT || kernel::socket_storage() == 0 {
        return 0;
    }
    match kernel::buffer(skb) {
        0 => 0,
        // SAFETY: of a `struct sk_buff`.
        buffer => unsafe { load::<u64>(buffer, kernel::buffer_socket()) },
    }
}

/// Whether any program of anybody remembers something about the [`full_socket`]: about most bystanders' none does.
#[inline(always)]
pub fn has_storage(sock: u64) -> bool {
    // SAFETY: of a `struct sock`.
    unsafe { load::<u64>(sock, kernel::socket_storage()) != 0 }
}

/// Whether the kernel may have made the [`full_socket`] for itself.
#[inline(always)]
pub fn is_kernels(sock: u64) -> bool {
    let mask = kernel::kernel_socket_mask();
    // SAFETY: of a `struct sock`.
    mask == 0 || u32::from(unsafe { load::<u8>(sock, kernel::kernel_socket()) }) & mask != 0
}

/// What lies `offset` bytes into the structure at `structure`, by a load: the verifier knows what it points to.
///
/// # Safety
/// A `T` must lie there. The verifier refuses a load that is not of a field; where the pointer may be stale the kernel makes it
/// one that may fail and then gives zero (`BPF_PROBE_MEM`).
#[inline(always)]
unsafe fn load<T>(structure: u64, offset: u32) -> T {
    // SAFETY: the caller's promise. Volatile: nobody else may tell when these change.
    unsafe { ptr::read_volatile((structure + offset as u64) as *const T) }
}
