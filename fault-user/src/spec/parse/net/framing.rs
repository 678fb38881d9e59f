//! `overhead`, `cell` and `cell-overhead`: what a packet is on a link.

use std::num::NonZeroU32;

use super::{Keyword, Parser};
use crate::spec::error::SpecError;
use crate::spec::net::{Cell, FRAME_BYTES_MAX, Framing};
use crate::spec::parse::once::Once;
use crate::spec::problem::Problem;
use crate::spec::quantity::Quantity;
use crate::spec::size::{self, ByteSize};
use crate::spec::source::Span;
use crate::spec::units::Flaw;

/// Clauses under construction.
#[derive(Debug, Default)]
pub(super) struct Draft {
    overhead: Once<i32>,
    cell: Once<NonZeroU32>,
    cell_overhead: Once<i32>,
}

impl Draft {
    /// `overhead SIZE`, from after its keyword.
    pub(super) fn overhead(&mut self, parser: &mut Parser, keyword: Keyword) -> Result<(), SpecError> {
        let (bytes, _) = parser.quantity(keyword, Quantity::Overhead, size::read_signed)?;
        self.overhead.set(parser, keyword, bytes)
    }

    /// `cell SIZE`, from after its keyword.
    pub(super) fn cell(&mut self, parser: &mut Parser, keyword: Keyword) -> Result<(), SpecError> {
        let (size, span) = size(parser, keyword, FRAME_BYTES_MAX)?;
        let cell = u32::try_from(size.bytes()).ok().and_then(NonZeroU32::new);
        let wanted = Problem::Malformed {
            word: size.to_string(),
            wanted: Quantity::Size { most: FRAME_BYTES_MAX },
            flaw: Flaw::Range,
        };
        self.cell.set(parser, keyword, cell.ok_or_else(|| parser.error(span, wanted))?)
    }

    /// `cell-overhead SIZE`, from after its keyword.
    pub(super) fn cell_overhead(&mut self, parser: &mut Parser, keyword: Keyword) -> Result<(), SpecError> {
        let (bytes, _) = parser.quantity(keyword, Quantity::Overhead, size::read_signed)?;
        self.cell_overhead.set(parser, keyword, bytes)
    }

    /// The finished clauses.
    pub(super) fn finish(self, parser: &Parser) -> Result<Framing, SpecError> {
        let overhead = self.overhead.value().unwrap_or_default();
        let cell = match (self.cell.value(), self.cell_overhead.get()) {
            (None, Some((_, keyword))) => {
                return Err(parser.error(keyword.span, Problem::OverheadOfWhat));
            }
            (None, None) => None,
            (Some(size), None) => Some(Cell { size, overhead: 0 }),
            (Some(size), Some((overhead, keyword))) => {
                if i64::from(size.get()) + i64::from(*overhead) <= 0 {
                    let (size, overhead) = (format!("{size}B"), size::print_signed(*overhead));
                    return Err(parser.error(keyword.span, Problem::NoCell { size, overhead }));
                }
                Some(Cell { size, overhead: *overhead })
            }
        };
        Ok(Framing { overhead, cell })
    }
}

/// A size of at most so many bytes.
pub(super) fn size(parser: &mut Parser, keyword: Keyword, most: u32) -> Result<(ByteSize, Span), SpecError> {
    parser.quantity(keyword, Quantity::Size { most }, |word| match size::read(word)? {
        size if size.bytes() > u64::from(most) => Err(Flaw::Range),
        size => Ok(size),
    })
}
