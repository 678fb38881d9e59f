//! Which rules may look at a packet: found by what costs one look-up however many rules there are.

use aya_ebpf::btf_maps::lpm_trie::Key;
use fault_common::{
    control::{Bank, Control},
    rule::net::Direction,
    tag::Tag,
    who::{Interface, PeerAddress, interface_key},
};

use super::{Skb, headers::Headers};
use crate::{
    kernel,
    maps::{INTERFACES, PEERS},
};

/// Where a packet is decided about.
#[derive(Clone, Copy)]
pub struct Place {
    /// The interface it leaves or reaches the namespace by; not that of the cutter.
    pub ifindex: u32,
    /// Seen from the target.
    pub direction: Direction,
    /// What it carries of earlier decisions.
    pub tag: Tag,
    /// It comes out of the cutter: it is a packet as on the wire.
    pub is_cut: bool,
}

impl Place {
    /// A packet on a hook of its own interface.
    #[inline(always)]
    pub fn of(skb: Skb, tag: Tag, direction: Direction) -> Self {
        // SAFETY: `skb` is the context.
        Self { ifindex: unsafe { (*skb).ifindex }, direction, tag, is_cut: false }
    }

    /// What is known of its interface.
    #[inline(always)]
    pub fn interface(&self) -> Option<&'static Interface> {
        // SAFETY: the controller changes entries only while the session is inactive.
        unsafe { INTERFACES.get(interface_key(kernel::netns_number(), self.ifindex)) }
    }
}

/// What one of the candidates needs to know; bits of [`Candidates::needs`].
mod need {
    pub const TIME: u32 = 1;
    pub const CUT: u32 = 2;
    pub const CHECKSUM: u32 = 4;
    pub const SEGMENT: u32 = 8;
    pub const POSITION: u32 = 16;
    pub const CONNECTION: u32 = 32;
    pub const MARK: u32 = 64;
}

/// The rules that may look at a packet, never none.
#[derive(Clone, Copy)]
pub struct Candidates {
    pub generation: u32,
    /// Of slots.
    pub mask: u64,
    needs: u32,
}

impl Candidates {
    /// Those for a packet with these headers.
    #[inline(always)]
    pub fn of(place: &Place, control: &Control, headers: &Headers) -> Option<Self> {
        let generation = control.generation.load();
        let (index, bank) = bank(control, generation);
        let (mut mask, remote) = match place.direction {
            Direction::Out => (bank.net_out, headers.destination),
            Direction::In => (bank.net_in, headers.source),
        };
        mask &= control.in_force.load();
        // SAFETY: sixteen bytes either way; network byte order, IPv4 mapped.
        mask = for_peer(mask, bank, index, unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(remote) });
        if mask & !bank.net_any_iface != 0 {
            let named = place.interface().map_or(0, |interface| interface.rules[index]);
            mask &= bank.net_any_iface | named;
        }
        if mask & !bank.net_spare == 0 {
            return None;
        }
        let needs = if mask & bank.net_demanding == 0 { 0 } else { needs(mask, bank) };
        Some(Self { generation, mask, needs })
    }

    /// Some of them need to know more than the headers say, of a packet that is as on the wire if they need that.
    #[inline(always)]
    pub const fn demand(&self) -> bool {
        self.needs & !(need::CUT | need::CHECKSUM) != 0
    }

    /// Some of them need the exact time.
    #[inline(always)]
    pub const fn timed(&self) -> bool {
        self.needs & need::TIME != 0
    }

    /// Some of them look at the packets of the wire.
    #[inline(always)]
    pub const fn cut(&self) -> bool {
        self.needs & need::CUT != 0
    }

    /// Some of them need the checksum as it would be on the wire.
    #[inline(always)]
    pub const fn checksummed(&self) -> bool {
        self.needs & need::CHECKSUM != 0
    }

    /// Some of them ask what kind of segment it is.
    #[inline(always)]
    pub const fn classified(&self) -> bool {
        self.needs & (need::SEGMENT | need::POSITION) != 0
    }

    /// Some of them ask where in its connection it is.
    #[inline(always)]
    pub const fn positioned(&self) -> bool {
        self.needs & need::POSITION != 0
    }

    /// Some of them ask whether the packet can be marked.
    #[inline(always)]
    pub const fn marked(&self) -> bool {
        self.needs & need::MARK != 0
    }

    /// Some of them look at some connections only.
    #[inline(always)]
    pub const fn connected(&self) -> bool {
        self.needs & need::CONNECTION != 0
    }
}

/// What the rules of `mask` need to know: bits of [`need`].
#[inline(always)]
fn needs(mask: u64, bank: &Bank) -> u32 {
    let need = |slots: u64, need: u32| if mask & slots != 0 { need } else { 0 };
    need(bank.net_timed, need::TIME)
        | need(bank.net_cut, need::CUT)
        | need(bank.net_checksum, need::CHECKSUM)
        | need(bank.net_segment, need::SEGMENT)
        | need(bank.net_position, need::POSITION)
        | need(bank.net_connections, need::CONNECTION)
        | need(bank.net_mark, need::MARK)
}

/// The slots of `mask` whose `to` covers this peer: one look-up, and none when no rule names a peer.
#[inline(always)]
pub fn for_peer(mask: u64, bank: &Bank, index: usize, remote: [u8; 16]) -> u64 {
    if mask & !bank.net_any_peer == 0 {
        return mask;
    }
    let named = PEERS.get(&Key::new(128, PeerAddress(remote))).map_or(0, |rules| rules.0[index]);
    mask & (bank.net_any_peer | named)
}

/// The bank in force, and its number.
#[inline(always)]
pub fn bank(control: &Control, generation: u32) -> (usize, &Bank) {
    if generation & 1 == 0 { (0, &control.banks[0]) } else { (1, &control.banks[1]) }
}
