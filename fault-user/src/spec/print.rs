//! A fault's canonical text: verb, operands, probability, filter, trigger, in this order.

use std::fmt::{self, Display, Formatter};

use super::delay::{DelaySpec, Distribution};
use super::disk::{DiskFault, DiskFilter, DiskManner, DiskOp, DiskVerb, Hold, SectorRange};
use super::file::{FileFault, FileFilter, FileOp, FileVerb};
use super::glob::FileGlob;
use super::lexer::{needs_quotes, quote};
use super::net::{
    ByteRate, Call, CallError, Cell, Cidr, Connections, Direction, Endpoint, Exception, Framing, NetFault,
    NetFilter, NetVerb, Part, Peer, PortRange, Protocol, REORDER_BY, Segment,
};
use super::proc::{ProcFault, ProcVerb};
use super::size::{self, ByteSize};
use super::source::Located;
use super::trigger::{Cycle, Gilbert, Markov, Probability, Trigger};
use super::units::{print_duration, print_probability};
use super::{Fault, Layer, rate, words};

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(fault) => fault.fmt(f),
            Self::Disk(fault) => fault.fmt(f),
            Self::File(fault) => fault.fmt(f),
            Self::Proc(fault) => fault.fmt(f),
        }
    }
}

impl Display for NetFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.verb.fmt(f)?;
        chance(&self.trigger, f)?;
        self.filter.fmt(f)?;
        self.part.fmt(f)?;
        clauses(&self.trigger, f)
    }
}

impl Display for DiskFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.verb.fmt(f)?;
        chance(&self.trigger, f)?;
        self.filter.fmt(f)?;
        clauses(&self.trigger, f)
    }
}

impl Display for FileFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.verb.fmt(f)?;
        chance(&self.trigger, f)?;
        self.filter.fmt(f)?;
        clauses(&self.trigger, f)
    }
}

impl Display for ProcFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ProcVerb::Pause(duration) = self.verb;
        write!(f, "pause {}", print_duration(duration))?;
        clauses(&self.trigger, f)
    }
}

impl Display for FileVerb {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(errno) => write!(f, "error {}", errno.name()),
            Self::Delay(delay) => write!(f, "delay {delay}"),
        }
    }
}

/// Every clause with a space before it, so that it can follow a verb.
impl Display for FileFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| write!(f, " {op}"))?;
        file(Layer::File, self.glob.as_ref(), f)
    }
}

/// ` file GLOB`.
fn file(layer: Layer, glob: Option<&Located<FileGlob>>, f: &mut Formatter<'_>) -> fmt::Result {
    let Some(glob) = glob else { return Ok(()) };
    f.write_str(" file ")?;
    operand(layer, glob.text(), f)
}

impl Display for FileOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Display for NetVerb {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop { ecn } => f.write_str(if *ecn { "drop ecn" } else { "drop" }),
            Self::Delay(delay) => write!(f, "delay {delay}"),
            Self::Rate { rate, per_connection, framing } => {
                write!(f, "rate {rate}")?;
                f.write_str(if *per_connection { " per-connection" } else { "" })?;
                framing.fmt(f)
            }
            Self::Slot { gap, packets, bytes } => {
                write!(f, "slot {gap}")?;
                packets.iter().try_for_each(|packets| write!(f, " packets {packets}"))?;
                bytes.iter().try_for_each(|bytes| write!(f, " bytes {bytes}"))
            }
            Self::Duplicate => f.write_str("duplicate"),
            Self::Corrupt { bits, fix_checksum } => {
                f.write_str("corrupt")?;
                if *bits != 1 {
                    write!(f, " {bits} bits")?;
                }
                f.write_str(if *fix_checksum { " fix-checksum" } else { "" })
            }
            Self::Reset => f.write_str("reset"),
            Self::Hang => f.write_str("hang"),
            Self::Fail { error, calls } => {
                error.fmt(f)?;
                if *calls != Call::usual() {
                    calls.iter().try_for_each(|call| write!(f, " {call}"))?;
                }
                Ok(())
            }
            Self::Reorder { by: REORDER_BY } => f.write_str("reorder"),
            Self::Reorder { by } => write!(f, "reorder by {}", print_duration(*by)),
        }
    }
}

