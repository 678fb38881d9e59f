//! Typed fault → rule bytes.
//!
//! What a spec names (addresses, interfaces, devices) has been resolved by then; nothing here looks at the
//! machine.

use std::time::Duration;

use fault_common::{
    decide::{
        delay::{self, Delay},
        rate::{PER_CONNECTION, Rate},
        trigger::{CERTAIN, Gilbert, Trigger, threshold_from_ppb},
    },
    rule::{
        Layer as RuleLayer, Rule, Verb,
        block::{BlockFilter, op},
        net::{Direction as Way, NetFilter, PortRange, protocol},
    },
};

use crate::block::device::DeviceNumber;
use crate::spec::{
    self, DelaySpec, DiskFault, DiskOp, DiskVerb, Distribution, Fault, NetFault, NetVerb, Probability,
    Protocol,
};

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
    let mut rule = Rule { layer: RuleLayer::Net as u32, ..Rule::default() };
    let verb = match &fault.verb {
        NetVerb::Drop => Verb::Drop,
        NetVerb::Duplicate => Verb::Duplicate,
        NetVerb::Fail(error) => {
            rule.errno = error.number().unsigned_abs();
            Verb::Fail
        }
        NetVerb::Delay(spec) => {
            rule.delay = delay(spec);
            Verb::Delay
        }
        NetVerb::Reorder { by } => {
            rule.delay = Delay { mean_ns: nanoseconds(*by), ..Delay::default() };
            Verb::Delay
        }
        NetVerb::Rate { rate, per_connection } => {
            rule.rate = Rate {
                bytes_per_second: rate.bytes_per_second(),
                flags: if *per_connection { PER_CONNECTION } else { 0 },
                _pad: 0,
            };
            Verb::Rate
        }
    };
    Ok(Rule {
        verb: verb as u32,
        net: NetFilter {
            directions,
            protocols,
            remote_port: remote_ports(id, fault)?,
            local_port: ports(filter.local_port),
            ..NetFilter::default()
        },
        ..rule
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
    let threshold = |chance: Probability| threshold_from_ppb(chance.parts_per_billion().into());
    Trigger {
        threshold: trigger.probability.map_or(CERTAIN, threshold),
        nth: trigger.nth.unwrap_or(0),
        every: trigger.every.unwrap_or(0),
        first: trigger.first.unwrap_or(0),
        times: trigger.times.unwrap_or(0),
        start_ns,
        end_ns: trigger.window.map_or(0, |window| start_ns.saturating_add(nanoseconds(window))),
        correlation: trigger.burst.map_or(0, threshold),
        gilbert: trigger.gilbert.map_or(Gilbert::default(), |model| Gilbert {
            on: 1,
            _pad: 0,
            to_bad: threshold(model.to_bad),
            to_good: threshold(model.to_good),
            bad: threshold(model.bad),
            good: threshold(model.good),
        }),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Layer, parse};

    fn rule(layer: Layer, text: &str) -> Result<Rule, CompileError> {
        compile(3, &parse(layer, text).unwrap(), None)
    }

    #[test]
    fn a_net_spec_becomes_the_bytes_the_kernel_reads() {
        let rule = rule(
            Layer::Net,
            "delay 100ms jitter 20ms normal ordered 5% in tcp udp to 10.0.0.1:80-90 local-port 7000 every 3 first 30 times 2 after 1s for 2s",
        )
        .unwrap();
        assert_eq!(rule.id, 3);
        assert_eq!(rule.verb, Verb::Delay as u32);
        assert_eq!(rule.delay.mean_ns, 100_000_000);
        assert_eq!(rule.delay.jitter_ns, 20_000_000);
        assert_eq!(rule.delay.distribution, delay::Distribution::Normal as u32);
        assert_eq!(rule.delay.flags, delay::ORDERED);
        assert_eq!(rule.net.directions, Way::In as u32);
        assert_eq!(rule.net.protocols, protocol::TCP | protocol::UDP);
        assert_eq!(rule.net.remote_port, PortRange { low: 80, high: 90 });
        assert_eq!(rule.net.local_port, PortRange { low: 7000, high: 7000 });
        let trigger = Trigger {
            threshold: threshold_from_ppb(50_000_000),
            nth: 0,
            every: 3,
            first: 30,
            times: 2,
            start_ns: 1_000_000_000,
            end_ns: 3_000_000_000,
            ..Trigger::default()
        };
        assert_eq!(rule.trigger, trigger);
    }

    #[test]
    fn a_disk_spec_becomes_the_bytes_the_kernel_reads() {
        let fault = parse(Layer::Disk, "hang 3s then error read sectors 2048..4096 on /dev/vdb").unwrap();
        let rule = compile(0, &fault, Some(DeviceNumber { dev: 0xfe_00010, whole_disk: true })).unwrap();
        assert_eq!(rule.verb, Verb::DelayThenError as u32);
        assert_eq!(rule.delay.mean_ns, 3_000_000_000);
        assert_eq!(rule.block.ops, op::READ);
        assert_eq!((rule.block.sector_start, rule.block.sector_end), (2048, 4096));
        assert_eq!((rule.block.device, rule.block.whole_disk), (0xfe_00010, 1));
        assert_eq!(rule.trigger, Trigger::ALWAYS);
    }

    #[test]
    fn one_rule_has_one_range_of_ports() {
        assert_eq!(
            rule(Layer::Net, "drop to 10.0.0.1:80 to 10.0.0.2:443").unwrap_err(),
            CompileError::MixedPorts { id: 3 }
        );
        assert!(rule(Layer::Net, "drop to 10.0.0.1:80 to 10.0.0.2:80").is_ok());
    }
}
