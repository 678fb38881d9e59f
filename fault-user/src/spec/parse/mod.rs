//! Words → fault. What the layers have in common; each layer has its own file.

mod advice;
pub(super) mod delay;
pub(super) mod disk;
pub(super) mod file;
pub(super) mod net;
mod once;
mod peer;
pub(super) mod proc;
mod trigger;

use std::path::PathBuf;

use super::Layer;
use super::error::SpecError;
use super::lexer::{LexError, Word, words};
use super::problem::Problem;
use super::quantity::Quantity;
use super::source::{Source, Span, visible};
use super::units::{self, Flaw};
use super::words::{self, DelayWord, Entry, Table, TriggerWord, Vocabulary};

/// The longest spec, in bytes.
pub const SPEC_MAX_BYTES: usize = 4096;

/// How much of a word an error message repeats, in characters.
const SHOWN_MAX_CHARS: usize = 40;

/// What messages call the one clause without a keyword.
const PROBABILITY: &str = "probability";

/// A clause, of the layer or of those that every layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clause<C> {
    /// A word of the layer.
    Own(C),
    /// An operand of `delay`.
    Delay(DelayWord),
    /// A word of the trigger.
    Trigger(TriggerWord),
    /// The trigger's probability: the word itself is the operand.
    Probability,
}

/// A keyword: the row of the vocabulary, and the word in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keyword {
    word: &'static str,
    span: Span,
}

/// The words of one spec, read from left to right.
struct Parser {
    layer: Layer,
    source: Source,
    words: std::iter::Peekable<std::vec::IntoIter<Word>>,
}

impl Parser {
    fn new(layer: Layer, text: &str) -> Result<Self, SpecError> {
        if text.len() > SPEC_MAX_BYTES {
            let shown: String = text.chars().take(SHOWN_MAX_CHARS).collect();
            let all = Span::new(0, shown.len());
            let bytes = text.len();
            return Err(SpecError::new(layer, &shown, all, Problem::TooLong { bytes }));
        }
        let words = words(text).map_err(|error| {
            let (span, problem) = match error {
                LexError::Unclosed(span) => (span, Problem::UnclosedQuote),
                LexError::Glued(span) => (span, Problem::GluedQuote),
            };
            SpecError::new(layer, text, span, problem)
        })?;
        Ok(Self { layer, source: Source::from(text), words: words.into_iter().peekable() })
    }

    fn error(&self, span: Span, problem: Problem) -> SpecError {
        SpecError::new(self.layer, self.source.text(), span, problem)
    }

    /// The first word, which must be a verb.
    fn verb<V: Copy, C>(&mut self, vocabulary: &Vocabulary<V, C>) -> Result<(V, Keyword), SpecError> {
        let Some(word) = self.words.next() else {
            return Err(self.error(Span::default(), Problem::Empty));
        };
        if let Some(found) = self.look_up(vocabulary.verbs, &word)? {
            return Ok(found);
        }
        if let Some(known) = words::find(self.layer, &word.text) {
            let word_text = known.word.to_owned();
            return Err(self.error(word.span, Problem::NoVerb { word: word_text }));
        }
        let verbs = words::of(self.layer).iter().copied().filter(|known| known.verb);
        let problem = Problem::UnknownVerb { word: shown(&word.text) };
        Err(self.unknown(&word, problem, verbs.collect()))
    }

    /// The next clause's keyword; none at the end of the text.
    fn clause<V: Copy, C: Copy>(
        &mut self,
        vocabulary: &Vocabulary<V, C>,
        verb: Keyword,
    ) -> Result<Option<(Clause<C>, Keyword)>, SpecError> {
        let Some(word) = self.words.peek() else {
            return Ok(None);
        };
        if !word.quoted && units::looks_like_probability(&word.text) {
            let span = word.span;
            return Ok(Some((Clause::Probability, Keyword { word: PROBABILITY, span })));
        }
        let word = word.clone();
        self.words.next();
        if let Some((own, keyword)) = self.look_up(vocabulary.clauses, &word)? {
            return Ok(Some((Clause::Own(own), keyword)));
        }
        if let Some((delay, keyword)) = self.look_up(words::DELAY, &word)? {
            return Ok(Some((Clause::Delay(delay), keyword)));
        }
        if let Some((trigger, keyword)) = self.look_up(words::TRIGGER, &word)? {
            return Ok(Some((Clause::Trigger(trigger), keyword)));
        }
        Err(self.not_a_clause(&word, verb))
    }

