//! What a scenario asks of one target: a plan, and when each of its rules is in force.

use super::{Scenario, Turn, nanoseconds, ramp, schedule::Schedule};
use crate::{
    block::device::DeviceNumber,
    session::plan::{Plan, PlanError},
    spec::Fault,
    target::Target,
};

/// One target of a scenario.
#[derive(Debug, Clone)]
pub struct Part {
    /// Place of the target in [`Scenario::targets`].
    pub target: usize,
    /// All rules of all phases. Their time windows are not in them: that is what [`Part::timed`] is for.
    pub plan: Plan,
    /// By [`PlannedRule::id`](crate::session::plan::PlannedRule::id).
    pub timed: Vec<TimedRule>,
}

/// A rule of a [`Part`].
#[derive(Debug, Clone)]
pub struct TimedRule {
    /// Place of the fault in [`Scenario::faults`].
    pub number: usize,
    /// When it is in force.
    pub schedule: Schedule,
    /// What turns in the course of its ramp.
    pub turns: Vec<Turn>,
}

impl Part {
    /// Leaves alone what `target` must not lose ([`Target::lifelines`]).
    ///
    /// # Errors
    /// When there are too many exceptions.
    pub fn spare(&mut self, target: &Target) -> Result<(), PlanError> {
        self.plan = self.plan.clone().spare(target.lifelines())?;
        Ok(())
    }
}

impl Scenario {
    /// A part for each target that a fault aims at. `devices[i]` is what the `on` of fault `i` names.
    ///
    /// # Errors
    /// When the faults of one target do not make a session.
    pub fn parts(
        &self,
        devices: &[Option<DeviceNumber>],
        seed: u64,
        most: Option<std::time::Duration>,
    ) -> Result<Vec<Part>, PlanError> {
        let duration = match (self.length(), most) {
            (Some(length), Some(most)) => Some(length.min(most)),
            (length, most) => length.or(most),
        };
        let mut parts = Vec::new();
        for target in 0..self.targets.len() {
            let numbers: Vec<usize> =
                (0..self.faults.len()).filter(|&number| self.faults[number].target == target).collect();
            if numbers.is_empty() {
                continue;
            }
            let faults = numbers.iter().map(|&number| self.faults[number].fault.clone()).collect();
            let named: Vec<_> =
                numbers.iter().map(|&number| devices.get(number).copied().flatten()).collect();
            let mut plan = Plan::new(faults, &named, seed, duration)?;
            if plan.rules.iter().any(|planned| matches!(planned.fault, Fault::Net(_))) {
                plan = plan.except(self.exceptions.clone())?;
            }
            let mut timed = Vec::new();
            for (planned, &number) in plan.rules.iter_mut().zip(&numbers) {
                let fault = &self.faults[number];
                // Draws are those of the fault's own number: two targets do not share their luck.
                planned.rule.id = u32::try_from(number).unwrap_or(u32::MAX);
                let trigger = &mut planned.rule.trigger;
                // Turns of a `cycle` are counted from here; everything else about time is not the kernel's business.
                trigger.start_ns = if trigger.cycle_ns == 0 { 0 } else { fault.schedule.at };
                trigger.end_ns = 0;
                planned.becomes.clone_from(&fault.becomes);
                let turns = match &fault.becomes {
                    Some(becomes) => ramp::turns(&fault.fault, becomes)?.unwrap_or_default(),
                    None => Vec::new(),
                };
                timed.push(TimedRule { number, schedule: fault.schedule, turns });
            }
            parts.push(Part { target, plan, timed });
        }
        if parts.is_empty() && !self.exceptions.is_empty() {
            return Err(PlanError::NothingToExcept);
        }
        Ok(parts)
    }

    /// Nanoseconds until the scenario is over, at most `most`.
    #[must_use]
    pub fn end_ns(&self, most: Option<std::time::Duration>) -> Option<u64> {
        let (length, most) = (self.length().map(nanoseconds), most.map(nanoseconds));
        length.into_iter().chain(most).min()
    }
}
