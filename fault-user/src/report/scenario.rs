//! What there is to say about a scenario beyond its session.

use serde::Serialize;

use crate::scenario::Scenario;

/// `scenario` in the JSON report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ScenarioReport {
    /// Where it came from.
    pub file: String,
    /// In the order of the file.
    pub phases: Vec<PhaseReport>,
    /// Those of faults in the order of the file, then commands.
    pub expectations: Vec<ExpectationReport>,
}

/// One phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// When it was to begin, in nanoseconds of the scenario.
    pub at_ns: u64,
    /// For how long, each time; absent when it goes on to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ns: Option<u64>,
    /// How often it began.
    pub began: u64,
    /// How much later than it should it began or ended, at most, in nanoseconds.
    pub late_ns: u64,
    /// When it was in force, in nanoseconds of the scenario; the last time may have no end of its own.
    #[serde(skip)]
    pub turns: Vec<(u64, Option<u64>)>,
}

/// One thing that was expected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ExpectationReport {
    /// In words: ``fault 0, `injected > 0` ``.
    pub what: String,
    /// Whether it was so; `null` when the session ended before that could be judged.
    pub met: Option<bool>,
    /// What was found instead, or that it was so.
    pub found: String,
}

impl ScenarioReport {
    /// Of a scenario of which nothing has happened yet.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let phases = scenario.phases.iter().map(|phase| PhaseReport {
            name: phase.name.clone(),
            at_ns: phase.schedule.at,
            for_ns: phase.schedule.length,
            began: 0,
            late_ns: 0,
            turns: Vec::new(),
        });
        Self { file: scenario.origin.name.clone(), phases: phases.collect(), expectations: Vec::new() }
    }

    /// Whether everything was as expected.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.expectations.iter().all(|expectation| expectation.met == Some(true))
    }
}
