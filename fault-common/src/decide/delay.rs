//! How late a delayed operation is.
//!
//! The meaning of the numbers is netem's (tc-netem(8)): `D` is the mean, the jitter `J` is half the width of
//! the uniform distribution and the standard deviation of the others; what would be negative is zero.
//!
//! `pareto` has shape 3, standardised to mean 0 and standard deviation 1. `paretonormal` is nothing but what netem's table
//! of that name holds (iproute2, `netem/paretonormal.c`), so it is that here: 0.25 × normal + 0.75 × Pareto, quantile by
//! quantile, that Pareto being 2/√3 times as wide; its standard deviation comes out at 1.06 `J`. Tails are cut where the
//! last of 4096 equally likely cells ends, at about 4 `J` for the normal distribution and 35 `J` for Pareto, with the mean
//! of that cell kept. (netem cuts its Pareto at 4 `J`, and the mean is less than was asked for.)
//!
//! With a correlation, a delay resembles the one before of the same stream, and the distribution is the same: what is
//! correlated is a sequence of normally distributed numbers, each ρ times the one before and √(1 − ρ²) times a new one, and
//! each is taken to the quantile of the distribution where it lies itself (a Gaussian copula: Nelsen, "An Introduction to
//! Copulas", 2006). For a rank correlation r, ρ is 2 sin(πr/6). netem's own correlation of delays comes to nothing: it takes
//! the remainder of its correlated number, modulo the width or the length of a table (`tabledist`, net/sched/sch_netem.c).

use super::{
    past::Past,
    rng::{self, Coordinates, Purpose},
};
use crate::limits::MAX_PACKET_DELAY_NS;

include!(concat!(env!("OUT_DIR"), "/distribution_tables.rs"));

/// Shape of the jitter.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Every delay from `D - J` to `D + J` alike.
    Uniform = 0,
    /// Normal with mean `D` and standard deviation `J`; never more than 4 `J` from the mean.
    Normal = 1,
    /// Pareto (shape 3) with mean `D` and standard deviation `J`: never below `D` - 0.58 `J`, up to `D` + 35 `J`.
    Pareto = 2,
    /// 0.25 × normal + 0.75 × Pareto with mean `D` and standard deviation 1.06 `J`, as netem's.
    ParetoNormal = 3,
    /// As a [`Table`] of the rule's own says; uniform where there is none.
    Table = 4,
}

/// Quantiles of a distribution from 0 to 1, of mean 0 and in units of the jitter, scaled by 2^[`TABLE_ONE_BITS`]; between
/// them it is linear. None lies further than 4 times the jitter from the mean, as in netem's tables (16 bits).
pub type Table = [i32; TABLE_SIZE + 1];

/// [`Delay::flags`]: a packet never leaves before one of the same socket and direction that came earlier.
pub const ORDERED: u32 = 1;

/// How late.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Mean, in nanoseconds, at most [`MAX_PACKET_DELAY_NS`]; more counts as that.
    pub mean_ns: u64,
    /// Jitter, in nanoseconds, at most [`MAX_PACKET_DELAY_NS`]; 0 is a constant delay.
    pub jitter_ns: u64,
    /// A [`Distribution`] as a number; an unknown one counts as uniform.
    pub distribution: u32,
    /// [`ORDERED`] or 0.
    pub flags: u32,
    /// How much of a delay comes from the one before: ρ × 2^16, at most 2^16; 0 is independence.
    pub old: u32,
    /// How much is new: √(1 − ρ²) × 2^16. Means nothing without [`Delay::old`].
    pub new: u32,
}

/// 1 of [`Delay::old`] and [`Delay::new`], as a power of two.
pub const SHARE_BITS: u32 = 16;

/// `a × b / 2^32` without a 128-bit product.
#[inline(always)]
const fn scale(a: u64, b: u32) -> u64 {
    let b = b as u64;
    (a >> 32).wrapping_mul(b).wrapping_add(((a & 0xffff_ffff) * b) >> 32)
}

/// The smaller one. (`Ord::min` is not `const`, and its by-reference form costs the kernel a stack slot.)
#[inline(always)]
const fn at_most(value: u64, limit: u64) -> u64 {
    if value > limit { limit } else { value }
}

/// [`Past::lateness`] in the middle: 0 of a standard normal distribution.
const LATENESS_ZERO: i64 = 1 << 15;
/// One standard deviation of [`Past::lateness`], as a power of two: it reaches from -8 to 8 of them.
const LATENESS_ONE_BITS: u32 = 12;
/// Steps of [`Past::lateness`] from one entry of [`NORMAL_CDF`] to the next, as a power of two.
const CDF_STEP_BITS: u32 = 16 - TABLE_SIZE.ilog2();

