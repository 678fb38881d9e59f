//! Amounts of bytes: `64KiB`, `10MB`.
//!
//! Units are decimal (`kB`) or binary (`KiB`). Exact, as all quantities: what is no whole number of bytes is too fine.

use super::net::FRAME_BYTES_MAX;
use super::units::{Flaw, measured, number_and_unit};

/// Bytes, from 1 to [`ByteSize::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// The largest: 1 TiB.
    pub const MAX: Self = Self(1 << 40);

    /// So many bytes; none for 0 and for more than [`ByteSize::MAX`].
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes == 0 || bytes > Self::MAX.0 { None } else { Some(Self(bytes)) }
    }

    /// How many.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// Units from large to small, and how many bytes one of them is.
const UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// Reads a size.
pub(super) fn read(word: &str) -> Result<ByteSize, Flaw> {
    ByteSize::new(measured(word, UNITS)?).ok_or(Flaw::Range)
}

/// Reads an amount of bytes that may be less than none, `-14B`, or nothing, `0B`.
pub(super) fn read_signed(word: &str) -> Result<i32, Flaw> {
    let (sign, amount) = match word.strip_prefix('-') {
        Some(amount) => (-1, amount),
        None => (1, word),
    };
    match u32::try_from(measured(amount, UNITS)?) {
        Ok(bytes @ 0..=FRAME_BYTES_MAX) => Ok(sign * bytes.cast_signed()),
        Ok(_) | Err(_) => Err(Flaw::Range),
    }
}

/// The canonical word for an amount that may be less than none.
pub(super) fn print_signed(bytes: i32) -> String {
    format!("{bytes}B")
}

/// The canonical word for a size: the largest unit that it is a whole number of.
pub(super) fn print(size: ByteSize) -> String {
    let bytes = size.bytes();
    UNITS
        .iter()
        .find(|(_, scale)| bytes.is_multiple_of(*scale))
        .map_or_else(|| format!("{bytes}B"), |(name, scale)| format!("{}{name}", bytes / scale))
}

/// Other spellings of units, as written.
const ALIASES: &[(&str, &str)] = &[
    ("byte", "B"),
    ("bytes", "B"),
    ("k", "kB"),
    ("K", "KiB"),
    ("M", "MiB"),
    ("G", "GiB"),
    ("T", "TiB"),
    ("Ki", "KiB"),
    ("Mi", "MiB"),
    ("Gi", "GiB"),
    ("Ti", "TiB"),
];

/// The size that was probably meant by one with an unknown unit.
pub(super) fn with_alias(word: &str) -> Option<String> {
    let (_, unit) = number_and_unit(word).ok()?;
    let number = word.strip_suffix(unit)?;
    let spelt = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(name, _)| *name);
    let alias = || ALIASES.iter().find(|(alias, _)| *alias == unit).map(|(_, name)| *name);
    let fixed = format!("{number}{}", spelt.or_else(alias)?);
    read(&fixed).is_ok().then_some(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        let bytes = |word| read(word).map(ByteSize::bytes);
        assert_eq!(bytes("1B"), Ok(1));
        assert_eq!(bytes("1000B"), Ok(1_000));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("10MB"), Ok(10_000_000));
        assert_eq!(bytes("1.5KiB"), Ok(1_536));
        assert_eq!(bytes("1TiB"), Ok(ByteSize::MAX.bytes()));
        assert_eq!(bytes("0B"), Err(Flaw::Range));
        assert_eq!(bytes("1025GiB"), Err(Flaw::Range));
        assert_eq!(bytes("99999999999999999999TiB"), Err(Flaw::Range));
        assert_eq!(bytes("0.5B"), Err(Flaw::TooFine));
        assert_eq!(bytes("64"), Err(Flaw::NoUnit));
        assert_eq!(bytes("64kb"), Err(Flaw::UnknownUnit));
        assert_eq!(bytes("much"), Err(Flaw::Shape));
    }

    #[test]
    fn other_spellings_are_known() {
        assert_eq!(with_alias("64kib").as_deref(), Some("64KiB"));
        assert_eq!(with_alias("64kb").as_deref(), Some("64kB"));
        assert_eq!(with_alias("1.5M").as_deref(), Some("1.5MiB"));
        assert_eq!(with_alias("1parsec"), None);
        for (alias, unit) in ALIASES {
            assert_eq!(read(&format!("8{alias}")), Err(Flaw::UnknownUnit), "{alias}");
            assert!(read(&format!("1{unit}")).is_ok(), "{unit}");
        }
    }

    #[test]
    fn sizes_are_printed_in_their_largest_unit() {
        for word in ["64KiB", "10MB", "1TiB", "1001B", "1kB", "1536B"] {
            assert_eq!(read(word).map(print).as_deref(), Ok(word));
        }
        assert_eq!(read("1024KiB").map(print).as_deref(), Ok("1MiB"));
    }
}
