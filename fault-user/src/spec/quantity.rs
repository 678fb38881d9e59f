//! Kinds of operands: their names, what a right one looks like, and their limits.

use std::time::Duration;

use fault_common::limits::MAX_CORRUPT_BITS;

use super::disk::IOPS_MAX;
use super::net::FRAME_BYTES_MAX;
use super::trigger::{COUNT_MAX, GAP_MAX, WINDOW_MAX};
use super::units::{Flaw, print_duration};

/// Kinds of operands, with their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quantity {
    /// `100ms`.
    Duration {
        /// Whether it may be 0.
        zero: bool,
        /// The longest.
        longest: Duration,
    },
    /// `10s` or `64KiB`.
    DurationOrSize {
        /// The longest duration.
        longest: Duration,
    },
    /// `5s/30s`.
    Cycle,
    /// `5%`.
    Probability,
    /// `5%`, of many.
    Share,
    /// `3`, of many.
    Number,
    /// `3`, before `bits`.
    Bits,
    /// `1500B`.
    Size {
        /// The largest, in bytes.
        most: u32,
    },
    /// `20B`, `-14B`.
    Overhead,
    /// `3`, of matches.
    Gap,
    /// `10mbit`.
    Rate,
    /// `100`, of operations a second.
    Iops,
    /// `ECONNREFUSED`.
    Errno,
    /// `ENOSPC`, of an operation on a file.
    FileErrno,
    /// `/data/wal/**`.
    Glob,
    /// `3`.
    Count,
    /// `80`, `80-90`.
    Ports,
    /// `10.0.0.0/8:5432`.
    Address,
    /// `eth0`.
    Interface,
    /// `/dev/vdb`.
    Path,
    /// `/usr/lib/tc/experimental.dist`.
    Table,
    /// `2048..4096`.
    Sectors,
}