/// Every clause with a space before it.
impl Display for Framing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.overhead != 0 {
            write!(f, " overhead {}", size::print_signed(self.overhead))?;
        }
        let Some(Cell { size, overhead }) = self.cell else { return Ok(()) };
        write!(f, " cell {size}B")?;
        if overhead != 0 { write!(f, " cell-overhead {}", size::print_signed(overhead)) } else { Ok(()) }
    }
}

/// The verb for it.
impl Display for CallError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refuse"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Errno(errno) => write!(f, "fail {}", errno.name()),
        }
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Display for ByteSize {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&size::print(*self))
    }
}

impl Display for ByteRate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&rate::print(*self))
    }
}

impl Display for DiskVerb {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => f.write_str("error"),
            Self::Delay(delay) => write!(f, "delay {delay}"),
            Self::Rate(rate) => write!(f, "rate {rate}"),
            Self::Iops(number) => write!(f, "iops {number}"),
            Self::Hang { hold, then_error } => {
                match hold {
                    Hold::For(duration) => write!(f, "hang {}", print_duration(*duration))?,
                    Hold::Forever => f.write_str("hang forever")?,
                }
                f.write_str(if *then_error { " then error" } else { "" })
            }
        }
    }
}

impl Display for DelaySpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&print_duration(self.mean))?;
        if let Some(jitter) = self.jitter {
            write!(f, " jitter {}", print_duration(jitter))?;
        }
        if self.distribution != Distribution::Uniform {
            write!(f, " {}", self.distribution.word())?;
        }
        if let Some(path) = &self.table {
            f.write_str(" table ")?;
            // No keyword begins like an absolute path, in any layer.
            operand(Layer::Net, &path.to_string_lossy(), f)?;
        }
        if let Some(correlation) = self.correlation {
            write!(f, " correlation {correlation}")?;
        }
        f.write_str(if self.ordered { " ordered" } else { "" })
    }
}

/// Every clause with a space before it, so that it can follow a verb.
impl Display for NetFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.direction {
            Direction::In => " in",
            Direction::Out => " out",
            Direction::Both => "",
        })?;
        for protocol in &self.protocols {
            write!(f, " {protocol}")?;
        }
        for endpoint in &self.to {
            write!(f, " to {}", endpoint.value)?;
        }
        if let Some(ports) = self.port {
            write!(f, " port {ports}")?;
        }
        if let Some(ports) = self.local_port {
            write!(f, " local-port {ports}")?;
        }
        if let Some(name) = &self.iface {
            f.write_str(" iface ")?;
            operand(Layer::Net, name, f)?;
        }
        self.segments.iter().try_for_each(|segment| write!(f, " {segment}"))
    }
}

/// Every clause with a space before it.
impl Display for Part {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.connections {
            Some(Connections::Share(share)) => write!(f, " connections {share}")?,
            Some(Connections::Number(number)) => write!(f, " connection {number}")?,
            None => {}
        }
        match self.after {
            Some(size) => write!(f, " after {size}"),
            None => Ok(()),
        }
    }
}

impl Display for Exception {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = TriggeredFilter(&self.trigger, &self.filter).to_string();
        match text.trim_start() {
            // Everything; an exception has at least one word.
            "" => f.write_str("in out"),
            text => f.write_str(text),
        }
    }
}

/// A fault without its verb.
struct TriggeredFilter<'a>(&'a Trigger, &'a NetFilter);

impl Display for TriggeredFilter<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        chance(self.0, f)?;
        self.1.fmt(f)?;
        clauses(self.0, f)
    }
}

