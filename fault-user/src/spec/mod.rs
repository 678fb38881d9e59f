//! The spec language: one line of text says what goes wrong.
//!
//! ```text
//! VERB OPERANDS [PROBABILITY] CLAUSE…        drop 5% out to 10.0.0.0/8:5432
//! ```
//!
//! [`parse`] turns text into a typed [`Fault`]; printing a fault gives its canonical text, which
//! parses to the same fault. Nothing is looked up here: host names, interfaces, devices and mount
//! points are resolved when the session is planned, and [`SpecError::unresolved`] points at the
//! word when that fails. The language is described in `docs/spec.md`.

mod delay;
mod disk;
mod errno;
mod error;
mod explain;
mod file;
mod glob;
mod lexer;
mod net;
mod parse;
mod print;
mod problem;
mod proc;
mod quantity;
mod rate;
mod size;
mod source;
mod trigger;
mod units;
mod words;

#[cfg(test)]
mod tests;

use std::str::FromStr;

pub use delay::{DISK_HOLD_MAX, DelaySpec, Distribution, NET_DELAY_MAX};
pub use disk::{
    BAD_SECTORS_MAX, DiskFault, DiskFilter, DiskManner, DiskOp, DiskVerb, Hold, IOPS_MAX, SectorRange,
};
pub use errno::FileErrno;
pub use error::{SpecError, wants_color};
pub(crate) use error::{clamp, render_report};
pub use explain::{Explanation, explain};
pub use file::{FileFault, FileFilter, FileOp, FileVerb};
pub use glob::{Component, FileGlob, automaton};
pub use net::{
    ByteRate, Call, CallError, Cell, Cidr, Connections, Direction, Endpoint, Errno, Exception,
    FRAME_BYTES_MAX, Framing, NetFault, NetFilter, NetVerb, Part, Peer, PortRange, Protocol, REORDER_BY,
    SLOT_BYTES_MAX, Segment,
};
pub use parse::SPEC_MAX_BYTES;
pub use problem::Problem;
pub use proc::{PAUSE_MAX, ProcFault, ProcVerb};
pub use quantity::Quantity;
pub use size::ByteSize;
pub(crate) use source::visible;
pub use source::{Located, Source, Span};
pub use trigger::{COUNT_MAX, Cycle, GAP_MAX, Gilbert, Markov, Probability, Trigger, WINDOW_MAX};
pub use units::Flaw;
pub(crate) use units::{duration as read_duration, print_duration};
pub(crate) use words::nearest_word;

/// Where in the system a fault sits. Each layer has its own verbs and filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Packets: `--net`.
    Net,
    /// Block I/O: `--disk`.
    Disk,
    /// Operations on files: `--file`.
    File,
    /// Whole processes: `--proc`.
    Proc,
}

impl Layer {
    /// All layers of this version.
    pub const ALL: &'static [Layer] = &[Layer::Net, Layer::Disk, Layer::File, Layer::Proc];

    /// The layer's name, as in scenario files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Disk => "disk",
            Self::File => "file",
            Self::Proc => "proc",
        }
    }

    /// The command-line option that takes a spec of this layer.
    pub const fn option(self) -> &'static str {
        match self {
            Self::Net => "--net",
            Self::Disk => "--disk",
            Self::File => "--file",
            Self::Proc => "--proc",
        }
    }
}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// With packets.
    Net(NetFault),
    /// With block I/O.
    Disk(DiskFault),
    /// With operations on files.
    File(FileFault),
    /// With processes.
    Proc(ProcFault),
}

impl Fault {
    /// The layer it sits in.
    pub const fn layer(&self) -> Layer {
        match self {
            Self::Net(_) => Layer::Net,
            Self::Disk(_) => Layer::Disk,
            Self::File(_) => Layer::File,
            Self::Proc(_) => Layer::Proc,
        }
    }

    /// Which of the matching operations are hit.
    pub const fn trigger(&self) -> &Trigger {
        match self {
            Self::Net(fault) => &fault.trigger,
            Self::Disk(fault) => &fault.trigger,
            Self::File(fault) => &fault.trigger,
            Self::Proc(fault) => &fault.trigger,
        }
    }

    /// As [`Fault::trigger`], to be changed.
    pub const fn trigger_mut(&mut self) -> &mut Trigger {
        match self {
            Self::Net(fault) => &mut fault.trigger,
            Self::Disk(fault) => &mut fault.trigger,
            Self::File(fault) => &mut fault.trigger,
            Self::Proc(fault) => &mut fault.trigger,
        }
    }

    /// The text it was read from.
    pub const fn source(&self) -> &Source {
        match self {
            Self::Net(fault) => &fault.source,
            Self::Disk(fault) => &fault.source,
            Self::File(fault) => &fault.source,
            Self::Proc(fault) => &fault.source,
        }
    }
}

/// Reads one spec of `layer`.
///
/// # Errors
/// The first thing that is wrong with `text`.
pub fn parse(layer: Layer, text: &str) -> Result<Fault, SpecError> {
    match layer {
        Layer::Net => parse::net::fault(text).map(Fault::Net),
        Layer::Disk => parse::disk::fault(text).map(Fault::Disk),
        Layer::File => parse::file::fault(text).map(Fault::File),
        Layer::Proc => parse::proc::fault(text).map(Fault::Proc),
    }
}

/// Reads one exception: filters of packets, and nothing else.
///
/// # Errors
/// The first thing that is wrong with `text`.
pub fn parse_exception(text: &str) -> Result<Exception, SpecError> {
    parse::net::exception(text)
}

impl FromStr for NetFault {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        parse::net::fault(text)
    }
}

impl FromStr for FileFault {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        parse::file::fault(text)
    }
}

impl FromStr for ProcFault {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        parse::proc::fault(text)
    }
}

impl FromStr for DiskFault {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        parse::disk::fault(text)
    }
}
