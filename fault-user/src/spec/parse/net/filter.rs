//! The filters of packets.

use std::collections::BTreeSet;

use super::{Keyword, Parser, peer};
use crate::spec::error::SpecError;
use crate::spec::net::{Direction, Endpoint, NetFilter, PortRange, Protocol, Segment};
use crate::spec::parse::once::Once;
use crate::spec::problem::Problem;
use crate::spec::quantity::Quantity;
use crate::spec::source::Located;
use crate::spec::units::{self, Flaw};
use crate::spec::words::NetFilterWord;

/// A filter under construction.
#[derive(Debug, Default)]
pub(super) struct Draft {
    inwards: Once<()>,
    outwards: Once<()>,
    tcp: Once<()>,
    udp: Once<()>,
    icmp: Once<()>,
    to: Vec<Located<Endpoint>>,
    port: Once<PortRange>,
    local_port: Once<PortRange>,
    iface: Once<Located<String>>,
    syn: Once<()>,
    data: Once<()>,
    ack: Once<()>,
    fin: Once<()>,
    /// The first `to`, the first `from`, and the first of either with a port, for contradictions.
    to_word: Option<Keyword>,
    from_word: Option<Keyword>,
    to_port: Option<Keyword>,
}

impl Draft {
    pub(super) fn clause(
        &mut self,
        parser: &mut Parser,
        word: NetFilterWord,
        keyword: Keyword,
    ) -> Result<(), SpecError> {
        match word {
            NetFilterWord::In => self.inwards.set(parser, keyword, ()),
            NetFilterWord::Out => self.outwards.set(parser, keyword, ()),
            NetFilterWord::Protocol(protocol) => self.protocol(protocol).set(parser, keyword, ()),
            NetFilterWord::To => {
                self.to_word = self.to_word.or(Some(keyword));
                self.peer_at(parser, keyword)
            }
            NetFilterWord::From => {
                self.from_word = self.from_word.or(Some(keyword));
                self.peer_at(parser, keyword)
            }
            NetFilterWord::Port => {
                let (ports, _) = parser.quantity(keyword, Quantity::Ports, units::ports)?;
                self.port.set(parser, keyword, ports)
            }
            NetFilterWord::LocalPort => {
                let (ports, _) = parser.quantity(keyword, Quantity::Ports, units::ports)?;
                self.local_port.set(parser, keyword, ports)
            }
            NetFilterWord::Iface => {
                let (name, span) = parser.quantity(keyword, Quantity::Interface, interface)?;
                self.iface.set(parser, keyword, Located::new(name, span))
            }
            NetFilterWord::Segment(segment) => match segment {
                Segment::Syn => &mut self.syn,
                Segment::Data => &mut self.data,
                Segment::Ack => &mut self.ack,
                Segment::Fin => &mut self.fin,
            }
            .set(parser, keyword, ()),
        }
    }

    /// The operand of `to` and `from`.
    fn peer_at(&mut self, parser: &mut Parser, keyword: Keyword) -> Result<(), SpecError> {
        let (endpoint, span) = parser.quantity(keyword, Quantity::Address, peer::endpoint)?;
        if endpoint.ports.is_some() {
            self.to_port = Some(keyword);
        }
        if let Some(same) = self.to.iter().find(|other| other.value == endpoint) {
            let word = format!("{} {endpoint}", keyword.word);
            return Err(parser
                .error(span, Problem::Twice { word })
                .with_related(same.span, "first given here"));
        }
        self.to.push(Located::new(endpoint, span));
        Ok(())
    }

