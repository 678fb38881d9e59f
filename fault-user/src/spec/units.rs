//! The words that carry a quantity: durations, percentages, counts, ports, sectors.
//!
//! Reading is exact: integers all the way, nothing is rounded, and what does not fit is an error.

use std::time::Duration;

use winnow::ascii::digit1;
use winnow::combinator::{opt, preceded, repeat, separated_pair, terminated};
use winnow::prelude::*;
use winnow::token::{one_of, take_while};

use super::disk::{IOPS_MAX, SectorRange};
use super::net::PortRange;
use super::trigger::{COUNT_MAX, Cycle, Probability, WINDOW_MAX};

/// Why a word is not the quantity that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It does not look like one at all.
    Shape,
    /// It looks like one and is outside of what can be expressed.
    Range,
    /// A number without the unit that must follow it.
    NoUnit,
    /// The unit is none of those that exist.
    UnknownUnit,
    /// Units do not go from long to short, each once.
    UnitOrder,
    /// Finer than the smallest step.
    TooFine,
    /// The first end of a range is not below (sectors) or is above (ports) the last one.
    Backwards,
    /// One number where a range is needed.
    NotARange,
}

/// Units of time from long to short, in nanoseconds.
const TIME_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// `whole` or `whole.fraction`, as written.
pub(super) type Decimal<'a> = (&'a str, Option<&'a str>);

fn decimal<'a>(input: &mut &'a str) -> winnow::Result<Decimal<'a>> {
    (digit1, opt(preceded('.', digit1))).parse_next(input)
}

/// A decimal number and the unit after it, which may be missing.
fn quantity<'a>(input: &mut &'a str) -> winnow::Result<(Decimal<'a>, &'a str)> {
    (decimal, take_while(0.., |c: char| c.is_alphabetic())).parse_next(input)
}

/// One decimal number and whatever is written after it.
pub(super) fn number_and_unit(word: &str) -> Result<(Decimal<'_>, &str), Flaw> {
    (decimal, take_while(0.., |c: char| c.is_alphabetic() || c == '/')).parse(word).map_err(|_| Flaw::Shape)
}

/// `number × scale` when that is a whole number.
pub(super) fn scaled((whole, fraction): Decimal<'_>, scale: u64) -> Result<u64, Flaw> {
    let whole = parse_u64(whole)?.checked_mul(scale).ok_or(Flaw::Range)?;
    let fraction = fraction.unwrap_or_default().trim_end_matches('0');
    if fraction.is_empty() {
        return Ok(whole);
    }
    // Up to 18 digits fit whatever the scale; more are finer than any unit needs.
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 18).ok_or(Flaw::TooFine)?;
    let (parts, one) = (u128::from(parse_u64(fraction)?) * u128::from(scale), 10_u128.pow(digits));
    if !parts.is_multiple_of(one) {
        return Err(Flaw::TooFine);
    }
    let parts = u64::try_from(parts / one).map_err(|_| Flaw::Range)?;
    whole.checked_add(parts).ok_or(Flaw::Range)
}

/// A word of digits; more of them than 64 bits can hold is out of range.
/// How much `word` is, in what `units` are counted in.
pub(super) fn measured(word: &str, units: &[(&str, u64)]) -> Result<u64, Flaw> {
    let (number, unit) = number_and_unit(word)?;
    if unit.is_empty() {
        return Err(Flaw::NoUnit);
    }
    let (_, scale) = units.iter().find(|(name, _)| *name == unit).ok_or(Flaw::UnknownUnit)?;
    scaled(number, *scale)
}

fn parse_u64(digits: &str) -> Result<u64, Flaw> {
    digits.parse().map_err(|_| Flaw::Range)
}

/// `100ms`, `2s`, `1m30s`, `1.5s`, `20us`: numbers with a unit, from long to short.
pub(crate) fn duration(word: &str) -> Result<Duration, Flaw> {
    let parts: Vec<(Decimal<'_>, &str)> = repeat(1.., quantity).parse(word).map_err(|_| Flaw::Shape)?;
    let mut total: u64 = 0;
    let mut shorter = TIME_UNITS;
    for (number, unit) in parts {
        let unit = match unit {
            "" => return Err(Flaw::NoUnit),
            "µs" | "μs" => "us",
            other => other,
        };
        let Some(&(_, scale)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(Flaw::UnknownUnit);
        };
        let Some(at) = shorter.iter().position(|(name, _)| *name == unit) else {
            return Err(Flaw::UnitOrder);
        };
        shorter = &shorter[at + 1..];
        total = scaled(number, scale)?.checked_add(total).ok_or(Flaw::Range)?;
    }
    Ok(Duration::from_nanos(total))
}

/// `5s/30s`: on, then off.
pub(super) fn cycle(word: &str) -> Result<Cycle, Flaw> {
    let (on, off) = word.split_once('/').ok_or(Flaw::Shape)?;
    let part = |word| match duration(word)? {
        Duration::ZERO => Err(Flaw::Range),
        part if part > WINDOW_MAX => Err(Flaw::Range),
        part => Ok(part),
    };
    Ok(Cycle { on: part(on)?, off: part(off)? })
}

/// The canonical words for a duration; the inverse of [`duration`].
pub(crate) fn print_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, scale) in TIME_UNITS {
        let count = nanos / u128::from(*scale);
        nanos %= u128::from(*scale);
        if count > 0 {
            text += &format!("{count}{name}");
        }
    }
    text
}

