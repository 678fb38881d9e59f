//! What is spared, whatever the faults say.

use super::super::source::Source;
use super::super::trigger::Trigger;
use super::NetFilter;

/// `--except 'FILTER [TRIGGER]'`: packets and calls of the target that no net fault touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Which ones.
    pub filter: NetFilter,
    /// Which of those.
    pub trigger: Trigger,
    /// The text it was read from.
    pub source: Source,
}
