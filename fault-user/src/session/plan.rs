//! What a session would do, before it touches anything.

use std::time::Duration;

use fault_common::{control::Bank, limits::MAX_RULES, rule::Rule};

use super::compile::{CompileError, DeviceNumber, compile};
use crate::spec::{DiskVerb, Fault, NetVerb};

/// One fault of the plan.
#[derive(Clone, Debug)]
pub struct PlannedRule {
    /// Number in the order given, from 0.
    pub id: u32,
    /// As parsed.
    pub fault: Fault,
    /// As the kernel will see it.
    pub rule: Rule,
    /// Where it lies in the rule set: terminal verbs first, see `fault_common::rule::Verb::precedence`.
    pub slot: u32,
}

/// What the kernel has to be able to do for this plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Hooks on interfaces.
    pub packets: bool,
    /// The lane.
    pub packet_delay: bool,
    /// The block hook.
    pub bios: bool,
    /// The parking lot.
    pub bio_delay: bool,
}

/// All faults of a session.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By [`PlannedRule::id`].
    pub rules: Vec<PlannedRule>,
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
    /// More bits than a mask has.
    #[error("{0} faults in one session; the limit is {MAX_RULES}")]
    TooMany(usize),
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
            rules.push(PlannedRule { id, fault, rule, slot: 0 });
        }
        let mut order: Vec<usize> = (0..rules.len()).collect();
        order.sort_by_key(|&index| {
            fault_common::rule::Verb::from_u32(rules[index].rule.verb).map(|verb| verb.precedence())
        });
        for (slot, index) in (0u32..).zip(order) {
            rules[index].slot = slot;
        }
        Ok(Self { rules, seed, duration })
    }

    /// What the kernel has to be able to do.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        for planned in &self.rules {
            match &planned.fault {
                Fault::Net(fault) => {
                    needs.packets = true;
                    match fault.verb {
                        NetVerb::Drop => {}
                        NetVerb::Delay(_) => needs.packet_delay = true,
                    }
                }
                Fault::Disk(fault) => {
                    needs.bios = true;
                    match fault.verb {
                        DiskVerb::Error => {}
                        DiskVerb::Delay(_) | DiskVerb::Hang { .. } => needs.bio_delay = true,
                    }
                }
            }
        }
        needs
    }

    /// Which slots are of which kind, so that programs skip what cannot concern them.
    #[must_use]
    pub fn bank(&self) -> Bank {
        let mut bank = Bank::default();
        for planned in &self.rules {
            let bit = 1 << planned.slot;
            match &planned.fault {
                Fault::Net(fault) => {
                    bank.net |= bit;
                    if fault.filter.to.is_empty() {
                        bank.net_any_peer |= bit;
                    }
                    if fault.filter.iface.is_none() {
                        bank.net_any_iface |= bit;
                    }
                }
                Fault::Disk(_) => bank.disk |= bit,
            }
        }
        bank
    }

    /// The rule with this slot.
    #[must_use]
    pub fn in_slot(&self, slot: u32) -> Option<&PlannedRule> {
        self.rules.iter().find(|planned| planned.slot == slot)
    }
}
