//! What a packet carries of decisions already made about it.
//!
//! The tag lies in `skb->tc_index`: 16 bits that no mainstream classifier uses, that survive queueing and
//! redirection, and that are gone when the packet leaves the machine.
//!
//! ```text
//! 15    14         13 .. 8                 7 .. 0
//! ours  direction  sessions that decided   interface slot (meaningful only inside that session's lane)
//! ```
//! A packet that comes back from the lane, or meets a second hook of the same namespace (VLAN over Ethernet,
//! port under bridge), is not decided twice by the same session; several sessions compose because each has
//! a bit of its own. A packet that was decided on its way out is fresh again for the way in (loopback, veth).

use crate::limits::{MAX_INTERFACES_PER_NETNS, MAX_SESSIONS_PER_NETNS};
use crate::rule::net::Direction;

const OURS: u16 = 1 << 15;
const INBOUND: u16 = 1 << 14;
const SESSIONS_SHIFT: u16 = 8;
const SESSIONS: u16 = ((1 << MAX_SESSIONS_PER_NETNS) - 1) << SESSIONS_SHIFT;
const SLOT: u16 = (MAX_INTERFACES_PER_NETNS - 1) as u16;

/// The bit of `session` (0..[`MAX_SESSIONS_PER_NETNS`]); none for a number out of range.
#[inline(always)]
const fn bit(session: u32) -> u16 {
    (1 << (SESSIONS_SHIFT as u32 + (session & 7))) & SESSIONS
}

/// The value of `skb->tc_index`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag(pub u16);

impl Tag {
    /// Whether `session` (0..6) has nothing more to decide for a packet with this tag at a hook of `at`.
    #[must_use]
    #[inline(always)]
    pub const fn is_decided(self, at: Direction, session: u32) -> bool {
        match at {
            // A packet decided on its way in is being forwarded or handed back: nothing to decide either.
            Direction::Out => self.is_from(session),
            Direction::In => self.is_from(session) && self.0 & INBOUND != 0,
        }
    }

    /// The tag after `session` decided at a hook of `at` on the interface in `slot` (0..256). What others
    /// decided in the same direction is kept; what was decided the other way, or is not ours, is replaced.
    #[must_use]
    #[inline(always)]
    pub const fn decided(self, at: Direction, session: u32, slot: u32) -> Self {
        let others = if self.0 & OURS != 0 && (self.0 & INBOUND != 0) == matches!(at, Direction::In) {
            self.0 & SESSIONS
        } else {
            0
        };
        let direction = match at {
            Direction::Out => 0,
            Direction::In => INBOUND,
        };
        Self(OURS | direction | others | bit(session) | (slot as u16 & SLOT))
    }

    /// Whether any session decided about this packet in direction `at`.
    #[must_use]
    #[inline(always)]
    pub const fn is_anyones(self, at: Direction) -> bool {
        self.0 & OURS != 0 && (self.0 & INBOUND != 0) == matches!(at, Direction::In)
    }

    /// Whether `session` decided about this packet, in whichever direction. Of a packet inside the lane of
    /// `session`: whether `session` put it there.
    #[must_use]
    #[inline(always)]
    pub const fn is_from(self, session: u32) -> bool {
        self.0 & OURS != 0 && self.0 & bit(session) != 0
    }

    /// The direction that was decided; only meaningful for a tag of ours.
    #[must_use]
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        if self.0 & INBOUND != 0 { Direction::In } else { Direction::Out }
    }

    /// The interface the packet came from; only meaningful inside the lane of the session that put it there.
    #[must_use]
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 & SLOT) as u32
    }
}
