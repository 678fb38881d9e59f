//! What clients of a store did and saw, and what can be told from that.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use super::{linear, record::Phase};
use crate::victim::report::Sample;

/// What a client wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// The newest value.
    #[serde(rename = "read")]
    Read,
    /// What the member has.
    #[serde(rename = "local read")]
    LocalRead,
    /// To set it.
    #[serde(rename = "write")]
    Write,
    /// To set it if it is what the client last saw.
    #[serde(rename = "swap")]
    Swap,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was answered.
    Ok,
    /// It had no effect.
    Fail,
    /// It may have had, or may have one day.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug, Deserialize)]
pub struct Operation {
    /// Which client.
    pub client: u32,
    /// Whom it asked.
    pub member: String,
    /// What for.
    pub action: Action,
    /// Which register.
    pub key: String,
    /// What it should hold for a swap.
    pub old: Option<u64>,
    /// What it should hold then.
    pub new: Option<u64>,
    /// What was read.
    pub value: Option<u64>,
    /// Whether a swap found what it wanted; else it was a read.
    #[serde(default)]
    pub swapped: bool,
    /// The revision of the store in which the value was written.
    pub revision: Option<u64>,
    /// When it began, `CLOCK_MONOTONIC`, nanoseconds.
    pub invoke_ns: u64,
    /// When the client knew, or gave up.
    pub complete_ns: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it did not end well.
    pub error: String,
}

impl Operation {
    /// Whether it changed the register for sure.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.outcome == Outcome::Ok && (self.action == Action::Write || self.swapped)
    }

    /// As the judge sees it; nothing if it says nothing.
    fn judged(&self) -> Option<linear::Operation> {
        let action = match (self.action, self.outcome) {
            (_, Outcome::Fail) => return None,
            (Action::Write, _) => linear::Action::Write(self.new?),
            (Action::Swap, Outcome::Unknown) => linear::Action::Swap(self.old?, self.new?),
            (Action::Swap, Outcome::Ok) if self.swapped => linear::Action::Swap(self.old?, self.new?),
            _ => linear::Action::Read(self.value?),
        };
        let complete = (self.outcome == Outcome::Ok).then_some(self.complete_ns);
        Some(linear::Operation { invoke: self.invoke_ns, complete, action })
    }
}

/// Whom a member took for the leader from then on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct View {
    /// When it was asked.
    pub at_ns: u64,
    /// Who.
    pub member: String,
    /// Whom; nobody: empty.
    pub leader: String,
    /// In which term.
    pub term: u64,
}

/// All of it.
#[derive(Debug, Deserialize)]
pub struct History {
    /// In the order in which they ended.
    pub operations: Vec<Operation>,
    /// In the order of time.
    pub views: Vec<View>,
    /// What each member holds in the end: register, value and revision of every write.
    pub log: BTreeMap<String, Vec<(String, u64, u64)>>,
}

impl History {
    /// Whether all registers, which held 0 at first, are linearizable. Without local reads, unless those are meant to count.
    #[must_use]
    pub fn linearizable(&self, with_local_reads: bool) -> bool {
        let mut registers: BTreeMap<&str, Vec<linear::Operation>> = BTreeMap::new();
        for operation in &self.operations {
            if with_local_reads || operation.action != Action::LocalRead {
                registers.entry(&operation.key).or_default().extend(operation.judged());
            }
        }
        registers.values().all(|operations| linear::linearizable(0, operations))
    }

    /// Acknowledged changes, and those of them that some member does not hold in the end.
    #[must_use]
    pub fn acknowledged(&self) -> (usize, usize) {
        let changed: Vec<&Operation> = self.operations.iter().filter(|one| one.changed()).collect();
        let held = |one: &&&Operation| {
            let entry = (one.key.clone(), one.new.unwrap_or(0), one.revision.unwrap_or(0));
            // Sorted by revision.
            self.log
                .values()
                .all(|log| log.binary_search_by_key(&entry.2, |held| held.2).is_ok_and(|at| log[at] == entry))
        };
        (changed.len(), changed.len() - changed.iter().filter(held).count())
    }