/// `5%`, `0.0001%`: a chance with a percent sign.
pub(super) fn probability(word: &str) -> Result<Probability, Flaw> {
    let number = terminated(decimal, '%').parse(word).map_err(|_| Flaw::Shape)?;
    let per_cent = u64::from(Probability::BILLION / 100);
    let parts = scaled(number, per_cent)?;
    let parts = u32::try_from(parts).map_err(|_| Flaw::Range)?;
    match Probability::from_parts_per_billion(parts) {
        Some(probability) => Ok(probability),
        None if parts < Probability::BILLION => Err(Flaw::TooFine),
        None => Err(Flaw::Range),
    }
}

/// The canonical word for a chance; the inverse of [`probability`].
pub(super) fn print_probability(probability: Probability) -> String {
    let per_cent = Probability::BILLION / 100;
    let parts = probability.parts_per_billion();
    let (whole, rest) = (parts / per_cent, parts % per_cent);
    if rest == 0 {
        return format!("{whole}%");
    }
    let fraction = format!("{rest:07}");
    format!("{whole}.{}%", fraction.trim_end_matches('0'))
}

/// Whether a word is meant as a percentage, right or wrong.
pub(super) fn looks_like_probability(word: &str) -> bool {
    word.ends_with('%') && word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
}

/// Whether a word is meant as a number without any unit.
pub(super) fn looks_like_number(word: &str) -> bool {
    decimal.parse(word).is_ok()
}

/// Whether a word is meant as an amount of bytes: `64KiB`, `10MB`.
pub(super) fn looks_like_size(word: &str) -> bool {
    let unit = (opt(one_of(['k', 'K', 'M', 'G', 'T'])), opt('i'), one_of(['b', 'B']));
    let size: winnow::Result<_, _> = (decimal, unit).parse(word);
    size.is_ok()
}

/// A whole number from 1 to [`COUNT_MAX`].
pub(super) fn count(word: &str) -> Result<u64, Flaw> {
    match parse_u64(number(word)?)? {
        count @ 1..=COUNT_MAX => Ok(count),
        _ => Err(Flaw::Range),
    }
}

/// A whole number from 1 to [`IOPS_MAX`].
pub(super) fn iops(word: &str) -> Result<u64, Flaw> {
    match count(word)? {
        number @ 1..=IOPS_MAX => Ok(number),
        _ => Err(Flaw::Range),
    }
}

fn number(word: &str) -> Result<&str, Flaw> {
    let mut number = digit1::<&str, winnow::error::ContextError>;
    number.parse(word).map_err(|_| Flaw::Shape)
}

/// `80` or `80-90`.
pub(super) fn ports(word: &str) -> Result<PortRange, Flaw> {
    let mut range = separated_pair(digit1::<&str, winnow::error::ContextError>, '-', digit1);
    let (first, last) = match range.parse(word) {
        Ok(pair) => pair,
        Err(_) => {
            let port = number(word)?;
            (port, port)
        }
    };
    let port = |digits: &str| match digits.parse() {
        Ok(0) | Err(_) => Err(Flaw::Range),
        Ok(port) => Ok(port),
    };
    PortRange::new(port(first)?, port(last)?).ok_or(Flaw::Backwards)
}

