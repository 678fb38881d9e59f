//! Faults of block I/O.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::delay::{DISK_HOLD_MAX, DelaySpec};
use super::glob::FileGlob;
use super::net::ByteRate;
use super::source::{Located, Source};
use super::trigger::Trigger;

/// One thing that goes wrong with block I/O.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFault {
    /// What happens to an operation that is hit.
    pub verb: DiskVerb,
    /// Which operations of the target are looked at.
    pub filter: DiskFilter,
    /// Which of those are hit.
    pub trigger: Trigger,
    /// The text it was read from.
    pub source: Source,
}

/// What happens to a block operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskVerb {
    /// It fails with EIO, the only error the block layer's hook can give.
    Error,
    /// It is late.
    Delay(DelaySpec),
    /// It waits for a disk that moves so many bytes a second.
    Rate(ByteRate),
    /// It waits for a disk that does so many operations a second: 1 to [`IOPS_MAX`].
    Iops(u64),
    /// It is stuck for a while.
    Hang {
        /// How long.
        hold: Hold,
        /// `then error`: whether it fails with EIO in the end instead of going through.
        then_error: bool,
    },
}

/// How long an operation is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// More than zero, at most [`DISK_HOLD_MAX`].
    For(Duration),
    /// `forever`: until the session heals, or [`DISK_HOLD_MAX`] is over.
    Forever,
}

impl Hold {
    /// The longest that an operation waits.
    pub const fn longest(self) -> Duration {
        match self {
            Self::For(duration) => duration,
            Self::Forever => DISK_HOLD_MAX,
        }
    }
}

/// Which block operations. A field that is empty lets every operation pass; all fields must agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskFilter {
    /// `read`, `write`, `flush`, `discard`: any of them; empty means all.
    pub ops: BTreeSet<DiskOp>,
    /// `fua`, `meta`, `sync`: all of them.
    pub manners: BTreeSet<DiskManner>,
    /// `on DEVICE|MOUNTPOINT`: an absolute path, not looked up yet.
    pub on: Option<Located<PathBuf>>,
    /// `sectors A..B`: operations that touch any of them.
    pub sectors: Option<Located<SectorRange>>,
    /// `until-written`: reads that touch one of them that nobody has written since the fault came into force. With `on`
    /// and `sectors`, of which there are at most [`BAD_SECTORS_MAX`].
    pub until_written: bool,
    /// `file GLOB`: operations on what is in a file whose path this matches. Not with `flush`, `discard` and `meta`, which are
    /// about no file.
    pub glob: Option<Located<FileGlob>>,
}

/// The largest N of `iops`: ten million.
pub const IOPS_MAX: u64 = 10_000_000;

/// Sectors that one `until-written` may be about.
pub const BAD_SECTORS_MAX: u64 = fault_common::limits::MAX_BAD_SECTORS;

/// What a block operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskOp {
    /// Data from the device.
    Read,
    /// Data to the device.
    Write,
    /// "Make durable what was written": a flush request, alone or ahead of a write.
    Flush,
    /// Sectors are given up: discard and secure erase.
    Discard,
}

/// How a block operation is done: flags that the kernel gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskManner {
    /// A write that is durable when it is done (`REQ_FUA`).
    Fua,
    /// A file system's own data (`REQ_META`).
    Meta,
    /// Somebody waits for it (`REQ_SYNC`).
    Sync,
}

impl DiskManner {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fua, Self::Meta, Self::Sync];

    /// The word for it in a spec.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fua => "fua",
            Self::Meta => "meta",
            Self::Sync => "sync",
        }
    }
}

impl DiskOp {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Flush, Self::Discard];

    /// The word for it in a spec.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
        }
    }
}

/// Sectors of 512 bytes (whatever the device calls a sector), counted from the start of the device
/// or partition that `on` names: `start..end`, the end not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SectorRange {
    start: u64,
    end: u64,
}

impl SectorRange {
    /// The sectors `start..end`; none when that is empty.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start >= end {
            return None;
        }
        Some(Self { start, end })
    }

    /// The first sector.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last sector.
    pub const fn end(self) -> u64 {
        self.end
    }
}
