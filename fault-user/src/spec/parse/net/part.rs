//! `connection`, `connections`, and `after`, which this layer has for bytes, too.

use std::num::NonZeroU32;
use std::time::Duration;

use super::filter;
use super::{Keyword, Parser, trigger};
use crate::spec::error::SpecError;
use crate::spec::net::{Connections, Part};
use crate::spec::parse::once::Once;
use crate::spec::quantity::Quantity;
use crate::spec::size::{self, ByteSize};
use crate::spec::trigger::{Probability, WINDOW_MAX};
use crate::spec::units::{self, Flaw};

/// Clauses under construction.
#[derive(Debug, Default)]
pub(super) struct Draft {
    number: Once<NonZeroU32>,
    share: Once<Probability>,
    after: Once<ByteSize>,
}

/// What `after` is followed by.
enum Operand {
    Duration(Duration),
    Size(ByteSize),
}

impl Draft {
    /// `connection N`, from after its keyword.
    pub(super) fn connection(&mut self, parser: &mut Parser, keyword: Keyword) -> Result<(), SpecError> {
        let (number, _) = parser.quantity(keyword, Quantity::Number, number)?;
        self.number.set(parser, keyword, number)
    }

    /// `connections P%`, from after its keyword.
    pub(super) fn connections(&mut self, parser: &mut Parser, keyword: Keyword) -> Result<(), SpecError> {
        let (share, _) = parser.quantity(keyword, Quantity::Share, units::probability)?;
        self.share.set(parser, keyword, share)
    }

    /// `after`, from after its keyword: a size is kept here, a duration belongs to the trigger.
    pub(super) fn after(
        &mut self,
        parser: &mut Parser,
        keyword: Keyword,
        trigger: &mut trigger::Draft,
    ) -> Result<(), SpecError> {
        let wanted = Quantity::DurationOrSize { longest: WINDOW_MAX };
        match parser.quantity(keyword, wanted, operand)?.0 {
            Operand::Duration(duration) => trigger.after(parser, keyword, duration),
            Operand::Size(size) => self.after.set(parser, keyword, size),
        }
    }

    /// The keyword of `after SIZE`.
    pub(super) fn after_bytes(&self) -> Option<Keyword> {
        self.after.keyword()
    }

    /// The finished clauses, beside `filter`.
    pub(super) fn finish(self, parser: &Parser, filter: &filter::Draft) -> Result<Part, SpecError> {
        if let (Some(number), Some(share)) = (self.number.keyword(), self.share.keyword()) {
            return Err(parser.contradiction(number, share, "one connection, or a share of them"));
        }
        if let (Some(after), Some(other)) = (self.after.keyword(), filter.instead_of_tcp()) {
            return Err(parser.contradiction(after, other, "only TCP counts the bytes of a connection"));
        }
        let share = self.share.value().map(Connections::Share);
        Ok(Part {
            connections: self.number.value().map(Connections::Number).or(share),
            after: self.after.value(),
        })
    }
}

/// A number that is not 0.
pub(super) fn number(word: &str) -> Result<NonZeroU32, Flaw> {
    let number = u32::try_from(units::count(word)?).map_err(|_| Flaw::Range)?;
    NonZeroU32::new(number).ok_or(Flaw::Range)
}

fn operand(word: &str) -> Result<Operand, Flaw> {
    if units::looks_like_size(word) {
        return size::read(word).map(Operand::Size);
    }
    match units::duration(word)? {
        duration if duration > WINDOW_MAX => Err(Flaw::Range),
        duration => Ok(Operand::Duration(duration)),
    }
}
