//! `corrupt`: flips bits of a packet.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_CSUM_LEVEL_RESET, BPF_F_MARK_MANGLED_0, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{
        bpf_csum_level, bpf_l4_csum_replace, bpf_loop, bpf_skb_load_bytes, bpf_skb_pull_data,
        bpf_skb_store_bytes,
    },
};
use fault_common::{decide::corruption::place, limits::MAX_CORRUPT_BITS, rule::net::protocol};

use super::{
    Skb,
    headers::Headers,
    segment::{classify, end_of_packet},
};

/// Where the checksum lies in the transport header, and the flags that go with replacing it.
#[inline(always)]
const fn checksum(number: u32) -> Option<(u32, u64)> {
    match number {
        protocol::TCP => Some((16, 0)),
        // A UDP checksum of 0 is none, and stays none.
        protocol::UDP => Some((6, BPF_F_MARK_MANGLED_0 as u64)),
        protocol::ICMP => Some((2, 0)),
        _ => None,
    }
}

/// Flips `bits` bits, at places that `random` decides. If it `breaks` the checksum: of the transport header and payload. If
/// not: of the payload, and the checksum is made to agree. Whether it was done.
#[inline(always)]
pub fn corrupt(skb: Skb, headers: &Headers, bits: u32, random: u64, breaks: bool) -> bool {
    let start = headers.transport.from_frame();
    let end = end_of_packet(skb, headers);
    let first = if breaks { start } else { start + classify(skb, headers).header };
    if first >= end {
        return false;
    }
    // SAFETY: `skb` is the context; nothing here keeps pointers into the packet.
    if unsafe { bpf_skb_pull_data(skb, end) } != 0 {
        return false;
    }
    if breaks {
        // A receiver that took the card's word for the checksum looks itself.
        // SAFETY: `skb` is the context. It fails when there was no such word.
        unsafe { bpf_csum_level(skb, u64::from(BPF_CSUM_LEVEL_RESET)) };
    }
    let checksum = if breaks { None } else { checksum(headers.protocol) };
    let (checksum_at, flags) = checksum.map_or((0, 0), |(offset, flags)| (start + offset, flags));
    let mut flips = Flips {
        skb,
        random,
        start,
        first,
        bytes: end - first,
        total: if bits < MAX_CORRUPT_BITS { bits } else { MAX_CORRUPT_BITS },
        checksum: checksum_at | (flags as u32) << 16,
        done: 0,
    };
    let callback: unsafe extern "C" fn(u64, *mut c_void) -> u64 = flip_next;
    // A loop of the verifier's own would be walked bit by bit: that was two thirds of the time it took to load the program.
    // SAFETY: the helper (Linux 5.17) calls `flip_next` with the address of `flips`, which lives until it returns.
    unsafe { bpf_loop(flips.total, callback as *mut c_void, (&raw mut flips).cast(), 0) };
    flips.done != 0
}

/// What `bpf_loop` hands to each round.
struct Flips {
    skb: Skb,
    random: u64,
    /// Of the transport header, from the start of the frame, as `first`.
    start: u32,
    /// The first byte that may be hit.
    first: u32,
    /// How many may be hit.
    bytes: u32,
    /// How many bits are.
    total: u32,
    /// As in [`flip`].
    checksum: u32,
    done: u32,
}

/// One bit. 0: the next one.
unsafe extern "C" fn flip_next(number: u64, flips: *mut c_void) -> u64 {
    // SAFETY: `corrupt` above hands the address of its `Flips`.
    let flips = unsafe { &mut *flips.cast::<Flips>() };
    if flips.total == 0 {
        // Never, which the compiler does not know: it would have the division panic.
        return 1;
    }
    let bit = place(flips.random, number as u32, flips.total, flips.bytes);
    let byte = flips.first + (bit >> 3);
    if flip(flips.skb, byte, 1 << (bit & 7), (byte - flips.start) & 1, flips.checksum) != 0 {
        flips.done += 1;
    }
    0
}

/// Flips the bits of `mask` in the byte at `offset` of the frame, the second of its 16-bit word of the checksum if `odd`.
/// `checksum`: where that lies, and in the upper half the flags for replacing it; 0 is none. Whether it was done.
///
/// A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn flip(skb: *mut __sk_buff, offset: u32, mask: u32, odd: u32, checksum: u32) -> u32 {
    let mut byte = MaybeUninit::<u8>::uninit();
    // SAFETY: the helper fills the byte or fails.
    if unsafe { bpf_skb_load_bytes(skb.cast(), offset, byte.as_mut_ptr().cast(), 1) } != 0 {
        return 0;
    }
    // SAFETY: filled above.
    let before = unsafe { byte.assume_init() };
    let after = before ^ mask as u8;
    // SAFETY: `skb` is the context, `after` a byte of the stack. A sum over the whole packet that the card made is kept
    // in step, so that the receiver finds the difference to the checksum.
    let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
    if unsafe { bpf_skb_store_bytes(skb, offset, (&raw const after).cast(), 1, flags) } != 0 {
        return 0;
    }
    if checksum != 0 {
        let shift = if odd & 1 == 0 { 0 } else { 8 };
        let (from, to) = (u64::from(before) << shift, u64::from(after) << shift);
        let flags = u64::from(checksum >> 16) | 2;
        // SAFETY: `skb` is the context. Two bytes of the packet, network byte order, the other one as if it were 0:
        // only the difference counts.
        unsafe { bpf_l4_csum_replace(skb, checksum & 0xffff, from, to, flags) };
    }
    1
}
