//! Values of `fault_common` as bytes of a map.

use fault_common::{
    decide::delay::Table,
    glob::Glob,
    rule::{Rule, block::WrittenKey},
    who::{Interface, LaneExit, Name, PeerAddress, PeerRules, SocketState},
};

/// A type both halves lay out alike: `repr(C)`, without padding and without pointers.
///
/// # Safety
/// Every byte of a value must be initialised and every byte pattern must be a value.
pub unsafe trait Layout: Copy + 'static {}

// SAFETY: `repr(C)` with explicit padding (asserted in fault-common), integers only.
unsafe impl Layout for Rule {}
// SAFETY: as above.
unsafe impl Layout for WrittenKey {}
// SAFETY: as above.
unsafe impl Layout for Interface {}
// SAFETY: as above.
unsafe impl Layout for LaneExit {}
// SAFETY: as above.
unsafe impl Layout for Name {}
// SAFETY: as above.
unsafe impl Layout for PeerAddress {}
// SAFETY: as above.
unsafe impl Layout for PeerRules {}
// SAFETY: as above.
unsafe impl Layout for SocketState {}

// SAFETY: an array of integers.
unsafe impl Layout for Table {}
// SAFETY: as above.
unsafe impl Layout for Glob {}

/// `T` for aya's maps, whose `Pod` cannot be implemented for types of another crate.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Plain<T>(pub T);

// SAFETY: `Layout` promises what `Pod` asks for.
unsafe impl<T: Layout> aya::Pod for Plain<T> {}
