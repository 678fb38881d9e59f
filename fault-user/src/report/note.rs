//! What went otherwise than asked, and the counters that tell.

use std::fmt::{self, Display, Formatter};

use fault_common::counters::Counter;
use serde::{Serialize, Serializer, ser::SerializeMap};
use utoipa::ToSchema;

use super::number::count;
use crate::{net::lane::LaneStats, session::heal::Totals};

/// What the user should know about the counters of a session, of whose packets `stranded` had not left the
/// lane when it was removed.
#[must_use]
pub fn notes(totals: &Totals, stranded: u64, lanes: &[LaneStats]) -> Vec<Note> {
    let kinds = [
        (NoteKind::ParkOverflow, totals.get(Counter::ParkOverflow)),
        (NoteKind::ParkFailed, totals.get(Counter::ParkFailed)),
        (NoteKind::LaneRefused, totals.get(Counter::LaneRefused)),
        (NoteKind::LaneStranded, stranded),
        (NoteKind::LaneLost, lanes.iter().map(LaneStats::lost).sum()),
        (NoteKind::LaneStray, totals.get(Counter::LaneStray)),
        (NoteKind::EventsLost, totals.get(Counter::EventsLost)),
        (NoteKind::CopyFailed, totals.get(Counter::CopyFailed)),
        (NoteKind::Unchanged, totals.get(Counter::Unchanged)),
        (NoteKind::Forgotten, totals.get(Counter::Forgotten)),
        (NoteKind::UringSync, totals.get(Counter::UringSync)),
        (NoteKind::PathUnknown, totals.get(Counter::PathUnknown)),
        (NoteKind::BioFileUnknown, totals.get(Counter::BioFileUnknown)),
        (NoteKind::Uncut, totals.get(Counter::Uncut)),
        (NoteKind::ParkForbidden, totals.get(Counter::ParkForbidden)),
        (NoteKind::Unparsable, totals.get(Counter::Unparsable)),
    ];
    kinds.into_iter().filter(|(_, count)| *count > 0).map(|(kind, count)| Note { kind, count }).collect()
}

/// Name of a counter in JSON.
const fn name(counter: Counter) -> &'static str {
    match counter {
        Counter::Unparsable => "unparsable",
        Counter::LaneIn => "lane_in",
        Counter::LaneOut => "lane_out",
        Counter::LaneStray => "lane_stray",
        Counter::LaneRefused => "lane_refused",
        Counter::EventsLost => "events_lost",
        Counter::Parked => "parked",
        Counter::ParkOverflow => "park_overflow",
        Counter::ParkFailed => "park_failed",
        Counter::ParkForbidden => "park_forbidden",
        Counter::SelfTest => "self_test",
        Counter::Punted => "punted",
        Counter::CopyFailed => "copy_failed",
        Counter::Uncut => "uncut",
        Counter::Unchanged => "unchanged",
        Counter::CutIn => "cut_in",
        Counter::CutOut => "cut_out",
        Counter::Forgotten => "forgotten",
        Counter::UringSync => "uring_sync",
        Counter::PathUnknown => "path_unknown",
        Counter::BioFileUnknown => "bio_file_unknown",
    }
}

impl Serialize for Totals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Counter::ALL.len()))?;
        for counter in Counter::ALL {
            map.serialize_entry(name(counter), &self.get(counter))?;
        }
        map.end()
    }
}

/// One thing that went otherwise than asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// What.
    pub kind: NoteKind,
    /// How often.
    pub count: u64,
}

