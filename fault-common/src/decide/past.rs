//! What a stream remembers for one rule, from one match to the next: 64 bits, of which each kind of memory has its own.
//!
//! A `rate` of each connection needs all of them, so the compiler of specs lets nothing else remember beside it.

/// All zero is no past.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past(pub u64);

const CHANCE: u64 = 0xffff_ffff;
const RUN_SHIFT: u32 = 32;
const LATENESS_SHIFT: u32 = 48;

impl Past {
    /// The draw before of a correlated sequence, or the state of a chain.
    #[must_use]
    #[inline(always)]
    pub const fn chance(self) -> u32 {
        (self.0 & CHANCE) as u32
    }

    /// As [`Past::chance`], from now on.
    #[inline(always)]
    pub const fn set_chance(&mut self, chance: u32) {
        self.0 = self.0 & !CHANCE | chance as u64;
    }

    /// How many matches in a row were not hit.
    #[must_use]
    #[inline(always)]
    pub const fn run(self) -> u16 {
        (self.0 >> RUN_SHIFT) as u16
    }

    /// As [`Past::run`], from now on.
    #[inline(always)]
    pub const fn set_run(&mut self, run: u16) {
        self.0 = self.0 & !(0xffff << RUN_SHIFT) | (run as u64) << RUN_SHIFT;
    }

    /// Where the delay before lies among all: see [`super::delay`]. 0 is no delay yet.
    #[must_use]
    #[inline(always)]
    pub const fn lateness(self) -> u16 {
        (self.0 >> LATENESS_SHIFT) as u16
    }

    /// As [`Past::lateness`], from now on.
    #[inline(always)]
    pub const fn set_lateness(&mut self, lateness: u16) {
        self.0 = self.0 & !(0xffff << LATENESS_SHIFT) | (lateness as u64) << LATENESS_SHIFT;
    }
}
