//! `--except`: filters, and nothing else.

use super::{Keyword, Parser, filter};
use crate::spec::Layer;
use crate::spec::error::SpecError;
use crate::spec::net::Exception;
use crate::spec::parse::shown;
use crate::spec::problem::Problem;
use crate::spec::source::Span;
use crate::spec::units;
use crate::spec::words::{self, NET, NetClause, NetFilterWord};

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
    while let Some((word, keyword)) = next(&mut parser)? {
        filter.clause(&mut parser, word, keyword)?;
    }
    Ok(Exception { filter: filter.finish(&parser)?, source: parser.source })
}

/// The next filter; none at the end of the text.
fn next(parser: &mut Parser) -> Result<Option<(NetFilterWord, Keyword)>, SpecError> {
    let Some(word) = parser.words.next() else { return Ok(None) };
    if let Some((NetClause::Filter(filter), keyword)) = parser.look_up(NET.clauses, &word)? {
        return Ok(Some((filter, keyword)));
    }
    let is_chance = !word.quoted && units::looks_like_probability(&word.text);
    let is_keyword = Layer::ALL.iter().any(|layer| words::find(*layer, &word.text).is_some());
    if is_chance || is_keyword {
        let problem = Problem::NotAFilter { word: shown(&word.text) };
        return Err(parser.error(word.span, problem));
    }
    let problem = Problem::UnknownFilter { word: shown(&word.text) };
    Err(parser.unknown(&word, problem, words::net_filters()))
}