/// See the text of each, in [`Note`]'s `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// [`Counter::ParkOverflow`].
    ParkOverflow,
    /// [`Counter::ParkFailed`].
    ParkFailed,
    /// [`Counter::ParkForbidden`].
    ParkForbidden,
    /// [`Counter::LaneRefused`].
    LaneRefused,
    /// Packets still in the lane when it was removed.
    LaneStranded,
    /// Packets that a lane's qdisc or devices dropped.
    LaneLost,
    /// [`Counter::LaneStray`].
    LaneStray,
    /// [`Counter::EventsLost`].
    EventsLost,
    /// [`Counter::CopyFailed`].
    CopyFailed,
    /// [`Counter::Unchanged`].
    Unchanged,
    /// [`Counter::Uncut`].
    Uncut,
    /// [`Counter::Forgotten`].
    Forgotten,
    /// [`Counter::UringSync`].
    UringSync,
    /// [`Counter::PathUnknown`].
    PathUnknown,
    /// [`Counter::BioFileUnknown`].
    BioFileUnknown,
    /// [`Counter::Unparsable`].
    Unparsable,
}

impl NoteKind {
    /// Whether the session did less, or something else, than it was asked to. The rest is good to know.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        !matches!(self, Self::ParkForbidden | Self::Uncut | Self::Unparsable)
    }
}

impl Display for Note {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { kind, count: number } = *self;
        let packets = count(number, "packet", "packets");
        let operations = count(number, "operation", "operations");
        let block_operations = count(number, "block operation", "block operations");
        let was = if number == 1 { "was" } else { "were" };
        match kind {
            NoteKind::ParkOverflow => {
                write!(
                    f,
                    "{operations} {was} not delayed: more tasks waited on one CPU than there are parkers"
                )
            }
            NoteKind::ParkFailed => {
                write!(f, "{operations} {was} not delayed: the parking lot did not answer")
            }
            NoteKind::ParkForbidden => {
                write!(
                    f,
                    "{block_operations} {was} not delayed because the task was freeing memory for others"
                )
            }
            NoteKind::LaneRefused => write!(f, "{packets} {was} not delayed: the lane did not take them"),
            NoteKind::LaneStranded => {
                write!(f, "{packets} had not left the lane when the session ended, and {was} lost")
            }
            NoteKind::LaneLost => write!(f, "{packets} {was} lost by the lane itself"),
            NoteKind::LaneStray => write!(f, "{packets} in the lane {was} not ours"),
            NoteKind::EventsLost => {
                let injections = count(number, "injection is", "injections are");
                write!(f, "{injections} missing from the events: they came faster than they could be written")
            }
            NoteKind::CopyFailed => {
                write!(f, "{packets} {was} not duplicated: the kernel had no memory for the copy")
            }
            NoteKind::Unchanged => {
                write!(f, "{packets} {was} hit by `corrupt` or `reset` and could not be changed; they passed")
            }
            NoteKind::Uncut => {
                let packets = count(number, "super-packet", "super-packets");
                write!(
                    f,
                    "{packets} {was} decided about as one: the packets of the wire could not be told apart"
                )
            }
            NoteKind::Forgotten => {
                let stretches = count(number, "stretch of 32 KiB", "stretches of 32 KiB");
                write!(f, "{stretches} {was} written and stayed bad: the kernel had no memory to note it")
            }
            NoteKind::UringSync => {
                let syncs = count(number, "fsync", "fsyncs");
                write!(
                    f,
                    "{syncs} by way of io_uring could not be hit: they pass no system call that could fail"
                )
            }
            NoteKind::PathUnknown => {
                write!(
                    f,
                    "{operations} on files matched no pattern: their paths were too long, or could not be read"
                )
            }
            NoteKind::BioFileUnknown => {
                write!(
                    f,
                    "{block_operations} matched no pattern because the kernel does not say of which file: direct I/O to the device \
                     itself, or by a file system with a way of its own"
                )
            }
            NoteKind::Unparsable => {
                write!(f, "{packets} could not be parsed and passed untouched")
            }
        }
    }
}

/// A [`Note`] as programs read it.
#[derive(Serialize, ToSchema)]
#[schema(as = Note)]
pub(super) struct Told {
    kind: NoteKind,
    /// Whether the session did less, or something else, than it was asked to.
    warning: bool,
    /// How often.
    count: u64,
    /// One sentence.
    text: String,
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { kind, count } = *self;
        Told { kind, warning: kind.is_warning(), count, text: self.to_string() }.serialize(serializer)
    }
}
