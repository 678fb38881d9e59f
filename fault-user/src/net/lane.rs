//! The lane: where packets wait until it is time for them to go on.
//!
//! ```text
//! target's namespace                                                  private namespace
//! hook → E (macvlan, fq) ── waits ──→ C (veth, near) ⇒ lane_exit      C' (veth, far)
//! ```
//! A hook sets a packet's departure time and redirects it (or a clone) to **E**, whose root queueing discipline
//! `fq` keeps it until then. E is a macvlan on **C**, so the packet next meets the `tcx` egress program on C,
//! in the same context, without a backlog in between that could overflow; that program sends it back where it
//! came from. Nothing ever travels from C to **C'**: the far end exists because its namespace is owned by a
//! descriptor of the controller, so that the death of the controller deletes C', hence C, hence E.
//!
//! Other inhabitants of the target's namespace must not notice the two devices:
//! - they have no addresses and no routes, IPv6 does not run on them, and they send nothing of their own;
//! - their hardware addresses are given, not random, so udev's `MACAddressPolicy` leaves them alone;
//! - they are called `flt????e` and `flt????c` and are in group [`GROUP`], so that a network manager can be told to
//!   ignore them (NetworkManager: `unmanaged-devices=interface-name:flt*`; networkd: `[Match] Name=flt*` with
//!   `[Link] Unmanaged=yes`; by default neither configures them).

mod devices;
mod fq;
mod stats;

use std::os::fd::BorrowedFd;

use fault_common::rule::net::Direction;

pub(super) use self::devices::delete;
pub use self::stats::LaneStats;
use super::{
    attach::{self, Hook, Method, Request},
    error::Result,
    interfaces::{Interface, LinkLayer},
    netlink::Netlink,
    netns::NetnsHandle,
};

/// Group of the lane's devices: `ip link show group 64023`.
pub const GROUP: u32 = 0xfa17;
/// What their names start with; four hexadecimal digits and `e` or `c` follow.
pub const NAME_PREFIX: &str = "flt";

/// Whether an interface of this name is one of ours.
#[must_use]
pub fn is_lane_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(NAME_PREFIX) else { return false };
    rest.len() == 5
        && rest.ends_with(['e', 'c'])
        && rest[..4].bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The lane of one session in one network namespace. Dropping it removes the devices.
#[derive(Debug)]
pub struct Lane {
    netlink: Netlink,
    netns: NetnsHandle,
    /// Dropped after the devices: its death would remove them as well, only later.
    _far: NetnsHandle,
    entry: Interface,
    near: Interface,
    exit: Option<Hook>,
}

impl Lane {
    /// Makes the lane's devices in `netns`. Packets that enter it are lost until [`Lane::open`].
    ///
    /// # Errors
    /// [`super::error::NetError::Missing`] when the kernel has no veth, macvlan or fq; then nothing is left.
    pub fn new(netns: &NetnsHandle) -> Result<Self> {
        let far = NetnsHandle::private()?;
        let mut netlink = Netlink::open(netns)?;
        let devices::Pair { entry, near } = devices::create(&mut netlink, netns, &far)?;
        Ok(Self {
            netlink,
            netns: netns.clone(),
            _far: far,
            entry: device(entry, "macvlan"),
            near: device(near, "veth"),
            exit: None,
        })
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
        let request = Request { interface: &self.near, direction: Direction::Out, program: exit };
        self.exit = attach::attach(&self.netns, session, &[request])?.pop();
        Ok(())
    }

    /// How the exit is attached. A filter on C needs no undoing: it dies with C.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        self.exit.as_ref().map(Hook::method)
    }

    /// What went through, what is waiting, and what was lost (nothing, or we have a bug).
    ///
    /// # Errors
    /// When the devices are gone.
    pub fn stats(&mut self) -> Result<LaneStats> {
        stats::read(&mut self.netlink, &self.entry, &self.near)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // A failure leaves it to the death of the far namespace, which is next.
        drop(devices::delete(&mut self.netlink, self.near.index));
        // It died with C; looking for it would be in vain.
        self.exit = None;
    }
}

fn device(handle: devices::Device, kind: &str) -> Interface {
    Interface {
        index: handle.index,
        name: handle.name,
        kind: Some(kind.to_owned()),
        layer: LinkLayer::Ethernet,
        loopback: false,
        up: true,
    }
}

#[cfg(test)]
mod tests {
    use super::is_lane_name;

    #[test]
    fn only_generated_names_are_ours() {
        assert!(is_lane_name("flt00ace"));
        assert!(is_lane_name("fltbeefc"));
        for name in ["flt0", "flt00acx", "fltBEEFc", "flt000000c", "eth0", "flt", "fltée"] {
            assert!(!is_lane_name(name), "{name}");
        }
    }
}