/// `A..B`.
pub(super) fn sectors(word: &str) -> Result<SectorRange, Flaw> {
    let mut range = separated_pair(digit1::<&str, winnow::error::ContextError>, "..", digit1);
    match range.parse(word) {
        Ok((start, end)) => SectorRange::new(parse_u64(start)?, parse_u64(end)?).ok_or(Flaw::Backwards),
        Err(_) => Err(number(word).map_or(Flaw::Shape, |_| Flaw::NotARange)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_exactly() {
        let nanos = |word| duration(word).map(|d| d.as_nanos());
        assert_eq!(nanos("0s"), Ok(0));
        assert_eq!(nanos("1ns"), Ok(1));
        assert_eq!(nanos("20us"), Ok(20_000));
        assert_eq!(nanos("20µs"), Ok(20_000));
        assert_eq!(nanos("1m30s"), Ok(90_000_000_000));
        assert_eq!(nanos("1d1h1m1s1ms1us1ns"), Ok(90_061_001_001_001));
        assert_eq!(nanos("0.1s"), Ok(100_000_000));
        assert_eq!(nanos("1.5m"), Ok(90_000_000_000));
        assert_eq!(nanos("0.000000001s"), Ok(1));
        assert_eq!(nanos("0.0000000010s"), Ok(1));
        assert_eq!(nanos("1.50us"), Ok(1_500));
        assert_eq!(nanos("0.0ns"), Ok(0));
    }

    #[test]
    fn a_cycle_is_two_durations_in_one_word() {
        let part = Duration::from_millis;
        assert_eq!(cycle("1s/500ms"), Ok(Cycle { on: part(1000), off: part(500) }));
        assert_eq!(cycle("365d/1ns").map(|cycle| cycle.on), Ok(WINDOW_MAX));
        for word in ["", "1s", "/", "1s/", "/1s", "1s/1s/1s", "on/off"] {
            assert_eq!(cycle(word), Err(Flaw::Shape), "{word}");
        }
        assert_eq!(cycle("0s/1s"), Err(Flaw::Range));
        assert_eq!(cycle("1s/0s"), Err(Flaw::Range));
        assert_eq!(cycle("1s/366d"), Err(Flaw::Range));
        assert_eq!(cycle("5/30"), Err(Flaw::NoUnit));
        assert_eq!(cycle("5s/30sec"), Err(Flaw::UnknownUnit));
    }

    #[test]
    fn what_is_no_duration_says_why() {
        assert_eq!(duration(""), Err(Flaw::Shape));
        assert_eq!(duration("soon"), Err(Flaw::Shape));
        assert_eq!(duration("-1s"), Err(Flaw::Shape));
        assert_eq!(duration(".5s"), Err(Flaw::Shape));
        assert_eq!(duration("٣s"), Err(Flaw::Shape));
        assert_eq!(duration("5"), Err(Flaw::NoUnit));
        assert_eq!(duration("1m30"), Err(Flaw::NoUnit));
        assert_eq!(duration("5x"), Err(Flaw::UnknownUnit));
        assert_eq!(duration("1e3s"), Err(Flaw::UnknownUnit));
        assert_eq!(duration("5S"), Err(Flaw::UnknownUnit));
        assert_eq!(duration("1s1m"), Err(Flaw::UnitOrder));
        assert_eq!(duration("1s1s"), Err(Flaw::UnitOrder));
        assert_eq!(duration("0.1ns"), Err(Flaw::TooFine));
        assert_eq!(duration("0.0000000001s"), Err(Flaw::TooFine));
        assert_eq!(duration("213504d"), Err(Flaw::Range));
        assert_eq!(duration("18446744073709551616ns"), Err(Flaw::Range));
        assert_eq!(duration("99999999999999999999d"), Err(Flaw::Range));
    }

    #[test]
    fn probabilities_are_read_exactly() {
        let parts = |word| probability(word).map(Probability::parts_per_billion);
        assert_eq!(parts("0%"), Ok(0));
        assert_eq!(parts("0.0001%"), Ok(1_000));
        assert_eq!(parts("0.0001001%"), Ok(1_001));
        assert_eq!(parts("33.3333333%"), Ok(333_333_333));
        assert_eq!(parts("007%"), Ok(70_000_000));
        assert_eq!(parts("100%"), Ok(1_000_000_000));
        assert_eq!(parts("100.0000001%"), Err(Flaw::Range));
        assert_eq!(parts("429.4967296%"), Err(Flaw::Range));
        assert_eq!(parts("99999999999999999999%"), Err(Flaw::Range));
        assert_eq!(parts("0.00009%"), Err(Flaw::TooFine));
        assert_eq!(parts("0.00000001%"), Err(Flaw::TooFine));
        for word in ["", "%", "5", "5%%", "-5%", "+5%", ".5%", "5.%", "5e1%", "five%"] {
            assert_eq!(parts(word), Err(Flaw::Shape), "{word}");
        }
    }

    #[test]
    fn counts_ports_and_sectors_stay_in_range() {
        assert_eq!(count("1"), Ok(1));
        assert_eq!(count("0"), Err(Flaw::Range));
        assert_eq!(count(&COUNT_MAX.to_string()), Ok(COUNT_MAX));
        assert_eq!(count(&(COUNT_MAX + 1).to_string()), Err(Flaw::Range));
        assert_eq!(count("1.0"), Err(Flaw::Shape));
        assert_eq!(
            (iops("10000000"), iops("10000001"), iops("0")),
            (Ok(IOPS_MAX), Err(Flaw::Range), Err(Flaw::Range))
        );
        assert_eq!(ports("80").map(PortRange::last), Ok(80));
        assert_eq!(ports("1-65535").map(PortRange::last), Ok(65535));
        assert_eq!(ports("0-1"), Err(Flaw::Range));
        assert_eq!(ports("1-65536"), Err(Flaw::Range));
        assert_eq!(ports("2-1"), Err(Flaw::Backwards));
        assert_eq!(ports("1-"), Err(Flaw::Shape));
        assert_eq!(sectors("0..1").map(SectorRange::end), Ok(1));
        assert_eq!(sectors("1..1"), Err(Flaw::Backwards));
        assert_eq!(sectors("1"), Err(Flaw::NotARange));
        assert_eq!(sectors("1.."), Err(Flaw::Shape));
        assert_eq!(sectors("0..18446744073709551616"), Err(Flaw::Range));
    }

    #[test]
    fn sizes_are_told_from_durations() {
        assert!(["64KiB", "10MB", "1b", "1.5GiB"].iter().all(|word| looks_like_size(word)));
        assert!(!["64", "10m", "1ms", "B", "5%"].iter().any(|word| looks_like_size(word)));
    }
}
