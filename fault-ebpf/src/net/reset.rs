//! `reset`: a packet of a TCP connection becomes its end.
//!
//! A receiver takes an RST only if it carries the very number it expects next (RFC 5961, `tcp_validate_incoming`).
//! Towards the peer that is the number of the packet itself; towards the target it is what the target acknowledges, or,
//! of a packet that arrives, what its socket says.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{
        bpf_csum_diff, bpf_l3_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
};
use fault_common::{
    rule::net::{Direction, protocol},
    tag::Tag,
};

use super::{
    Skb,
    candidates::Place,
    cut::copy,
    headers::load,
    scene::Scene,
    segment::{TCP_HEADER, end_of_packet},
};
use crate::kernel;

/// Who learns of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Whom the packet is for.
    Receiver,
    /// The target and its peer.
    Both,
}

const ETHERNET: u32 = 14;
const IPPROTO_TCP: u32 = 6;
/// Length of a header of five words, RST and ACK, window 0; host byte order.
const FLAGS: u32 = 5 << 28 | 0x14 << 16;

/// What the RST is made from.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rst {
    /// Network byte order, IPv4 mapped.
    source: [u32; 4],
    /// Network byte order, IPv4 mapped.
    destination: [u32; 4],
    /// Host byte order.
    source_port: u32,
    /// Host byte order.
    destination_port: u32,
    sequence: u32,
    acknowledged: u32,
    /// Offset of the TCP header in the frame.
    transport: u32,
    is_v4: u32,
    /// 1: the kernel still adds the sum of the TCP header to the checksum (`CHECKSUM_PARTIAL`).
    is_partial: u32,
    /// 1: the other way than the packet was going.
    is_reversed: u32,
}

impl Rst {
    /// The other way round.
    #[inline(always)]
    fn turn(&mut self) {
        core::mem::swap(&mut self.source, &mut self.destination);
        core::mem::swap(&mut self.source_port, &mut self.destination_port);
        core::mem::swap(&mut self.sequence, &mut self.acknowledged);
        self.is_reversed = 1;
    }
}

/// Makes the packet the end of its connection. Whether it was done.
#[inline(always)]
pub fn reset(skb: Skb, scene: &mut Scene, tag: Tag, ends: Ends) -> bool {
    let Scene { headers, place, carried, rst, .. } = scene;
    if headers.protocol != protocol::TCP {
        return false;
    }
    let Some([_, sequence, acknowledged, _, checksum]) = load::<5>(skb, headers.transport) else {
        return false;
    };
    let transport = headers.transport.from_frame();
    let length = end_of_packet(skb, headers).saturating_sub(transport);
    *rst = Rst {
        source: headers.source,
        destination: headers.destination,
        source_port: u32::from(headers.source_port),
        destination_port: u32::from(headers.destination_port),
        sequence,
        acknowledged,
        transport,
        is_v4: headers.is_v4,
        is_partial: 0,
        is_reversed: 0,
    };
    // What only the hardware would complete holds the sum of the pseudo-header alone (`__tcp_v4_send_check`, net/ipv4).
    let unfinished = u32::from(fold(pseudo(rst, length, 0)));
    rst.is_partial = u32::from(u16::from_be((checksum >> 16) as u16) as u32 == unfinished);
    match place.direction {
        Direction::In => {
            if carried.is_known != 0 {
                rst.sequence = carried.sequence;
            }
        }
        Direction::Out if ends == Ends::Both => {
            rst.turn();
            if write_rst(skb, rst) == 0 {
                return false;
            }
            send_back(skb, place, tag);
            rst.turn();
        }
        Direction::Out => {}
    }
    write_rst(skb, rst) != 0
}

/// Sends a copy to the target, as if it had come by the interface the packet was to leave by.
#[inline(always)]
fn send_back(skb: Skb, place: &Place, tag: Tag) {
    let inbound = Tag(0).decided(Direction::In, kernel::session_bit(), 0);
    // SAFETY: `skb` is the context.
    unsafe { (*skb).tc_index = u32::from(inbound.0) };
    copy(skb, place, Direction::In);
    // SAFETY: as above.
    unsafe { (*skb).tc_index = u32::from(tag.0) };
}

/// Sum of the pseudo-header (RFC 9293, RFC 8200) of a TCP segment of `length` bytes, added to `seed`.
#[inline(always)]
fn pseudo(rst: &Rst, length: u32, seed: u32) -> u32 {
    let rest = [length.to_be(), IPPROTO_TCP.to_be()];
    // SAFETY: two words of the stack; the addresses below are four each. Of a mapped address only the last word is real.
    unsafe {
        let sum = bpf_csum_diff(core::ptr::null_mut(), 0, rest.as_ptr().cast_mut(), 8, seed) as u32;
        let (source, destination) = (rst.source, rst.destination);
        if rst.is_v4 != 0 {
            let pair = [source[3], destination[3]];
            bpf_csum_diff(core::ptr::null_mut(), 0, pair.as_ptr().cast_mut(), 8, sum) as u32
        } else {
            let sum = bpf_csum_diff(core::ptr::null_mut(), 0, source.as_ptr().cast_mut(), 16, sum) as u32;
            bpf_csum_diff(core::ptr::null_mut(), 0, destination.as_ptr().cast_mut(), 16, sum) as u32
        }
    }
}

