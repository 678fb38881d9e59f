//! Scenarios: phases in time, several targets, faults in the one spec language, and what is expected of them.
//!
//! [`read`] turns a file into a [`Scenario`] or an error that points into the file; [`parts`](Scenario::parts) compiles it, a
//! [`Plan`](crate::session::plan::Plan) for each target; [`conduct`] plays it. The language is described in
//! `docs/scenarios.md`.

pub mod conduct;
mod error;
mod expect;
mod parameters;
mod part;
pub mod presets;
mod ramp;
mod read;
mod schedule;
mod table;
mod targets;
mod text;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use error::{Origin, ScenarioError};
pub use expect::Expectation;
pub use parameters::{Outlined, outline};
pub use part::{Part, TimedRule};
pub use ramp::Turn;
pub use read::read;
pub use schedule::{Occurrence, RAMP_STEPS, SHORTEST_STEP_NS, Schedule, between, nanoseconds};
pub use text::Text;

use crate::{
    spec::{Exception, Fault, Span, SpecError},
    target::TargetRequest,
};

/// Name of the target that the command line names, or COMMAND.
pub const GIVEN: &str = "given";

/// The longest file, in bytes; also, how much its parameters may put into it.
pub const SCENARIO_MAX_BYTES: usize = 1 << 20;

/// The longest time a scenario can name: a year.
const LONGEST: Duration = crate::spec::WINDOW_MAX;

/// A scenario, as read.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Where it came from.
    pub origin: Origin,
    /// What it is about, in one line.
    pub about: Option<String>,
    /// The seed it asks for.
    pub seed: Option<u64>,
    /// Its parameters: name, value, what it is.
    pub parameters: Vec<Parameter>,
    /// Those that a fault aims at, in the order of the file; [`GIVEN`] has nothing but its name.
    pub targets: Vec<NamedTarget>,
    /// Spared from all net faults.
    pub exceptions: Vec<Exception>,
    /// In the order of the file.
    pub phases: Vec<Phase>,
    /// Those of all phases, in the order of the file; a fault's place here is its number everywhere.
    pub faults: Vec<TimedFault>,
    /// In the order of the file.
    pub probes: Vec<Probe>,
}

/// `[parameters]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// `${NAME}`.
    pub name: String,
    /// What it stands for.
    pub value: String,
    /// Unless another value is given.
    pub default: Option<String>,
    /// In one line.
    pub about: Option<String>,
}

/// `[targets.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTarget {
    /// Its name.
    pub name: String,
    /// `pid`, `cgroup`, `container`, `unit`, `comm`.
    pub requests: Vec<TargetRequest>,
    /// `only`.
    pub only: bool,
    /// Where in the file it is named first.
    pub span: Span,
}

/// `[[phase]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// When it is on.
    pub schedule: Schedule,
}

/// A fault of a phase.
#[derive(Debug, Clone)]
pub struct TimedFault {
    /// What goes wrong; at first, if it is a ramp.
    pub fault: Fault,
    /// What the ramp leads to.
    pub becomes: Option<Fault>,
    /// Place of its target in [`Scenario::targets`].
    pub target: usize,
    /// Place of its phase in [`Scenario::phases`].
    pub phase: usize,
    /// When it is in force. The `after` and `for` of its spec are part of that.
    pub schedule: Schedule,
    /// What must be true of it in the end.
    pub expect: Vec<Expectation>,
    /// Its spec in the file.
    pub text: Text,
}

/// `[[expect]]`: a command that must say what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The command.
    pub run: Vec<String>,
    /// When in the scenario; none is when all is healed.
    pub at: Option<Duration>,
    /// Exit status asked for.
    pub status: u8,
    /// What it must print, but for white space around it.
    pub stdout: Option<String>,
    /// What must be part of that.
    pub stdout_has: Option<String>,
    /// How long it may take.
    pub within: Duration,
}

impl Probe {
    /// The command as one line.
    #[must_use]
    pub fn line(&self) -> String {
        self.run.join(" ")
    }
}

impl Scenario {
    /// When it is over by itself; none is never.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        let ends: Option<Vec<u64>> = self.phases.iter().map(|phase| phase.schedule.end()).collect();
        let probes = self.probes.iter().filter_map(|probe| probe.at).map(nanoseconds);
        ends?.into_iter().chain(probes).max().map(Duration::from_nanos)
    }

    /// A spec error of fault `id`, found after reading, where it stands in the file.
    #[must_use]
    pub fn spec_error(&self, id: usize, error: &SpecError) -> Option<ScenarioError> {
        self.faults.get(id).map(|fault| self.origin.spec(&fault.text, error))
    }

    /// Something is wrong with a target.
    #[must_use]
    pub fn target_error(&self, target: &NamedTarget, sentence: String) -> ScenarioError {
        self.origin.wrong(target.span, sentence, "of this target")
    }
}

impl TimedFault {
    /// Its spec in canonical form; of a ramp, both ends.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.becomes {
            Some(becomes) => format!("{} \u{2192} {becomes}", self.fault),
            None => self.fault.to_string(),
        }
    }
}
