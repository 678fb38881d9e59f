//! The operands of `delay`: the same in every layer, up to the longest delay.

use std::path::PathBuf;
use std::time::Duration;

use super::super::delay::{DelaySpec, Distribution};
use super::super::error::SpecError;
use super::super::problem::Problem;
use super::super::quantity::Quantity;
use super::super::source::{Located, Span};
use super::super::trigger::Probability;
use super::super::units::{self, Flaw};
use super::super::words::DelayWord;
use super::once::Once;
use super::{Keyword, Parser, path};

/// A delay under construction.
#[derive(Debug)]
pub(super) struct Draft {
    mean: Duration,
    longest: Duration,
    jitter: Once<(Duration, Span)>,
    shape: Once<Distribution>,
    table: Once<Located<PathBuf>>,
    correlation: Once<Probability>,
    ordered: Once<()>,
}

impl Draft {
    /// The mean, from after `delay`.
    pub(super) fn new(parser: &mut Parser, verb: Keyword, longest: Duration) -> Result<Self, SpecError> {
        Ok(Self::of(parser.duration(verb, true, longest)?.0, longest))
    }

    /// As [`Draft::new`], of more than nothing.
    pub(super) fn some(parser: &mut Parser, verb: Keyword, longest: Duration) -> Result<Self, SpecError> {
        Ok(Self::of(parser.duration(verb, false, longest)?.0, longest))
    }

    fn of(mean: Duration, longest: Duration) -> Self {
        Self {
            mean,
            longest,
            jitter: Once::default(),
            shape: Once::default(),
            table: Once::default(),
            correlation: Once::default(),
            ordered: Once::default(),
        }
    }

    /// `correlation`.
    pub(super) fn correlated(&self) -> Option<Keyword> {
        self.correlation.keyword()
    }

    /// An operand that has a keyword, from after it.
    pub(super) fn clause(
        &mut self,
        parser: &mut Parser,
        word: DelayWord,
        keyword: Keyword,
    ) -> Result<(), SpecError> {
        match word {
            DelayWord::Jitter => {
                let jitter = parser.duration(keyword, true, self.longest)?;
                self.jitter.set(parser, keyword, jitter)
            }
            DelayWord::Table => {
                let (path, span) = parser.quantity(keyword, Quantity::Table, path)?;
                self.table.set(parser, keyword, Located::new(path, span))
            }
            DelayWord::Correlation => {
                let (correlation, _) = parser.quantity(keyword, Quantity::Probability, units::probability)?;
                self.correlation.set(parser, keyword, correlation)
            }
            DelayWord::Shape(shape) => match self.shape.get() {
                Some((other, first)) if *other != shape => {
                    let because = "a delay has one distribution";
                    Err(parser.contradiction(first, keyword, because))
                }
                Some(_) | None => self.shape.set(parser, keyword, shape),
            },
        }
    }

    /// `ordered`.
    pub(super) fn ordered(&mut self, parser: &Parser, keyword: Keyword) -> Result<(), SpecError> {
        self.ordered.set(parser, keyword, ())
    }

    /// The finished delay.
    pub(super) fn finish(self, parser: &Parser) -> Result<DelaySpec, SpecError> {
        if let (Some((_, shape)), Some(table)) = (self.shape.get(), self.table.keyword()) {
            return Err(parser.contradiction(shape, table, "a delay has one distribution"));
        }
        if let (None, Some(table)) = (self.jitter.get(), self.table.keyword()) {
            return Err(parser.error(table.span, Problem::ShapeWithoutJitter { shape: "table" }));
        }
        let distribution = self.shape.get().map_or(Distribution::Uniform, |(s, _)| *s);
        match (self.jitter.get(), self.shape.get()) {
            (None, Some((shape, keyword))) => {
                let shape = shape.word();
                return Err(parser.error(keyword.span, Problem::ShapeWithoutJitter { shape }));
            }
            (Some(((jitter, span), _)), _)
                if distribution == Distribution::Uniform && self.table.get().is_none() =>
            {
                self.check_uniform(parser, *jitter, *span)?;
            }
            (Some(_), _) | (None, None) => {}
        }
        if let (None, Some(keyword)) = (self.jitter.get(), self.correlation.keyword()) {
            return Err(parser.error(keyword.span, Problem::CorrelationOfWhat));
        }
        Ok(DelaySpec {
            mean: self.mean,
            jitter: self.jitter.value().map(|(jitter, _)| jitter),
            distribution,
            table: self.table.value(),
            correlation: self.correlation.value(),
            ordered: self.ordered.value().is_some(),
        })
    }

    /// A uniform delay has hard ends, and both must make sense. The others are cut at 0 and at the
    /// layer's limit.
    fn check_uniform(&self, parser: &Parser, jitter: Duration, span: Span) -> Result<(), SpecError> {
        let (mean, longest) = (self.mean, self.longest);
        let sum = mean.saturating_add(jitter);
        let problem = if jitter > mean {
            Problem::JitterAboveDelay { jitter, mean }
        } else if sum > longest {
            Problem::SumTooLong { sum, longest }
        } else {
            return Ok(());
        };
        Err(parser.error(span, problem))
    }
}

impl Parser {
    /// The duration after `keyword`: up to `longest`, and more than 0 unless `zero`.
    pub(super) fn duration(
        &mut self,
        keyword: Keyword,
        zero: bool,
        longest: Duration,
    ) -> Result<(Duration, Span), SpecError> {
        let wanted = Quantity::Duration { zero, longest };
        self.quantity(keyword, wanted, |word| {
            let duration = units::duration(word)?;
            let too_short = duration.is_zero() && !zero;
            if too_short || duration > longest {
                return Err(Flaw::Range);
            }
            Ok(duration)
        })
    }
}
