//! A compiled fault, as it lies in the kernel map `RULES`.

pub mod block;
pub mod file;
pub mod net;

use block::BlockFilter;
use file::FileFilter;
use net::NetFilter;

use crate::decide::{connections::Connections, delay::Delay, rate::Rate, slot::Slot, trigger::Trigger};

/// Which part of the kernel a rule acts in.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// Packets, on the tc hooks.
    Net = 1,
    /// Block I/O, at `should_fail_bio`.
    Disk = 2,
    /// Operations on files, at the hooks of security modules and at system calls.
    File = 3,
    /// Processes: the controller's own business, which no program looks at.
    Proc = 4,
}

/// What a rule does to the operation it hits.
///
/// Stored as `u32` ([`Rule::verb`]); an unknown number is no verb and does nothing.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// The packet is lost on the wire: the sender sees success.
    Drop = 1,
    /// The packet or bio is late by [`Rule::delay`].
    Delay = 2,
    /// The bio ends with `EIO`.
    Error = 3,
    /// The bio is late by [`Rule::delay`] and then ends with `EIO`.
    DelayThenError = 4,
    /// The packet or bio waits for a slow link: [`Rule::rate`]. A packet is lost when the queue before that is full.
    Rate = 5,
    /// The packet arrives twice.
    Duplicate = 6,
    /// A call ends with [`Rule::errno`] and does nothing: connect(2), bind(2), sendto(2), sendmsg(2), or one on a file.
    Fail = 7,
    /// Nothing happens, whatever the other rules say: an exception (`--except`), not a fault.
    Spare = 8,
    /// Bits of the packet are flipped: [`Rule::corruption`].
    Corrupt = 9,
    /// The packet becomes the end of its TCP connection (RST).
    Reset = 10,
    /// The packet is marked: congestion experienced (RFC 3168). One that cannot be marked is lost.
    Mark = 11,
    /// The packet waits for the next slot of its medium: [`Rule::slot`], [`Rule::delay`] from one to the next. It is lost when
    /// too many wait.
    Slot = 12,
}

impl Verb {
    /// The verb with this number, if there is one.
    #[must_use]
    pub const fn from_u32(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Drop),
            2 => Some(Self::Delay),
            3 => Some(Self::Error),
            4 => Some(Self::DelayThenError),
            5 => Some(Self::Rate),
            6 => Some(Self::Duplicate),
            7 => Some(Self::Fail),
            8 => Some(Self::Spare),
            9 => Some(Self::Corrupt),
            10 => Some(Self::Reset),
            11 => Some(Self::Mark),
            12 => Some(Self::Slot),
            _ => None,
        }
    }

    /// Whether a hit by this verb ends the matter: nothing after it is looked at.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Spare | Self::Drop | Self::Error | Self::DelayThenError | Self::Fail | Self::Reset => true,
            Self::Delay | Self::Rate | Self::Slot | Self::Duplicate | Self::Corrupt | Self::Mark => false,
        }
    }

    /// Whether a hit by this verb comes late.
    #[must_use]
    pub const fn delays(self) -> bool {
        match self {
            Self::Delay | Self::DelayThenError | Self::Rate | Self::Slot => true,
            Self::Drop
            | Self::Error
            | Self::Duplicate
            | Self::Fail
            | Self::Spare
            | Self::Corrupt
            | Self::Mark
            | Self::Reset => false,
        }
    }

    /// Whether what it hits may find a queue full.
    #[must_use]
    pub const fn has_queue(self) -> bool {
        match self {
            Self::Rate | Self::Slot => true,
            Self::Drop
            | Self::Delay
            | Self::Error
            | Self::DelayThenError
            | Self::Duplicate
            | Self::Fail
            | Self::Spare
            | Self::Corrupt
            | Self::Reset
            | Self::Mark => false,
        }
    }

    /// Rules are stored in this order ([`Rule::storage_order`]), so that terminal verbs win whatever order the user
    /// wrote: an operation that is dropped or failed never reaches the rules that would have delayed it.
    #[must_use]
    pub const fn precedence(self) -> u32 {
        match self {
            Self::Spare => 0,
            Self::Drop | Self::Error | Self::Fail => 1,
            Self::DelayThenError | Self::Reset => 2,
            Self::Mark => 3,
            Self::Corrupt => 4,
            Self::Duplicate => 5,
            // After what is lost anyway, and before delays: their packets are on the wire, not in the queue.
            Self::Rate => 6,
            Self::Delay => 7,
            // A packet that is late comes to its medium late.
            Self::Slot => 8,
        }
    }
}

/// What [`Verb::Corrupt`] does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Corruption {
    /// How many bits are flipped, 1 to [`crate::limits::MAX_CORRUPT_BITS`].
    pub bits: u32,
    /// 1: of the payload only, and the checksum is made right again: the program reads the flipped bits.
    /// 0: of the transport header and payload; the receiver's checksum finds out.
    pub fix_checksum: u32,
}

/// One fault, compiled. All-zero is "no rule".
///
/// What every decision reads lies in front, in as few cache lines as it needs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Number of the fault on the command line, from 0. Slots are sorted by [`Rule::storage_order`], ids are not.
    pub id: u32,
    /// A [`Layer`] as a number.
    pub layer: u32,
    /// A [`Verb`] as a number; 0 is an empty slot.
    pub verb: u32,
    /// What the call fails with, for [`Verb::Fail`].
    pub errno: u32,
    /// Which packets, for [`Layer::Net`].
    pub net: NetFilter,
    /// Which connections.
    pub connections: Connections,
    /// What its trigger's numbers are drawn from: [`key`](crate::decide::rng::key) of the seed and [`Rule::id`]. The short way of a
    /// decision does not work it out each time. 0 until the rule goes to the kernel.
    pub key: u64,
    /// When a matching operation is hit.
    pub trigger: Trigger,
    /// Which bios, for [`Layer::Disk`].
    pub block: BlockFilter,
    /// Which operations on files, for [`Layer::File`].
    pub file: FileFilter,
    /// How late, for the verbs that delay; for [`Verb::Slot`] how long after each other slots are.
    pub delay: Delay,
    /// How fast, for [`Verb::Rate`].
    pub rate: Rate,
    /// What a slot holds, for [`Verb::Slot`].
    pub slot: Slot,
    /// What is flipped, for [`Verb::Corrupt`].
    pub corruption: Corruption,
}

impl Rule {
    /// Sort key of the slots: [`Verb::precedence`], then the order of the command line. Empty slots come last.
    #[must_use]
    pub const fn storage_order(&self) -> (u32, u32) {
        match Verb::from_u32(self.verb) {
            Some(verb) => (verb.precedence(), self.id),
            None => (u32::MAX, self.id),
        }
    }
}

const _: () = assert!(size_of::<Rule>() == 16 + 32 + 16 + 8 + 248 + 40 + 8 + 32 + 24 + 8 + 8);