    /// Of the changes through one of `members` that began in the span and that nobody was told the end of: how many there are,
    /// and how many took effect.
    #[must_use]
    pub fn unknown(&self, members: &[&str], (begin_ns, end_ns): (u64, u64)) -> (usize, usize) {
        let open: Vec<&Operation> = self
            .operations
            .iter()
            .filter(|one| one.outcome == Outcome::Unknown && members.contains(&one.member.as_str()))
            .filter(|one| (begin_ns..end_ns).contains(&one.invoke_ns))
            .collect();
        let took_effect = |one: &&&Operation| {
            self.log.values().flatten().any(|(key, value, _)| *key == one.key && Some(*value) == one.new)
        };
        (open.len(), open.iter().filter(took_effect).count())
    }

    /// The longest time in the span without an acknowledged operation through `members`, local reads aside. What was under
    /// way counts when it ends.
    #[must_use]
    pub fn silence_ns(&self, members: &[&str], (begin_ns, end_ns): (u64, u64)) -> u64 {
        let mut ends: Vec<u64> = self
            .operations
            .iter()
            .filter(|one| one.outcome == Outcome::Ok && one.action != Action::LocalRead)
            .filter(|one| members.contains(&one.member.as_str()))
            .map(|one| one.complete_ns)
            .filter(|at| (begin_ns..end_ns).contains(at))
            .chain([begin_ns, end_ns])
            .collect();
        ends.sort_unstable();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    }

    /// What a member thought at a moment.
    #[must_use]
    pub fn view(&self, member: &str, at_ns: u64) -> Option<&View> {
        self.views
            .iter()
            .filter(|view| view.member == member && view.at_ns <= at_ns)
            .max_by_key(|view| view.at_ns)
    }

