//! What a link makes of a packet, as the arguments of `rate` in tc-netem(8).

use std::num::NonZeroU32;

/// What a packet is on the link, beyond its own bytes and Ethernet header. All-zero is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Framing {
    /// `overhead`: bytes the link adds to each packet; less than 0, takes off. At most [`FRAME_BYTES_MAX`] either way.
    pub overhead: i32,
    /// `cell SIZE`: packets travel in cells of one size, and the last one is filled up, as with ATM.
    pub cell: Option<Cell>,
}

/// A cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// Bytes of payload: at most [`FRAME_BYTES_MAX`].
    pub size: NonZeroU32,
    /// `cell-overhead`: bytes the link adds to each; less than 0, takes off, but not all. At most [`FRAME_BYTES_MAX`].
    pub overhead: i32,
}

/// The largest cell, and the largest overhead: 65535 bytes.
pub const FRAME_BYTES_MAX: u32 = 65_535;
