//! The cutter: where super-packets become the packets of the wire before rules look at them.
//!
//! ```text
//! hook ── tag ──▶ K: macvlan or VLAN, no queue ──▶ L: tap ─┐ tcx egress: net_segment
//!   ▲                                                      │ decides about each packet
//!   └───── the interface the packet was on ◀───────────────┘
//! ```
//! Made as the [lane](super::lane) is, and as quiet. K cannot take what TCP hands down, so the kernel cuts it on the way into
//! K, in the same context: nothing waits, and nothing can be left behind.

use std::os::fd::{BorrowedFd, OwnedFd};

use fault_common::rule::net::Direction;

use super::{
    attach::{self, Hook, Request},
    devices::{self, Pair, Purpose},
    error::{NetError, Result},
    interfaces::Interface,
    netlink::Netlink,
    netns::NetnsHandle,
};

/// What comes out of a cutter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Packets as on the wire, but for the checksum, which may be left to the hardware.
    Segments,
    /// Packets as on the wire.
    Checksums,
}

/// The cutter of one session in one network namespace. Dropping it removes the devices.
#[derive(Debug)]
pub struct Cutter {
    netns: NetnsHandle,
    kind: Kind,
    entry: Interface,
    base: Interface,
    exit: Option<Hook>,
    /// Last, after the hook on L.
    _owner: OwnedFd,
}

impl Cutter {
    /// Makes the cutter's devices in `netns`. Packets that enter it are lost until [`Cutter::open`].
    ///
    /// # Errors
    /// [`NetError::Missing`] when the kernel has no tun, macvlan or 8021q; then nothing is left.
    pub fn new(netns: &NetnsHandle, kind: Kind) -> Result<Self> {
        let mut netlink = Netlink::open(netns)?;
        let purpose = match kind {
            Kind::Segments => Purpose::Cut,
            Kind::Checksums => Purpose::Checksum,
        };
        let Pair { entry, base, owner } = devices::create(&mut netlink, netns, purpose, |_, _| Ok(()))?;
        Ok(Self { netns: netns.clone(), kind, entry, base, exit: None, _owner: owner })
    }

    /// Index of K: where hooks redirect packets to.
    #[must_use]
    pub const fn entry(&self) -> u32 {
        self.entry.index
    }

    /// Whether packets come out with a VLAN tag of K's.
    #[must_use]
    pub const fn tags(&self) -> bool {
        matches!(self.kind, Kind::Checksums)
    }

    /// Attaches the program that decides about what was cut and sends it back, for the session with this bit.
    ///
    /// # Errors
    /// When the program cannot be attached.
    pub fn open(&mut self, session: u32, program: BorrowedFd<'_>) -> Result<()> {
        let request = Request { interface: &self.base, direction: Direction::Out, program };
        // Nothing to announce: whatever is attached to L dies with it.
        self.exit = attach::attach(&self.netns, session, &[request], |_| Ok::<(), NetError>(()))?.pop();
        Ok(())
    }
}
