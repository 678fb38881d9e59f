//! `expect`: what must be true of a fault when all is over.

use std::fmt;

use super::{error::Origin, error::ScenarioError, text::Text};
use crate::{
    session::heal::RuleTotals,
    spec::{Span, nearest_word, print_duration, read_duration},
};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Operations that passed the filter.
    Matched,
    /// Operations that were hit.
    Injected,
    /// Operations that passed and were not hit.
    Spared,
    /// Bytes of those that were hit.
    Bytes,
    /// Packets lost before a `rate` or a `slot`.
    Overflowed,
    /// Packets marked by a `drop ecn`, and not lost.
    Marked,
    /// All delays asked for, together.
    Delay,
    /// The mean of them.
    MeanDelay,
}

impl Count {
    const ALL: [Self; 8] = [
        Self::Matched,
        Self::Injected,
        Self::Spared,
        Self::Bytes,
        Self::Overflowed,
        Self::Marked,
        Self::Delay,
        Self::MeanDelay,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Injected => "injected",
            Self::Spared => "spared",
            Self::Bytes => "bytes",
            Self::Overflowed => "overflowed",
            Self::Marked => "marked",
            Self::Delay => "delay",
            Self::MeanDelay => "mean-delay",
        }
    }

    const fn is_time(self) -> bool {
        match self {
            Self::Delay | Self::MeanDelay => true,
            Self::Matched | Self::Injected | Self::Spared | Self::Bytes | Self::Overflowed | Self::Marked => {
                false
            }
        }
    }

    const fn of(self, totals: &RuleTotals) -> u64 {
        match self {
            Self::Matched => totals.matched,
            Self::Injected => totals.injected,
            Self::Spared => totals.matched.saturating_sub(totals.injected),
            Self::Bytes => totals.bytes,
            Self::Overflowed => totals.overflowed,
            Self::Marked => totals.marked,
            Self::Delay => totals.delay_ns,
            Self::MeanDelay => match totals.delay_ns.checked_div(totals.injected) {
                Some(mean) => mean,
                None => 0,
            },
        }
    }

    fn print(self, value: u64) -> String {
        if self.is_time() {
            print_duration(std::time::Duration::from_nanos(value))
        } else {
            value.to_string()
        }
    }
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Different,
}

impl Comparison {
    const ALL: [Self; 6] =
        [Self::AtLeast, Self::AtMost, Self::Equal, Self::Different, Self::Above, Self::Below];

    const fn sign(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Equal => "==",
            Self::Different => "!=",
        }
    }

    const fn holds(self, found: u64, asked: u64) -> bool {
        match self {
            Self::Above => found > asked,
            Self::AtLeast => found >= asked,
            Self::Below => found < asked,
            Self::AtMost => found <= asked,
            Self::Equal => found == asked,
            Self::Different => found != asked,
        }
    }
}

/// `injected >= 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    count: Count,
    comparison: Comparison,
    value: u64,
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.count.word(), self.comparison.sign(), self.count.print(self.value))
    }
}

impl Expectation {
    /// Whether it holds, and what was found, in words: `injected is 0`.
    #[must_use]
    pub fn judge(&self, totals: &RuleTotals) -> (bool, String) {
        let found = self.count.of(totals);
        let words = format!("{} is {}", self.count.word(), self.count.print(found));
        (self.comparison.holds(found, self.value), words)
    }

    /// Reads one.
    pub(super) fn read(origin: &Origin, text: &Text) -> Result<Self, ScenarioError> {
        let line = text.value.as_str();
        let sign = line.find(['<', '>', '=', '!']).unwrap_or(line.len());
        let word = line[..sign].trim();
        let at = line.find(word).unwrap_or(0);
        let place = |start: usize, length: usize| text.span_of(Span::new(start, start + length.max(1)));
        let Some(count) = Count::ALL.into_iter().find(|count| count.word() == word) else {
            let words = Count::ALL.map(Count::word);
            let label = format!("expected one of {}", words.map(|word| format!("`{word}`")).join(", "));
            let error = origin.wrong(place(at, word.len()), format!("unknown counter `{word}`"), label);
            return Err(error.did_you_mean(nearest_word(word, words)));
        };
        let rest = &line[sign..];
        let Some(comparison) = Comparison::ALL.into_iter().find(|one| rest.starts_with(one.sign())) else {
            let label = "expected `>`, `>=`, `<`, `<=`, `==` or `!=` and a value";
            return Err(origin.wrong(place(sign, rest.len()), "nothing to compare with", label));
        };
        let behind = &rest[comparison.sign().len()..];
        let number = behind.trim();
        let start = line.len() - behind.trim_start().len();
        let value = if count.is_time() {
            read_duration(number).ok().and_then(|duration| u64::try_from(duration.as_nanos()).ok())
        } else {
            number.parse().ok()
        };
        let Some(value) = value else {
            let expected = if count.is_time() { "a duration: `300ms`" } else { "a whole number" };
            let sentence = format!("`{number}` cannot be compared with `{word}`");
            return Err(origin.wrong(place(start, number.len()), sentence, format!("expected {expected}")));
        };
        Ok(Self { count, comparison, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Expectation, String> {
        let origin = Origin { name: "test".to_owned(), text: format!("\"{line}\"") };
        let text = Text::new(&origin.text, Span::new(0, origin.text.len()), line);
        Expectation::read(&origin, &text).map_err(|error| error.to_string())
    }

    #[test]
    fn comparisons_hold_or_not() {
        let totals =
            RuleTotals { matched: 10, injected: 3, bytes: 300, delay_ns: 900, overflowed: 0, marked: 0 };
        for (line, holds) in [
            ("injected > 2", true),
            ("injected>=3", true),
            ("injected < 3", false),
            ("matched <= 10", true),
            ("spared == 7", true),
            ("spared != 7", false),
            ("bytes == 300", true),
            ("delay >= 900ns", true),
            ("mean-delay == 300ns", true),
            ("mean-delay > 1us", false),
            ("overflowed == 0", true),
        ] {
            assert_eq!(read(line).unwrap().judge(&totals).0, holds, "{line}");
        }
        let (_, found) = read("delay > 1s").unwrap().judge(&totals);
        assert_eq!(found, "delay is 900ns");
    }

    #[test]
    fn what_cannot_be_compared_is_said() {
        assert_eq!(read("injectd > 2").unwrap_err(), "unknown counter `injectd`");
        assert_eq!(read("injected 2").unwrap_err(), "unknown counter `injected 2`");
        assert_eq!(read("injected").unwrap_err(), "nothing to compare with");
        assert_eq!(read("injected > 2s").unwrap_err(), "`2s` cannot be compared with `injected`");
        assert_eq!(read("delay > 2").unwrap_err(), "`2` cannot be compared with `delay`");
        assert_eq!(read("").unwrap_err(), "unknown counter ``");
        // Nothing that acts on a terminal is quoted.
        assert_eq!(read("matc\thed > 2").unwrap_err(), "unknown counter `matc hed`");
        assert_eq!(read("injected > \u{1b}[31m").unwrap_err(), "`?[31m` cannot be compared with `injected`");
    }
}
