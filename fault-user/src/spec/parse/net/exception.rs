//! `--except`: filters and a trigger, and nothing else.

use super::{Keyword, Parser, filter, trigger};
use crate::spec::Layer;
use crate::spec::error::SpecError;
use crate::spec::net::Exception;
use crate::spec::parse::{PROBABILITY, shown};
use crate::spec::problem::Problem;
use crate::spec::source::Span;
use crate::spec::units;
use crate::spec::words::{self, NET, NetClause, NetFilterWord, TriggerWord};

/// What its errors say it was given by.
const ORIGIN: &str = "--except";

/// An exception.
pub(in crate::spec) fn exception(text: &str) -> Result<Exception, SpecError> {
    read(text).map_err(|error| error.with_origin(ORIGIN))
}

fn read(text: &str) -> Result<Exception, SpecError> {
    let mut parser = Parser::new(NET.layer, text)?;
    if parser.words.peek().is_none() {
        return Err(parser.error(Span::default(), Problem::EmptyException));
    }
    let mut filter = filter::Draft::default();
    let mut trigger = trigger::Draft::default();
    while let Some((clause, keyword)) = next(&mut parser)? {
        match clause {
            Part::Filter(word) => filter.clause(&mut parser, word, keyword)?,
            Part::Probability => trigger.probability(&mut parser, keyword)?,
            Part::Trigger(word) => trigger.clause(&mut parser, word, keyword)?,
        }
    }
    let (filter, trigger) = (filter.finish(&parser)?, trigger.finish(&parser)?);
    Ok(Exception { filter, trigger, source: parser.source })
}

/// What an exception is made of.
enum Part {
    Filter(NetFilterWord),
    Probability,
    Trigger(TriggerWord),
}

/// The next clause; none at the end of the text.
fn next(parser: &mut Parser) -> Result<Option<(Part, Keyword)>, SpecError> {
    let Some(word) = parser.words.peek() else { return Ok(None) };
    if !word.quoted && units::looks_like_probability(&word.text) {
        return Ok(Some((Part::Probability, Keyword { word: PROBABILITY, span: word.span })));
    }
    let word = word.clone();
    parser.words.next();
    if let Some((NetClause::Filter(filter), keyword)) = parser.look_up(NET.clauses, &word)? {
        return Ok(Some((Part::Filter(filter), keyword)));
    }
    if let Some((trigger, keyword)) = parser.look_up(words::TRIGGER, &word)? {
        return Ok(Some((Part::Trigger(trigger), keyword)));
    }
    if Layer::ALL.iter().any(|layer| words::find(*layer, &word.text).is_some()) {
        let problem = Problem::NotAFilter { word: shown(&word.text) };
        return Err(parser.error(word.span, problem));
    }
    let problem = Problem::UnknownFilter { word: shown(&word.text) };
    Err(parser.unknown(&word, problem, words::net_filters()))
}
