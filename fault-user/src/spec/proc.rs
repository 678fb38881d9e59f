//! Faults of whole processes.

use std::time::Duration;

use super::source::Source;
use super::trigger::Trigger;

/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// One thing that goes wrong with the processes of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcFault {
    /// What happens to them.
    pub verb: ProcVerb,
    /// When: `after`, and nothing else.
    pub trigger: Trigger,
    /// The text it was read from.
    pub source: Source,
}

/// What happens to the processes of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcVerb {
    /// They stand still for so long, and go on: their cgroup is frozen, and thawed (`cgroup.freeze`,
    /// Documentation/admin-guide/cgroup-v2.rst, Linux 5.2). At most [`PAUSE_MAX`].
    Pause(Duration),
}
