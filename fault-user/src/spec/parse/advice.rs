//! What a word that cannot be read was probably meant to be.

use super::super::errno::FileErrno;
use super::super::net::Errno;
use super::super::quantity::Quantity;
use super::super::units::{self, Flaw};
use super::super::{rate, size};
use super::shown;

/// The right word, a remark, or both.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) word: Option<String>,
    pub(super) remark: Option<String>,
}

fn word(word: impl Into<String>) -> Advice {
    Advice { word: Some(word.into()), remark: None }
}

fn remark(remark: impl Into<String>) -> Advice {
    Advice { word: None, remark: Some(remark.into()) }
}

/// Units that people write and the language does not have.
const UNIT_ALIASES: &[(&str, &str)] = &[
    ("day", "d"),
    ("days", "d"),
    ("hour", "h"),
    ("hours", "h"),
    ("hr", "h"),
    ("hrs", "h"),
    ("min", "m"),
    ("mins", "m"),
    ("minute", "m"),
    ("minutes", "m"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("msec", "ms"),
    ("msecs", "ms"),
    ("millis", "ms"),
    ("milliseconds", "ms"),
    ("usec", "us"),
    ("usecs", "us"),
    ("micros", "us"),
    ("microseconds", "us"),
    ("nsec", "ns"),
    ("nsecs", "ns"),
    ("nanos", "ns"),
    ("nanoseconds", "ns"),
];

/// About a word that stands where a clause could begin; none if it does not look like a value.
pub(super) fn stray(text: &str) -> Option<Advice> {
    if text == "%" {
        return Some(remark("the percent sign stands right behind the number: `5%`"));
    }
    let percent = format!("{text}%");
    if units::probability(&percent).is_ok() {
        let remark = units::count(text).ok().map(|n| format!("A count has its keyword, such as `nth {n}`."));
        return Some(Advice { word: Some(percent), remark });
    }
    if units::duration(text).is_ok() {
        let text = shown(text);
        return Some(remark(format!(
            "a duration is one word, `1m30s`, and has its keyword: `jitter {text}`, `after {text}`, `for {text}`"
        )));
    }
    match units::looks_like_number(text) {
        true => Some(remark("a count has its keyword, such as `nth 5`")),
        false => None,
    }
}

/// The name of an error that was probably meant.
fn nearest_errno(text: &str, names: impl Iterator<Item = &'static str>) -> Option<String> {
    let upper = shown(&text.to_uppercase());
    let distance = |name: &&str| strsim::damerau_levenshtein(&upper, name);
    let nearest = names.min_by_key(distance)?;
    (distance(&nearest) <= 2).then(|| nearest.to_owned())
}

/// What is wrong with a pattern of paths.
fn about_glob(text: &str) -> Advice {
    if !text.starts_with('/') {
        return remark("the path is absolute, as the target sees it");
    }
    if text.contains(['[', ']', '{', '}']) {
        return remark(
            "there are no sets and no alternatives: `\\[` is a bracket, several faults are several patterns",
        );
    }
    if text.ends_with('/') && text.len() > 1 {
        return remark(format!("all that is below: `{}**`", shown(text)));
    }
    match text.split('/').any(|name| name.contains("**") && name != "**") {
        true => remark("`**` stands alone between slashes; within a name it is `*`"),
        false => Advice::default(),
    }
}

/// About a word that is not the operand `wanted`.
pub(super) fn operand(text: &str, wanted: Quantity, flaw: Flaw) -> Advice {
    let none = Advice::default();
    match (wanted, flaw) {
        (Quantity::Errno, Flaw::Shape) => {
            nearest_errno(text, Errno::ALL.into_iter().map(Errno::name)).map_or(none, word)
        }
        (Quantity::FileErrno, Flaw::Shape) => {
            nearest_errno(text, FileErrno::ALL.iter().map(|errno| errno.name())).map_or(none, word)
        }
        (Quantity::Glob, Flaw::Shape) => about_glob(text),
        (Quantity::Rate, Flaw::NoUnit) if units::looks_like_number(text) => word(format!("{text}mbit")),
        (Quantity::Rate, Flaw::UnknownUnit) => rate::with_alias(text).map_or(none, word),
        (Quantity::DurationOrSize { .. }, Flaw::NoUnit) if units::looks_like_number(text) => {
            remark(format!("`{text}s` is a time, `{text}KiB` an amount of data"))
        }
        (Quantity::DurationOrSize { .. }, Flaw::UnknownUnit) => {
            size::with_alias(text).or_else(|| with_alias(text)).map_or(none, word)
        }
        (Quantity::Duration { .. }, Flaw::UnknownUnit) if units::looks_like_size(text) => {
            remark("an amount of data goes with `after`, in net faults: `after 64KiB`")
        }
        (Quantity::Cycle, Flaw::Shape) if units::duration(text.trim_end_matches('/')).is_ok() => {
            remark(format!("both durations stand in one word: `{}/30s`", shown(text.trim_end_matches('/'))))
        }
        (Quantity::Bits, Flaw::Shape) => match text.split_once('b') {
            Some((number, _)) if units::count(number).is_ok() => word(format!("{number} bits")),
            _ => none,
        },
        (Quantity::Number, Flaw::Shape) if units::probability(text).is_ok() => {
            remark(format!("a share of the connections is `connections {text}`"))
        }
        (Quantity::Share, Flaw::Shape) if units::count(text).is_ok() => {
            remark(format!("one of the connections is `connection {text}`"))
        }
        (_, Flaw::NoUnit) if units::looks_like_number(text) => word(format!("{text}ms")),
        (_, Flaw::UnknownUnit) => with_alias(text).map_or(none, word),
        (Quantity::Probability | Quantity::Share, Flaw::Shape) => {
            let with_point = text.replace(',', ".");
            if units::probability(&with_point).is_ok() { word(with_point) } else { none }
        }
        (Quantity::Path, Flaw::Shape) if !text.is_empty() && !text.contains(['/', '\0']) => {
            word(format!("/dev/{}", shown(text)))
        }
        (Quantity::Address, Flaw::Shape) if text.contains("://") => {
            remark("an address has no scheme and no path: `10.0.0.1:80`")
        }
        (Quantity::Address, Flaw::Shape) if text.contains(',') => {
            remark("give `to` once for each address: `to 10.0.0.1 to 10.0.0.2`")
        }
        (Quantity::Address, Flaw::Shape) if text.contains('%') => {
            remark("the interface is a clause of its own: `to fe80::1 iface eth0`")
        }
        (Quantity::Ports, Flaw::Shape) => match text.split_once("..") {
            Some((first, last)) => {
                let range = format!("{first}-{last}");
                units::ports(&range).map_or(none, |_| word(range))
            }
            None => none,
        },
        (Quantity::Ports, Flaw::Backwards) => match text.split_once('-') {
            Some((first, last)) => word(format!("{last}-{first}")),
            None => none,
        },
        (Quantity::Sectors, Flaw::NotARange) => match next(text) {
            Some(next) => remark(format!("one sector is `{text}..{next}`")),
            None => none,
        },
        (Quantity::Sectors, Flaw::Shape) => match text.split_once('-') {
            Some((first, last)) => match (first.parse::<u64>(), next(last)) {
                (Ok(first), Some(next)) => {
                    remark(format!("sectors {first} to {last}, both included, are `{first}..{next}`"))
                }
                _ => none,
            },
            None => none,
        },
        _ => none,
    }
}

/// The number after the one in `text`.
fn next(text: &str) -> Option<u64> {
    text.parse::<u64>().ok()?.checked_add(1)
}

/// A duration whose one unit is spelt in another way.
fn with_alias(text: &str) -> Option<String> {
    let text = text.to_lowercase();
    let number = text.trim_end_matches(|c: char| c.is_alphabetic());
    let unit = &text[number.len()..];
    let alias = UNIT_ALIASES.iter().find(|(alias, _)| *alias == unit);
    let unit = alias.map_or(unit, |(_, unit)| unit);
    let fixed = format!("{number}{unit}");
    units::duration(&fixed).is_ok().then_some(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DURATION: Quantity = Quantity::Duration { zero: true, longest: Duration::from_secs(60) };

    #[test]
    fn other_spellings_of_units_are_known() {
        let meant = |text| operand(text, DURATION, Flaw::UnknownUnit).word;
        assert_eq!(meant("10sec").as_deref(), Some("10s"));
        assert_eq!(meant("5MS").as_deref(), Some("5ms"));
        assert_eq!(meant("1m3Minutes").as_deref(), None);
        assert_eq!(meant("5parsec"), None);
    }

    #[test]
    fn every_alias_stands_for_a_unit() {
        for (alias, unit) in UNIT_ALIASES {
            assert_eq!(units::duration(&format!("1{alias}")), Err(Flaw::UnknownUnit));
            assert!(units::duration(&format!("1{unit}")).is_ok());
        }
    }

    #[test]
    fn ranges_of_the_other_kind_are_translated() {
        assert_eq!(operand("80..90", Quantity::Ports, Flaw::Shape), word("80-90"));
        assert_eq!(operand("80..x", Quantity::Ports, Flaw::Shape), Advice::default());
        let both = remark("sectors 5 to 9, both included, are `5..10`");
        assert_eq!(operand("5-9", Quantity::Sectors, Flaw::Shape), both);
        let last = u64::MAX.to_string();
        assert_eq!(operand(&last, Quantity::Sectors, Flaw::NotARange), Advice::default());
    }
}
