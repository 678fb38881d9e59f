//! A clause that may be given once.

use super::super::error::SpecError;
use super::super::problem::Problem;
use super::{Keyword, Parser};

/// The value of a clause, and the keyword that gave it.
#[derive(Debug, Clone)]
pub(super) struct Once<T>(Option<(T, Keyword)>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Once<T> {
    /// Takes the value; a second one is an error.
    pub(super) fn set(&mut self, parser: &Parser, keyword: Keyword, value: T) -> Result<(), SpecError> {
        if let Some((_, first)) = &self.0 {
            let problem = Problem::Twice { word: keyword.word.to_owned() };
            return Err(parser.error(keyword.span, problem).with_related(first.span, "first given here"));
        }
        self.0 = Some((value, keyword));
        Ok(())
    }

    /// The keyword, if the clause was given.
    pub(super) fn keyword(&self) -> Option<Keyword> {
        self.0.as_ref().map(|(_, keyword)| *keyword)
    }

    /// The value and its keyword, if the clause was given.
    pub(super) fn get(&self) -> Option<(&T, Keyword)> {
        self.0.as_ref().map(|(value, keyword)| (value, *keyword))
    }

    /// The value, if the clause was given.
    pub(super) fn value(self) -> Option<T> {
        self.0.map(|(value, _)| value)
    }
}
