//! `drop ecn`: marks a packet, congestion experienced (RFC 3168).

use aya_ebpf::helpers::generated::{bpf_skb_ecn_set_ce, bpf_skb_pull_data};

use super::{
    Skb,
    headers::{Headers, Origin, load},
};

/// Whether the ends of the packet's conversation say that they understand marks: ECT(0), ECT(1), or one that is marked already.
#[inline(always)]
pub fn can_be(skb: Skb, headers: &Headers) -> bool {
    // The last two bits of the second byte (IPv4), or of the traffic class, which begins in the second half of the first one (IPv6).
    let shift = if headers.is_v4 != 0 { 16 } else { 20 };
    load(skb, Origin::network()).is_some_and(|[word]| word >> shift & 3 != 0)
}

/// Marks it. Whether it was done.
#[inline(always)]
pub fn mark(skb: Skb) -> bool {
    // The helper (Linux 5.1) leaves headers alone that a clone shares, such as those TCP keeps: so they are made our own.
    // SAFETY: `skb` is the context; nothing here keeps pointers into the packet.
    unsafe { bpf_skb_pull_data(skb, 0) == 0 && bpf_skb_ecn_set_ce(skb) == 1 }
}
