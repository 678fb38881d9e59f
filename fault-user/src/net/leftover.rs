//! What can outlive a controller in the network stack, described so that somebody else can undo it.
//!
//! Links, maps and the lane are owned by descriptors and never appear here. Below Linux 6.6 there is no tcx,
//! and filters stay: the keeper process is told about each before it matters, and `fault sweep` finds them.

use serde::{Deserialize, Serialize};

use super::{
    clsact::{self, ClsactFilter},
    devices,
    error::{NetError, Result},
    interfaces,
    netlink::Netlink,
    netns::NetnsHandle,
    session_bit::SessionBit,
};

/// One thing to undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leftover {
    /// A filter, and perhaps the clsact queueing discipline it needs.
    ClsactFilter(ClsactFilter),
    /// A device of a lane or a cutter. The kernel removes it within a second of the controller's death.
    LaneDevice {
        /// Inode number of the network namespace.
        netns: u64,
        /// Index of the interface.
        interface: u32,
        /// Name of the interface.
        name: String,
    },
}

impl Leftover {
    /// Inode number of the network namespace it lies in.
    #[must_use]
    pub const fn netns(&self) -> u64 {
        match self {
            Self::ClsactFilter(filter) => filter.netns,
            Self::LaneDevice { netns, .. } => *netns,
        }
    }

    /// Undoes it, looking for the namespace by its number. A namespace that is gone took everything with it.
    ///
    /// # Errors
    /// As [`Leftover::undo_in`].
    pub fn undo(&self) -> Result<()> {
        NetnsHandle::find(self.netns()).map_or(Ok(()), |netns| self.undo_in(&netns))
    }

    /// Undoes it in `netns`. That it is gone already is not an error; what is not ours is not touched.
    ///
    /// # Errors
    /// When the kernel refuses the removal.
    pub fn undo_in(&self, netns: &NetnsHandle) -> Result<()> {
        let mut netlink = Netlink::open(netns)?;
        match self {
            Self::ClsactFilter(filter) => filter.remove(&mut netlink),
            Self::LaneDevice { interface, name, .. } => {
                let there = interfaces::list_all(&mut netlink)?;
                let same = there
                    .iter()
                    .any(|device| device.index == *interface && device.name == *name && device.is_ours());
                if same { devices::delete(&mut netlink, *interface) } else { Ok(()) }
            }
        }
    }
}

/// Finds everything of ours in `netns` that belongs to no living session.
///
/// # Errors
/// When the namespace cannot be entered or looked through.
pub fn find(netns: &NetnsHandle) -> Result<Vec<Leftover>> {
    // Things first, claims second: a session that starts in between is alive by the time it is asked about.
    let mut netlink = Netlink::open(netns)?;
    let ours = interfaces::list_all(&mut netlink)?;
    let mut filters = Vec::new();
    for device in &ours {
        match clsact::find(&mut netlink, netns.inode(), device.index) {
            // Gone since the list was made.
            Err(NetError::Kernel { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
            found => filters.extend(found?),
        }
    }
    let living = SessionBit::claimed(netns)?;
    let filters =
        filters.into_iter().filter(|filter| living & 1 << filter.session == 0).map(Leftover::ClsactFilter);
    // A device does not say whose it is: it can only be an orphan when nobody lives here.
    let devices = ours.into_iter().filter(|device| living == 0 && device.is_ours()).map(|device| {
        Leftover::LaneDevice { netns: netns.inode(), interface: device.index, name: device.name }
    });
    Ok(filters.chain(devices).collect())
}
