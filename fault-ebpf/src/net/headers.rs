//! Which addresses, ports and protocol a packet carries.
//!
//! The plainest packets are read in place; everything else with `bpf_skb_load_bytes_relative`, counted from the
//! network header, so Ethernet and interfaces without a link layer are one case.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{
        __sk_buff,
        bpf_hdr_start_off::{BPF_HDR_START_MAC, BPF_HDR_START_NET},
    },
    helpers::generated::{bpf_skb_load_bytes_relative, bpf_skb_pull_data},
};
use fault_common::rule::net::protocol;

use super::Skb;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;

/// Protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod number {
    pub const HOP_BY_HOP: u32 = 0;
    pub const ICMP: u32 = 1;
    pub const TCP: u32 = 6;
    pub const UDP: u32 = 17;
    pub const ROUTING: u32 = 43;
    pub const FRAGMENT: u32 = 44;
    pub const AUTHENTICATION: u32 = 51;
    pub const ICMPV6: u32 = 58;
    pub const DESTINATION_OPTIONS: u32 = 60;
    pub const MOBILITY: u32 = 135;
}

/// IPv6 extension headers that are walked; packets with more are taken as "other" protocol.
const MAX_EXTENSIONS: u32 = 6;
/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// First byte of an IPv4 header without options: version 4, five words.
const PLAIN_V4: u8 = 0x45;
/// How much of a packet is made linear when its headers lie in fragments.
const PULL: u32 = 256;
/// The IPv4 prefix of mapped addresses (`::ffff:0:0/96`), its third word, host byte order.
const MAPPED: u32 = 0xffff;

/// Why a packet has no [`Headers`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Not IP: ARP and the like, none of our business.
    NotIp,
    /// IP, but cut short or nonsense.
    Unparsable,
}

/// Where in the packet counting starts: an offset from the MAC or from the network header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Origin {
    base: u32,
    offset: u32,
}

impl Origin {
    /// The start of the IP header.
    #[inline(always)]
    pub const fn network() -> Self {
        Self { base: BPF_HDR_START_NET, offset: 0 }
    }

    /// `BPF_HDR_START_MAC` or `BPF_HDR_START_NET`.
    #[inline(always)]
    pub const fn base(self) -> u32 {
        self.base
    }

    /// Bytes from the start of the Ethernet frame.
    #[inline(always)]
    pub const fn from_frame(self) -> u32 {
        if self.base == BPF_HDR_START_NET { self.offset + ETHERNET as u32 } else { self.offset }
    }

    /// `bytes` further on.
    #[inline(always)]
    pub const fn plus(self, bytes: u32) -> Self {
        Self { base: self.base, offset: self.offset + bytes }
    }
}

/// What filters, look-ups and events need of a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Headers {
    /// Network byte order; IPv4 addresses are mapped.
    pub source: [u32; 4],
    /// Network byte order; IPv4 addresses are mapped.
    pub destination: [u32; 4],
    /// Host byte order; 0 when there is none. Of ICMP: type and code.
    pub source_port: u16,
    /// Host byte order; 0 when there is none. Of ICMP: the checksum, meaningless.
    pub destination_port: u16,
    /// 1: IPv4.
    pub is_v4: u32,
    /// Number of the transport protocol.
    pub number: u32,
    /// Bit of the transport protocol in a filter.
    pub protocol: u32,
    /// Where the transport header starts.
    pub transport: Origin,
}

/// `N` 32-bit words at `at`, in host byte order.
#[inline(always)]
pub fn load<const N: usize>(skb: Skb, at: Origin) -> Option<[u32; N]> {
    let mut words = MaybeUninit::<[u32; N]>::uninit();
    // SAFETY: the helper fills all of `words` or fails.
    let failed = unsafe {
        bpf_skb_load_bytes_relative(
            skb.cast(),
            at.offset,
            words.as_mut_ptr().cast(),
            size_of::<[u32; N]>() as u32,
            at.base,
        )
    };
    if failed != 0 {
        return None;
    }
    // SAFETY: filled above (also after a failure: the helper zeroes it).
    let mut words = unsafe { words.assume_init() };
    let mut i = 0;
    while i < N {
        words[i] = u32::from_be(words[i]);
        i += 1;
    }
    Some(words)
}

