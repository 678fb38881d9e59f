//! `to`: from addresses, networks and names to entries of the longest-prefix-match map `PEERS`.
//!
//! A look-up there finds *one* entry, the longest prefix that covers the address, and that entry must answer for
//! every rule: so the mask of an entry holds the slots of its own prefix and of all shorter ones that cover it
//! (the *closure*), in both banks. While a session changes from one rule set to the other, entries of both are in
//! the map, and any order of insertions followed by any order of removals keeps every look-up in the bank in
//! force right.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, ToSocketAddrs},
};

use fault_common::{
    limits::BANKS,
    who::{PeerAddress, PeerRules},
};

use super::error::{NetError, Result};
use crate::spec::{Cidr, Peer};

/// Bits in front of an IPv4 address in [`PeerAddress`].
const MAPPED_BITS: u8 = 96;
/// `::ffff:0:0`, where IPv4 lives among the keys.
const MAPPED: u128 = 0xffff_0000_0000;

/// Key of an entry: what [`PeerAddress`] and its prefix length say. Ordered so that a prefix comes before all it
/// covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    /// Every IPv4 address.
    const IPV4: Self = Self { bits: MAPPED, length: MAPPED_BITS };

    /// The entry for a network. IPv4-mapped IPv6 addresses are IPv4.
    #[must_use]
    pub fn new(network: Cidr) -> Self {
        match network.network() {
            IpAddr::V4(address) => {
                Self { bits: address.to_ipv6_mapped().to_bits(), length: MAPPED_BITS + network.prefix() }
            }
            IpAddr::V6(address) => Self { bits: address.to_bits(), length: network.prefix() },
        }
    }

    /// Length of the prefix in bits, 0–128, for the key of the map.
    #[must_use]
    pub const fn length(self) -> u32 {
        self.length as u32
    }

    /// The address, for the key of the map.
    #[must_use]
    pub const fn address(self) -> PeerAddress {
        PeerAddress(self.bits.to_be_bytes())
    }

    /// Whether `other` is part of this prefix, bit by bit.
    const fn covers(self, other: Self) -> bool {
        self.length <= other.length
            && match u128::BITS - self.length as u32 {
                u128::BITS => true,
                host => (self.bits ^ other.bits) >> host == 0,
            }
    }

    /// Whether rules for this prefix concern addresses in `other`, which it covers: `::/0` does not mean IPv4,
    /// though the keys of IPv4 lie inside it.
    const fn concerns(self, other: Self) -> bool {
        self.length >= MAPPED_BITS || !Self::IPV4.covers(other)
    }
}

/// What rules of one rule set name: network → mask of their slots. Duplicates are fine.
pub type Named = Vec<(Cidr, u64)>;

/// All entries of the map.
pub type Table = BTreeMap<Prefix, PeerRules>;

/// The entries for two rule sets, by bank. `O(n log n)`.
#[must_use]
pub fn table(banks: &[Named; BANKS]) -> Table {
    let mut table = Table::new();
    for (bank, named) in banks.iter().enumerate() {
        for (network, slots) in named {
            table.entry(Prefix::new(*network)).or_default().0[bank] |= slots;
        }
    }
    let surrounds_ipv4 = |prefix: &Prefix| prefix.length < MAPPED_BITS && prefix.covers(Prefix::IPV4);
    if table.keys().any(surrounds_ipv4) {
        table.entry(Prefix::IPV4).or_default();
    }
    // In order of the keys, the prefixes that cover the present one are a stack.
    let mut covering: Vec<(Prefix, PeerRules)> = Vec::new();
    for (prefix, rules) in &mut table {
        while covering.last().is_some_and(|(outer, _)| !outer.covers(*prefix)) {
            covering.pop();
        }
        // The nearest has the closure of all the others, unless one of them stops at IPv4.
        if let Some((outer, inherited)) = covering.last()
            && outer.concerns(*prefix)
        {
            for (own, more) in rules.0.iter_mut().zip(inherited.0) {
                *own |= more;
            }
        }
        covering.push((*prefix, *rules));
    }
    table
}

/// How the map gets from one table to another: first insert or overwrite, then remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Entries to insert or overwrite.
    pub upserts: Vec<(Prefix, PeerRules)>,
    /// Entries to remove afterwards.
    pub removals: Vec<Prefix>,
}

/// The difference between two tables.
#[must_use]
pub fn changes(from: &Table, to: &Table) -> Changes {
    Changes {
        upserts: to
            .iter()
            .filter(|(prefix, rules)| from.get(prefix) != Some(rules))
            .map(|(prefix, rules)| (*prefix, *rules))
            .collect(),
        removals: from.keys().filter(|prefix| !to.contains_key(prefix)).copied().collect(),
    }
}

/// The networks that `peer` means now. Names are asked of the system's resolver, in the controller's namespace;
/// this blocks.
///
/// # Errors
/// [`NetError::Unresolved`] when a name has no address.
pub fn resolve(peer: &Peer) -> Result<Vec<Cidr>> {
    match peer {
        Peer::Cidr(network) => Ok(vec![*network]),
        Peer::Ip(address) => Ok(single(*address).into_iter().collect()),
        Peer::Name(name) => {
            let unresolved = |source| NetError::Unresolved { name: name.clone(), source };
            let answers = (name.as_str(), 0).to_socket_addrs().map_err(|error| unresolved(Some(error)))?;
            let mut networks: Vec<_> = answers.filter_map(|answer| single(answer.ip())).collect();
            networks.sort_by_key(|network| Prefix::new(*network));
            networks.dedup();
            if networks.is_empty() { Err(unresolved(None)) } else { Ok(networks) }
        }
    }
}

/// The network of one address.
fn single(address: IpAddr) -> Option<Cidr> {
    let bits = if address.is_ipv4() { 32 } else { Ipv6Addr::BITS as u8 };
    Cidr::new(address, bits)
}

#[cfg(test)]
mod tests;
