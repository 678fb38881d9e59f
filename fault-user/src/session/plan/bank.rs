//! Masks of slots, so that programs skip what cannot concern them.

use fault_common::{
    control::Bank,
    rule::{Rule, net::Direction},
};

use super::{Plan, PlannedException, PlannedRule};
use crate::spec::{DiskVerb, Fault, NetFault, NetFilter, NetVerb};

impl Plan {
    /// Which slots are of which kind.
    #[must_use]
    pub fn bank(&self) -> Bank {
        let mut bank = Bank::default();
        for planned in &self.rules {
            if planned.rule.is_plain() {
                bank.plain |= 1 << planned.slot;
            }
            match &planned.fault {
                Fault::Net(fault) => fault_masks(&mut bank, planned, fault),
                Fault::Proc(_) => {}
                Fault::File(_) => {
                    let filter = planned.rule.file;
                    for (number, slots) in bank.file.iter_mut().enumerate() {
                        if filter.ops == 0 || filter.ops >> number & 1 != 0 {
                            *slots |= 1 << planned.slot;
                        }
                    }
                    if filter.globbed != 0 {
                        bank.file_globbed |= 1 << planned.slot;
                    }
                }
                Fault::Disk(fault) => {
                    bank.disk |= 1 << planned.slot;
                    let block = &planned.rule.block;
                    if block.device != 0 || block.sector_end != 0 {
                        bank.disk_located |= 1 << planned.slot;
                    }
                    if fault.filter.until_written {
                        bank.disk_until_written |= 1 << planned.slot;
                    }
                    if fault.filter.glob.is_some() {
                        bank.disk_globbed |= 1 << planned.slot;
                    }
                    match fault.verb {
                        DiskVerb::Rate(_) | DiskVerb::Iops(_) => bank.disk_timed |= 1 << planned.slot,
                        DiskVerb::Error | DiskVerb::Delay(_) | DiskVerb::Hang { .. } => {}
                    }
                }
            }
        }
        for planned in &self.exceptions {
            exception_masks(&mut bank, planned);
        }
        let beyond_ports = bank.net_timed
            | bank.net_checksum
            | bank.net_segment
            | bank.net_position
            | bank.net_connections
            | bank.net_mark;
        bank.net_demanding = beyond_ports | bank.net_cut;
        bank.net_simple =
            bank.net & bank.plain & bank.net_any_peer & bank.net_any_iface & !(beyond_ports | bank.net_spare);
        bank
    }
}

fn fault_masks(bank: &mut Bank, planned: &PlannedRule, fault: &NetFault) {
    let (bit, rule) = (1 << planned.slot, &planned.rule);
    if fault.filter.to.is_empty() {
        bank.net_any_peer |= bit;
    }
    if !rule.connections.are_all() {
        bank.net_connections |= bit;
    }
    let mut looks_at_position = rule.net.after_bytes != 0;
    match &fault.verb {
        NetVerb::Fail { .. } => {
            bank.net_calls |= bit;
            return;
        }
        NetVerb::Rate { .. } | NetVerb::Slot { .. } => bank.net_timed |= bit,
        NetVerb::Drop { ecn: true } => bank.net_mark |= bit,
        // What the target takes for the end of a connection must carry the number it expects next.
        NetVerb::Reset => looks_at_position |= rule.net.directions & Direction::In as u32 != 0,
        NetVerb::Drop { ecn: false }
        | NetVerb::Delay(_)
        | NetVerb::Duplicate
        | NetVerb::Reorder { .. }
        | NetVerb::Corrupt { .. }
        | NetVerb::Hang => {}
    }
    packet_masks(bank, bit, rule, &fault.filter);
    if looks_at_position {
        bank.net_position |= bit;
    }
    if planned.is_cut() {
        bank.net_cut |= bit;
    }
    if planned.is_checksummed() {
        bank.net_checksum |= bit;
    }
}

fn exception_masks(bank: &mut Bank, planned: &PlannedException) {
    let (bit, rule, filter) = (1 << planned.slot, &planned.rule, &planned.exception.filter);
    bank.net_spare |= bit;
    if filter.to.is_empty() {
        bank.net_any_peer |= bit;
    }
    packet_masks(bank, bit, rule, filter);
    if planned.is_cut() {
        bank.net_cut |= bit;
    }
    // A call goes out, before the interface and the packet are known.
    let is_out = rule.net.directions & Direction::Out as u32 != 0;
    if is_out && filter.iface.is_none() && filter.segments.is_empty() {
        bank.net_calls |= bit;
    }
}

/// What faults and exceptions that look at packets have in common.
fn packet_masks(bank: &mut Bank, bit: u64, rule: &Rule, filter: &NetFilter) {
    bank.net |= bit;
    if rule.net.directions & Direction::Out as u32 != 0 {
        bank.net_out |= bit;
    }
    if rule.net.directions & Direction::In as u32 != 0 {
        bank.net_in |= bit;
    }
    if filter.iface.is_none() {
        bank.net_any_iface |= bit;
    }
    if rule.net.segments != 0 {
        bank.net_segment |= bit;
    }
}
