//! Text → words. Words stand apart by white space; a quoted word may hold any character.

use winnow::LocatingSlice;
use winnow::combinator::{alt, delimited, preceded, repeat};
use winnow::prelude::*;
use winnow::token::{any, none_of, take_while};

use super::source::Span;

/// One word of a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// What it says, without quotes.
    pub(super) text: String,
    /// Whether it was written in quotes: then it is never a keyword.
    pub(super) quoted: bool,
    /// Where it stands, quotes included.
    pub(super) span: Span,
}

/// Why text does not split into words, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LexError {
    /// The quote at this place has no partner.
    Unclosed(Span),
    /// A quote begins or ends in the middle of a word.
    Glued(Span),
}

type Input<'a> = LocatingSlice<&'a str>;

/// The words of `text`, in order.
pub(super) fn words(text: &str) -> Result<Vec<Word>, LexError> {
    let mut input = LocatingSlice::new(text);
    let mut words: Vec<Word> = Vec::new();
    loop {
        let gap = space(&mut input).is_ok_and(|space| !space.is_empty());
        if input.is_empty() {
            return Ok(words);
        }
        let rest = Span::new(text.len() - input.len(), text.len());
        let Ok(word) = word(&mut input) else {
            return Err(LexError::Unclosed(Span::new(rest.start, rest.start + 1)));
        };
        if let Some(before) = words.last().filter(|_| !gap) {
            return Err(LexError::Glued(before.span.to(word.span)));
        }
        words.push(word);
    }
}

/// Whether a word must be written in quotes to be read as one word.
pub(super) fn needs_quotes(word: &str) -> bool {
    word.is_empty() || word.contains(|c: char| c == '"' || c.is_whitespace())
}

/// `word` in quotes.
pub(super) fn quote(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""))
}

fn space<'a>(input: &mut Input<'a>) -> winnow::Result<&'a str> {
    take_while(0.., char::is_whitespace).parse_next(input)
}

fn word(input: &mut Input<'_>) -> winnow::Result<Word> {
    let bare = take_while(1.., |c: char| !c.is_whitespace() && c != '"');
    alt((bare.map(|text: &str| (text.to_owned(), false)), quoted.map(|text| (text, true))))
        .with_span()
        .map(|((text, quoted), span)| Word { text, quoted, span: span.into() })
        .parse_next(input)
}

/// `"…"`, where a backslash takes the next character as it is.
fn quoted(input: &mut Input<'_>) -> winnow::Result<String> {
    let character = alt((preceded('\\', any), none_of('"')));
    delimited('"', repeat(0.., character), '"').parse_next(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(String, bool)> {
        let words = words(text).expect("words");
        words.into_iter().map(|w| (w.text, w.quoted)).collect()
    }

    #[test]
    fn white_space_separates_words() {
        let expected = [("drop".to_owned(), false), ("5%".to_owned(), false)];
        assert_eq!(texts("drop 5%"), expected);
        assert_eq!(texts("\t drop\n\n5%\u{a0}"), expected);
        assert_eq!(texts(" "), []);
    }

    #[test]
    fn spans_count_bytes_and_include_quotes() {
        let spans: Vec<_> = words("é \"a b\" x").expect("words");
        let spans: Vec<_> = spans.iter().map(|w| (w.span.start, w.span.end)).collect();
        assert_eq!(spans, [(0, 2), (3, 8), (9, 10)]);
    }

    #[test]
    fn quotes_hold_spaces_quotes_and_backslashes() {
        for text in ["", " ", "a b", "\"", "\\", "a\\\"b", "tab\there", "\\n"] {
            assert_eq!(texts(&quote(text)), [(text.to_owned(), true)]);
        }
    }

    #[test]
    fn a_bare_backslash_is_itself() {
        assert_eq!(texts(r"/a\b"), [(r"/a\b".to_owned(), false)]);
    }

    #[test]
    fn quotes_must_be_closed_and_stand_apart() {
        assert_eq!(words("on \"/a"), Err(LexError::Unclosed(Span::new(3, 4))));
        assert_eq!(words("on \"/a\\\""), Err(LexError::Unclosed(Span::new(3, 4))));
        assert_eq!(words("on\"/a\""), Err(LexError::Glued(Span::new(0, 6))));
        assert_eq!(words("\"/a\"\"b\""), Err(LexError::Glued(Span::new(0, 7))));
    }
}
