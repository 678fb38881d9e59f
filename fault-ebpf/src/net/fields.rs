//! Fields of kernel structures that packets are asked about (Linux 6.2).
//!
//! Where they are stands in the loads themselves: a bystander's packet would wait for the line of the cache that a global lies in, and
//! for one more of the program if it had to compute.

use aya_ebpf::bindings::{BPF_TCP_NEW_SYN_RECV, BPF_TCP_TIME_WAIT, bpf_sock};

use super::Skb;
use crate::kernel::{self, field, load};

/// The kernel's own `struct sock` of the packet; 0 for what is less than that.
///
/// # Safety
/// `sock` must be the socket of the packet, and not null.
#[inline(always)]
pub unsafe fn full_socket(skb: Skb, sock: *mut bpf_sock) -> u64 {
    // SAFETY: the field is readable for every kind of socket.
    let state = unsafe { (*sock).state };
    // A request, and what remains of a connection, are smaller.
    if state == BPF_TCP_NEW_SYN_RECV || state == BPF_TCP_TIME_WAIT {
        return 0;
    }
    // SAFETY: of a `struct sk_buff`.
    unsafe { load::<u64, { field::BUFFER_SOCKET }>(kernel::buffer(skb)) }
}

/// Whether any program of anybody remembers something about the [`full_socket`]: about most bystanders' none does.
#[inline(always)]
pub fn has_storage(sock: u64) -> bool {
    // SAFETY: of a `struct sock`.
    unsafe { load::<u64, { field::SOCKET_STORAGE }>(sock) != 0 }
}

/// Whether the kernel made the [`full_socket`] for itself.
#[inline(always)]
pub fn is_kernels(sock: u64) -> bool {
    // SAFETY: of a `struct sock`.
    u32::from(unsafe { load::<u8, { field::KERNEL_SOCKET }>(sock) }) & kernel::kernel_socket_mask() != 0
}
