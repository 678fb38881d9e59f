//! Packets.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::delay::NET_DELAY_MAX;
use super::super::error::SpecError;
use super::super::net::{
    ByteRate, CallError, Direction, Endpoint, Errno, NetFault, NetFilter, NetVerb, PortRange, Protocol,
    REORDER_BY,
};
use super::super::problem::{Problem, Quantity};
use super::super::rate;
use super::super::source::Located;
use super::super::units::{self, Flaw};
use super::super::words::{NET, NetClause, NetFilterWord, NetVerbWord};
use super::once::Once;
use super::{Clause, Keyword, Parser, delay, peer, trigger};

/// A net fault.
pub(in super::super) fn fault(text: &str) -> Result<NetFault, SpecError> {
    let mut parser = Parser::new(NET.layer, text)?;
    let (word, verb) = parser.verb(&NET)?;
    let mut action = Action::new(&mut parser, word, verb)?;
    let mut filter = Draft::default();
    let mut trigger = trigger::Draft::default();
    while let Some((clause, keyword)) = parser.clause(&NET, verb)? {
        match clause {
            Clause::Probability => trigger.probability(&mut parser, keyword)?,
            Clause::Trigger(word) => trigger.clause(&mut parser, word, keyword)?,
            Clause::Delay(word) => {
                action.delay(&parser, keyword, verb)?.clause(&mut parser, word, keyword)?
            }
            Clause::Own(NetClause::Ordered) => {
                action.delay(&parser, keyword, verb)?.ordered(&parser, keyword)?
            }
            Clause::Own(NetClause::PerConnection) => action.per_connection(&parser, keyword, verb)?,
            Clause::Own(NetClause::By) => action.by(&mut parser, keyword, verb)?,
            Clause::Own(NetClause::Filter(word)) => filter.clause(&mut parser, word, keyword)?,
        }
    }
    action.agree(&parser, verb, &filter, &trigger)?;
    Ok(NetFault {
        verb: action.finish(&parser)?,
        filter: filter.finish(&parser)?,
        trigger: trigger.finish(&parser)?,
        source: parser.source,
    })
}

/// A verb under construction.
#[derive(Debug)]
enum Action {
    Drop,
    Delay(delay::Draft),
    Rate { rate: ByteRate, per_connection: Once<()> },
    Duplicate,
    Reorder { by: Once<Duration> },
    Fail(CallError),
}

impl Action {
    fn new(parser: &mut Parser, word: NetVerbWord, verb: Keyword) -> Result<Self, SpecError> {
        Ok(match word {
            NetVerbWord::Drop => Self::Drop,
            NetVerbWord::Delay => Self::Delay(delay::Draft::new(parser, verb, NET_DELAY_MAX)?),
            NetVerbWord::Rate => Self::Rate {
                rate: parser.quantity(verb, Quantity::Rate, rate::read)?.0,
                per_connection: Once::default(),
            },
            NetVerbWord::Duplicate => Self::Duplicate,
            NetVerbWord::Reorder => Self::Reorder { by: Once::default() },
            NetVerbWord::Refuse => Self::Fail(CallError::Refused),
            NetVerbWord::Unreachable => Self::Fail(CallError::Unreachable),
            NetVerbWord::Fail => {
                let read = |word: &str| Errno::named(word).ok_or(Flaw::Shape);
                Self::Fail(CallError::Errno(parser.quantity(verb, Quantity::Errno, read)?.0))
            }
        })
    }

    fn delay(
        &mut self,
        parser: &Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<&mut delay::Draft, SpecError> {
        match self {
            Self::Delay(draft) => Ok(draft),
            Self::Drop | Self::Rate { .. } | Self::Duplicate | Self::Reorder { .. } | Self::Fail(_) => {
                Err(parser.wrong_verb(clause, verb, "delay"))
            }
        }
    }

    /// `per-connection`.
    fn per_connection(&mut self, parser: &Parser, clause: Keyword, verb: Keyword) -> Result<(), SpecError> {
        match self {
            Self::Rate { per_connection, .. } => per_connection.set(parser, clause, ()),
            Self::Drop | Self::Delay(_) | Self::Duplicate | Self::Reorder { .. } | Self::Fail(_) => {
                Err(parser.wrong_verb(clause, verb, "rate"))
            }
        }
    }

    /// `by D`, from after `by`.
    fn by(&mut self, parser: &mut Parser, clause: Keyword, verb: Keyword) -> Result<(), SpecError> {
        match self {
            Self::Reorder { by } => {
                let duration = parser.duration(clause, false, NET_DELAY_MAX)?.0;
                by.set(parser, clause, duration)
            }
            Self::Drop | Self::Delay(_) | Self::Rate { .. } | Self::Duplicate | Self::Fail(_) => {
                Err(parser.wrong_verb(clause, verb, "reorder"))
            }
        }
    }

    /// Whether verb, filter and trigger go together.
    fn agree(
        &self,
        parser: &Parser,
        verb: Keyword,
        filter: &Draft,
        trigger: &trigger::Draft,
    ) -> Result<(), SpecError> {
        if let Self::Fail(_) = self {
            // The call comes before the packet.
            for (clause, because) in [
                (filter.inwards.keyword(), "a call is made by the target, nothing comes in by it"),
                (filter.iface.keyword(), "a call is made before the interface is known"),
            ] {
                if let Some(clause) = clause {
                    return Err(parser.contradiction(verb, clause, because));
                }
            }
        }
        // The link of each connection and the trigger's own memory have one place.
        if let Self::Rate { per_connection, .. } = self
            && let (Some(link), Some(chain)) = (per_connection.keyword(), trigger.remembers())
        {
            let because = "a link of each connection cannot come and go in bursts";
            return Err(parser.contradiction(link, chain, because));
        }
        Ok(())
    }

    fn finish(self, parser: &Parser) -> Result<NetVerb, SpecError> {
        Ok(match self {
            Self::Drop => NetVerb::Drop,
            Self::Delay(draft) => NetVerb::Delay(draft.finish(parser)?),
            Self::Rate { rate, per_connection } => {
                NetVerb::Rate { rate, per_connection: per_connection.value().is_some() }
            }
            Self::Duplicate => NetVerb::Duplicate,
            Self::Fail(error) => NetVerb::Fail(error),
            Self::Reorder { by } => NetVerb::Reorder { by: by.value().unwrap_or(REORDER_BY) },
        })
    }
}

/// A filter under construction.
#[derive(Debug, Default)]
struct Draft {
    inwards: Once<()>,
    outwards: Once<()>,
    tcp: Once<()>,
    udp: Once<()>,
    icmp: Once<()>,
    to: Vec<Located<Endpoint>>,
    port: Once<PortRange>,
    local_port: Once<PortRange>,
    iface: Once<Located<String>>,
    /// A `to` that has a port, for contradictions.
    to_port: Option<Keyword>,
}

impl Draft {
    fn clause(
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

    fn finish(mut self, parser: &Parser) -> Result<NetFilter, SpecError> {
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