/// As [`load`], making the headers linear first if they are not.
#[inline(always)]
fn load_or_pull<const N: usize>(skb: Skb, at: Origin) -> Option<[u32; N]> {
    if let Some(words) = load(skb, at) {
        return Some(words);
    }
    // SAFETY: `skb` is the context.
    let length = unsafe { (*skb).len };
    // SAFETY: `skb` is the context; nothing here keeps pointers into the packet.
    if unsafe { bpf_skb_pull_data(skb, if length < PULL { length } else { PULL }) } != 0 {
        return None;
    }
    load(skb, at)
}

/// Reads the headers of the packet.
#[inline(always)]
pub fn read(skb: Skb, headers: &mut Headers) -> Result<(), Unread> {
    if let Some(plain) = Plain::of(skb) {
        *headers = plain.headers();
        return Ok(());
    }
    match read_headers(skb, headers, BY_PROTOCOL, 0) {
        READ => Ok(()),
        NOT_IP => Err(Unread::NotIp),
        _ => Err(Unread::Unparsable),
    }
}

/// Reads the headers a packet had that is quoted at `at` (in an ICMP error). Whether it was done.
#[inline(always)]
pub fn read_quoted(skb: Skb, at: Origin, quoted: &mut Headers) -> bool {
    read_headers(skb, quoted, at.base, at.offset) == READ
}

/// [`read_headers`] found what it was asked for.
const READ: i32 = 0;
/// [`Unread::NotIp`].
const NOT_IP: i32 = 1;
/// [`Unread::Unparsable`].
const UNPARSABLE: i32 = 2;
/// For `base`: the packet itself, whose protocol the kernel knows, not a place in it.
const BY_PROTOCOL: u32 = u32::MAX;

/// Reads the headers at (`base`, `offset`), as in [`Origin`].
///
/// A global function: the verifier looks at it once and by itself, instead of once for every way that leads
/// here times every way that leads out. That is most of the time it takes to load a program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_headers(skb: *mut __sk_buff, headers: *mut Headers, base: u32, offset: u32) -> i32 {
    if headers.is_null() {
        return UNPARSABLE;
    }
    let place = if base == BY_PROTOCOL {
        let network = Origin { base: BPF_HDR_START_NET, offset: 0 };
        // SAFETY: `skb` is the context.
        match u16::from_be(unsafe { (*skb).protocol } as u16) {
            ETH_P_8021Q | ETH_P_8021AD => behind_tags(skb),
            kind => Ok((kind, network)),
        }
    } else {
        let at = Origin { base, offset };
        match load::<1>(skb, at) {
            Some([word]) => Ok((if word >> 28 == 4 { ETH_P_IP } else { ETH_P_IPV6 }, at)),
            None => Err(Unread::Unparsable),
        }
    };
    let found = match place {
        Ok((ETH_P_IP, at)) => read_v4(skb, at),
        Ok((ETH_P_IPV6, at)) => read_v6(skb, at),
        Ok(_) => Err(Unread::NotIp),
        Err(unread) => Err(unread),
    };
    match found {
        Ok(mut found) => {
            found.protocol = protocol_bit(found.number);
            // SAFETY: not null, and the verifier has checked its size.
            unsafe { *headers = found };
            READ
        }
        Err(Unread::NotIp) => NOT_IP,
        Err(Unread::Unparsable) => UNPARSABLE,
    }
}

#[inline(always)]
const fn protocol_bit(number: u32) -> u32 {
    match number {
        number::TCP => protocol::TCP,
        number::UDP => protocol::UDP,
        number::ICMP | number::ICMPV6 => protocol::ICMP,
        _ => protocol::OTHER,
    }
}

