//! What a session did, told to people ([`table`]), to programs ([`json`]) and injection by injection
//! ([`events`]); and what it would do ([`dry_run`]).
//!
//! Rendering is pure: a [`SessionReport`] in, text out. Fields of the JSON output are only ever added;
//! `docs/reports.md` describes them.

pub mod dry_run;
mod ending;
pub mod events;
mod hint;
pub mod html;
pub mod json;
pub mod note;
mod number;
pub mod output;
pub mod scenario;
pub mod table;
pub mod timeline;

#[cfg(test)]
mod tests;

use std::time::Duration;

use fault_common::rule::Verb;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::{
    net::lane::LaneStats,
    session::{
        heal::{Healed, RuleTotals, Totals},
        plan::{PlannedException, PlannedRule},
    },
};
use note::Note;

/// Everything there is to say when a session has ended.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct SessionReport {
    /// About the session as a whole.
    pub session: Session,
    /// By id.
    pub rules: Vec<RuleReport>,
    /// What was spared, in the order given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<ExceptionReport>,
    /// About the scenario that was played.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario: Option<scenario::ScenarioReport>,
    /// What went otherwise than asked, most important first.
    #[schema(value_type = Vec<note::Told>)]
    pub notes: Vec<Note>,
    /// What could not be put back or counted: one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
    /// The session's own counters.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    pub counters: Totals,
    /// Of each lane, as the kernel counts.
    pub lanes: Vec<LaneStats>,
}

impl SessionReport {
    /// About a session against `target` (in words) and COMMAND, if there was one. `troubles` are those of
    /// `healed`, as sentences.
    #[must_use]
    pub fn new(
        healed: &Healed,
        target: String,
        command: Option<Vec<String>>,
        exit: Exit,
        troubles: Vec<String>,
    ) -> Self {
        let session = Session {
            version: env!("CARGO_PKG_VERSION"),
            seed: healed.plan.seed,
            started: healed.started,
            ended: healed.ended,
            target,
            command,
            exit,
        };
        let lasted = session.lasted();
        let rules = healed.plan.rules.iter().zip(&healed.rules);
        let exceptions = healed.plan.exceptions.iter().zip(&healed.spared);
        Self {
            except: exceptions.map(|(planned, totals)| ExceptionReport::new(planned, *totals)).collect(),
            scenario: None,
            rules: rules.map(|(planned, totals)| RuleReport::new(planned, *totals, lasted)).collect(),
            notes: note::notes(&healed.totals, healed.stranded, &healed.lanes),
            troubles,
            counters: healed.totals,
            lanes: healed.lanes.clone(),
            session,
        }
    }
}

/// A session as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Session {
    /// Version of `fault`.
    pub version: &'static str,
    /// `--seed`, or the one that was chosen.
    pub seed: u64,
    /// When it became active.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub started: Timestamp,
    /// When it was healed.
    #[serde(serialize_with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub ended: Timestamp,
    /// Who suffered, in words: `pid 4711 and its descendants`.
    pub target: String,
    /// COMMAND of `fault run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Why it ended.
    pub exit: Exit,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Exit {
    /// COMMAND exited.
    CommandExited {
        /// Its exit status.
        status: i32,
    },
    /// COMMAND was killed.
    CommandKilled {
        /// Name of the signal: `SIGKILL`.
        signal: String,
    },
    /// `--for` was over.
    Elapsed,
    /// The controller was asked to end.
    Interrupted {
        /// Name of the signal: `SIGINT`, `SIGTERM`.
        signal: String,
    },
    /// A client of the service ended it.
    Deleted,
    /// A client of the service did not renew its lease, or closed the connection that was the lease.
    LeaseExpired,
    /// Somebody healed it from the live view (`fault top`).
    Healed,
    /// Nobody was left to suffer.
    TargetGone,
    /// Who had started the controller let go of it (`--until-eof`).
    Released,
    /// The controller was stopped for so long that the programs withdrew the faults by themselves.
    Stalled {
        /// For how long, in nanoseconds.
        silence_ns: u64,
    },
    /// Something broke; the session was healed early.
    Failed {
        /// What.
        error: String,
    },
}

/// What one rule did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct RuleReport {
    /// Number of the fault on the command line, from 0.
    pub id: u32,
    /// `net` or `disk`.
    pub layer: &'static str,
    /// Its spec, in canonical form; of a ramp, both ends.
    pub spec: String,
    /// The phase of the scenario it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The target of the scenario it aims at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Operations that passed the filter.
    pub matched: u64,
    /// Operations that were hit.
    pub injected: u64,
    /// Operations that matched and were not hit: `matched = injected + spared`.
    pub spared: u64,
    /// Bytes of the operations that were hit.
    pub bytes: u64,
    /// Sum of the delays asked for, in nanoseconds.
    pub delay_ns: u64,
    /// Of a `rate`, `slot` or `iops`, among those that were hit: packets that found its queue full and were lost, and block
    /// operations that would have waited for more than a minute and went ahead then. Absent for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overflowed: Option<u64>,
    /// Of a `drop ecn`, among those that were hit: packets that were marked and not lost. Absent for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marked: Option<u64>,
    /// Mean delay of the operations that were hit, in nanoseconds; absent for a fault that does not delay or
    /// did not hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_delay_ns: Option<u64>,
    /// What to look at when it did nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl RuleReport {
    /// What `planned` did in a session that was active for `lasted`.
    #[must_use]
    pub fn new(planned: &PlannedRule, totals: RuleTotals, lasted: Duration) -> Self {
        let RuleTotals { matched, injected, bytes, delay_ns, overflowed, marked } = totals;
        let verb = Verb::from_u32(planned.rule.verb);
        let delays = verb.is_some_and(Verb::delays);
        Self {
            id: planned.id,
            layer: planned.fault.layer().name(),
            spec: planned.fault.to_string(),
            phase: None,
            target: None,
            matched,
            injected,
            spared: matched.saturating_sub(injected),
            bytes,
            delay_ns,
            overflowed: verb.is_some_and(Verb::has_queue).then_some(overflowed),
            marked: (verb == Some(Verb::Mark)).then_some(marked),
            mean_delay_ns: delays.then(|| delay_ns.checked_div(injected)).flatten(),
            hint: hint::hint(&planned.fault, &totals, lasted),
        }
    }
}

/// What one exception did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExceptionReport {
    /// Its filter and trigger, in canonical form.
    pub filter: String,
    /// Operations that a fault might have hit and that passed its filter.
    pub matched: u64,
    /// How many of those it spared: all, unless it has a trigger.
    pub spared: u64,
}

impl ExceptionReport {
    /// What `planned` did.
    #[must_use]
    pub fn new(planned: &PlannedException, totals: RuleTotals) -> Self {
        let RuleTotals { matched, injected: spared, .. } = totals;
        Self { filter: planned.exception.to_string(), matched, spared }
    }
}

impl Session {
    /// How long it was active.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.ended.duration_since(self.started).try_into().unwrap_or_default()
    }
}

/// RFC 3339 in UTC with milliseconds.
fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}
