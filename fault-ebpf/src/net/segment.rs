//! What kind of segment of a conversation a packet is, and where in it.

use aya_ebpf::{
    bindings::{bpf_hdr_start_off::BPF_HDR_START_NET, bpf_sock},
    helpers::generated::bpf_tcp_sock,
};
use fault_common::rule::net::{position, protocol, segment};

use super::{
    Skb,
    headers::{Headers, Origin, load},
};

/// Flags of a TCP header (RFC 9293), as they lie in its fourth word, host byte order.
mod flag {
    pub const FIN: u32 = 1 << 16;
    pub const SYN: u32 = 2 << 16;
    pub const RST: u32 = 4 << 16;
    pub const ACK: u32 = 16 << 16;
}

/// Length of a TCP header without options, and of an ICMP or UDP header.
pub const TCP_HEADER: u32 = 20;
pub const SHORT_HEADER: u32 = 8;

/// A packet as part of its conversation.
#[derive(Clone, Copy, Default)]
pub struct Segment {
    /// Mask of [`segment`] bits.
    pub kind: u32,
    /// Bytes of payload behind the transport header.
    pub payload: u32,
    /// Length of the transport header.
    pub header: u32,
    /// Of TCP: number of its first byte.
    pub sequence: u32,
}

/// How many bytes the connection has carried in one direction, and the sequence number that belongs to that.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Carried {
    pub bytes: u64,
    pub sequence: u32,
    /// 0: unknown.
    pub is_known: u32,
    /// Interface that its socket is bound to (SO_BINDTODEVICE); 0 is none. Of what arrives only.
    pub bound: u32,
    /// Explicit padding.
    pub _pad: u32,
}

/// Where the IP packet ends, in bytes from the start of the frame. Frames may be padded (to 60 bytes on Ethernet).
#[inline(always)]
pub fn end_of_packet(skb: Skb, headers: &Headers) -> u32 {
    // SAFETY: `skb` is the context.
    let (length, is_super) = unsafe { ((*skb).len, (*skb).gso_segs > 1) };
    let start = Origin::network();
    if headers.transport.base() != BPF_HDR_START_NET || is_super {
        return length;
    }
    let Some([first, second]) = load::<2>(skb, start) else { return length };
    let ip = if headers.is_v4 != 0 { first & 0xffff } else { (second >> 16) + 40 };
    let end = start.from_frame() + ip;
    // 40 is that of an IPv6 packet that says nothing of its length (a jumbogram).
    if ip > 40 && end < length { end } else { length }
}

/// What kind of segment it is. Of something that is neither TCP nor UDP, nothing is known.
#[inline(always)]
pub fn classify(skb: Skb, headers: &Headers) -> Segment {
    let end = end_of_packet(skb, headers);
    let transport = headers.transport.from_frame();
    let total = end.saturating_sub(transport);
    if headers.protocol == protocol::TCP {
        let Some([_, sequence, _, word]) = load::<4>(skb, headers.transport) else {
            return Segment::default();
        };
        let header = (word >> 28) * 4;
        let payload = total.saturating_sub(header);
        let mut kind = 0;
        if word & flag::SYN != 0 {
            kind |= segment::SYN;
        } else if payload != 0 {
            kind |= segment::DATA;
        }
        if word & flag::FIN != 0 {
            kind |= segment::FIN;
        }
        if kind == 0 && word & (flag::RST | flag::ACK) == flag::ACK {
            kind = segment::ACK;
        }
        return Segment { kind, payload, header, sequence };
    }
    if headers.protocol == protocol::UDP && headers.source_port != 0 {
        let payload = total.saturating_sub(SHORT_HEADER);
        let kind = if payload != 0 { segment::DATA } else { 0 };
        return Segment { kind, payload, header: SHORT_HEADER, sequence: 0 };
    }
    Segment { kind: 0, payload: total.saturating_sub(SHORT_HEADER), header: SHORT_HEADER, sequence: 0 }
}

impl Carried {
    /// `PacketFacts::position` of a segment of that connection.
    #[inline(always)]
    pub const fn position(&self, at: &Segment) -> u64 {
        if self.is_known == 0 || at.kind & segment::SYN != 0 {
            return 0;
        }
        position(self.bytes, self.sequence, at.sequence, at.payload)
    }
}

/// What the connection of `sock` has received.
///
/// # Safety
/// The verifier must know `sock` as a socket.
#[inline(always)]
pub unsafe fn received(sock: *mut bpf_sock, carried: &mut Carried) {
    // SAFETY: the caller's promise; the helper says null for what is no whole TCP socket.
    unsafe {
        let tcp = bpf_tcp_sock(sock);
        if !tcp.is_null() {
            carried.bytes = (*tcp).bytes_received;
            carried.sequence = (*tcp).rcv_nxt;
            carried.is_known = 1;
        }
    }
}

/// What the peer of `sock` has acknowledged; `connected` when this side began the connection.
///
/// # Safety
/// As for [`received`].
#[inline(always)]
pub unsafe fn acknowledged(sock: *mut bpf_sock, connected: bool, carried: &mut Carried) {
    // SAFETY: as above.
    unsafe {
        let tcp = bpf_tcp_sock(sock);
        if tcp.is_null() {
            return;
        }
        // Who connects counts the acknowledgement of its SYN, who accepts starts behind it (`tcp_ack` in
        // tcp_rcv_synsent_state_process; `tcp_create_openreq_child`, net/ipv4).
        let bytes = (*tcp).bytes_acked;
        carried.bytes = if connected && bytes != 0 { bytes - 1 } else { bytes };
        carried.sequence = (*tcp).snd_una;
        carried.is_known = 1;
    }
}
