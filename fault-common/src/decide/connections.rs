//! Some of many connections.

use super::{
    rng::{self, Coordinates, Purpose},
    trigger::CERTAIN,
};

/// Which of the connections that a rule's filter lets through it looks at. All-zero is all of them.
///
/// A connection is a TCP connection, or a UDP or ICMP socket. What still belongs to a listener (the packets of the handshake,
/// seen from the side that accepts) is none yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Only the nth that the rule meets, from 1; 0 is no condition.
    pub number: u32,
    /// 1: by chance, see [`Connections::share`]; 0 is no condition.
    pub by_chance: u32,
    /// Probability × 2^32 that a connection is one of them. Drawn once for each.
    pub share: u64,
}

impl Connections {
    /// Whether every connection is looked at, and packets that belong to none.
    #[must_use]
    #[inline(always)]
    pub const fn are_all(&self) -> bool {
        self.number == 0 && self.by_chance == 0
    }

    /// Whether the connection with this number of the session is one of those that chance chose for `rule`.
    #[must_use]
    #[inline(always)]
    pub const fn are_chosen(&self, seed: u64, rule: u32, connection: u64) -> bool {
        if self.by_chance == 0 || self.share >= CERTAIN {
            return true;
        }
        let at = Coordinates { seed, rule, stream: connection, ordinal: 0 };
        rng::draw(&at, Purpose::Connection) >> 32 < self.share
    }
}

const _: () = assert!(size_of::<Connections>() == 16);