/// Nearly every packet: Ethernet, IPv4 without options, no fragment. Read in place, which spares a call of a
/// helper; anything that does not look just like that is left to the ways below.
pub struct Plain(*const u8);

impl Plain {
    /// The packet, if it looks like that.
    #[inline(always)]
    pub fn of(skb: Skb) -> Option<Self> {
        // SAFETY: `skb` is the context.
        let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
        if data + ETHERNET + 24 > end {
            return None;
        }
        let plain = Self(data as *const u8);
        // Without a link layer the first byte would be that of IPv4 itself.
        let is_plain = plain.byte(0) != PLAIN_V4
            && plain.half::<12>() == ETH_P_IP
            && plain.byte(ETHERNET) == PLAIN_V4
            && plain.half::<{ ETHERNET + 6 }>() & 0x1fff == 0;
        is_plain.then_some(plain)
    }

    #[inline(always)]
    fn byte(&self, offset: usize) -> u8 {
        // SAFETY: the first 38 bytes of the packet lie before its end; the same below.
        unsafe { self.0.add(offset).read() }
    }

    /// In network byte order. Where its bytes lie is nothing to the kernel on machines that read them wherever they lie
    /// (`CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS`: x86, arm64), and it is to the compiler, which would read them one by one.
    #[inline(always)]
    fn word<const OFFSET: usize>(&self) -> u32 {
        let word: u64;
        // SAFETY: as above; reads nothing else.
        unsafe {
            asm!(
                "{word} = *(u32 *)({data} + {offset})",
                word = out(reg) word,
                data = in(reg) self.0,
                offset = const OFFSET,
                options(pure, readonly, nostack),
            );
        }
        word as u32
    }

    /// In host byte order; as [`Plain::word`].
    #[inline(always)]
    fn half<const OFFSET: usize>(&self) -> u16 {
        let half: u64;
        // SAFETY: as above; reads nothing else.
        unsafe {
            asm!(
                "{half} = *(u16 *)({data} + {offset})",
                half = out(reg) half,
                data = in(reg) self.0,
                offset = const OFFSET,
                options(pure, readonly, nostack),
            );
        }
        u16::from_be(half as u16)
    }

    /// Number of the transport protocol.
    #[inline(always)]
    pub fn number(&self) -> u32 {
        u32::from(self.byte(ETHERNET + 9))
    }

    /// Network byte order.
    #[inline(always)]
    pub fn source(&self) -> u32 {
        self.word::<{ ETHERNET + 12 }>()
    }

    /// Network byte order.
    #[inline(always)]
    pub fn destination(&self) -> u32 {
        self.word::<{ ETHERNET + 16 }>()
    }

    /// Host byte order. Meaningless if the protocol has no ports.
    #[inline(always)]
    pub fn source_port(&self) -> u16 {
        self.half::<{ ETHERNET + 20 }>()
    }

    /// As [`Plain::source_port`].
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        self.half::<{ ETHERNET + 22 }>()
    }

    #[inline(always)]
    fn headers(&self) -> Headers {
        Headers {
            source: [0, 0, MAPPED.to_be(), self.source()],
            destination: [0, 0, MAPPED.to_be(), self.destination()],
            source_port: self.source_port(),
            destination_port: self.destination_port(),
            is_v4: 1,
            number: self.number(),
            protocol: protocol_bit(self.number()),
            transport: Origin { base: BPF_HDR_START_NET, offset: 20 },
        }
    }
}

/// To which port a TCP or UDP packet goes, and whether it is UDP, when that is known without reading all of its headers.
#[inline(always)]
pub fn quick_port(skb: Skb) -> Option<(bool, u16)> {
    let plain = Plain::of(skb)?;
    match plain.number() {
        number::TCP => Some((false, plain.destination_port())),
        number::UDP => Some((true, plain.destination_port())),
        _ => None,
    }
}

