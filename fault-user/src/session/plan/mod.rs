//! What a session would do, before it touches anything.

mod bank;
mod needs;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use fault_common::{
    decide::rng::{self, Purpose},
    limits::{MAX_BAD_SECTORS, MAX_RULES},
    rule::Rule,
};

use super::compile::{CompileError, compile, queue_ns, slot_queue_ns, spare};
use crate::{
    block::device::DeviceNumber,
    file::places::Pattern,
    spec::{DiskVerb, Exception, Fault, FileVerb, Located, NetFilter, NetVerb, ProcVerb},
};

pub use needs::Needs;

/// One fault of the plan.
#[derive(Clone, Debug)]
pub struct PlannedRule {
    /// Number in the order given, from 0.
    pub id: u32,
    /// As parsed.
    pub fault: Fault,
    /// What it turns into in the course of a scenario: the same fault with other numbers.
    pub becomes: Option<Fault>,
    /// As the kernel will see it.
    pub rule: Rule,
    /// Where it lies in the rule set: terminal verbs first, see `fault_common::rule::Verb::precedence`.
    pub slot: u32,
}

/// One exception of the plan.
#[derive(Clone, Debug)]
pub struct PlannedException {
    /// As parsed.
    pub exception: Exception,
    /// As the kernel will see it. Its id comes after those of the faults.
    pub rule: Rule,
    /// Where it lies in the rule set: before all faults.
    pub slot: u32,
}

/// All faults of a session.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By [`PlannedRule::id`].
    pub rules: Vec<PlannedRule>,
    /// In the order given.
    pub exceptions: Vec<PlannedException>,
    /// `--seed`.
    pub seed: u64,
    /// `--for`.
    pub duration: Option<Duration>,
}

/// The faults do not make a session.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A fault that cannot be said in rules.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// More than the kernel program remembers.
    #[error("`until-written` over {0} sectors in one session; the limit is {MAX_BAD_SECTORS} (2 GiB)")]
    TooManyBadSectors(u64),
    /// More bits than a mask has.
    #[error("{0} faults in one session; the limit is {MAX_RULES}")]
    TooMany(usize),
    /// As above, together with the exceptions.
    #[error("{faults} faults and {exceptions} exceptions in one session; together the limit is {MAX_RULES}")]
    TooManyTogether {
        /// How many faults.
        faults: usize,
        /// How many exceptions.
        exceptions: usize,
    },
    /// Exceptions, and nothing they could be exceptions from.
    #[error(
        "`--except` spares packets and calls from net faults, and there is none: give a `--net` fault as well"
    )]
    NothingToExcept,
}

impl Plan {
    /// Compiles `faults`; `devices[i]` is what the `on` of fault `i` names.
    ///
    /// # Errors
    /// When a fault cannot be compiled or there are too many.
    pub fn new(
        faults: Vec<Fault>,
        devices: &[Option<DeviceNumber>],
        seed: u64,
        duration: Option<Duration>,
    ) -> Result<Self, PlanError> {
        if faults.len() > MAX_RULES {
            return Err(PlanError::TooMany(faults.len()));
        }
        let mut rules = Vec::with_capacity(faults.len());
        for (id, fault) in (0u32..).zip(faults) {
            let device = devices.get(id as usize).copied().flatten();
            let rule = compile(id, &fault, device)?;
            rules.push(PlannedRule { id, fault, becomes: None, rule, slot: 0 });
        }
        let bad = rules.iter().map(|planned| planned.rule.block).filter(|block| block.until_written != 0);
        let bad = bad.map(|block| block.sector_end - block.sector_start).sum();
        if bad > MAX_BAD_SECTORS {
            return Err(PlanError::TooManyBadSectors(bad));
        }
        let mut plan = Self { rules, exceptions: Vec::new(), seed, duration };
        plan.sort();
        Ok(plan)
    }

    /// The same plan, in which no net fault touches what `exceptions` let through.
    ///
    /// # Errors
    /// When one cannot be compiled, there are too many, or there is no net fault.
    pub fn except(mut self, exceptions: Vec<Exception>) -> Result<Self, PlanError> {
        let (faults, all) = (self.rules.len(), self.exceptions.len() + exceptions.len());
        if all == 0 {
            return Ok(self);
        }
        if !self.rules.iter().any(|planned| matches!(planned.fault, Fault::Net(_))) {
            return Err(PlanError::NothingToExcept);
        }
        if faults + all > MAX_RULES {
            return Err(PlanError::TooManyTogether { faults, exceptions: all });
        }
        for exception in exceptions {
            let index = self.exceptions.len();
            let rule = spare((faults + index) as u32, index as u32, &exception)?;
            self.exceptions.push(PlannedException { exception, rule, slot: 0 });
        }
        self.sort();
        Ok(self)
    }

    /// The same plan, in which no net fault touches what must not be cut (`Target::lifelines`). Of a plan without net faults
    /// nothing needs sparing.
    ///
    /// # Errors
    /// When there are too many.
    pub fn spare(self, lifelines: Vec<Exception>) -> Result<Self, PlanError> {
        if self.rules.iter().any(|planned| matches!(planned.fault, Fault::Net(_))) {
            self.except(lifelines)
        } else {
            Ok(self)
        }
    }

    /// Gives every rule its slot.
    fn sort(&mut self) {
        let faults = self.rules.iter_mut().map(|planned| (planned.rule, &mut planned.slot));
        let exceptions = self.exceptions.iter_mut().map(|planned| (planned.rule, &mut planned.slot));
        let mut all: Vec<_> = faults.chain(exceptions).collect();
        all.sort_by_key(|(rule, _)| rule.storage_order());
        for (number, (_, slot)) in (0u32..).zip(all) {
            *slot = number;
        }
    }

