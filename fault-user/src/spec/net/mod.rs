//! Faults of packets.

mod call;
mod filter;

use std::time::Duration;

use super::delay::DelaySpec;
use super::source::Source;
use super::trigger::Trigger;

pub use call::{CallError, Errno};
pub use filter::{Cidr, Direction, Endpoint, NetFilter, Peer, PortRange, Protocol};

/// One thing that goes wrong with packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetFault {
    /// What happens to a packet that is hit.
    pub verb: NetVerb,
    /// Which packets of the target are looked at.
    pub filter: NetFilter,
    /// Which of those are hit.
    pub trigger: Trigger,
    /// The text it was read from.
    pub source: Source,
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetVerb {
    /// It is lost, silently, as on a wire.
    Drop,
    /// It is late.
    Delay(DelaySpec),
    /// It waits for a slow link.
    Rate {
        /// How much passes.
        rate: ByteRate,
        /// `per-connection`: each socket has a link of its own; without it the target shares one.
        per_connection: bool,
    },
    /// It arrives twice.
    Duplicate,
    /// Not a packet but the call that would send it: connect(2), sendto(2), sendmsg(2). It fails, nothing is sent.
    Fail(CallError),
    /// It is held back for so long, while those behind it pass.
    Reorder {
        /// `by D`; [`REORDER_BY`] when it is not written.
        by: Duration,
    },
}

/// How far `reorder` holds a packet back unless it is told.
pub const REORDER_BY: Duration = Duration::from_millis(10);

/// Bytes per second, from 1 to [`ByteRate::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRate(u64);

impl ByteRate {
    /// The highest: 1000 Gbit/s.
    pub const MAX: Self = Self(125_000_000_000);

    /// So many bytes per second; none for 0 and for more than [`ByteRate::MAX`].
    pub const fn new(bytes_per_second: u64) -> Option<Self> {
        match bytes_per_second {
            1..=125_000_000_000 => Some(Self(bytes_per_second)),
            _ => None,
        }
    }

    /// Bytes per second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0
    }
}
