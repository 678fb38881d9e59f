//! Typed fault → rule bytes.
//!
//! What a spec names (addresses, interfaces, devices) has been resolved by then; nothing here looks at the
//! machine.

use std::time::Duration;

use fault_common::{
    decide::{
        delay::{self, Delay},
        trigger::{CERTAIN, Trigger, threshold_from_ppb},
    },
    rule::{
        Layer as RuleLayer, Rule, Verb,
        block::{BlockFilter, op},
        net::{Direction as Way, NetFilter, PortRange, protocol},
    },
};

use crate::spec::{
    self, DelaySpec, DiskFault, DiskOp, DiskVerb, Distribution, Fault, NetFault, NetVerb, Protocol,
};

/// What `on DEVICE|MOUNTPOINT` turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    /// The kernel's `dev_t`: major << 20 | minor.
    pub dev: u32,
    /// A whole disk: its partitions count too.
    pub whole_disk: bool,
}

/// A fault that cannot be said in rules.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// One rule has one range of remote ports.
    #[error("fault {id}: all `to` of one fault must name the same port; write one fault for each port")]
    MixedPorts {
        /// Number of the fault.
        id: u32,
    },
    /// `to A:80 port 90`.
    #[error("fault {id}: `to …:PORT` and `port` exclude each other, nothing could match both")]
    DisjointPorts {
        /// Number of the fault.
        id: u32,
    },
}

/// Compiles fault number `id`; `device` is what its `on` names.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(id: u32, fault: &Fault, device: Option<DeviceNumber>) -> Result<Rule, CompileError> {
    let mut rule = match fault {
        Fault::Net(fault) => net(id, fault)?,
        Fault::Disk(fault) => disk(fault, device),
    };
    rule.id = id;
    rule.trigger = trigger(fault.trigger());
    Ok(rule)
}

fn net(id: u32, fault: &NetFault) -> Result<Rule, CompileError> {
    let filter = &fault.filter;
    let mut directions = 0;
    if filter.direction.includes_out() {
        directions |= Way::Out as u32;
    }
    if filter.direction.includes_in() {
        directions |= Way::In as u32;
    }
    let protocols = filter.protocols.iter().fold(0, |mask, protocol| {
        mask | match protocol {
            Protocol::Tcp => protocol::TCP,
            Protocol::Udp => protocol::UDP,
            Protocol::Icmp => protocol::ICMP,
        }
    });
    let (verb, delay) = match &fault.verb {
        NetVerb::Drop => (Verb::Drop, Delay::default()),
        NetVerb::Delay(spec) => (Verb::Delay, delay(spec)),
    };
    Ok(Rule {
        layer: RuleLayer::Net as u32,
        verb: verb as u32,
        delay,
        net: NetFilter {
            directions,
            protocols,
            remote_port: remote_ports(id, fault)?,
            local_port: ports(filter.local_port),
        },
        ..Rule::default()
    })
}

/// The ports of `to ADDR:PORT` and those of `port`, intersected.
fn remote_ports(id: u32, fault: &NetFault) -> Result<PortRange, CompileError> {
    let mut named = fault.filter.to.iter().map(|endpoint| endpoint.value.ports);
    let first = named.next().flatten();
    if named.any(|ports| ports != first) {
        return Err(CompileError::MixedPorts { id });
    }
    let (Some(a), Some(b)) = (first, fault.filter.port) else {
        return Ok(ports(first.or(fault.filter.port)));
    };
    let range = PortRange { low: a.first().max(b.first()), high: a.last().min(b.last()) };
    if range.low > range.high { Err(CompileError::DisjointPorts { id }) } else { Ok(range) }
}

fn ports(range: Option<spec::PortRange>) -> PortRange {
    range.map_or(PortRange::default(), |range| PortRange { low: range.first(), high: range.last() })
}

fn disk(fault: &DiskFault, device: Option<DeviceNumber>) -> Rule {
    let filter = &fault.filter;
    let ops = filter.ops.iter().fold(0, |mask, operation| {
        mask | match operation {
            DiskOp::Read => op::READ,
            DiskOp::Write => op::WRITE,
            DiskOp::Flush => op::FLUSH,
        }
    });
    let (verb, delay) = match &fault.verb {
        DiskVerb::Error => (Verb::Error, Delay::default()),
        DiskVerb::Delay(spec) => (Verb::Delay, delay(spec)),
        DiskVerb::Hang { duration, then_error } => (
            if *then_error { Verb::DelayThenError } else { Verb::Delay },
            Delay { mean_ns: nanoseconds(*duration), ..Delay::default() },
        ),
    };
    let (sector_start, sector_end) =
        filter.sectors.map_or((0, 0), |sectors| (sectors.start(), sectors.end()));
    Rule {
        layer: RuleLayer::Disk as u32,
        verb: verb as u32,
        delay,
        block: BlockFilter {
            ops,
            device: device.map_or(0, |device| device.dev),
            whole_disk: device.is_some_and(|device| device.whole_disk).into(),
            _pad: 0,
            sector_start,
            sector_end,
        },
        ..Rule::default()
    }
}

fn delay(spec: &DelaySpec) -> Delay {
    let distribution = match spec.distribution {
        Distribution::Uniform => delay::Distribution::Uniform,
        Distribution::Normal => delay::Distribution::Normal,
        Distribution::Pareto => delay::Distribution::Pareto,
        Distribution::ParetoNormal => delay::Distribution::ParetoNormal,
    };
    Delay {
        mean_ns: nanoseconds(spec.mean),
        jitter_ns: spec.jitter.map_or(0, nanoseconds),
        distribution: distribution as u32,
        flags: if spec.ordered { delay::ORDERED } else { 0 },
    }
}

fn trigger(trigger: &spec::Trigger) -> Trigger {
    let start_ns = trigger.after.map_or(0, nanoseconds);
    Trigger {
        threshold: trigger.probability.map_or(CERTAIN, |p| threshold_from_ppb(p.parts_per_billion().into())),
        nth: trigger.nth.unwrap_or(0),
        every: trigger.every.unwrap_or(0),
        first: trigger.first.unwrap_or(0),
        times: trigger.times.unwrap_or(0),
        start_ns,
        end_ns: trigger.window.map_or(0, |window| start_ns.saturating_add(nanoseconds(window))),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
