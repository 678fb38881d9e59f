//! The verbs of packets, and what only one of them takes.

use std::num::NonZeroU32;
use std::time::Duration;

use fault_common::limits::MAX_CORRUPT_BITS;

use super::part::number;
use super::{Keyword, Parser, Word, delay, framing};
use crate::spec::delay::NET_DELAY_MAX;
use crate::spec::error::SpecError;
use crate::spec::net::{ByteRate, Call, CallError, Errno, NetVerb, REORDER_BY, SLOT_BYTES_MAX};
use crate::spec::parse::once::Once;
use crate::spec::parse::shown;
use crate::spec::problem::Problem;
use crate::spec::quantity::Quantity;
use crate::spec::rate;
use crate::spec::size::ByteSize;
use crate::spec::units::{self, Flaw};
use crate::spec::words::NetVerbWord;

/// A verb under construction.
#[derive(Debug)]
pub(super) enum Action {
    Drop { ecn: Once<()> },
    Delay(delay::Draft),
    Rate { rate: ByteRate, per_connection: Once<()>, framing: framing::Draft },
    Slot { gap: delay::Draft, packets: Once<NonZeroU32>, bytes: Once<ByteSize> },
    Duplicate,
    Reorder { by: Once<Duration> },
    Corrupt { bits: u32, fix_checksum: Once<()> },
    Reset,
    Hang,
    Fail { error: CallError, calls: Calls },
}

impl Action {
    /// The verb and the operand behind it.
    pub(super) fn new(parser: &mut Parser, word: NetVerbWord, verb: Keyword) -> Result<Self, SpecError> {
        let fail = |error| Self::Fail { error, calls: Calls::default() };
        Ok(match word {
            NetVerbWord::Drop => Self::Drop { ecn: Once::default() },
            NetVerbWord::Delay => Self::Delay(delay::Draft::new(parser, verb, NET_DELAY_MAX)?),
            NetVerbWord::Rate => Self::Rate {
                rate: parser.quantity(verb, Quantity::Rate, rate::read)?.0,
                per_connection: Once::default(),
                framing: framing::Draft::default(),
            },
            NetVerbWord::Slot => Self::Slot {
                gap: delay::Draft::some(parser, verb, NET_DELAY_MAX)?,
                packets: Once::default(),
                bytes: Once::default(),
            },
            NetVerbWord::Duplicate => Self::Duplicate,
            NetVerbWord::Reorder => Self::Reorder { by: Once::default() },
            NetVerbWord::Corrupt => Self::Corrupt { bits: bits(parser)?, fix_checksum: Once::default() },
            NetVerbWord::Reset => Self::Reset,
            NetVerbWord::Hang => Self::Hang,
            NetVerbWord::Refuse => fail(CallError::Refused),
            NetVerbWord::Unreachable => fail(CallError::Unreachable),
            NetVerbWord::Fail => {
                let read = |word: &str| Errno::named(word).ok_or(Flaw::Shape);
                fail(CallError::Errno(parser.quantity(verb, Quantity::Errno, read)?.0))
            }
        })
    }

