//! The lane: where packets wait until it is time for them to go on.
//!
//! ```text
//! hook ── departure time ──▶ E: macvlan, root qdisc fq ──▶ C: tap ─┐ tcx egress: lane_exit
//!   ▲                                                              │
//!   └────────── the interface the packet was on ◀──────────────────┘
//! ```
//! A hook sets a packet's departure time and redirects it (or a clone) to **E**, whose root queueing discipline
//! `fq` keeps it until then. E is a macvlan on **C**, so the packet next meets the egress program on C, in the same
//! context, without a backlog in between that could overflow; that program sends it back where it came from.
//! Nothing goes further than that hook. C is a tap device only because such a device *is* a file descriptor: it is
//! deleted, and E with it, before the last close of that descriptor returns, whoever does the closing. (A veth pair
//! whose far end sits in a namespace of ours dies too, but in the kernel's own good time: up to seconds.)
//!
//! Other inhabitants of the namespace must not notice the two devices:
//! - they have no addresses and no routes, IPv6 does not run on them, and they send nothing of their own;
//! - their hardware address is set, not random, so udev's `MACAddressPolicy` leaves it alone, and neither becomes
//!   promiscuous, which would be logged;
//! - they are called `flt????e` and `flt????c` and are in group [`devices::GROUP`], so that a network manager can be told to
//!   ignore them (NetworkManager: `unmanaged-devices=interface-name:flt*`; networkd: `[Match] Name=flt*` with
//!   `[Link] Unmanaged=yes`; by default neither configures them).

mod fq;
mod stats;

use std::os::fd::{BorrowedFd, OwnedFd};

use fault_common::rule::net::Direction;

pub use self::stats::LaneStats;
use super::{
    attach::{self, Hook, Method, Request},
    devices::{self, Pair, Purpose},
    error::{NetError, Result},
    interfaces::Interface,
    netlink::Netlink,
    netns::NetnsHandle,
};

/// The lane of one session in one network namespace. Dropping it removes the devices, with what waits in them.
#[derive(Debug)]
pub struct Lane {
    netlink: Netlink,
    netns: NetnsHandle,
    entry: Interface,
    base: Interface,
    exit: Option<Hook>,
    /// Last, after the hook on C.
    _owner: OwnedFd,
}

impl Lane {
    /// Makes the lane's devices in `netns`. Packets that enter it are lost until [`Lane::open`].
    ///
    /// # Errors
    /// [`super::error::NetError::Missing`] when the kernel has no tun, macvlan or fq; then nothing is left.
    pub fn new(netns: &NetnsHandle) -> Result<Self> {
        let mut netlink = Netlink::open(netns)?;
        let Pair { entry, base, owner } = devices::create(&mut netlink, netns, Purpose::Lane, fq::add)?;
        Ok(Self { netlink, netns: netns.clone(), entry, base, exit: None, _owner: owner })
    }

    /// Whether this kernel has everything a lane is made of, found out by making one in a private namespace.
    ///
    /// # Errors
    /// What is missing.
    pub fn probe() -> Result<()> {
        Self::new(&NetnsHandle::private()?).map(|_| ())
    }

    /// Index of E: where hooks redirect packets to.
    #[must_use]
    pub const fn entry(&self) -> u32 {
        self.entry.index
    }

    /// Attaches the program that sends packets back, for the session with this bit.
    ///
    /// It must pass on what is in the lane even when the session is no longer active.
    ///
    /// # Errors
    /// When the program cannot be attached.
    pub fn open(&mut self, session: u32, exit: BorrowedFd<'_>) -> Result<()> {
        let request = Request { interface: &self.base, direction: Direction::Out, program: exit };
        // Nothing to announce: whatever is attached to C dies with it.
        self.exit = attach::attach(&self.netns, session, &[request], |_| Ok::<(), NetError>(()))?.pop();
        Ok(())
    }

    /// How the exit is attached. A filter on C is nothing to undo after our death: it dies with C.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        self.exit.as_ref().map(Hook::method)
    }

    /// What went through, what is waiting, and what was lost (nothing, or we have a bug).
    ///
    /// # Errors
    /// When the devices are gone.
    pub fn stats(&mut self) -> Result<LaneStats> {
        stats::read(&mut self.netlink, &self.entry, &self.base)
    }
}
