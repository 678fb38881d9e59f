//! Some of many connections, and not from their beginning.

use std::num::NonZeroU32;

use super::super::size::ByteSize;
use super::super::trigger::Probability;

/// Which part of the conversations that pass the filter. A field that is empty is no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Which of many connections.
    pub connections: Option<Connections>,
    /// `after SIZE`: only what lies behind so much payload of a TCP connection, in each direction.
    pub after: Option<ByteSize>,
}

/// Which of many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// `connections P%`: each is one of them with this chance, drawn once.
    Share(Probability),
    /// `connection N`: the Nth that the fault meets, and no other.
    Number(NonZeroU32),
}