    /// The delay that a clause is about.
    pub(super) fn delay(
        &mut self,
        parser: &Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<&mut delay::Draft, SpecError> {
        match self {
            Self::Delay(draft) | Self::Slot { gap: draft, .. } => Ok(draft),
            _ => Err(parser.wrong_verb(clause, verb, &["delay", "slot"])),
        }
    }

    /// `ordered`.
    pub(super) fn ordered(
        &mut self,
        parser: &Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<(), SpecError> {
        let Self::Delay(draft) = self else { return Err(parser.wrong_verb(clause, verb, &["delay"])) };
        draft.ordered(parser, clause)
    }

    /// `ecn`.
    pub(super) fn ecn(&mut self, parser: &Parser, clause: Keyword, verb: Keyword) -> Result<(), SpecError> {
        let Self::Drop { ecn } = self else { return Err(parser.wrong_verb(clause, verb, &["drop"])) };
        ecn.set(parser, clause, ())
    }

    /// `overhead`, `cell`, `cell-overhead`.
    pub(super) fn framing(
        &mut self,
        parser: &Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<&mut framing::Draft, SpecError> {
        let Self::Rate { framing, .. } = self else {
            return Err(parser.wrong_verb(clause, verb, &["rate"]));
        };
        Ok(framing)
    }

    /// `packets N`, from after its keyword.
    pub(super) fn packets(
        &mut self,
        parser: &mut Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<(), SpecError> {
        let Self::Slot { packets, .. } = self else { return Err(parser.wrong_verb(clause, verb, &["slot"])) };
        let (number, _) = parser.quantity(clause, Quantity::Number, number)?;
        packets.set(parser, clause, number)
    }

    /// `bytes SIZE`, from after its keyword.
    pub(super) fn bytes(
        &mut self,
        parser: &mut Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<(), SpecError> {
        let Self::Slot { bytes, .. } = self else { return Err(parser.wrong_verb(clause, verb, &["slot"])) };
        let (size, _) = framing::size(parser, clause, SLOT_BYTES_MAX)?;
        bytes.set(parser, clause, size)
    }

    /// `per-connection`.
    pub(super) fn per_connection(
        &mut self,
        parser: &Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<(), SpecError> {
        let Self::Rate { per_connection, .. } = self else {
            return Err(parser.wrong_verb(clause, verb, &["rate"]));
        };
        per_connection.set(parser, clause, ())
    }

    /// `by D`, from after `by`.
    pub(super) fn by(
        &mut self,
        parser: &mut Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<(), SpecError> {
        let Self::Reorder { by } = self else { return Err(parser.wrong_verb(clause, verb, &["reorder"])) };
        let duration = parser.duration(clause, false, NET_DELAY_MAX)?.0;
        by.set(parser, clause, duration)
    }

    /// `fix-checksum`.
    pub(super) fn fix_checksum(
        &mut self,
        parser: &Parser,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<(), SpecError> {
        let Self::Corrupt { fix_checksum, .. } = self else {
            return Err(parser.wrong_verb(clause, verb, &["corrupt"]));
        };
        fix_checksum.set(parser, clause, ())
    }

    /// `connect`, `bind`, `sendmsg`.
    pub(super) fn call(
        &mut self,
        parser: &Parser,
        call: Call,
        clause: Keyword,
        verb: Keyword,
    ) -> Result<(), SpecError> {
        let Self::Fail { calls, .. } = self else {
            return Err(parser.wrong_verb(clause, verb, &["fail", "refuse", "unreachable"]));
        };
        calls.get_mut(call).set(parser, clause, ())
    }

    pub(super) fn finish(self, parser: &Parser) -> Result<NetVerb, SpecError> {
        Ok(match self {
            Self::Drop { ecn } => NetVerb::Drop { ecn: ecn.value().is_some() },
            Self::Delay(draft) => NetVerb::Delay(draft.finish(parser)?),
            Self::Rate { rate, per_connection, framing } => NetVerb::Rate {
                rate,
                per_connection: per_connection.value().is_some(),
                framing: framing.finish(parser)?,
            },
            Self::Slot { gap, packets, bytes } => {
                NetVerb::Slot { gap: gap.finish(parser)?, packets: packets.value(), bytes: bytes.value() }
            }
            Self::Duplicate => NetVerb::Duplicate,
            Self::Reorder { by } => NetVerb::Reorder { by: by.value().unwrap_or(REORDER_BY) },
            Self::Corrupt { bits, fix_checksum } => {
                NetVerb::Corrupt { bits, fix_checksum: fix_checksum.value().is_some() }
            }
            Self::Reset => NetVerb::Reset,
            Self::Hang => NetVerb::Hang,
            Self::Fail { error, calls } => {
                let given = Call::ALL.into_iter().filter(|call| calls.get(*call).keyword().is_some());
                let mut calls: std::collections::BTreeSet<_> = given.collect();
                if calls.is_empty() {
                    calls = Call::usual();
                }
                NetVerb::Fail { error, calls }
            }
        })
    }
}

/// Which calls fail.
#[derive(Debug, Default)]
pub(super) struct Calls {
    connect: Once<()>,
    bind: Once<()>,
    sendmsg: Once<()>,
}

impl Calls {
    const fn get(&self, call: Call) -> &Once<()> {
        match call {
            Call::Connect => &self.connect,
            Call::Bind => &self.bind,
            Call::Sendmsg => &self.sendmsg,
        }
    }

    const fn get_mut(&mut self, call: Call) -> &mut Once<()> {
        match call {
            Call::Connect => &mut self.connect,
            Call::Bind => &mut self.bind,
            Call::Sendmsg => &mut self.sendmsg,
        }
    }

    /// `bind`.
    pub(super) fn bind(&self) -> Option<Keyword> {
        self.bind.keyword()
    }

    /// `sendmsg`, and no other call.
    pub(super) fn sendmsg_alone(&self) -> Option<Keyword> {
        let others = self.connect.keyword().or(self.bind.keyword());
        self.sendmsg.keyword().filter(|_| others.is_none())
    }
}

/// `N bits`, from after `corrupt`; one bit when it is not written.
fn bits(parser: &mut Parser) -> Result<u32, SpecError> {
    let Some(word) = parser.words.next_if(|word| !word.quoted && is_number_of_bits(&word.text)) else {
        return Ok(1);
    };
    if !units::looks_like_number(&word.text) {
        return Err(parser.malformed(&word, Quantity::Bits, Flaw::Shape));
    }
    if parser.words.next_if(is_bits).is_none() {
        return Err(parser.error(word.span, Problem::BitsWhat { number: shown(&word.text) }));
    }
    match units::count(&word.text).map(u32::try_from) {
        Ok(Ok(bits @ 1..=MAX_CORRUPT_BITS)) => Ok(bits),
        Ok(Ok(_) | Err(_)) => Err(parser.malformed(&word, Quantity::Bits, Flaw::Range)),
        Err(flaw) => Err(parser.malformed(&word, Quantity::Bits, flaw)),
    }
}

/// `bits`, or `bit`.
pub(in crate::spec::parse) fn is_bits(word: &Word) -> bool {
    !word.quoted && matches!(word.text.as_str(), "bit" | "bits")
}

/// `3`, and what is meant by `3bits`.
fn is_number_of_bits(text: &str) -> bool {
    let number = text.strip_suffix("bits").or_else(|| text.strip_suffix("bit")).unwrap_or(text);
    units::looks_like_number(number)
}
