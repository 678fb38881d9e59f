//! Which packets of the target.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::spec::source::Located;

/// Which packets of the target. A field that is empty lets every packet pass; all fields must agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetFilter {
    /// `in`, `out`, or both (also when neither is written).
    pub direction: Direction,
    /// `tcp`, `udp`, `icmp`: any of them; empty means every protocol.
    pub protocols: BTreeSet<Protocol>,
    /// `to ADDR[:PORT]`: any of them; empty means every peer. "To" names the remote end, whatever
    /// the direction of the packet.
    pub to: Vec<Located<Endpoint>>,
    /// `port P`: the remote port.
    pub port: Option<PortRange>,
    /// `local-port P`: the port on this machine.
    pub local_port: Option<PortRange>,
    /// `iface NAME`: the interface the packet comes in by or leaves by.
    pub iface: Option<Located<String>>,
    /// `syn`, `data`, `ack`, `fin`: any of them; empty means every packet.
    pub segments: BTreeSet<Segment>,
}

/// Which way a packet goes, seen from the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Towards the target.
    In,
    /// From the target.
    Out,
    /// Either.
    #[default]
    Both,
}

impl Direction {
    /// Whether packets towards the target are looked at.
    pub const fn includes_in(self) -> bool {
        matches!(self, Self::In | Self::Both)
    }

    /// Whether packets from the target are looked at.
    pub const fn includes_out(self) -> bool {
        matches!(self, Self::Out | Self::Both)
    }
}

/// A protocol on top of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4 and ICMPv6 over IPv6.
    Icmp,
}

impl Protocol {
    /// The word for it in a spec.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// What kind of segment of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// TCP with SYN: the first packet of a connection, and the first answer.
    Syn,
    /// Carries payload: TCP or UDP.
    Data,
    /// TCP that does nothing but acknowledge.
    Ack,
    /// TCP with FIN.
    Fin,
}

impl Segment {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Syn, Self::Data, Self::Ack, Self::Fin];

    /// The word for it in a spec.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Data => "data",
            Self::Ack => "ack",
            Self::Fin => "fin",
        }
    }
}

/// The remote end of `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whose address.
    pub peer: Peer,
    /// Which of its ports; none means all.
    pub ports: Option<PortRange>,
}

/// Whose address: what `to` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// One address.
    Ip(IpAddr),
    /// All addresses of a network.
    Cidr(Cidr),
    /// A host name, resolved once when the session is planned; all its addresses count.
    Name(String),
}

/// A network: an address whose host bits are zero, and the length of the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The network of `prefix` bits that holds `address` (its host bits are cleared); none when
    /// the prefix is longer than the address: 32 bits for IPv4, 128 for IPv6.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let network = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & !host).into())
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & !host).into())
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Self { network, prefix })
    }

    /// The first address of the network.
    pub const fn network(self) -> IpAddr {
        self.network
    }

    /// How many leading bits are fixed: 0–32 (IPv4) or 0–128 (IPv6).
    pub const fn prefix(self) -> u8 {
        self.prefix
    }
}

/// One port or several neighbouring ones, 1–65535, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports `first` to `last`, both included; none when `first` is 0 or above `last`.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first == 0 || first > last {
            return None;
        }
        Some(Self { first, last })
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(address: &str, prefix: u8) -> Option<String> {
        let address = address.parse().expect("an address");
        Cidr::new(address, prefix).map(|c| format!("{}/{}", c.network(), c.prefix()))
    }

    #[test]
    fn a_network_has_no_host_bits() {
        assert_eq!(cidr("10.1.2.3", 8).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(cidr("10.1.2.3", 0).as_deref(), Some("0.0.0.0/0"));
        assert_eq!(cidr("10.1.2.3", 32).as_deref(), Some("10.1.2.3/32"));
        assert_eq!(cidr("10.1.2.3", 33), None);
        assert_eq!(cidr("2001:db8:ffff::1", 33).as_deref(), Some("2001:db8:8000::/33"));
        assert_eq!(cidr("2001:db8::1", 0).as_deref(), Some("::/0"));
        assert_eq!(cidr("2001:db8::1", 128).as_deref(), Some("2001:db8::1/128"));
        assert_eq!(cidr("2001:db8::1", 129), None);
    }

    #[test]
    fn port_zero_and_backward_ranges_do_not_exist() {
        assert!(PortRange::new(0, 10).is_none());
        assert!(PortRange::new(10, 9).is_none());
        assert!(PortRange::new(9, 9).is_some());
    }
}