/// A standardised quantile (scaled by [`TABLE_ONE`]) by linear interpolation in `table`.
#[inline(always)]
fn quantile(table: &Table, draw: u64) -> i64 {
    let index = ((draw >> 52) as usize) & (TABLE_SIZE - 1);
    let fraction = ((draw >> 36) & 0xffff) as i64;
    let low = table[index] as i64;
    let high = table[index + 1] as i64;
    low + (((high - low) * fraction) >> 16)
}

impl Delay {
    /// The delay at these coordinates, in nanoseconds, at most [`MAX_PACKET_DELAY_NS`]. `past` is what the stream remembers
    /// for this rule, if delays depend on each other, `own` its table, if it has one.
    #[must_use]
    #[inline(always)]
    pub fn sample(&self, at: &Coordinates, past: &mut Past, own: Option<&Table>) -> u64 {
        if self.jitter_ns == 0 {
            return at_most(self.mean_ns, MAX_PACKET_DELAY_NS);
        }
        let draw = rng::draw(at, Purpose::Delay);
        self.shape(if self.old == 0 { draw } else { self.correlated(draw, past) }, own)
    }

    /// The number in the place of `draw` that resembles the one before.
    #[inline(always)]
    fn correlated(&self, draw: u64, past: &mut Past) -> u64 {
        let mut normal = quantile(&NORMAL, draw);
        let last = past.lateness();
        if last != 0 {
            // At most 2^17, times 2^16 or a little more.
            let last = (last as i64 - LATENESS_ZERO) << (TABLE_ONE_BITS - LATENESS_ONE_BITS);
            let (old, new) = ((self.old & 0x1_ffff) as i64, (self.new & 0x1_ffff) as i64);
            normal = (last * old + normal * new + (1 << (SHARE_BITS - 1))) >> SHARE_BITS;
        }
        let lateness = ((normal + 1) >> (TABLE_ONE_BITS - LATENESS_ONE_BITS)) + LATENESS_ZERO;
        let lateness = if lateness < 1 {
            1
        } else if lateness > 0xffff {
            0xffff
        } else {
            lateness as u64
        };
        past.set_lateness(lateness as u16);
        let (index, fraction) = ((lateness >> CDF_STEP_BITS) as usize & (TABLE_SIZE - 1), lateness & 0xf);
        let (low, high) = (NORMAL_CDF[index] as u64, NORMAL_CDF[index + 1] as u64);
        (low + (((high - low) * fraction) >> CDF_STEP_BITS)) << 32
    }

    /// The delay for one uniformly distributed 64-bit number: the larger the number, the longer the delay.
    #[must_use]
    #[inline(always)]
    pub fn shape(&self, draw: u64, own: Option<&Table>) -> u64 {
        let mean = at_most(self.mean_ns, MAX_PACKET_DELAY_NS);
        let jitter = at_most(self.jitter_ns, MAX_PACKET_DELAY_NS);
        let table = match (self.distribution, own) {
            (1, _) => &NORMAL,
            (2, _) => &PARETO,
            (3, _) => &PARETO_NORMAL,
            (4, Some(own)) => own,
            _ => {
                let delay = mean + scale(2 * jitter + 1, (draw >> 32) as u32);
                return at_most(delay.saturating_sub(jitter), MAX_PACKET_DELAY_NS);
            }
        };
        let deviation = ((jitter as i64) * quantile(table, draw)) >> TABLE_ONE_BITS;
        let delay = (mean as i64) + deviation;
        if delay < 0 { 0 } else { at_most(delay as u64, MAX_PACKET_DELAY_NS) }
    }
}

/// When an operation that should be late by `delay_ns` may leave, given the latest departure already
/// promised to an earlier one of the same socket and direction. Departures never run backwards with
/// [`ORDERED`]; without it `latest_ns` counts for nothing. All in `CLOCK_MONOTONIC` nanoseconds.
#[must_use]
#[inline(always)]
pub const fn departure(now_ns: u64, delay_ns: u64, flags: u32, latest_ns: u64) -> u64 {
    let wanted = now_ns.saturating_add(delay_ns);
    if flags & ORDERED != 0 && wanted < latest_ns { latest_ns } else { wanted }
}

const _: () = assert!(size_of::<Delay>() == 32);
// The longest tail times the largest jitter fits: a constant expression may not overflow.
const _: i64 = (MAX_PACKET_DELAY_NS as i64) * (PARETO[TABLE_SIZE] as i64) + MAX_PACKET_DELAY_NS as i64;
