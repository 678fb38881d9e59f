//! The verbs of packets, and what stands beside them.

use std::time::Duration;

use super::filter::Draft;
use super::{Keyword, Parser, delay, trigger};
use crate::spec::delay::NET_DELAY_MAX;
use crate::spec::error::SpecError;
use crate::spec::net::{ByteRate, CallError, Errno, NetVerb, REORDER_BY};
use crate::spec::parse::once::Once;
use crate::spec::problem::Quantity;
use crate::spec::rate;
use crate::spec::units::Flaw;
use crate::spec::words::NetVerbWord;

/// A verb under construction.
#[derive(Debug)]
pub(super) enum Action {
    Drop,
    Delay(delay::Draft),
    Rate { rate: ByteRate, per_connection: Once<()> },
    Duplicate,
    Reorder { by: Once<Duration> },
    Fail(CallError),
}

impl Action {
    pub(super) fn new(parser: &mut Parser, word: NetVerbWord, verb: Keyword) -> Result<Self, SpecError> {
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

    pub(super) fn delay(
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
    pub(super) fn per_connection(
        &mut self,
        parser: &Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<(), SpecError> {
        match self {
            Self::Rate { per_connection, .. } => per_connection.set(parser, clause, ()),
            Self::Drop | Self::Delay(_) | Self::Duplicate | Self::Reorder { .. } | Self::Fail(_) => {
                Err(parser.wrong_verb(clause, verb, "rate"))
            }
        }
    }

    /// `by D`, from after `by`.
    pub(super) fn by(
        &mut self,
        parser: &mut Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<(), SpecError> {
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
    pub(super) fn agree(
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

    pub(super) fn finish(self, parser: &Parser) -> Result<NetVerb, SpecError> {
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
