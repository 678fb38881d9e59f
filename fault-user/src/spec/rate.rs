//! Rates: `10mbit`, `1MiB/s`.
//!
//! Units of bits are tc's (tc(8), PARAMETERS: `kbit` is 1000 bits per second); those of bytes are decimal (`kB/s`) or
//! binary (`KiB/s`). Exact, as all quantities: what is no whole number of bytes per second is too fine.

use super::net::ByteRate;
use super::units::{Flaw, measured, number_and_unit};

/// Units and what one of them is, in bits per second.
const UNITS: &[(&str, u64)] = &[
    ("bit", 1),
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("B/s", 8),
    ("kB/s", 8_000),
    ("MB/s", 8_000_000),
    ("GB/s", 8_000_000_000),
    ("KiB/s", 8 << 10),
    ("MiB/s", 8 << 20),
    ("GiB/s", 8 << 30),
];

/// Reads a rate.
pub(super) fn read(word: &str) -> Result<ByteRate, Flaw> {
    let bits = measured(word, UNITS)?;
    if !bits.is_multiple_of(8) {
        return Err(Flaw::TooFine);
    }
    ByteRate::new(bits / 8).ok_or(Flaw::Range)
}

/// The canonical word for a rate: bits where they are round, binary bytes where those are.
pub(super) fn print(rate: ByteRate) -> String {
    let bits = rate.bytes_per_second() * 8;
    let names = ["gbit", "mbit", "kbit", "GiB/s", "MiB/s", "KiB/s", "bit"];
    let unit = |name: &str| UNITS.iter().find(|(unit, _)| *unit == name).copied();
    names
        .into_iter()
        .filter_map(unit)
        .find(|(_, scale)| bits.is_multiple_of(*scale))
        .map_or_else(|| format!("{bits}bit"), |(name, scale)| format!("{}{name}", bits / scale))
}

/// Other spellings of units, lower case.
const ALIASES: &[(&str, &str)] = &[
    ("bps", "bit"),
    ("bit/s", "bit"),
    ("kbps", "kbit"),
    ("kbit/s", "kbit"),
    ("mbps", "mbit"),
    ("mbit/s", "mbit"),
    ("gbps", "gbit"),
    ("gbit/s", "gbit"),
    ("b/s", "B/s"),
    ("kb", "kB/s"),
    ("kb/s", "kB/s"),
    ("mb", "MB/s"),
    ("mb/s", "MB/s"),
    ("gb", "GB/s"),
    ("gb/s", "GB/s"),
    ("kib", "KiB/s"),
    ("kib/s", "KiB/s"),
    ("mib", "MiB/s"),
    ("mib/s", "MiB/s"),
    ("gib", "GiB/s"),
    ("gib/s", "GiB/s"),
];

/// The rate that was probably meant by one with an unknown unit.
pub(super) fn with_alias(word: &str) -> Option<String> {
    let (_, unit) = number_and_unit(word).ok()?;
    let number = word.strip_suffix(unit)?;
    let lower = unit.to_lowercase();
    let units = UNITS.iter().map(|(name, _)| (*name, *name));
    let (_, meant) = units.chain(ALIASES.iter().copied()).find(|(name, _)| *name == lower)?;
    Some(format!("{number}{meant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_exactly() {
        let bytes = |word| read(word).map(ByteRate::bytes_per_second);
        assert_eq!(bytes("10mbit"), Ok(1_250_000));
        assert_eq!(bytes("1.5mbit"), Ok(187_500));
        assert_eq!(bytes("64KiB/s"), Ok(65_536));
        assert_eq!(bytes("1.5MiB/s"), Ok(1_572_864));
        assert_eq!(bytes("1MB/s"), Ok(1_000_000));
        assert_eq!(bytes("8bit"), Ok(1));
        assert_eq!(bytes("1000gbit"), Ok(ByteRate::MAX.bytes_per_second()));
        assert_eq!(bytes("0mbit"), Err(Flaw::Range));
        assert_eq!(bytes("1001gbit"), Err(Flaw::Range));
        assert_eq!(bytes("99999999999999999999gbit"), Err(Flaw::Range));
        assert_eq!(bytes("10"), Err(Flaw::NoUnit));
        assert_eq!(bytes("10Mbit"), Err(Flaw::UnknownUnit));
        assert_eq!(bytes("10mbit/s"), Err(Flaw::UnknownUnit));
        assert_eq!(bytes("12bit"), Err(Flaw::TooFine));
        assert_eq!(bytes("fast"), Err(Flaw::Shape));
        assert_eq!(bytes("-1mbit"), Err(Flaw::Shape));
    }

    #[test]
    fn other_spellings_are_known() {
        assert_eq!(with_alias("10Mbit").as_deref(), Some("10mbit"));
        assert_eq!(with_alias("10Mbps").as_deref(), Some("10mbit"));
        assert_eq!(with_alias("1.5mib").as_deref(), Some("1.5MiB/s"));
        assert_eq!(with_alias("1furlong"), None);
        for (alias, unit) in ALIASES {
            assert_eq!(read(&format!("8{alias}")), Err(Flaw::UnknownUnit), "{alias}");
            assert!(read(&format!("8{unit}")).is_ok(), "{unit}");
        }
    }

    #[test]
    fn rates_are_printed_as_people_write_them() {
        for word in ["10mbit", "64KiB/s", "1gbit", "500kbit", "1MiB/s", "8bit", "3KiB/s"] {
            assert_eq!(read(word).map(print).as_deref(), Ok(word));
        }
        assert_eq!(read("1MB/s").map(print).as_deref(), Ok("8mbit"));
    }
}
