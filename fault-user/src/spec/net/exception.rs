//! What is spared, whatever the faults say.

use super::super::source::Source;
use super::NetFilter;

/// `--except 'FILTER'`: packets and calls of the target that no net fault touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Which ones.
    pub filter: NetFilter,
    /// The text it was read from.
    pub source: Source,
}
