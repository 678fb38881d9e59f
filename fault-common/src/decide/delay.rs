//! How late a delayed operation is.
//!
//! The meaning of the numbers is netem's (tc-netem(8)): `D` is the mean, the jitter `J` is half the width of
//! the uniform distribution and the standard deviation of the others; what would be negative is zero.
//! `pareto` and `paretonormal` are normalised to mean 0 and standard deviation 1 as netem's tables are:
//! Pareto with shape 3, and 0.25 × normal + 0.75 × Pareto.

use super::rng::{self, Coordinates, Purpose};

include!(concat!(env!("OUT_DIR"), "/distribution_tables.rs"));

/// Shape of the jitter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Every delay from `D - J` to `D + J` alike.
    Uniform = 0,
    /// Normal with mean `D` and standard deviation `J`.
    Normal = 1,
    /// Pareto (shape 3) with mean `D` and standard deviation `J`.
    Pareto = 2,
    /// 0.25 × normal + 0.75 × Pareto, mean `D`, as netem's table of that name.
    ParetoNormal = 3,
}

/// [`Delay::flags`]: a packet never leaves before one of the same socket and direction that came earlier.
pub const ORDERED: u32 = 1;

/// How late.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Mean, in nanoseconds.
    pub mean_ns: u64,
    /// Jitter, in nanoseconds; 0 is a constant delay.
    pub jitter_ns: u64,
    /// A [`Distribution`] as a number.
    pub distribution: u32,
    /// [`ORDERED`] or 0.
    pub flags: u32,
}

/// `a × b / 2^32` without a 128-bit product.
#[inline(always)]
const fn scale(a: u64, b: u32) -> u64 {
    let b = b as u64;
    (a >> 32).wrapping_mul(b).wrapping_add(((a & 0xffff_ffff) * b) >> 32)
}

/// A standardised quantile (scaled by [`TABLE_ONE`]) by linear interpolation in `table`.
#[inline(always)]
fn quantile(table: &[i32; TABLE_SIZE + 1], draw: u64) -> i64 {
    let index = ((draw >> 52) as usize) & (TABLE_SIZE - 1);
    let fraction = ((draw >> 36) & 0xffff) as i64;
    let low = table[index] as i64;
    let high = table[index + 1] as i64;
    low + (((high - low) * fraction) >> 16)
}

impl Delay {
    /// The delay at these coordinates, in nanoseconds.
    #[must_use]
    #[inline(always)]
    pub fn sample(&self, at: &Coordinates) -> u64 {
        if self.jitter_ns == 0 {
            return self.mean_ns;
        }
        self.shape(rng::draw(at, Purpose::Delay))
    }

    /// The delay for one uniformly distributed 64-bit number.
    #[must_use]
    #[inline(always)]
    pub fn shape(&self, draw: u64) -> u64 {
        let table = match self.distribution {
            1 => &NORMAL,
            2 => &PARETO,
            3 => &PARETO_NORMAL,
            _ => {
                let width = self.jitter_ns.wrapping_mul(2).wrapping_add(1);
                let delay = self.mean_ns.wrapping_add(scale(width, (draw >> 32) as u32));
                return delay.saturating_sub(self.jitter_ns);
            }
        };
        let deviation = ((self.jitter_ns as i64) * quantile(table, draw)) >> TABLE_ONE_BITS;
        let delay = (self.mean_ns as i64) + deviation;
        if delay < 0 { 0 } else { delay as u64 }
    }
}

const _: () = assert!(size_of::<Delay>() == 24);