    /// Every rule for the kernel, with its slot.
    pub fn compiled(&self) -> impl Iterator<Item = (u32, Rule)> {
        let faults = self.rules.iter().map(|planned| (planned.slot, planned.rule));
        let all = faults.chain(self.exceptions.iter().map(|planned| (planned.slot, planned.rule)));
        all.map(|(slot, rule)| (slot, Rule { key: rng::key(self.seed, rule.id, Purpose::Trigger), ..rule }))
    }

    /// The filter of every net rule, with its slot: those of faults, then those of exceptions.
    pub fn net_filters(&self) -> impl Iterator<Item = (u32, &NetFilter)> {
        let faults = self.rules.iter().filter_map(|planned| match &planned.fault {
            Fault::Net(fault) => Some((planned.slot, &fault.filter)),
            Fault::Disk(_) | Fault::File(_) | Fault::Proc(_) => None,
        });
        faults.chain(self.exceptions.iter().map(|planned| (planned.slot, &planned.exception.filter)))
    }

    /// The pattern of every file rule that has one, with its slot.
    pub fn globs(&self) -> impl Iterator<Item = Pattern<'_>> {
        self.rules.iter().filter_map(|planned| {
            let (glob, on_disk) = match &planned.fault {
                Fault::File(fault) => (fault.filter.glob.as_ref()?, false),
                Fault::Disk(fault) => (fault.filter.glob.as_ref()?, true),
                Fault::Net(_) | Fault::Proc(_) => return None,
            };
            Some(Pattern { slot: planned.slot, glob: &glob.value, on_disk })
        })
    }

    /// The file of every rule whose delays are distributed as a file says, with its slot.
    pub fn tables(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.rules.iter().filter_map(|planned| Some((planned.slot, table(&planned.fault)?.value.as_path())))
    }

    /// Every pause, with its slot: when, from when it is in force, and for how long.
    pub fn pauses(&self) -> impl Iterator<Item = (u32, Duration, Duration)> {
        self.rules.iter().filter_map(|planned| match &planned.fault {
            Fault::Proc(fault) => {
                let ProcVerb::Pause(duration) = fault.verb;
                Some((planned.slot, fault.trigger.after.unwrap_or_default(), duration))
            }
            Fault::Net(_) | Fault::Disk(_) | Fault::File(_) => None,
        })
    }

    /// How long a packet that all rules delay may be under way: twice the jitter beyond the mean is rare.
    #[must_use]
    pub fn longest_delay(&self) -> Duration {
        let of = |fault: &Fault| match fault {
            Fault::Net(fault) => match &fault.verb {
                NetVerb::Delay(delay) => delay.mean + delay.jitter.unwrap_or_default() * 2,
                NetVerb::Rate { rate, .. } => Duration::from_nanos(queue_ns(*rate)),
                NetVerb::Reorder { by } => *by,
                NetVerb::Slot { gap, .. } => Duration::from_nanos(slot_queue_ns(gap)),
                NetVerb::Drop { .. }
                | NetVerb::Duplicate
                | NetVerb::Corrupt { .. }
                | NetVerb::Reset
                | NetVerb::Hang
                | NetVerb::Fail { .. } => Duration::ZERO,
            },
            Fault::Disk(_) | Fault::File(_) | Fault::Proc(_) => Duration::ZERO,
        };
        let of = |planned: &PlannedRule| planned.faults().map(of).max().unwrap_or_default();
        self.rules.iter().map(of).sum()
    }

    /// A device named by an `on`, if there is one.
    #[must_use]
    pub fn device(&self) -> Option<DeviceNumber> {
        self.rules
            .iter()
            .map(|planned| planned.rule.block)
            .find(|filter| filter.device != 0)
            .map(|filter| DeviceNumber { dev: filter.device, whole_disk: filter.whole_disk != 0 })
    }

    /// The fault with this slot; none where an exception lies.
    #[must_use]
    pub fn in_slot(&self, slot: u32) -> Option<&PlannedRule> {
        self.rules.iter().find(|planned| planned.slot == slot)
    }
}

/// The file that says how the delays of `fault` are distributed.
pub fn table(fault: &Fault) -> Option<&Located<PathBuf>> {
    let delay = match fault {
        Fault::Net(fault) => match &fault.verb {
            NetVerb::Delay(delay) | NetVerb::Slot { gap: delay, .. } => delay,
            NetVerb::Drop { .. }
            | NetVerb::Rate { .. }
            | NetVerb::Duplicate
            | NetVerb::Corrupt { .. }
            | NetVerb::Reset
            | NetVerb::Hang
            | NetVerb::Fail { .. }
            | NetVerb::Reorder { .. } => return None,
        },
        Fault::Disk(fault) => match &fault.verb {
            DiskVerb::Delay(delay) => delay,
            DiskVerb::Error | DiskVerb::Rate(_) | DiskVerb::Iops(_) | DiskVerb::Hang { .. } => return None,
        },
        Fault::File(fault) => match &fault.verb {
            FileVerb::Delay(delay) => delay,
            FileVerb::Error(_) => return None,
        },
        Fault::Proc(_) => return None,
    };
    delay.table.as_ref()
}

impl PlannedRule {
    /// What it is and what it becomes.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        std::iter::once(&self.fault).chain(&self.becomes)
    }
}

#[cfg(test)]
mod tests;