    /// As users felt it. A local read is good if nothing newer had been acknowledged before it was asked for.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let mut changes: Vec<&Operation> = self.operations.iter().filter(|one| one.changed()).collect();
        changes.sort_by_key(|one| one.complete_ns);
        let stale = |read: &Operation| {
            let before = changes.partition_point(|one| one.complete_ns < read.invoke_ns);
            changes[..before].iter().any(|one| one.key == read.key && one.revision > read.revision)
        };
        let sample = |one: &Operation| {
            let local = one.action == Action::LocalRead;
            let outcome = match one.outcome {
                Outcome::Ok if !local => "ok",
                Outcome::Ok if stale(one) => "stale",
                Outcome::Ok => "current",
                Outcome::Fail | Outcome::Unknown => one.error.as_str(),
            };
            Sample {
                who: format!("{}{}", if local { "local reads of " } else { "through " }, one.member),
                what: one.key.clone(),
                at_ns: one.invoke_ns,
                took_ns: one.complete_ns - one.invoke_ns,
                outcome: outcome.to_owned(),
                good: matches!(outcome, "ok" | "current"),
            }
        };
        let mut samples: Vec<Sample> = self.operations.iter().map(sample).collect();
        // Those who ask for the truth first, in tables and legends.
        samples.sort_by(|a, b| {
            (b.who.starts_with('t'), &a.who, a.at_ns).cmp(&(a.who.starts_with('t'), &b.who, b.at_ns))
        });
        samples
    }

    /// As a file for other judges: a line for each operation.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn json(&self, phases: &[Phase]) -> anyhow::Result<String> {
        let start = self.operations.iter().map(|one| one.invoke_ns).min().unwrap_or(0);
        // Microseconds, and nothing from before the first operation.
        let moment = |at_ns: u64| at_ns.saturating_sub(start) / 1000;
        let mut text =
            "{\"about\": \"times in microseconds; every register holds 0 at first; of outcome `unknown`: \
                        whether and when it took effect, nobody was told\",\n\"phases\": [\n"
                .to_owned();
        let phases = phases.iter().map(|phase| {
            serde_json::to_string(&(&phase.name, phase.hurt, moment(phase.begin_ns), moment(phase.end_ns)))
        });
        text += &phases.collect::<Result<Vec<_>, _>>()?.join(",\n");
        text += "],\n\"views\": [\n";
        let views = self
            .views
            .iter()
            .map(|view| serde_json::to_string(&(moment(view.at_ns), &view.member, &view.leader, view.term)));
        text += &views.collect::<Result<Vec<_>, _>>()?.join(",\n");
        let columns = [
            "client", "member", "action", "key", "old", "new", "read", "invoke", "complete", "outcome",
            "error",
        ];
        // Writing to a string cannot fail.
        _ = write!(text, "],\n\"columns\": {},\n\"operations\": [\n", serde_json::to_string(&columns)?);
        let operations = self.operations.iter().map(|one| {
            serde_json::to_string(&(
                one.client,
                &one.member,
                one.action,
                &one.key,
                one.old,
                one.new,
                one.value,
                moment(one.invoke_ns),
                moment(one.complete_ns),
                one.outcome,
                &one.error,
            ))
        });
        text += &operations.collect::<Result<Vec<_>, _>>()?.join(",\n");
        Ok(text + "]}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let operation = |action: &str, more: serde_json::Value| {
            let mut all =
                serde_json::json!({"client": 0, "member": "A", "action": action, "key": "x", "error": ""});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let write = |new: u64, invoke: u64, outcome: &str, revision: Option<u64>| {
            operation(
                "write",
                serde_json::json!({"new": new, "invoke_ns": invoke, "complete_ns": invoke + 5, "outcome": outcome,
                                   "revision": revision}),
            )
        };
        let local = |value: u64, invoke: u64, revision: u64| {
            operation(
                "local read",
                serde_json::json!({"value": value, "invoke_ns": invoke, "complete_ns": invoke + 1, "outcome": "ok",
                                   "revision": revision}),
            )
        };
        serde_json::from_value(serde_json::json!({
            "operations": [
                write(1, 10, "ok", Some(5)),
                local(0, 12, 2),
                local(0, 20, 2),
                write(2, 30, "unknown", None),
                write(3, 40, "unknown", None),
                write(4, 90, "ok", Some(7)),
            ],
            "views": [{"at_ns": 1, "member": "A", "leader": "B", "term": 2}],
            "log": {"A": [["x", 0, 2], ["x", 1, 5], ["x", 3, 6], ["x", 4, 7]], "B": [["x", 0, 2], ["x", 1, 5], ["x", 3, 6]]},
        }))
        .unwrap()
    }

    #[test]
    fn stale_is_what_lacks_something_acknowledged_before() {
        let history = history();
        let outcomes: Vec<String> = history.samples().into_iter().map(|sample| sample.outcome).collect();
        assert_eq!(outcomes, ["ok", "", "", "ok", "current", "stale"]);
        assert!(history.linearizable(false) && !history.linearizable(true));
    }

    #[test]
    fn what_became_of_changes() {
        let history = history();
        // B lacks the last one.
        assert_eq!(history.acknowledged(), (2, 1));
        assert_eq!(history.unknown(&["A"], (0, 100)), (2, 1));
        assert_eq!(history.unknown(&["B"], (0, 100)), (0, 0));
        assert_eq!(history.silence_ns(&["A"], (0, 100)), 80);
        assert_eq!(history.view("A", 50).unwrap().leader, "B");
        assert!(history.view("A", 0).is_none());
    }

    #[test]
    fn the_file_is_json() {
        let phase = Phase { name: "before".to_owned(), begin_ns: 0, end_ns: 100, hurt: false };
        let told: serde_json::Value = serde_json::from_str(&history().json(&[phase]).unwrap()).unwrap();
        assert_eq!(told["operations"].as_array().unwrap().len(), 6);
        assert_eq!(
            told["columns"].as_array().unwrap().len(),
            told["operations"][0].as_array().unwrap().len()
        );
    }
}
