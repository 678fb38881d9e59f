//! Patterns of paths (`/data/wal/**`), matched byte by byte with a bounded number of steps.
//!
//! A pattern is an automaton whose states are bits: state `n` is "the first `n` bytes of the pattern are matched", a star is a
//! state that stays set. One byte of the path is one look-up and a shift of all states, with no branch (Baeza-Yates and
//! Gonnet, "A new approach to text searching", 1992). So the kernel's verifier has nothing to explore, and no pattern is
//! slower than another.
//!
//! Paths are read as the kernel finds them: the last component first, each followed by a slash, `/a/b/c` as `c/b/a/`.
//! Patterns are built in the same order.

/// Words of 64 states.
const WORDS: usize = 4;
/// Bytes that a pattern may have: one less than there are states.
pub const MAX_GLOB_BYTES: usize = WORDS * 64 - 1;

/// States, a bit each.
pub type States = [u64; WORDS];

/// A pattern.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Automaton {
    /// By byte: the states it may lead to from the state before.
    into: [States; 256],
    /// States that any byte leaves as they are (`**`).
    any: States,
    /// States that any byte but the slash leaves as they are (`*`).
    name: States,
    /// States that the later bytes of a character in UTF-8 leave as they are (`?`).
    rest: States,
    /// States that are also the next one when they are reached: `**` in the place of no directory.
    skip: States,
    /// States before the first byte.
    start: States,
    /// The state in which all is matched.
    last: States,
    /// Number of the state that the next piece begins at.
    length: u64,
}

/// A pattern has more bytes than states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

const fn with(mut states: States, number: u64) -> States {
    states[number as usize / 64 % WORDS] |= 1 << (number % 64);
    states
}

impl Default for Automaton {
    fn default() -> Self {
        Self::new()
    }
}

impl Automaton {
    /// The empty pattern, which matches the empty path.
    #[must_use]
    pub const fn new() -> Self {
        let none = [0; WORDS];
        let start = with(none, 0);
        Self {
            into: [none; 256],
            any: none,
            name: none,
            rest: none,
            skip: none,
            start,
            last: start,
            length: 0,
        }
    }

    /// One more state, which `leads` says by which bytes it is reached.
    fn push(&mut self, leads: impl Fn(u8) -> bool) -> Result<(), TooLong> {
        if self.length as usize >= MAX_GLOB_BYTES {
            return Err(TooLong);
        }
        self.length += 1;
        for byte in 0..=u8::MAX {
            if leads(byte) {
                let into = &mut self.into[usize::from(byte)];
                *into = with(*into, self.length);
            }
        }
        self.last = with([0; WORDS], self.length);
        Ok(())
    }

    /// This byte. The slash ends a component.
    ///
    /// # Errors
    /// When the pattern is too long.
    pub fn byte(&mut self, wanted: u8) -> Result<(), TooLong> {
        self.push(|byte| byte == wanted)
    }

    /// `?`: one character of a name.
    ///
    /// # Errors
    /// When the pattern is too long.
    pub fn character(&mut self) -> Result<(), TooLong> {
        self.push(|byte| byte != b'/' && !is_rest(byte))?;
        self.rest = with(self.rest, self.length);
        Ok(())
    }

    /// `*`: any number of characters of a name.
    pub const fn star(&mut self) {
        self.name = with(self.name, self.length);
    }

    /// `**`: any number of directories; none of them, too, if `may_be_none`. At the beginning of a component.
    ///
    /// # Errors
    /// When the pattern is too long.
    pub fn directories(&mut self, may_be_none: bool) -> Result<(), TooLong> {
        let head = self.length;
        self.byte(b'/')?;
        self.any = with(self.any, head);
        if may_be_none {
            self.skip = with(self.skip, head);
            if head == 0 {
                self.start = with(self.start, 1);
            }
        }
        Ok(())
    }

    /// The states before the first byte.
    #[must_use]
    #[inline(always)]
    pub const fn start(&self) -> States {
        self.start
    }

    /// The states after one more byte.
    #[must_use]
    #[inline(always)]
    pub fn step(&self, states: States, byte: u8) -> States {
        let into = &self.into[byte as usize];
        // All ones where a state stays.
        let in_name = if byte == b'/' { 0 } else { u64::MAX };
        let in_character = if is_rest(byte) { u64::MAX } else { 0 };
        let mut next = [0; WORDS];
        let mut carry = 0;
        let mut skipped = 0;
        let mut word = 0;
        while word < WORDS {
            let moved = (states[word] << 1 | carry) & into[word];
            carry = states[word] >> 63;
            let skips = moved & self.skip[word];
            let stay = self.any[word] | self.name[word] & in_name | self.rest[word] & in_character;
            next[word] = moved | skips << 1 | skipped | states[word] & stay;
            skipped = skips >> 63;
            word += 1;
        }
        next
    }

    /// Whether all of the pattern, and all of the path, is matched.
    #[must_use]
    #[inline(always)]
    pub const fn accepts(&self, states: &States) -> bool {
        let mut hits = 0;
        let mut word = 0;
        while word < WORDS {
            hits |= states[word] & self.last[word];
            word += 1;
        }
        hits != 0
    }

    /// Whether the pattern matches `path`, the last component of which comes first.
    #[must_use]
    pub fn matches(&self, path: impl IntoIterator<Item = u8>) -> bool {
        let states = path.into_iter().fold(self.start(), |states, byte| self.step(states, byte));
        self.accepts(&states)
    }
}

/// Whether `byte` is one of the later bytes of a character in UTF-8.
#[inline(always)]
const fn is_rest(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Entry of the kernel map `GLOBS`: a pattern of one rule, for one file system.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glob {
    /// `super_block.s_dev`: major << 20 | minor.
    pub device: u32,
    /// Slot of the rule.
    pub slot: u32,
    /// Of the path from the root of the file system.
    pub automaton: Automaton,
}

const _: () = assert!(size_of::<Glob>() == 8 + 256 * 8 * WORDS + 6 * 8 * WORDS + 8);
