//! What is asked and answered: one line of JSON each way, and the connection is over.
//!
//! Fields are only ever added, and none that is not known is minded: the two ends may be of different versions.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of these messages.
pub const VERSION: u32 = 1;
/// Bytes of the longest request.
pub const LONGEST_REQUEST: u64 = 4096;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// All sessions, as they are.
    Snapshot,
    /// Inject nothing until it is resumed.
    Pause {
        /// [`Session::id`].
        session: u64,
    },
    /// Inject again.
    Resume {
        /// [`Session::id`].
        session: u64,
    },
    /// End it, with its report.
    Heal {
        /// [`Session::id`].
        session: u64,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Snapshot`].
    Snapshot(Controller),
    /// It is done, or, for [`Request::Heal`], begun.
    Done,
    /// It is not done.
    Refused {
        /// One sentence.
        why: String,
    },
}

/// A process with sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Controller {
    /// [`VERSION`].
    pub version: u32,
    /// Version of `fault`.
    pub fault: String,
    /// Its number.
    pub pid: u32,
    /// How it was started: `inject`, `run`, `play`, `preset`, `serve`; of other programs their name.
    pub verb: String,
    /// Oldest first.
    pub sessions: Vec<Session>,
}

/// What a session does at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Faults happen.
    #[default]
    Active,
    /// No faults happen until it is resumed.
    Paused,
    /// No faults happen any more; it is being put back.
    Healing,
}

impl State {
    /// As in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Healing => "healing",
        }
    }
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Never used again by this process.
    pub id: u64,
    /// Who suffers, in words.
    pub target: String,
    /// `--seed`, or the one that was chosen.
    pub seed: u64,
    /// What it does.
    pub state: State,
    /// When it became active: RFC 3339, UTC.
    pub started: String,
    /// For how long it has been, nanoseconds.
    pub lasted_ns: u64,
    /// How much of `--for` is left, nanoseconds; absent without `--for`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ns: Option<u64>,
    /// The faults.
    pub rules: Vec<Rule>,
    /// The last injections, oldest first, as `--events` writes them. Without `--events`: of those since somebody looks, at least
    /// every five seconds, and not all when there are many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Value>>,
}

/// A fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Number in the order given, from 0.
    pub id: u32,
    /// `net`, `disk` or `file`.
    pub layer: String,
    /// Its spec in canonical form; of a ramp, both ends.
    pub spec: String,
    /// The phase of the scenario it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Whether it is in force: of a scenario, its phase may not have begun, or be over.
    pub in_force: bool,
    /// Operations that passed the filter.
    pub matched: u64,
    /// Operations that were hit.
    pub injected: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Sum of the delays asked for, nanoseconds.
    pub delay_ns: u64,
    /// Mean of those; absent for a fault that does not delay or did not hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_delay_ns: Option<u64>,
    /// How many injections asked for a delay of each length; absent for a fault that does not delay or did not hit. Without
    /// `--events`: of those that were told ([`Session::events`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delays: Option<Vec<Delays>>,
}

/// A step of the histogram of delays: longer than the end of the step before, up to this end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delays {
    /// Nanoseconds; absent for the last step, which has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_ns: Option<u64>,
    /// Injections.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_adds_is_not_minded() {
        let answer = r#"{"answer": "snapshot", "version": 2, "fault": "9", "pid": 1, "verb": "run", "mood": "good",
            "sessions": [{"id": 1, "target": "x", "seed": 1, "state": "active", "started": "", "lasted_ns": 5, "rules": [],
            "weather": {}}]}"#;
        let Answer::Snapshot(controller) = serde_json::from_str(answer).unwrap() else {
            panic!("no snapshot")
        };
        assert_eq!(
            (controller.pid, controller.sessions[0].lasted_ns, &controller.sessions[0].events),
            (1, 5, &None)
        );
    }

    #[test]
    fn requests_are_as_documented() {
        let text = serde_json::to_string(&Request::Pause { session: 3 }).unwrap();
        assert_eq!(text, r#"{"ask":"pause","session":3}"#);
        assert!(serde_json::from_str::<Request>(r#"{"ask":"explode"}"#).is_err());
    }
}
