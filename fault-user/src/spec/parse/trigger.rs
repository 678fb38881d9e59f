//! The trigger: the same in every layer.

use std::time::Duration;

use super::super::error::SpecError;
use super::super::problem::Problem;
use super::super::quantity::Quantity;
use super::super::trigger::{Cycle, GAP_MAX, Gilbert, Markov, Probability, Trigger, WINDOW_MAX};
use super::super::units::{self, Flaw};
use super::super::words::TriggerWord;
use super::once::Once;
use super::{Keyword, Parser};

/// A trigger under construction.
#[derive(Debug, Default)]
pub(super) struct Draft {
    probability: Once<Probability>,
    burst: Once<Probability>,
    gilbert: Once<Gilbert>,
    markov: Once<Markov>,
    gap: Once<u32>,
    nth: Once<u64>,
    every: Once<u64>,
    first: Once<u64>,
    times: Once<u64>,
    after: Once<Duration>,
    window: Once<Duration>,
    cycle: Once<Cycle>,
}

impl Draft {
    /// The word at hand is a percentage.
    pub(super) fn probability(&mut self, parser: &mut Parser, keyword: Keyword) -> Result<(), SpecError> {
        let (value, _) = parser.quantity(keyword, Quantity::Probability, units::probability)?;
        self.probability.set(parser, keyword, value)
    }

    /// A clause of the trigger, from after its keyword.
    pub(super) fn clause(
        &mut self,
        parser: &mut Parser,
        word: TriggerWord,
        keyword: Keyword,
    ) -> Result<(), SpecError> {
        let slot = match word {
            TriggerWord::Burst => {
                let (correlation, _) = parser.quantity(keyword, Quantity::Probability, units::probability)?;
                return self.burst.set(parser, keyword, correlation);
            }
            TriggerWord::Gilbert => {
                let model = gilbert(parser, keyword)?;
                return self.gilbert.set(parser, keyword, model);
            }
            TriggerWord::Markov => {
                let model = markov(parser, keyword)?;
                return self.markov.set(parser, keyword, model);
            }
            TriggerWord::Gap => {
                let read = |word: &str| match u32::try_from(units::count(word)?) {
                    Ok(gap @ 1..=GAP_MAX) => Ok(gap),
                    Ok(_) | Err(_) => Err(Flaw::Range),
                };
                let (gap, _) = parser.quantity(keyword, Quantity::Gap, read)?;
                return self.gap.set(parser, keyword, gap);
            }
            TriggerWord::Nth => &mut self.nth,
            TriggerWord::Every => &mut self.every,
            TriggerWord::First => &mut self.first,
            TriggerWord::Times => &mut self.times,
            TriggerWord::After => {
                let after = parser.duration(keyword, true, WINDOW_MAX)?.0;
                return self.after(parser, keyword, after);
            }
            TriggerWord::For => {
                let window = parser.duration(keyword, false, WINDOW_MAX)?.0;
                return self.window.set(parser, keyword, window);
            }
            TriggerWord::Cycle => {
                let (cycle, _) = parser.quantity(keyword, Quantity::Cycle, units::cycle)?;
                return self.cycle.set(parser, keyword, cycle);
            }
        };
        let (count, _) = parser.quantity(keyword, Quantity::Count, units::count)?;
        slot.set(parser, keyword, count)
    }

    /// `after D`.
    pub(super) fn after(
        &mut self,
        parser: &Parser,
        keyword: Keyword,
        after: Duration,
    ) -> Result<(), SpecError> {
        self.after.set(parser, keyword, after)
    }

    /// The keyword of a clause by which decisions depend on earlier ones, if there is one.
    pub(super) fn remembers(&self) -> Option<Keyword> {
        self.burst.keyword().or(self.model()).or(self.gap.keyword())
    }

    /// The keyword of a model with states.
    fn model(&self) -> Option<Keyword> {
        self.gilbert.keyword().or(self.markov.keyword())
    }

    /// The finished trigger.
    pub(super) fn finish(self, parser: &Parser) -> Result<Trigger, SpecError> {
        if let (Some(gilbert), Some(markov)) = (self.gilbert.keyword(), self.markov.keyword()) {
            return Err(parser.contradiction(gilbert, markov, "one model decides, not both"));
        }
        if let Some(model) = self.model()
            && let Some(other) = self.probability.keyword().or(self.burst.keyword())
        {
            let because = "the model has chances of its own";
            return Err(parser.contradiction(model, other, because));
        }
        if let (Some(model), Some(gap)) = (self.model(), self.gap.keyword()) {
            return Err(parser.contradiction(model, gap, "the model says how far hits are apart"));
        }
        if let (Some(burst), None) = (self.burst.keyword(), self.probability.keyword()) {
            return Err(parser.error(burst.span, Problem::BurstOfWhat));
        }
        if let Some(nth) = self.nth.keyword() {
            if let Some(every) = self.every.keyword() {
                let because = "one match, or one of every so many, not both";
                return Err(parser.contradiction(nth, every, because));
            }
            if let Some(first) = self.first.keyword() {
                let because = "`nth` already says which match";
                return Err(parser.contradiction(nth, first, because));
            }
        }
        if let (Some((every, step)), Some((first, end))) = (self.every.get(), self.first.get())
            && every > first
        {
            let because = "nothing would ever be hit";
            return Err(parser.contradiction(step, end, because));
        }
        Ok(Trigger {
            probability: self.probability.value(),
            burst: self.burst.value(),
            gilbert: self.gilbert.value(),
            markov: self.markov.value(),
            gap: self.gap.value(),
            nth: self.nth.value(),
            every: self.every.value(),
            first: self.first.value(),
            times: self.times.value(),
            after: self.after.value(),
            window: self.window.value(),
            cycle: self.cycle.value(),
        })
    }
}

/// The operands of `gilbert`.
fn gilbert(parser: &mut Parser, keyword: Keyword) -> Result<Gilbert, SpecError> {
    let chance = |parser: &mut Parser| {
        parser.quantity(keyword, Quantity::Probability, units::probability).map(|(chance, _)| chance)
    };
    let (to_bad, to_good) = (chance(parser)?, chance(parser)?);
    let bad = if one_more(parser) { chance(parser)? } else { Probability::ALWAYS };
    let good = if one_more(parser) { chance(parser)? } else { Probability::NEVER };
    Ok(Gilbert { to_bad, to_good, bad, good })
}

/// The operands of `markov`.
fn markov(parser: &mut Parser, keyword: Keyword) -> Result<Markov, SpecError> {
    let chance = |parser: &mut Parser| parser.quantity(keyword, Quantity::Probability, units::probability);
    let mut model = Markov::new(chance(parser)?.0);
    let mut last = keyword.span;
    for operand in [&mut model.to_gap, &mut model.to_pause, &mut model.to_hit, &mut model.alone] {
        if !one_more(parser) {
            break;
        }
        (*operand, last) = chance(parser)?;
    }
    let sums = [
        (model.to_gap, model.to_pause, "the second and the third chance, those of leaving a hit in a burst,"),
        (model.to_burst, model.alone, "the first and the fifth chance, those of leaving a gap,"),
    ];
    for (one, other, chances) in sums {
        if one.parts_per_billion() > other.complement().parts_per_billion() {
            return Err(parser.error(last, Problem::MoreThanAll { chances }));
        }
    }
    Ok(model)
}

/// Whether one more chance stands behind those of a model.
fn one_more(parser: &mut Parser) -> bool {
    parser.words.peek().is_some_and(|word| !word.quoted && units::looks_like_probability(&word.text))
}
