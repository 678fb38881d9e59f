//! Which of the tests run: those of one lane can be spread over several machines.

use std::{fmt, str::FromStr};

use anyhow::Context as _;

/// Whether a test minds what else keeps the processors busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Rooms {
    /// It counts, or it compares with a reference of its own: it may be late.
    Patient,
    /// It asserts how late something was.
    Timed,
}

/// One of several parts of about the same size; together they are everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    number: usize,
    of: usize,
}

impl Shard {
    /// Whether the test at that place of the list belongs to it.
    const fn has(self, place: usize) -> bool {
        place % self.of == self.number - 1
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self { number: 1, of: 1 }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, of) = text.split_once('/').context("expected N/M")?;
        let (number, of) = (number.parse()?, of.parse()?);
        anyhow::ensure!((1..=of).contains(&number), "there is no part {number} of {of}");
        Ok(Self { number, of })
    }
}

/// What of all tests is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// Both if none is named.
    pub rooms: Option<Rooms>,
    /// Of those.
    pub shard: Shard,
}

impl Part {
    /// Of a lane's tests, those that are wanted.
    pub(super) fn of<T>(self, tests: impl Iterator<Item = (T, Rooms)>) -> impl Iterator<Item = T> {
        let wanted = tests.filter(move |(_, rooms)| self.rooms.is_none_or(|wanted| wanted == *rooms));
        wanted.enumerate().filter(move |(place, _)| self.shard.has(*place)).map(|(_, (test, _))| test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_everything_and_nothing_twice() {
        let all = || (0..101).map(|n| (n, if n % 7 == 0 { Rooms::Timed } else { Rooms::Patient }));
        let mut seen: Vec<i32> = Vec::new();
        for rooms in [Rooms::Patient, Rooms::Timed] {
            for number in 1..=3 {
                let part = Part { rooms: Some(rooms), shard: Shard { number, of: 3 } };
                seen.extend(part.of(all()));
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, Vec::from_iter(0..101));
        assert_eq!(Part::default().of(all()).count(), 101);
    }

    #[test]
    fn shards_are_read_and_refused() {
        assert_eq!("2/3".parse::<Shard>().unwrap(), Shard { number: 2, of: 3 });
        assert_eq!(Shard::default().to_string().parse::<Shard>().unwrap(), Shard::default());
        for bad in ["", "1", "0/2", "3/2", "1/0", "a/b"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }
}
