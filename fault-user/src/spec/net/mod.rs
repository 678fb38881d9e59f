//! Faults of packets.

mod call;
mod exception;
mod filter;
mod framing;
mod part;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use super::delay::DelaySpec;
use super::size::ByteSize;
use super::source::Source;
use super::trigger::Trigger;

pub use call::{Call, CallError, Errno};
pub use exception::Exception;
pub use filter::{Cidr, Direction, Endpoint, NetFilter, Peer, PortRange, Protocol, Segment};
pub use framing::{Cell, FRAME_BYTES_MAX, Framing};
pub use part::{Connections, Part};

/// One thing that goes wrong with packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetFault {
    /// What happens to a packet that is hit.
    pub verb: NetVerb,
    /// Which packets of the target are looked at.
    pub filter: NetFilter,
    /// Of which connections, and from where in them on.
    pub part: Part,
    /// Which of those are hit.
    pub trigger: Trigger,
    /// The text it was read from.
    pub source: Source,
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetVerb {
    /// It is lost, silently, as on a wire.
    Drop {
        /// `ecn`: what can be marked (RFC 3168) is marked, and not lost.
        ecn: bool,
    },
    /// It is late.
    Delay(DelaySpec),
    /// It waits for a slow link.
    Rate {
        /// How much passes.
        rate: ByteRate,
        /// `per-connection`: each socket has a link of its own; without it the target shares one.
        per_connection: bool,
        /// `overhead`, `cell`, `cell-overhead`: what a packet is on the link.
        framing: Framing,
    },
    /// It waits for the next time that its medium is granted, and leaves with all that came until then.
    Slot {
        /// From one slot to the next, and from a packet that finds none ahead to the slot it opens: more than zero.
        gap: DelaySpec,
        /// `packets N`: no more in one slot.
        packets: Option<NonZeroU32>,
        /// `bytes SIZE`: no more in one slot, but for the end of the last packet. At most [`SLOT_BYTES_MAX`].
        bytes: Option<ByteSize>,
    },
    /// It arrives twice.
    Duplicate,
    /// Bits of it are flipped.
    Corrupt {
        /// How many: 1 to [`MAX_CORRUPT_BITS`](fault_common::limits::MAX_CORRUPT_BITS).
        bits: u32,
        /// `fix-checksum`: only of the payload, and the checksum is made right again, so that the program reads them.
        fix_checksum: bool,
    },
    /// It becomes the end of its TCP connection.
    Reset,
    /// It is lost if it carries data of a TCP connection: the handshake passes.
    Hang,
    /// Not a packet but the call that would send it. It fails, nothing is sent.
    Fail {
        /// With what.
        error: CallError,
        /// Which calls; [`Call::usual`] when none is written.
        calls: BTreeSet<Call>,
    },
    /// It is held back for so long, while those behind it pass.
    Reorder {
        /// `by D`; [`REORDER_BY`] when it is not written.
        by: Duration,
    },
}

/// The most bytes of one slot: 1 GiB.
pub const SLOT_BYTES_MAX: u32 = 1 << 30;

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
