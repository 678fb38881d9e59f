//! Counter-based random numbers: `draw = f(seed, rule, stream, ordinal)`.
//!
//! No state, so a decision depends on nothing but its coordinates: the same seed and the same order within
//! a stream (one socket, one thread) give the same faults, whatever else the machine does.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
//! OOPSLA 2014) with its state computed instead of stored; the output function is Stafford's variant 13,
//! which that paper uses. Three generators are nested: the seed's gives each (rule, purpose) a key, that
//! key's gives each stream a key, and that one's gives each ordinal its number.
//!
//! What a seed means is part of the contract: the tests pin values, and a change of this file that moves
//! them is a breaking change.

/// The odd integer nearest to 2^64 / φ: SplitMix64's increment.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a draw is for. One decision may need several independent numbers.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Is the operation hit?
    Trigger = 1,
    /// How late is it?
    Delay = 2,
    /// Does the flow change between its good and its bad state?
    Transition = 3,
    /// What came before the first draw of a correlated sequence.
    Past = 4,
    /// Which bits are flipped?
    Corruption = 5,
    /// Is the connection one of those that are looked at?
    Connection = 6,
}

/// Coordinates of one decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coordinates {
    /// `--seed`.
    pub seed: u64,
    /// Number of the fault on the command line.
    pub rule: u32,
    /// Number of the socket or thread, in order of first appearance.
    pub stream: u64,
    /// How many operations of this stream matched this rule before.
    pub ordinal: u64,
}

#[inline(always)]
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Number `n` (from 0) of the SplitMix64 sequence that starts at `state`.
#[inline(always)]
const fn nth_output(state: u64, n: u64) -> u64 {
    mix(state.wrapping_add(n.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA)))
}

/// Number `n` (from 0) of those that follow from a random number that was drawn already.
#[must_use]
#[inline(always)]
pub const fn output(random: u64, n: u64) -> u64 {
    nth_output(random, n)
}

/// What all numbers of this rule for this purpose are drawn from.
#[must_use]
#[inline(always)]
pub const fn key(seed: u64, rule: u32, purpose: Purpose) -> u64 {
    nth_output(seed, (rule as u64) << 8 | purpose as u64)
}

/// [`draw`] with the [`key`] at hand.
#[must_use]
#[inline(always)]
pub const fn draw_with(key: u64, stream: u64, ordinal: u64) -> u64 {
    nth_output(nth_output(key, stream), ordinal)
}

/// A uniformly distributed 64-bit number.
#[must_use]
#[inline(always)]
pub const fn draw(at: &Coordinates, purpose: Purpose) -> u64 {
    draw_with(key(at.seed, at.rule, purpose), at.stream, at.ordinal)
}