    fn protocol(&mut self, protocol: Protocol) -> &mut Once<()> {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Icmp => &mut self.icmp,
        }
    }

    /// `in`, or what says so, too.
    pub(super) fn inwards(&self) -> Option<Keyword> {
        self.inwards.keyword().or(self.from_word)
    }

    /// `iface`.
    pub(super) fn iface(&self) -> Option<Keyword> {
        self.iface.keyword()
    }

    /// What names the remote end or its port.
    pub(super) fn peer(&self) -> Option<Keyword> {
        self.to_word.or(self.from_word).or(self.port.keyword())
    }

    /// A protocol that is not TCP.
    pub(super) fn other_than_tcp(&self) -> Option<Keyword> {
        self.udp.keyword().or(self.icmp.keyword())
    }

    /// A protocol that is not TCP, where TCP is not given.
    pub(super) fn instead_of_tcp(&self) -> Option<Keyword> {
        self.other_than_tcp().filter(|_| self.tcp.keyword().is_none())
    }

    /// A protocol that is not UDP, where UDP is not given.
    pub(super) fn instead_of_udp(&self) -> Option<Keyword> {
        self.tcp.keyword().or(self.icmp.keyword()).filter(|_| self.udp.keyword().is_none())
    }

    /// `icmp`, where no protocol with payload is given.
    pub(super) fn without_payload(&self) -> Option<Keyword> {
        let others = self.tcp.keyword().or(self.udp.keyword());
        self.icmp.keyword().filter(|_| others.is_none())
    }

    /// A word for a kind of segment.
    pub(super) fn segment(&self) -> Option<Keyword> {
        self.data.keyword().or(self.control())
    }

    /// `syn`, `ack` or `fin`, where `data` is not given.
    pub(super) fn segment_without_data(&self) -> Option<Keyword> {
        self.control().filter(|_| self.data.keyword().is_none())
    }

    /// `syn`, and no other kind of segment.
    pub(super) fn syn_alone(&self) -> Option<Keyword> {
        let others = self.data.keyword().or(self.ack.keyword()).or(self.fin.keyword());
        self.syn.keyword().filter(|_| others.is_none())
    }

    /// A segment that only TCP has.
    fn control(&self) -> Option<Keyword> {
        self.syn.keyword().or(self.ack.keyword()).or(self.fin.keyword())
    }

    /// The first two clauses that contradict each other.
    fn check(&self, parser: &Parser) -> Result<(), SpecError> {
        let ports = self.port.keyword().or(self.local_port.keyword()).or(self.to_port);
        let contradictions = [
            (self.from_word, self.to_word, "write one fault for each way"),
            (self.from_word, self.outwards.keyword(), "what comes from a peer comes in"),
            (self.icmp.keyword(), ports, "ICMP has no ports"),
            (self.port.keyword(), self.to_port, "the remote port is given both ways"),
            (self.control(), self.instead_of_tcp(), "only TCP has such segments"),
            (self.data.keyword(), self.without_payload(), "only TCP and UDP carry data"),
        ];
        for (one, other, because) in contradictions {
            if let (Some(one), Some(other)) = (one, other) {
                return Err(parser.contradiction(one, other, because));
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self, parser: &Parser) -> Result<NetFilter, SpecError> {
        self.check(parser)?;
        let direction = match (self.inwards(), self.outwards.keyword()) {
            (Some(_), None) => Direction::In,
            (None, Some(_)) => Direction::Out,
            (Some(_), Some(_)) | (None, None) => Direction::Both,
        };
        let protocols: BTreeSet<_> = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp]
            .into_iter()
            .filter(|protocol| self.protocol(*protocol).keyword().is_some())
            .collect();
        let segments = [
            (Segment::Syn, &self.syn),
            (Segment::Data, &self.data),
            (Segment::Ack, &self.ack),
            (Segment::Fin, &self.fin),
        ];
        let segments = segments.into_iter().filter(|(_, given)| given.keyword().is_some());
        let segments = segments.map(|(segment, _)| segment).collect();
        Ok(NetFilter {
            direction,
            segments,
            protocols,
            to: self.to,
            port: self.port.value(),
            local_port: self.local_port.value(),
            iface: self.iface.value(),
        })
    }
}

/// A name the kernel would accept (`dev_valid_name` in net/core/dev.c).
fn interface(word: &str) -> Result<String, Flaw> {
    let forbidden = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    let reserved = matches!(word, "" | "." | "..");
    if reserved || word.len() > 15 || word.contains(forbidden) {
        return Err(Flaw::Shape);
    }
    Ok(word.to_owned())
}
