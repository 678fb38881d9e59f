//! Typed fault → rule bytes.
//!
//! What a spec names (addresses, interfaces, devices) has been resolved by then; nothing here looks at the
//! machine.

use std::fmt::{self, Display, Formatter};
use std::num::NonZeroU32;
use std::time::Duration;

use fault_common::{
    decide::{
        connections::Connections,
        delay::{self, Delay},
        rate::{OPERATIONS, PER_CONNECTION, Rate},
        slot::{self, Slot},
        trigger::{CERTAIN, Gilbert, Markov, Model, Trigger, threshold_from_ppb},
    },
    rule::{
        Corruption, Layer as RuleLayer, Rule, Verb,
        block::{BlockFilter, manner, op},
        file::FileFilter,
        net::{Direction as Way, NetFilter, PortRange, call, protocol, segment},
    },
};

use crate::block::device::DeviceNumber;
use crate::spec::{
    self, ByteRate, Call, DelaySpec, DiskFault, DiskManner, DiskOp, DiskVerb, Distribution, Exception, Fault,
    FileFault, FileVerb, NetFault, NetVerb, Probability, ProcFault, ProcVerb, Protocol, Segment,
};

/// What could not be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The fault with this number.
    Fault(u32),
    /// An exception, by its place among them, from 0.
    Exception(u32),
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(id) => write!(f, "fault {id}"),
            Self::Exception(index) => write!(f, "exception {index}"),
        }
    }
}

/// A fault that cannot be said in rules.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// One rule has one range of remote ports.
    #[error("{subject}: all `to` must name the same port; write one for each port")]
    MixedPorts {
        /// Which one.
        subject: Subject,
    },
    /// `to A:80 port 90`.
    #[error("{subject}: `to …:PORT` and `port` exclude each other, nothing could match both")]
    DisjointPorts {
        /// Which one.
        subject: Subject,
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
        Fault::File(fault) => file(fault),
        Fault::Proc(fault) => proc(fault),
    };
    rule.id = id;
    rule.trigger = trigger(fault.trigger());
    Ok(rule)
}

/// Compiles an exception, number `index` among them, into the rule with number `id`.
///
/// # Errors
/// See [`CompileError`].
pub fn spare(id: u32, index: u32, exception: &Exception) -> Result<Rule, CompileError> {
    Ok(Rule {
        id,
        layer: RuleLayer::Net as u32,
        verb: Verb::Spare as u32,
        trigger: trigger(&exception.trigger),
        net: filter(Subject::Exception(index), &exception.filter)?,
        ..Rule::default()
    })
}