/// Every clause with a space before it, so that it can follow a verb.
impl Display for DiskFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for op in &self.ops {
            write!(f, " {op}")?;
        }
        for manner in &self.manners {
            write!(f, " {manner}")?;
        }
        if let Some(path) = &self.on {
            f.write_str(" on ")?;
            operand(Layer::Disk, &path.to_string_lossy(), f)?;
        }
        if let Some(sectors) = &self.sectors {
            write!(f, " sectors {}", sectors.value)?;
        }
        f.write_str(if self.until_written { " until-written" } else { "" })?;
        file(Layer::Disk, self.glob.as_ref(), f)
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(ports) = self.ports else {
            return match &self.peer {
                Peer::Name(name) => operand(Layer::Net, name, f),
                peer => peer.fmt(f),
            };
        };
        match &self.peer {
            Peer::Ip(address) if address.is_ipv6() => write!(f, "[{address}]:{ports}"),
            Peer::Cidr(network) if network.network().is_ipv6() => write!(f, "[{network}]:{ports}"),
            peer => write!(f, "{peer}:{ports}"),
        }
    }
}

impl Display for Peer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Cidr(network) => network.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Display for Cidr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix())
    }
}

impl Display for PortRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.first() == self.last() {
            return write!(f, "{}", self.first());
        }
        write!(f, "{}-{}", self.first(), self.last())
    }
}

impl Display for SectorRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start(), self.end())
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Display for Segment {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Display for DiskOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Display for DiskManner {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Display for Probability {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&print_probability(*self))
    }
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The trigger's probability, with a space before it.
fn chance(trigger: &Trigger, f: &mut Formatter<'_>) -> fmt::Result {
    match trigger.probability {
        Some(probability) => write!(f, " {probability}"),
        None => Ok(()),
    }
}

/// The trigger's clauses, each with a space before it.
fn clauses(trigger: &Trigger, f: &mut Formatter<'_>) -> fmt::Result {
    let Trigger {
        probability: _,
        burst,
        gilbert,
        markov,
        gap,
        nth,
        every,
        first,
        times,
        after,
        window,
        cycle,
    } = trigger;
    if let Some(correlation) = burst {
        write!(f, " burst {correlation}")?;
    }
    if let Some(Gilbert { to_bad, to_good, bad, good }) = gilbert {
        write!(f, " gilbert {to_bad} {to_good}")?;
        if *good != Probability::NEVER {
            write!(f, " {bad} {good}")?;
        } else if *bad != Probability::ALWAYS {
            write!(f, " {bad}")?;
        }
    }
    if let Some(model) = markov {
        states(model, f)?;
    }
    if let Some(gap) = gap {
        write!(f, " gap {gap}")?;
    }
    let counts = [("nth", nth), ("every", every), ("first", first), ("times", times)];
    for (word, count) in counts {
        if let Some(count) = count {
            write!(f, " {word} {count}")?;
        }
    }
    for (word, duration) in [("after", after), ("for", window)] {
        if let Some(duration) = duration {
            write!(f, " {word} {}", print_duration(*duration))?;
        }
    }
    if let Some(Cycle { on, off }) = cycle {
        write!(f, " cycle {}/{}", print_duration(*on), print_duration(*off))?;
    }
    Ok(())
}

/// The model of four states, without what goes without saying.
fn states(model: &Markov, f: &mut Formatter<'_>) -> fmt::Result {
    let Markov { to_burst, to_gap, to_pause, to_hit, alone } = *model;
    let usual = Markov::new(to_burst);
    let rest =
        [(to_gap, usual.to_gap), (to_pause, usual.to_pause), (to_hit, usual.to_hit), (alone, usual.alone)];
    let written = rest.iter().rposition(|(chance, usual)| chance != usual).map_or(0, |last| last + 1);
    write!(f, " markov {to_burst}")?;
    rest[..written].iter().try_for_each(|(chance, _)| write!(f, " {chance}"))
}

/// A word that could be taken for a keyword, or for several words, goes in quotes.
fn operand(layer: Layer, word: &str, f: &mut Formatter<'_>) -> fmt::Result {
    if needs_quotes(word) || words::find(layer, word).is_some() {
        f.write_str(&quote(word))
    } else {
        f.write_str(word)
    }
}
