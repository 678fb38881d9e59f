//! What the users of a system felt, and when: samples and phases, on one clock.

use std::collections::BTreeMap;

use crate::{stats, victim::report::Sample};

/// A piece of the run.
#[derive(Clone, Debug)]
pub struct Phase {
    /// What the page calls it.
    pub name: String,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub begin_ns: u64,
    /// The first moment that is no longer in it.
    pub end_ns: u64,
    /// Whether something was broken in it.
    pub hurt: bool,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// In the order of time.
    pub phases: Vec<Phase>,
    /// In the order they came in.
    pub samples: Vec<Sample>,
}

/// Some of the samples.
#[derive(Clone, Debug)]
pub struct View<'a>(Vec<&'a Sample>);

impl Record {
    /// Those who asked, in the order of their first sample.
    #[must_use]
    pub fn who(&self) -> Vec<&str> {
        let mut who: Vec<&str> = Vec::new();
        for sample in &self.samples {
            if !who.contains(&sample.who.as_str()) {
                who.push(&sample.who);
            }
        }
        who
    }

    /// Requests of `who` that began in `phase`.
    #[must_use]
    pub fn of(&self, who: &str, phase: &str) -> View<'_> {
        self.view(who, phase, 0, 0)
    }

    /// The same without those that began in the first `after_ns` and the last `before_ns` of the phase: where phases follow
    /// one another by the clock, what began at the end of one was answered in the next.
    #[must_use]
    pub fn inside(&self, who: &str, phase: &str, after_ns: u64, before_ns: u64) -> View<'_> {
        self.view(who, phase, after_ns, before_ns)
    }

    fn view(&self, who: &str, phase: &str, after_ns: u64, before_ns: u64) -> View<'_> {
        let phases: Vec<&Phase> = self.phases.iter().filter(|one| one.name == phase).collect();
        let within = |sample: &Sample| {
            phases.iter().any(|phase| {
                sample.at_ns >= phase.begin_ns + after_ns && sample.at_ns + before_ns < phase.end_ns
            })
        };
        View(self.samples.iter().filter(|sample| sample.who == who && within(sample)).collect())
    }
}

impl<'a> View<'a> {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How many ended as wanted.
    #[must_use]
    pub fn good(&self) -> usize {
        self.0.iter().filter(|sample| sample.good).count()
    }

    /// Only those.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&Sample) -> bool) -> Self {
        Self(self.0.iter().copied().filter(|sample| keep(sample)).collect())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().copied()
    }

    /// How they ended, and how many each way.
    #[must_use]
    pub fn outcomes(&self) -> BTreeMap<&'a str, usize> {
        let mut outcomes = BTreeMap::new();
        for sample in &self.0 {
            *outcomes.entry(sample.outcome.as_str()).or_insert(0) += 1;
        }
        outcomes
    }

    /// How many ended like this.
    #[must_use]
    pub fn ended(&self, outcome: &str) -> usize {
        self.outcomes().get(outcome).copied().unwrap_or(0)
    }

    fn took(&self) -> Vec<u64> {
        self.0.iter().map(|sample| sample.took_ns).collect()
    }

    /// Median of how long they took, in milliseconds.
    #[must_use]
    pub fn median_ms(&self) -> f64 {
        stats::median(&self.took()) as f64 / 1e6
    }

    /// The longest, in milliseconds.
    #[must_use]
    pub fn worst_ms(&self) -> f64 {
        self.took().into_iter().max().unwrap_or(0) as f64 / 1e6
    }

    /// The shortest, in milliseconds.
    #[must_use]
    pub fn least_ms(&self) -> f64 {
        self.took().into_iter().min().unwrap_or(0) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(who: &str, at_ns: u64, took_ns: u64, outcome: &str) -> Sample {
        Sample {
            who: who.to_owned(),
            what: String::new(),
            at_ns,
            took_ns,
            outcome: outcome.to_owned(),
            good: outcome == "200",
        }
    }

    #[test]
    fn samples_belong_to_the_phase_they_began_in() {
        let phase =
            |name: &str, begin_ns, end_ns| Phase { name: name.to_owned(), begin_ns, end_ns, hurt: false };
        let record = Record {
            phases: vec![phase("before", 0, 100), phase("during", 100, 200)],
            samples: vec![
                sample("a", 10, 5_000_000, "200"),
                sample("a", 99, 300, "504"),
                sample("a", 100, 1, "200"),
                sample("b", 50, 1, "200"),
                sample("a", 200, 1, "200"),
            ],
        };
        let before = record.of("a", "before");
        assert_eq!((before.count(), before.good(), before.ended("504")), (2, 1, 1));
        assert_eq!(record.inside("a", "before", 0, 10).count(), 1);
        assert_eq!(record.inside("a", "before", 20, 0).count(), 1);
        assert_eq!(record.of("a", "during").count(), 1);
        assert!((before.worst_ms() - 5.0).abs() < 1e-9);
        assert_eq!(record.who(), ["a", "b"]);
    }
}