    fn not_a_clause(&mut self, word: &Word, verb: Keyword) -> SpecError {
        if words::find(self.layer, &word.text).is_some_and(|known| known.verb) {
            let problem = Problem::SecondVerb { word: word.text.clone(), verb: verb.word };
            let then = (verb.word == "hang" && word.text == "error").then(|| "then error".to_owned());
            return self
                .error(word.span, problem)
                .with_related(verb.span, "the verb")
                .with_advice(then, None);
        }
        let clauses: Vec<_> = words::of(self.layer).iter().copied().filter(|known| !known.verb).collect();
        let shown = shown(&word.text);
        let is_number = !word.quoted && units::looks_like_number(&word.text);
        if verb.word == "corrupt"
            && (net::is_bits(word) || is_number && self.words.peek().is_some_and(net::is_bits))
        {
            let remark = "the number of bits stands right behind the verb: `corrupt 3 bits`".to_owned();
            let problem = Problem::Stray { word: shown };
            return self.error(word.span, problem).with_advice(None, Some(remark));
        }
        if let Some(advice) = advice::stray(&word.text).filter(|_| !word.quoted) {
            return self
                .error(word.span, Problem::Stray { word: shown })
                .with_advice(advice.word, advice.remark);
        }
        self.unknown(word, Problem::UnknownWord { word: shown }, clauses)
    }

    /// `problem`, unless the word is a keyword elsewhere or in other letters.
    fn unknown(&self, word: &Word, problem: Problem, candidates: Vec<words::Known>) -> SpecError {
        let lower = word.text.to_lowercase();
        if lower != word.text && words::find(self.layer, &lower).is_some() {
            let problem = Problem::Case { word: shown(&word.text) };
            return self.error(word.span, problem).with_advice(Some(lower), None);
        }
        if let Some((other, known)) = words::find_elsewhere(self.layer, &word.text) {
            let problem = Problem::OtherLayer { word: known.word, other, layer: self.layer };
            return self.error(word.span, problem);
        }
        let nearest = words::nearest(&word.text, candidates);
        self.error(word.span, problem).with_advice(nearest.map(|known| known.word.to_owned()), None)
    }

    /// The row of `table` for `word`.
    fn look_up<K: Copy>(&self, table: Table<K>, word: &Word) -> Result<Option<(K, Keyword)>, SpecError> {
        let Some(Entry { word: text, meaning, usage: _ }) =
            table.iter().find(|entry| entry.word == word.text)
        else {
            return Ok(None);
        };
        if word.quoted {
            let error = self.error(word.span, Problem::QuotedKeyword);
            return Err(error.with_advice(Some((*text).to_owned()), None));
        }
        Ok(Some((*meaning, Keyword { word: text, span: word.span })))
    }

    /// The word after `keyword`, which must be neither missing nor a keyword itself.
    fn operand(&mut self, keyword: Keyword, wanted: Quantity) -> Result<Word, SpecError> {
        let layer = self.layer;
        let is_operand = |word: &Word| word.quoted || words::find(layer, &word.text).is_none();
        match self.words.next_if(is_operand) {
            Some(word) => Ok(word),
            None => {
                let problem = Problem::Missing { keyword: keyword.word.to_owned(), wanted };
                let found = self.words.peek().map(|word| word.span);
                let error = self.error(found.unwrap_or(keyword.span), problem);
                Err(match found {
                    Some(_) => error.with_related(keyword.span, "needed by this"),
                    None => error,
                })
            }
        }
    }

    /// The operand of `keyword`, read by `read`.
    fn quantity<T>(
        &mut self,
        keyword: Keyword,
        wanted: Quantity,
        read: impl FnOnce(&str) -> Result<T, Flaw>,
    ) -> Result<(T, Span), SpecError> {
        let word = self.operand(keyword, wanted)?;
        match read(&word.text) {
            Ok(value) => Ok((value, word.span)),
            Err(flaw) => Err(self.malformed(&word, wanted, flaw)),
        }
    }

    fn malformed(&self, word: &Word, wanted: Quantity, flaw: Flaw) -> SpecError {
        let problem = Problem::Malformed { word: shown(&word.text), wanted, flaw };
        let advice = advice::operand(&word.text, wanted, flaw);
        self.error(word.span, problem).with_advice(advice.word, advice.remark)
    }

    /// Two clauses that cannot both hold: the later one is pointed at.
    fn contradiction(&self, one: Keyword, other: Keyword, because: &'static str) -> SpecError {
        let (first, later) = if one.span.start <= other.span.start { (one, other) } else { (other, one) };
        let problem =
            Problem::Contradiction { word: later.word.to_owned(), other: first.word.to_owned(), because };
        self.error(later.span, problem).with_related(first.span, "against this")
    }

    fn wrong_verb(&self, clause: Keyword, verb: Keyword, owners: &'static [&'static str]) -> SpecError {
        let problem = Problem::NotForVerb { word: clause.word, verb: verb.word, owners };
        self.error(clause.span, problem).with_related(verb.span, "the verb")
    }
}

/// An absolute path: the controller may run in another directory than the user.
fn path(word: &str) -> Result<PathBuf, Flaw> {
    if !word.starts_with('/') || word.contains('\0') {
        return Err(Flaw::Shape);
    }
    Ok(PathBuf::from(word))
}

/// A word in an error message: cut if it is very long, and harmless on a terminal.
fn shown(word: &str) -> String {
    let mut shown: String = visible(word).chars().take(SHOWN_MAX_CHARS).collect();
    if shown.len() < word.len() {
        shown.push('…');
    }
    shown
}