/// What lies behind the VLAN tags in the packet itself (the outermost usually travels beside it): its type, and
/// where it begins. Up to two.
#[inline(always)]
fn behind_tags(skb: Skb) -> Result<(u16, Origin), Unread> {
    // 12: after the two Ethernet addresses. Words: (type, tag), (type, tag), (type, –).
    let start = Origin { base: BPF_HDR_START_MAC, offset: 12 };
    let [_, second, third] = load_or_pull(skb, start).ok_or(Unread::Unparsable)?;
    Ok(match (second >> 16) as u16 {
        ETH_P_8021Q | ETH_P_8021AD => ((third >> 16) as u16, start.plus(10)),
        kind => (kind, start.plus(6)),
    })
}

#[inline(always)]
fn read_v4(skb: Skb, at: Origin) -> Result<Headers, Unread> {
    // The header and the ports behind it in one go.
    let mut words: [u32; 6] = match load_or_pull(skb, at) {
        Some(words) => words,
        None => {
            let [a, b, c, d, e]: [u32; 5] = load(skb, at).ok_or(Unread::Unparsable)?;
            [a, b, c, d, e, 0]
        }
    };
    let length = (words[0] >> 24 & 0xf) * 4;
    if words[0] >> 28 != 4 || length < 20 {
        return Err(Unread::Unparsable);
    }
    let transport = at.plus(length);
    if words[1] & 0x1fff != 0 {
        // Not the first fragment: what follows is payload.
        words[5] = 0;
    } else if length != 20 {
        [words[5]] = load_or_pull(skb, transport).unwrap_or([0]);
    }
    Ok(Headers {
        source: [0, 0, MAPPED.to_be(), words[3].to_be()],
        destination: [0, 0, MAPPED.to_be(), words[4].to_be()],
        source_port: (words[5] >> 16) as u16,
        destination_port: words[5] as u16,
        is_v4: 1,
        number: words[2] >> 16 & 0xff,
        protocol: 0,
        transport,
    })
}

#[inline(always)]
fn read_v6(skb: Skb, at: Origin) -> Result<Headers, Unread> {
    let words: [u32; 11] = match load_or_pull(skb, at) {
        Some(words) => words,
        None => {
            let w: [u32; 10] = load(skb, at).ok_or(Unread::Unparsable)?;
            [w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], 0]
        }
    };
    if words[0] >> 28 != 6 {
        return Err(Unread::Unparsable);
    }
    let mut number = words[1] >> 8 & 0xff;
    let mut ports = words[10];
    let mut transport = at.plus(40);
    let mut fragment = false;
    let mut extensions = 0;
    while extensions < MAX_EXTENSIONS && is_extension(number) {
        let [first] = load_or_pull(skb, transport).ok_or(Unread::Unparsable)?;
        let length = match number {
            number::FRAGMENT => {
                fragment |= first & 0xfff8 != 0;
                8
            }
            number::AUTHENTICATION => ((first >> 16 & 0xff) + 2) * 4,
            _ => ((first >> 16 & 0xff) + 1) * 8,
        };
        number = first >> 24;
        transport = transport.plus(length);
        extensions += 1;
        if fragment {
            break;
        }
    }
    if fragment {
        ports = 0;
    } else if extensions != 0 {
        [ports] = load_or_pull(skb, transport).unwrap_or([0]);
    }
    Ok(Headers {
        source: [words[2].to_be(), words[3].to_be(), words[4].to_be(), words[5].to_be()],
        destination: [words[6].to_be(), words[7].to_be(), words[8].to_be(), words[9].to_be()],
        source_port: (ports >> 16) as u16,
        destination_port: ports as u16,
        is_v4: 0,
        number,
        protocol: 0,
        transport,
    })
}

#[inline(always)]
const fn is_extension(number: u32) -> bool {
    matches!(
        number,
        number::HOP_BY_HOP
            | number::ROUTING
            | number::FRAGMENT
            | number::AUTHENTICATION
            | number::DESTINATION_OPTIONS
            | number::MOBILITY
    )
}