impl Quantity {
    /// With its article.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Duration { .. } => "a duration",
            Self::DurationOrSize { .. } => "a duration or a size",
            Self::Cycle => "a duty cycle",
            Self::Probability => "a probability",
            Self::Share => "a share",
            Self::Number => "a number",
            Self::Bits => "a number of bits",
            Self::Size { .. } => "a size",
            Self::Overhead => "a number of bytes",
            Self::Gap => "a number of matches",
            Self::Rate => "a rate",
            Self::Iops => "a number of operations a second",
            Self::Errno => "an errno of connect(2), sendmsg(2) or bind(2)",
            Self::FileErrno => "the name of an error",
            Self::Glob => "a pattern of paths",
            Self::Count => "a count",
            Self::Ports => "a port",
            Self::Address => "an address",
            Self::Interface => "the name of an interface",
            Self::Path => "a device or a mount point",
            Self::Table => "a file",
            Self::Sectors => "a range of sectors",
        }
    }

    /// What a right one looks like.
    pub(super) const fn example(self) -> &'static str {
        match self {
            Self::Duration { .. } => "a duration such as `100ms`, `2s` or `1m30s`",
            Self::DurationOrSize { .. } => "a duration such as `10s`, or a size such as `64KiB` or `10MB`",
            Self::Cycle => "two durations such as `5s/30s`: at work for 5 s, then idle for 30 s",
            Self::Probability | Self::Share => "a percentage such as `5%` or `0.01%`",
            Self::Bits => "a whole number such as `3 bits`",
            Self::Size { .. } => "a size such as `48B`, `1500B` or `64KiB`",
            Self::Overhead => "bytes such as `20B`, or `-14B` for less",
            Self::Rate => "a rate such as `10mbit`, `64KiB/s` or `1MB/s`",
            Self::Iops => "a whole number such as `100`",
            Self::Errno => "a name such as `ETIMEDOUT` or `ENETUNREACH`",
            Self::FileErrno => "a name such as `ENOSPC`, `EDQUOT`, `EROFS` or `EIO`",
            Self::Glob => {
                "an absolute path such as `/data/wal/**`, in which `*`, `?` and `**` stand for others"
            }
            Self::Count | Self::Number | Self::Gap => "a whole number such as `3`",
            Self::Ports => "a port such as `80`, or ports such as `80-90`",
            Self::Address => {
                "an address such as `10.0.0.1`, `10.0.0.0/8:5432`, `[2001:db8::1]:443` or `db.example:5432`"
            }
            Self::Interface => "an interface such as `eth0`: at most 15 bytes, no `/` or `:`",
            Self::Path => "an absolute path such as `/dev/vdb` or `/var/lib/pg`",
            Self::Table => "an absolute path such as `/usr/lib/tc/experimental.dist`",
            Self::Sectors => "the first sector and the one past the last, such as `2048..4096`",
        }
    }

    /// What is in range.
    pub(super) fn limits(self) -> String {
        match self {
            Self::Duration { zero, longest } => {
                let longest = print_duration(longest);
                if zero {
                    format!("at most `{longest}`")
                } else {
                    format!("more than `0s` and at most `{longest}`")
                }
            }
            Self::DurationOrSize { longest } => {
                format!("a duration of at most `{}`, or a size from `1B` to `1TiB`", print_duration(longest))
            }
            Self::Cycle => {
                format!("two durations of more than `0s` and at most `{}`", print_duration(WINDOW_MAX))
            }
            Self::Probability | Self::Share => "`0%`, or from `0.0001%` to `100%`".to_owned(),
            Self::Number => format!("a whole number from 1 to {}", u32::MAX),
            Self::Bits => format!("1 to {MAX_CORRUPT_BITS} bits"),
            Self::Size { most } => format!("`1B` to `{most}B`"),
            Self::Overhead => format!("`-{FRAME_BYTES_MAX}B` to `{FRAME_BYTES_MAX}B`"),
            Self::Gap => format!("a whole number from 1 to {GAP_MAX}"),
            Self::Rate => "more than `0mbit` and at most `1000gbit`".to_owned(),
            Self::Iops => format!("a whole number from 1 to {IOPS_MAX}"),
            Self::Count => format!("a whole number from 1 to {COUNT_MAX}"),
            Self::Ports => "ports from 1 to 65535".to_owned(),
            Self::Address => "ports from 1 to 65535, and a prefix that fits the address".to_owned(),
            Self::Sectors => format!("sectors from 0 to {}", u64::MAX),
            Self::Glob => format!("at most {} bytes", fault_common::glob::MAX_GLOB_BYTES - 1),
            Self::Interface | Self::Path | Self::Table | Self::Errno | Self::FileErrno => {
                self.example().to_owned()
            }
        }
    }

    /// The units it may have.
    pub(super) const fn units(self) -> &'static str {
        match self {
            Self::Rate => "a unit: `kbit`, `mbit`, `gbit`, `kB/s`, `MB/s`, `KiB/s` or `MiB/s`",
            Self::DurationOrSize { .. } => {
                "a unit of time such as `ms`, `s` or `m`, or of size: `B`, `kB`, `MB`, `GB`, `KiB`, `MiB` or `GiB`"
            }
            _ => "a unit: `ns`, `us`, `ms`, `s`, `m`, `h` or `d`",
        }
    }

    /// The smallest step.
    pub(super) const fn step(self) -> &'static str {
        match self {
            Self::Probability | Self::Share => "`0.0001%` or more, in steps of `0.0000001%`",
            Self::Rate => "a whole number of bytes per second",
            Self::DurationOrSize { .. } => "whole nanoseconds, or whole bytes",
            _ => "whole nanoseconds",
        }
    }
}

/// The sentence about a word that is not the quantity `wanted`.
pub(super) fn flawed(word: &str, wanted: Quantity, flaw: Flaw) -> String {
    match flaw {
        Flaw::Shape => format!("`{word}` is not {}", wanted.name()),
        Flaw::Range => format!("`{word}` is out of range"),
        Flaw::NoUnit => format!("`{word}` has no unit"),
        Flaw::UnknownUnit => format!("`{word}` has an unknown unit"),
        Flaw::UnitOrder => format!("the units of `{word}` are out of order"),
        Flaw::TooFine => format!("`{word}` is too fine"),
        Flaw::Backwards => format!("`{word}` is an empty range"),
        Flaw::NotARange => format!("`{word}` is not a range"),
    }
}
