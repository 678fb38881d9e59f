//! What a session would do, before it touches anything.

use std::time::Duration;

use fault_common::{
    control::Bank,
    limits::MAX_RULES,
    rule::{Rule, net::Direction},
};

use super::compile::{CompileError, compile};
use crate::{
    block::device::DeviceNumber,
    spec::{DiskVerb, Fault, NetFault, NetVerb},
};

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
    /// Hooks on their way in, too.
    pub packets_in: bool,
    /// The lane.
    pub packet_delay: bool,
    /// Hooks on connect(2) and sendmsg(2).
    pub calls: bool,
    /// The block hook.
    pub bios: bool,
    /// The parking lot.
    pub bio_delay: bool,
}

impl Needs {
    /// Whether a session armed for these needs can do what `other` needs.
    #[must_use]
    pub const fn cover(self, other: Self) -> bool {
        (self.packets || !other.packets)
            && (self.packets_in || !other.packets_in)
            && (self.packet_delay || !other.packet_delay)
            && (self.calls || !other.calls)
            && (self.bios || !other.bios)
            && (self.bio_delay || !other.bio_delay)
    }
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
                Fault::Net(NetFault { verb: NetVerb::Fail(_), .. }) => needs.calls = true,
                Fault::Net(fault) => {
                    needs.packets = true;
                    needs.packets_in |= planned.rule.net.directions & Direction::In as u32 != 0;
                    match fault.verb {
                        NetVerb::Drop | NetVerb::Duplicate | NetVerb::Fail(_) => {}
                        NetVerb::Delay(_) | NetVerb::Rate { .. } | NetVerb::Reorder { .. } => {
                            needs.packet_delay = true;
                        }
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

    /// How long a packet that all rules delay may be under way: twice the jitter beyond the mean is rare.
    #[must_use]
    pub fn longest_delay(&self) -> Duration {
        let of = |planned: &PlannedRule| match &planned.fault {
            Fault::Net(fault) => match &fault.verb {
                NetVerb::Delay(delay) => delay.mean + delay.jitter.unwrap_or_default() * 2,
                NetVerb::Rate { .. } => Duration::from_nanos(planned.rule.rate.queue_ns()),
                NetVerb::Reorder { by } => *by,
                NetVerb::Drop | NetVerb::Duplicate | NetVerb::Fail(_) => Duration::ZERO,
            },
            Fault::Disk(_) => Duration::ZERO,
        };
        self.rules.iter().map(of).sum()
    }

    /// Which slots are of which kind, so that programs skip what cannot concern them.
    #[must_use]
    pub fn bank(&self) -> Bank {
        let mut bank = Bank::default();
        for planned in &self.rules {
            let bit = 1 << planned.slot;
            match &planned.fault {
                Fault::Net(fault) => {
                    if fault.filter.to.is_empty() {
                        bank.net_any_peer |= bit;
                    }
                    if let NetVerb::Fail(_) = fault.verb {
                        bank.net_calls |= bit;
                        continue;
                    }
                    bank.net |= bit;
                    if let NetVerb::Rate { .. } = fault.verb {
                        bank.net_timed |= bit;
                    }
                    let directions = planned.rule.net.directions;
                    if directions & Direction::Out as u32 != 0 {
                        bank.net_out |= bit;
                    }
                    if directions & Direction::In as u32 != 0 {
                        bank.net_in |= bit;
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

    /// A device named by an `on`, if there is one.
    #[must_use]
    pub fn device(&self) -> Option<DeviceNumber> {
        self.rules
            .iter()
            .map(|planned| planned.rule.block)
            .find(|filter| filter.device != 0)
            .map(|filter| DeviceNumber { dev: filter.device, whole_disk: filter.whole_disk != 0 })
    }

    /// The rule with this slot.
    #[must_use]
    pub fn in_slot(&self, slot: u32) -> Option<&PlannedRule> {
        self.rules.iter().find(|planned| planned.slot == slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Layer, parse};

    fn plan(specs: &[(Layer, &str)]) -> Plan {
        let faults = specs.iter().map(|(layer, text)| parse(*layer, text).unwrap()).collect();
        Plan::new(faults, &[], 1, None).unwrap()
    }

    #[test]
    fn terminal_verbs_come_first_whatever_the_order_given() {
        let plan = plan(&[
            (Layer::Net, "delay 1ms"),
            (Layer::Disk, "hang 1s then error"),
            (Layer::Net, "drop 1%"),
            (Layer::Disk, "delay 1ms"),
            (Layer::Disk, "error"),
        ]);
        let slots: Vec<_> = plan.rules.iter().map(|planned| planned.slot).collect();
        assert_eq!(slots, [3, 2, 0, 4, 1]);
        assert_eq!(plan.in_slot(0).map(|planned| planned.id), Some(2));
    }

    #[test]
    fn needs_are_what_the_verbs_need() {
        let needs = |specs: &[_]| plan(specs).needs();
        let (packets, out) =
            (Needs { packets: true, ..Needs::default() }, needs(&[(Layer::Net, "drop out")]));
        assert_eq!(out, packets);
        assert_eq!(needs(&[(Layer::Net, "drop")]), Needs { packets_in: true, ..packets });
        assert_eq!(
            needs(&[(Layer::Net, "drop out"), (Layer::Net, "drop in")]),
            needs(&[(Layer::Net, "drop in")])
        );
        assert!(!out.cover(needs(&[(Layer::Net, "drop in")])));
        for waits in ["delay 1ms", "rate 1mbit", "reorder"] {
            assert!(needs(&[(Layer::Net, waits)]).packet_delay, "{waits}");
        }
        assert!(!needs(&[(Layer::Net, "duplicate")]).packet_delay);
        assert_eq!(needs(&[(Layer::Net, "refuse")]), Needs { calls: true, ..Needs::default() });
        assert_eq!(needs(&[(Layer::Disk, "error")]), Needs { bios: true, ..Needs::default() });
        assert!(needs(&[(Layer::Disk, "hang 1s")]).bio_delay);
    }

    #[test]
    fn masks_tell_which_rules_need_a_look_up() {
        let bank = plan(&[
            (Layer::Net, "drop to 10.0.0.1 in"),
            (Layer::Net, "drop iface lo"),
            (Layer::Disk, "error"),
            (Layer::Net, "rate 10mbit out"),
        ])
        .bank();
        let expected = Bank {
            net: 0b1011,
            net_out: 0b1010,
            net_in: 0b0011,
            net_any_peer: 0b1010,
            net_any_iface: 0b1001,
            net_timed: 0b1000,
            disk: 0b0100,
            ..Bank::default()
        };
        assert_eq!(bank, expected);
    }

    #[test]
    fn more_faults_than_bits_are_refused() {
        let faults = vec![parse(Layer::Net, "drop").unwrap(); MAX_RULES + 1];
        assert!(matches!(Plan::new(faults, &[], 1, None), Err(PlanError::TooMany(65))));
    }
}
