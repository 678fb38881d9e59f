//! Which packets a rule looks at.

/// Way of a packet, seen from the target.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sent by the target.
    Out = 1,
    /// Received by the target.
    In = 2,
}

/// Both directions, as a mask of [`Direction`].
pub const BOTH_DIRECTIONS: u32 = Direction::Out as u32 | Direction::In as u32;

/// Bits of [`NetFilter::protocols`] and [`PacketFacts::protocol`].
pub mod protocol {
    /// TCP.
    pub const TCP: u32 = 1;
    /// UDP.
    pub const UDP: u32 = 2;
    /// ICMP and `ICMPv6`.
    pub const ICMP: u32 = 4;
    /// Anything else that carries IP.
    pub const OTHER: u32 = 8;
}

/// Bits of [`NetFilter::segments`] and [`PacketFacts::segment`]: what kind of segment of a conversation it is.
pub mod segment {
    /// TCP with SYN: the first packet of a connection, and the first answer.
    pub const SYN: u32 = 1;
    /// Carries payload: TCP without SYN, or a UDP datagram.
    pub const DATA: u32 = 2;
    /// TCP that does nothing but acknowledge: no payload, no SYN, FIN or RST.
    pub const ACK: u32 = 4;
    /// TCP with FIN.
    pub const FIN: u32 = 8;
}

/// Bits of [`NetFilter::calls`] and [`PacketFacts::call`]: which system call, where it is not a packet.
pub mod call {
    /// connect(2).
    pub const CONNECT: u32 = 1;
    /// sendto(2), sendmsg(2) of a UDP socket that names its peer.
    pub const SENDMSG: u32 = 2;
    /// bind(2).
    pub const BIND: u32 = 4;
}

/// Inclusive range of ports; `0..=0` is every port and also packets without ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest port, host byte order.
    pub low: u16,
    /// Highest port, host byte order.
    pub high: u16,
}

impl PortRange {
    /// Whether `port` (host byte order, 0 for "has none") lies in the range.
    #[must_use]
    #[inline(always)]
    pub const fn contains(&self, port: u16) -> bool {
        self.high == 0 || (port >= self.low && port <= self.high)
    }
}

/// Which packets of the target a rule looks at.
///
/// Peers (`to ADDR`) and interfaces (`iface NAME`) are not here: they are masks of rules, found by one
/// look-up each, so that ten thousand addresses cost a packet what one does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetFilter {
    /// Mask of [`Direction`]s.
    pub directions: u32,
    /// Mask of [`protocol`] bits; 0 is every protocol.
    pub protocols: u32,
    /// Port of the peer.
    pub remote_port: PortRange,
    /// Port of the target.
    pub local_port: PortRange,
    /// Mask of [`segment`] bits; 0 is every packet.
    pub segments: u32,
    /// Mask of [`call`] bits; 0 is every call.
    pub calls: u32,
    /// How many bytes of a connection's payload pass untouched, in each direction (`after SIZE`).
    pub after_bytes: u64,
}

/// What a filter needs to know of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFacts {
    /// One [`Direction`].
    pub direction: u32,
    /// One [`protocol`] bit.
    pub protocol: u32,
    /// Port of the peer, host byte order, 0 when the protocol has none.
    pub remote_port: u16,
    /// Port of the target, host byte order, 0 when the protocol has none.
    pub local_port: u16,
    /// Mask of [`segment`] bits.
    pub segment: u32,
    /// One [`call`] bit; 0 for packets.
    pub call: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// Payload of the connection in this direction up to and with this packet, in bytes; one more for a packet without
    /// payload, which comes after all of it. 0 when unknown.
    pub position: u64,
}

/// [`PacketFacts::position`] of a TCP segment: the connection has carried `carried` bytes in this direction up to the number
/// `next`; the segment begins at `sequence` and has `payload` bytes.
///
/// A segment that is sent again begins before `next`: the difference of the numbers is signed (RFC 9293, 3.4).
#[must_use]
#[inline(always)]
pub const fn position(carried: u64, next: u32, sequence: u32, payload: u32) -> u64 {
    let start = carried.wrapping_add_signed(sequence.wrapping_sub(next) as i32 as i64);
    start.wrapping_add(if payload == 0 { 1 } else { payload as u64 })
}

impl NetFilter {
    /// Whether this packet passes the filter.
    #[must_use]
    #[inline(always)]
    pub const fn matches(&self, packet: &PacketFacts) -> bool {
        self.directions & packet.direction != 0
            && (self.protocols == 0 || self.protocols & packet.protocol != 0)
            && self.remote_port.contains(packet.remote_port)
            && self.local_port.contains(packet.local_port)
            && (self.segments == 0 || self.segments & packet.segment != 0)
            && (self.calls == 0 || self.calls & packet.call != 0)
            && (self.after_bytes == 0 || packet.position > self.after_bytes)
    }
}

const _: () = assert!(size_of::<NetFilter>() == 32);
const _: () = assert!(size_of::<PacketFacts>() == 32);
