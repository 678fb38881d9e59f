//! The filters of packets.

use std::collections::BTreeSet;

use super::{Keyword, Parser, peer};
use crate::spec::error::SpecError;
use crate::spec::net::{Direction, Endpoint, NetFilter, PortRange, Protocol};
use crate::spec::parse::once::Once;
use crate::spec::problem::{Problem, Quantity};
use crate::spec::source::Located;
use crate::spec::units::{self, Flaw};
use crate::spec::words::NetFilterWord;

/// A filter under construction.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) inwards: Once<()>,
    outwards: Once<()>,
    tcp: Once<()>,
    udp: Once<()>,
    icmp: Once<()>,
    to: Vec<Located<Endpoint>>,
    port: Once<PortRange>,
    local_port: Once<PortRange>,
    pub(super) iface: Once<Located<String>>,
    /// A `to` that has a port, for contradictions.
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
                let (endpoint, span) = parser.quantity(keyword, Quantity::Address, peer::endpoint)?;
                if endpoint.ports.is_some() {
                    self.to_port = Some(keyword);
                }
                if let Some(same) = self.to.iter().find(|other| other.value == endpoint) {
                    let word = format!("to {endpoint}");
                    return Err(parser
                        .error(span, Problem::Twice { word })
                        .with_related(same.span, "first given here"));
                }
                self.to.push(Located::new(endpoint, span));
                Ok(())
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
        }
    }

    fn protocol(&mut self, protocol: Protocol) -> &mut Once<()> {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Icmp => &mut self.icmp,
        }
    }

    pub(super) fn finish(mut self, parser: &Parser) -> Result<NetFilter, SpecError> {
        let ports = self.port.keyword().or(self.local_port.keyword()).or(self.to_port);
        if let (Some(icmp), Some(ports)) = (self.icmp.keyword(), ports) {
            return Err(parser.contradiction(icmp, ports, "ICMP has no ports"));
        }
        if let (Some(port), Some(to)) = (self.port.keyword(), self.to_port) {
            return Err(parser.contradiction(port, to, "the remote port is given both ways"));
        }
        let direction = match (self.inwards.keyword(), self.outwards.keyword()) {
            (Some(_), None) => Direction::In,
            (None, Some(_)) => Direction::Out,
            (Some(_), Some(_)) | (None, None) => Direction::Both,
        };
        let protocols: BTreeSet<_> = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp]
            .into_iter()
            .filter(|protocol| self.protocol(*protocol).keyword().is_some())
            .collect();
        Ok(NetFilter {
            direction,
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