/// Sixteen bits of a sum (RFC 1071), as they lie in the packet.
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Writes the RST over the packet. Whether it was done; if not, the packet may be half written and is lost to the receiver.
///
/// A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn write_rst(skb: *mut __sk_buff, rst: *mut Rst) -> u32 {
    if rst.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked its size.
    let rst = unsafe { &*rst };
    let transport = rst.transport & 0xffff;
    // SAFETY: `skb` is the context.
    if unsafe { bpf_skb_change_tail(skb, transport + TCP_HEADER, 0) } != 0 {
        return 0;
    }
    if !write_length(skb, rst, transport) || (rst.is_reversed != 0 && !write_addresses(skb, rst)) {
        return 0;
    }
    let mut words = [
        (rst.source_port << 16 | rst.destination_port & 0xffff).to_be(),
        rst.sequence.to_be(),
        rst.acknowledged.to_be(),
        FLAGS.to_be(),
        0,
    ];
    let sum = pseudo(rst, TCP_HEADER, 0);
    let checksum = if rst.is_partial != 0 {
        fold(sum)
    } else {
        // SAFETY: five words of the stack.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, words.as_mut_ptr(), TCP_HEADER, sum) };
        !fold(sum as u32)
    };
    // The first half of the fifth word; it is as it lies in the packet already.
    words[4] = u32::from(checksum);
    store(skb, transport, &words)
}

/// The length of the IP packet.
#[inline(always)]
fn write_length(skb: Skb, rst: &Rst, transport: u32) -> bool {
    let total = transport + TCP_HEADER - ETHERNET;
    if rst.is_v4 == 0 {
        let length = ((total - 40) as u16).to_be();
        return store(skb, ETHERNET + 4, &length) != 0;
    }
    let mut before = MaybeUninit::<u16>::uninit();
    // SAFETY: two bytes of the stack, which the helper fills or fails; `skb` is the context.
    unsafe {
        if bpf_skb_load_bytes(skb.cast(), ETHERNET + 2, before.as_mut_ptr().cast(), 2) != 0 {
            return false;
        }
        let after = (total as u16).to_be();
        // The sum over the IP header stays what it was: whoever keeps one over the whole packet need not know.
        bpf_skb_store_bytes(skb, ETHERNET + 2, (&raw const after).cast(), 2, 0) == 0
            && bpf_l3_csum_replace(skb, ETHERNET + 10, u64::from(before.assume_init()), u64::from(after), 2)
                == 0
    }
}

/// Ethernet and IP addresses, the other way round than in the packet.
#[inline(always)]
fn write_addresses(skb: Skb, rst: &Rst) -> bool {
    let mut stations = MaybeUninit::<[[u16; 3]; 2]>::uninit();
    // SAFETY: twelve bytes of the stack, which the helper fills or fails; `skb` is the context.
    let swapped = unsafe {
        if bpf_skb_load_bytes(skb.cast(), 0, stations.as_mut_ptr().cast(), 12) != 0 {
            return false;
        }
        let [a, b] = stations.assume_init();
        [b, a]
    };
    // SAFETY: as above.
    if unsafe { bpf_skb_store_bytes(skb, 0, swapped.as_ptr().cast(), 12, 0) } != 0 {
        return false;
    }
    // The order of what is summed does not matter to any checksum.
    if rst.is_v4 != 0 {
        let pair = [rst.source[3], rst.destination[3]];
        // SAFETY: eight bytes of the stack.
        unsafe { bpf_skb_store_bytes(skb, ETHERNET + 12, pair.as_ptr().cast(), 8, 0) == 0 }
    } else {
        let (source, destination) = (rst.source, rst.destination);
        // SAFETY: sixteen bytes of the stack each.
        unsafe {
            bpf_skb_store_bytes(skb, ETHERNET + 8, source.as_ptr().cast(), 16, 0) == 0
                && bpf_skb_store_bytes(skb, ETHERNET + 24, destination.as_ptr().cast(), 16, 0) == 0
        }
    }
}

/// Stores a value, and keeps a sum over the whole packet in step. Whether it was done.
#[inline(always)]
fn store<T>(skb: Skb, offset: u32, value: &T) -> u32 {
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: `value` lives on the stack; `skb` is the context.
    let failed = unsafe {
        bpf_skb_store_bytes(skb, offset, core::ptr::from_ref(value).cast(), size_of::<T>() as u32, flags)
    };
    u32::from(failed == 0)
}
