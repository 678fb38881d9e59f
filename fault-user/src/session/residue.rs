//! What may be left behind, and how it is undone.
//!
//! Two kinds: a [`Leftover`] is announced to the [keeper](super::keeper) *before* it is made, so its undoing is known
//! whatever happens; a residue is found by looking at the machine, because somebody (SIGKILL to keeper and
//! controller at once) got in the way of that.

mod search;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    net::{self, error::NetError},
    target::cgroup::{self, CgroupError},
};

pub use search::{Findings, RemoveError, Residue, Unseen, find, remove};

/// Something that no file descriptor of the controller owns, and how to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Leftover {
    /// A transient cgroup directory.
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// Cgroup its processes move to.
        home: PathBuf,
    },
    /// Controllers handed out to the children of a cgroup.
    Controllers {
        /// The cgroup.
        path: PathBuf,
        /// The child that needs them.
        child: PathBuf,
        /// The controllers.
        names: Vec<String>,
    },
    /// A cgroup that stands still.
    Frozen {
        /// The cgroup.
        path: PathBuf,
        /// When it goes on whoever lives: `CLOCK_MONOTONIC` nanoseconds.
        until_ns: u64,
    },
    /// Something in a network namespace.
    Net(net::leftover::Leftover),
}

/// A leftover could not be undone.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// About a cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// About a network namespace.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Anything else.
    #[error("cannot undo {leftover:?}: {source}")]
    Other {
        /// What.
        leftover: Leftover,
        /// Why not.
        source: io::Error,
    },
}

impl Leftover {
    /// Undoes it. Idempotent: what was never made or is gone already is no error.
    ///
    /// # Errors
    /// When it is still there.
    pub fn undo(&self) -> Result<(), UndoError> {
        match self {
            Self::Cgroup { path, home } => cgroup::evacuate(path, home).map(drop).map_err(UndoError::from),
            Self::Controllers { path, child, names } => {
                cgroup::disable(path, child, names).map_err(UndoError::from)
            }
            Self::Frozen { path, .. } => cgroup::thaw(path).map_err(UndoError::from),
            Self::Net(leftover) => leftover.undo().map_err(UndoError::from),
        }
    }
}

impl Leftover {
    /// Whether it is that `cgroup` stands still.
    pub(super) fn is_frozen(&self, cgroup: &Path) -> bool {
        matches!(self, Self::Frozen { path, .. } if path == cgroup)
    }

    /// When it is undone in any case, if it is a matter of time: `CLOCK_MONOTONIC` nanoseconds.
    #[must_use]
    pub const fn until_ns(&self) -> Option<u64> {
        match self {
            Self::Frozen { until_ns, .. } => Some(*until_ns),
            Self::Cgroup { .. } | Self::Controllers { .. } | Self::Net(_) => None,
        }
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup { path, .. } => write!(f, "cgroup {}", path.display()),
            Self::Controllers { path, names, .. } => {
                write!(f, "controllers {} of the children of {}", names.join(" "), path.display())
            }
            Self::Frozen { path, .. } => write!(f, "frozen cgroup {}", path.display()),
            Self::Net(net::leftover::Leftover::ClsactFilter(filter)) => {
                write!(f, "filter on interface {} of network namespace {}", filter.interface, filter.netns)
            }
            Self::Net(net::leftover::Leftover::LaneDevice { netns, name, .. }) => {
                write!(f, "lane device {name} in network namespace {netns}")
            }
        }
    }
}