fn net(id: u32, fault: &NetFault) -> Result<Rule, CompileError> {
    let mut rule = Rule {
        layer: RuleLayer::Net as u32,
        net: filter(Subject::Fault(id), &fault.filter)?,
        connections: fault.part.connections.map_or_else(Connections::default, connections),
        ..Rule::default()
    };
    if let Some(size) = fault.part.after {
        rule.net.after_bytes = size.bytes();
        rule.net.protocols = protocol::TCP;
    }
    let verb = match &fault.verb {
        NetVerb::Drop { ecn: false } => Verb::Drop,
        NetVerb::Drop { ecn: true } => Verb::Mark,
        NetVerb::Duplicate => Verb::Duplicate,
        NetVerb::Fail { error, calls } => {
            rule.errno = error.number().unsigned_abs();
            rule.net.calls = calls.iter().fold(0, |mask, call| {
                mask | match call {
                    Call::Connect => call::CONNECT,
                    Call::Bind => call::BIND,
                    Call::Sendmsg => call::SENDMSG,
                }
            });
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
        NetVerb::Rate { rate, per_connection, framing } => {
            rule.rate = Rate {
                bytes_per_second: rate.bytes_per_second(),
                flags: if *per_connection { PER_CONNECTION } else { 0 },
                overhead: framing.overhead,
                cell: framing.cell.map_or(0, |cell| cell.size.get()),
                cell_overhead: framing.cell.map_or(0, |cell| cell.overhead),
            };
            Verb::Rate
        }
        NetVerb::Slot { gap, packets, bytes } => {
            rule.delay = delay(gap);
            rule.slot = Slot {
                packets: packets.map_or(0, NonZeroU32::get),
                bytes: bytes.map_or(0, |size| u32::try_from(size.bytes()).unwrap_or(u32::MAX)),
            };
            Verb::Slot
        }
        NetVerb::Corrupt { bits, fix_checksum } => {
            rule.corruption = Corruption { bits: *bits, fix_checksum: (*fix_checksum).into() };
            if *fix_checksum && rule.net.segments == 0 {
                rule.net.segments = segment::DATA;
            }
            Verb::Corrupt
        }
        NetVerb::Reset => {
            rule.net.protocols = protocol::TCP;
            if rule.net.segments == 0 {
                rule.net.segments = segment::DATA | segment::ACK | segment::FIN;
            }
            // Of a connection, whichever: what still belongs to a listener is none.
            if rule.connections.are_all() {
                rule.connections = Connections { by_chance: 1, share: CERTAIN, number: 0 };
            }
            Verb::Reset
        }
        NetVerb::Hang => {
            rule.net.protocols = protocol::TCP;
            rule.net.segments = segment::DATA;
            Verb::Drop
        }
    };
    rule.verb = verb as u32;
    Ok(rule)
}

/// How long a packet may wait for a link this fast, in nanoseconds.
pub fn queue_ns(rate: ByteRate) -> u64 {
    Rate { bytes_per_second: rate.bytes_per_second(), ..Rate::default() }.queue_ns()
}

/// How long a packet may wait for its slot, in nanoseconds.
pub fn slot_queue_ns(gap: &DelaySpec) -> u64 {
    slot::queue_ns(nanoseconds(gap.mean))
}

fn connections(some: spec::Connections) -> Connections {
    match some {
        spec::Connections::Share(chance) => {
            Connections { by_chance: 1, share: threshold(chance), ..Connections::default() }
        }
        spec::Connections::Number(number) => Connections { number: number.get(), ..Connections::default() },
    }
}

/// What a filter says, without what a verb adds to it.
fn filter(subject: Subject, filter: &spec::NetFilter) -> Result<NetFilter, CompileError> {
    let mut directions = 0;
    if filter.direction.includes_out() {
        directions |= Way::Out as u32;
    }
    if filter.direction.includes_in() {
        directions |= Way::In as u32;
    }
    let mut protocols = filter.protocols.iter().fold(0, |mask, protocol| {
        mask | match protocol {
            Protocol::Tcp => protocol::TCP,
            Protocol::Udp => protocol::UDP,
            Protocol::Icmp => protocol::ICMP,
        }
    });
    // Only TCP has the others.
    if protocols == 0 && !filter.segments.is_empty() && !filter.segments.contains(&Segment::Data) {
        protocols = protocol::TCP;
    }
    let segments = filter.segments.iter().fold(0, |mask, segment| {
        mask | match segment {
            Segment::Syn => segment::SYN,
            Segment::Data => segment::DATA,
            Segment::Ack => segment::ACK,
            Segment::Fin => segment::FIN,
        }
    });
    Ok(NetFilter {
        directions,
        protocols,
        remote_port: remote_ports(subject, filter)?,
        local_port: ports(filter.local_port),
        segments,
        ..NetFilter::default()
    })
}

/// The ports of `to ADDR:PORT` and those of `port`, intersected.
fn remote_ports(subject: Subject, filter: &spec::NetFilter) -> Result<PortRange, CompileError> {
    let mut named = filter.to.iter().map(|endpoint| endpoint.value.ports);
    let first = named.next().flatten();
    if named.any(|ports| ports != first) {
        return Err(CompileError::MixedPorts { subject });
    }
    let (Some(a), Some(b)) = (first, filter.port) else {
        return Ok(ports(first.or(filter.port)));
    };
    let range = PortRange { low: a.first().max(b.first()), high: a.last().min(b.last()) };
    if range.low > range.high { Err(CompileError::DisjointPorts { subject }) } else { Ok(range) }
}

fn ports(range: Option<spec::PortRange>) -> PortRange {
    range.map_or(PortRange::default(), |range| PortRange { low: range.first(), high: range.last() })
}

fn disk(fault: &DiskFault, device: Option<DeviceNumber>) -> Rule {
    let filter = &fault.filter;
    let mut ops = filter.ops.iter().fold(0, |mask, operation| {
        mask | match operation {
            DiskOp::Read => op::READ,
            DiskOp::Write => op::WRITE,
            DiskOp::Flush => op::FLUSH,
            DiskOp::Discard => op::DISCARD,
        }
    });
    if filter.until_written {
        ops = op::READ;
    }
    let manners = filter.manners.iter().fold(0, |mask, manner| {
        mask | match manner {
            DiskManner::Fua => manner::FUA,
            DiskManner::Meta => manner::META,
            DiskManner::Sync => manner::SYNC,
        }
    });
    let mut rule = Rule { layer: RuleLayer::Disk as u32, ..Rule::default() };
    let verb = match &fault.verb {
        DiskVerb::Error => Verb::Error,
        DiskVerb::Delay(spec) => {
            rule.delay = delay(spec);
            Verb::Delay
        }
        DiskVerb::Rate(rate) => {
            rule.rate = Rate { bytes_per_second: rate.bytes_per_second(), ..Rate::default() };
            if ops == 0 {
                ops = op::READ | op::WRITE;
            }
            Verb::Rate
        }
        DiskVerb::Iops(number) => {
            rule.rate = Rate { bytes_per_second: *number, flags: OPERATIONS, ..Rate::default() };
            Verb::Rate
        }
        DiskVerb::Hang { hold, then_error } => {
            rule.delay = Delay { mean_ns: nanoseconds(hold.longest()), ..Delay::default() };
            if *then_error { Verb::DelayThenError } else { Verb::Delay }
        }
    };
    let (sector_start, sector_end) =
        filter.sectors.as_deref().map_or((0, 0), |sectors| (sectors.start(), sectors.end()));
    Rule {
        verb: verb as u32,
        block: BlockFilter {
            ops,
            device: device.map_or(0, |device| device.dev),
            whole_disk: device.is_some_and(|device| device.whole_disk).into(),
            manners,
            sector_start,
            sector_end,
            until_written: filter.until_written.into(),
            _pad: 0,
        },
        ..rule
    }
}

fn file(fault: &FileFault) -> Rule {
    let rule = match &fault.verb {
        FileVerb::Error(errno) => {
            Rule { verb: Verb::Fail as u32, errno: errno.number().unsigned_abs(), ..Rule::default() }
        }
        FileVerb::Delay(spec) => Rule { verb: Verb::Delay as u32, delay: delay(spec), ..Rule::default() },
    };
    Rule {
        layer: RuleLayer::File as u32,
        file: FileFilter {
            ops: fault.filter.ops.iter().fold(0, |mask, op| mask | op.bit()),
            globbed: fault.filter.glob.is_some().into(),
        },
        ..rule
    }
}

/// For the report, and for how much there may be of everything: the kernel looks at no such rule.
fn proc(fault: &ProcFault) -> Rule {
    let ProcVerb::Pause(duration) = fault.verb;
    Rule {
        layer: RuleLayer::Proc as u32,
        verb: Verb::Delay as u32,
        delay: Delay { mean_ns: nanoseconds(duration), ..Delay::default() },
        ..Rule::default()
    }
}

fn delay(spec: &DelaySpec) -> Delay {
    let distribution = match spec.distribution {
        Distribution::Uniform if spec.table.is_some() => delay::Distribution::Table,
        Distribution::Uniform => delay::Distribution::Uniform,
        Distribution::Normal => delay::Distribution::Normal,
        Distribution::Pareto => delay::Distribution::Pareto,
        Distribution::ParetoNormal => delay::Distribution::ParetoNormal,
    };
    let (old, new) = spec.correlation.map_or((0, 0), shares);
    Delay {
        old,
        new,
        mean_ns: nanoseconds(spec.mean),
        jitter_ns: spec.jitter.map_or(0, nanoseconds),
        distribution: distribution as u32,
        flags: if spec.ordered { delay::ORDERED } else { 0 },
    }
}

/// [`Delay::old`] and [`Delay::new`] for a rank correlation.
fn shares(correlation: Probability) -> (u32, u32) {
    const ONE: f64 = (1 << delay::SHARE_BITS) as f64;
    let rank = f64::from(correlation.parts_per_billion()) / f64::from(Probability::BILLION);
    // Of two normal numbers with this correlation the ranks have that one (Pearson, 1907).
    let rho = 2.0 * (std::f64::consts::PI * rank / 6.0).sin();
    let share = |of: f64| (of * ONE).round() as u32;
    (share(rho), share((1.0 - rho * rho).max(0.0).sqrt()))
}

fn trigger(trigger: &spec::Trigger) -> Trigger {
    let start_ns = trigger.after.map_or(0, nanoseconds);
    let cycle = trigger.cycle.map(|cycle| (nanoseconds(cycle.on), nanoseconds(cycle.off)));
    Trigger {
        threshold: trigger.probability.map_or(CERTAIN, threshold),
        nth: trigger.nth.unwrap_or(0),
        every: trigger.every.unwrap_or(0),
        first: trigger.first.unwrap_or(0),
        times: trigger.times.unwrap_or(0),
        start_ns,
        end_ns: trigger.window.map_or(0, |window| start_ns.saturating_add(nanoseconds(window))),
        cycle_ns: cycle.map_or(0, |(on, off)| on.saturating_add(off)),
        cycle_on_ns: cycle.map_or(0, |(on, _)| on),
        correlation: trigger.burst.map_or(0, threshold),
        gap: trigger.gap.unwrap_or(0),
        model: match (trigger.gilbert, trigger.markov) {
            (Some(_), _) => Model::Gilbert as u32,
            (None, Some(_)) => Model::Markov as u32,
            (None, None) => 0,
        },
        gilbert: trigger.gilbert.map_or(Gilbert::default(), |model| Gilbert {
            to_bad: threshold(model.to_bad),
            to_good: threshold(model.to_good),
            bad: threshold(model.bad),
            good: threshold(model.good),
        }),
        markov: trigger.markov.map_or(Markov::default(), |model| {
            let spec::Markov { to_burst, to_gap, to_pause, to_hit, alone } = model;
            Markov::new([to_burst, to_gap, to_pause, to_hit, alone].map(threshold))
        }),
    }
}

fn threshold(chance: Probability) -> u64 {
    threshold_from_ppb(chance.parts_per_billion().into())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
