//! Which bits are flipped.

use super::rng;

/// The `number`-th (from 0) of `total` bits that are flipped among `bytes` bytes, none of them 0.
///
/// The bytes are divided into `total` parts of equal length, and one bit is drawn from each, so no bit is flipped twice
/// and back as long as there are no fewer bytes than bits.
#[must_use]
#[inline(always)]
pub const fn place(random: u64, number: u32, total: u32, bytes: u32) -> u32 {
    let (number, total, bytes) = (number as u64, total as u64, bytes as u64);
    let start = bytes * number / total;
    let end = bytes * (number + 1) / total;
    let bits = if end > start { (end - start) * 8 } else { 8 };
    let within = ((rng::output(random, number) >> 32) * bits) >> 32;
    let start = if start < bytes { start } else { bytes - 1 };
    (start * 8 + within) as u32
}
