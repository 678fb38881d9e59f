//! What the kernel has to be able to do.

use fault_common::rule::{
    file::OPS,
    net::{Direction, call},
};

use super::{Plan, PlannedException, PlannedRule};
use crate::spec::{DiskVerb, Fault, FileVerb, Framing, NetFault, NetVerb, Probability};

/// What the kernel has to be able to do for a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Hooks on interfaces.
    pub packets: bool,
    /// Hooks on their way in, too.
    pub packets_in: bool,
    /// The lane.
    pub packet_delay: bool,
    /// Packets of the wire, told apart before anything is decided about them.
    pub cut: bool,
    /// As above, with the checksum in them as it would be on the wire.
    pub checksum: bool,
    /// Hooks on connect(2) and sendmsg(2).
    pub calls: bool,
    /// Hooks on bind(2).
    pub binds: bool,
    /// The block hook.
    pub bios: bool,
    /// The parking lot.
    pub bio_delay: bool,
    /// Hooks on operations on files: a mask of `fault_common::rule::file::op`.
    pub files: u32,
    /// The parking lot, for operations on files: a mask as of `files`.
    pub late_files: u32,
    /// Patterns of paths.
    pub globs: bool,
    /// Distributions of delays that are read from files.
    pub tables: bool,
    /// Somebody who freezes and thaws.
    pub pauses: bool,
}

impl Needs {
    /// Whether a session armed for these needs can do what `other` needs.
    #[must_use]
    pub const fn cover(self, other: Self) -> bool {
        (self.packets || !other.packets)
            && (self.packets_in || !other.packets_in)
            && (self.packet_delay || !other.packet_delay)
            && (self.cut || self.checksum || !other.cut)
            && (self.checksum || !other.checksum)
            && (self.calls || !other.calls)
            && (self.binds || !other.binds)
            && (self.bios || !other.bios)
            && (self.bio_delay || !other.bio_delay)
            && other.files & !self.files == 0
            && other.late_files & !self.late_files == 0
            && (self.globs || !other.globs)
            && (self.tables || !other.tables)
            && (self.pauses || !other.pauses)
    }
}

impl Plan {
    /// What the kernel has to be able to do. Exceptions alone need nothing.
    #[must_use]
    pub fn needs(&self) -> Needs {
        let mut needs = Needs { tables: self.tables().next().is_some(), ..Needs::default() };
        for planned in &self.rules {
            match &planned.fault {
                Fault::Net(NetFault { verb: NetVerb::Fail { .. }, .. }) => {
                    needs.calls = true;
                    needs.binds |= planned.rule.net.calls & call::BIND != 0;
                }
                Fault::Net(_) => {
                    needs.packets = true;
                    needs.packets_in |= planned.rule.net.directions & Direction::In as u32 != 0;
                    needs.packet_delay |= planned.waits();
                    needs.cut |= planned.is_cut();
                    needs.checksum |= planned.is_checksummed();
                }
                Fault::File(fault) => {
                    let ops = planned.rule.file.ops;
                    let ops = if ops == 0 { (1 << OPS) - 1 } else { ops };
                    needs.files |= ops;
                    needs.globs |= fault.filter.glob.is_some();
                    needs.late_files |= match fault.verb {
                        FileVerb::Delay(_) => ops,
                        FileVerb::Error(_) => 0,
                    };
                }
                Fault::Proc(_) => needs.pauses = true,
                Fault::Disk(fault) => {
                    needs.bios = true;
                    needs.globs |= fault.filter.glob.is_some();
                    match fault.verb {
                        DiskVerb::Error => {}
                        DiskVerb::Delay(_)
                        | DiskVerb::Rate(_)
                        | DiskVerb::Iops(_)
                        | DiskVerb::Hang { .. } => {
                            needs.bio_delay = true;
                        }
                    }
                }
            }
        }
        needs.cut |= needs.packets && self.exceptions.iter().any(PlannedException::is_cut);
        needs
    }
}

/// Whether packets wait in the lane.
const fn waits(verb: &NetVerb) -> bool {
    match verb {
        NetVerb::Delay(_) | NetVerb::Rate { .. } | NetVerb::Slot { .. } | NetVerb::Reorder { .. } => true,
        NetVerb::Drop { .. }
        | NetVerb::Duplicate
        | NetVerb::Corrupt { .. }
        | NetVerb::Reset
        | NetVerb::Hang
        | NetVerb::Fail { .. } => false,
    }
}

impl PlannedRule {
    /// Whether packets wait in the lane.
    #[must_use]
    pub const fn waits(&self) -> bool {
        // A ramp changes numbers, not the verb.
        let Fault::Net(fault) = &self.fault else { return false };
        waits(&fault.verb)
    }

    /// Whether the packets of the wire must be told apart before this fault decides.
    ///
    /// What hits all of a super-packet or nothing of it may as well hit it whole.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        let between = |chance| {
            let mut fault = self.fault.clone();
            fault.trigger_mut().probability = Some(chance);
            fault
        };
        // On its way from never to always it is neither.
        let between = self.becomes.as_ref().and(self.fault.trigger().probability).map(|_| between(HALF));
        self.faults().chain(&between).any(is_cut)
    }

    /// Whether the checksum must be in the packet, as it would be on the wire.
    #[must_use]
    pub const fn is_checksummed(&self) -> bool {
        let Fault::Net(fault) = &self.fault else { return false };
        matches!(fault.verb, NetVerb::Corrupt { fix_checksum: false, .. })
    }
}

/// Any chance that is neither never nor always.
const HALF: Probability = match Probability::from_parts_per_billion(Probability::BILLION / 2) {
    Some(half) => half,
    None => Probability::ALWAYS,
};

/// [`PlannedRule::is_cut`], of one fault.
fn is_cut(fault: &Fault) -> bool {
    let Fault::Net(fault) = fault else { return false };
    let looks_inside = !fault.filter.segments.is_empty() || fault.part.after.is_some();
    match &fault.verb {
        NetVerb::Drop { .. } | NetVerb::Duplicate | NetVerb::Hang => {
            looks_inside || fault.trigger.is_selective()
        }
        // How many fit into a slot, and into cells, is a matter of the packets of the wire.
        NetVerb::Slot { packets, bytes, .. } => looks_inside || packets.is_some() || bytes.is_some(),
        NetVerb::Rate { framing, .. } => looks_inside || *framing != Framing::default(),
        NetVerb::Delay(_) | NetVerb::Reorder { .. } => looks_inside,
        NetVerb::Corrupt { .. } => true,
        // Any packet will do to end a connection.
        NetVerb::Reset | NetVerb::Fail { .. } => false,
    }
}

impl PlannedException {
    /// Whether the packets of the wire must be told apart before this one decides.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        !self.exception.filter.segments.is_empty() || self.exception.trigger.is_selective()
    }
}
