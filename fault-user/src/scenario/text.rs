//! A string of the file: what it says, and where in the file each of its characters stands.

use std::cell::Cell;

use crate::spec::Span;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What it says.
    pub value: String,
    /// Where in the file it stands, quotes included.
    pub span: Span,
    /// For each byte of `value` where in the file what stands for it begins and ends.
    places: Vec<Span>,
}

/// A parameter that cannot be put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// Nobody knows it.
    Unknown {
        /// Its name.
        name: String,
        /// Where it stands in the file.
        span: Span,
    },
    /// What parameters stand for is more than there is room for.
    TooMuch {
        /// Where the first one stands that has no room.
        span: Span,
    },
}

impl Text {
    /// `value`, which stands at `span` of `file` in one of the four ways of TOML.
    pub(super) fn new(file: &str, span: Span, value: &str) -> Self {
        let raw = file.get(span.start..span.end).unwrap_or_default();
        let places = places(raw, span.start)
            // What TOML does in ways not known here has one place: that of the whole string.
            .filter(|places| places.len() == value.len())
            .unwrap_or_else(|| vec![span; value.len()]);
        Self { value: value.to_owned(), span, places }
    }

    /// Where in the file the bytes `within` of the value stand.
    pub(super) fn span_of(&self, within: Span) -> Span {
        let Some(first) = self.places.get(within.start) else {
            // Behind the last character: what is missing there.
            let end = self.places.last().map_or(self.span.end.saturating_sub(1), |last| last.end);
            return Span::new(end, end);
        };
        let last = self.places.get(within.end.saturating_sub(1)).unwrap_or(first);
        Span::new(first.start, last.end.max(first.start))
    }

    /// The same with `${NAME}` replaced by what `value_of` says. `room` is how many bytes may be put in, and then how many
    /// more may be.
    ///
    /// # Errors
    /// At the first name that is not known, or whose value there is no room for.
    pub(super) fn expand<'a>(
        &self,
        value_of: impl Fn(&str) -> Option<&'a str>,
        room: &Cell<usize>,
    ) -> Result<Self, ExpandError> {
        let mut expanded = Self { value: String::new(), span: self.span, places: Vec::new() };
        let mut at = 0;
        while let Some(found) = self.value[at..].find("${") {
            let start = at + found;
            let Some(length) = self.value[start..].find('}') else { break };
            let name = &self.value[start + 2..start + length];
            let place = self.span_of(Span::new(start, start + length + 1));
            let value =
                value_of(name).ok_or_else(|| ExpandError::Unknown { name: name.to_owned(), span: place })?;
            room.set(room.get().checked_sub(value.len()).ok_or(ExpandError::TooMuch { span: place })?);
            expanded.value += &self.value[at..start];
            expanded.places.extend(&self.places[at..start]);
            expanded.value += value;
            expanded.places.extend(std::iter::repeat_n(place, value.len()));
            at = start + length + 1;
        }
        expanded.value += &self.value[at..];
        expanded.places.extend(&self.places[at..]);
        Ok(expanded)
    }
}

/// The place of each byte that the literal `raw`, which begins at `offset`, stands for.
fn places(raw: &str, offset: usize) -> Option<Vec<Span>> {
    let (quotes, is_basic) = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quotes| raw.starts_with(quotes))
        .map(|quotes| (quotes, quotes.starts_with('"')))?;
    let inner = raw.strip_prefix(quotes)?.strip_suffix(quotes)?;
    // A newline right behind the opening quotes is not part of the string.
    let skipped = match quotes.len() {
        3 => inner.len() - inner.strip_prefix("\r\n").or(inner.strip_prefix('\n')).unwrap_or(inner).len(),
        _ => 0,
    };
    let mut places = Vec::new();
    let mut rest = &inner[skipped..];
    let mut at = offset + quotes.len() + skipped;
    while let Some(first) = rest.chars().next() {
        let (taken, made) =
            if is_basic && first == '\\' { escape(rest)? } else { (first.len_utf8(), first.len_utf8()) };
        let whole = first != '\\' || !is_basic;
        for byte in 0..made {
            let place = if whole { Span::new(at + byte, at + byte + 1) } else { Span::new(at, at + taken) };
            places.push(place);
        }
        at += taken;
        rest = rest.get(taken..)?;
    }
    Some(places)
}

/// How many bytes the escape at the start of `text` takes, and how many it stands for.
fn escape(text: &str) -> Option<(usize, usize)> {
    let kind = text.chars().nth(1)?;
    let digits = |count: usize| {
        let number = u32::from_str_radix(text.get(2..2 + count)?, 16).ok()?;
        Some((2 + count, char::from_u32(number)?.len_utf8()))
    };
    match kind {
        'x' => digits(2),
        'u' => digits(4),
        'U' => digits(8),
        // The end of a line, and all white space behind it, is nothing.
        _ if kind.is_whitespace() => Some((1 + text[1..].len() - text[1..].trim_start().len(), 0)),
        _ => Some((2, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the word `word` of the string in `file` is said to stand.
    fn pointed(file: &str, value: &str, word: &str) -> String {
        let start = file.find(['"', '\'']).unwrap();
        let text = Text::new(file, Span::new(start, file.trim_end().len()), value);
        let at = value.find(word).unwrap();
        let span = text.span_of(Span::new(at, at + word.len()));
        file[span.start..span.end].to_owned()
    }

    #[test]
    fn words_are_found_in_every_kind_of_string() {
        for (file, value) in [
            ("net = \"drop otu 5%\"", "drop otu 5%"),
            ("net = 'drop otu 5%'", "drop otu 5%"),
            ("net = \"\"\"\ndrop otu 5%\"\"\"", "drop otu 5%"),
            ("net = '''drop otu 5%'''", "drop otu 5%"),
            ("net = \"on \\\"a\\u00e4\\\" otu\"", "on \"a\u{e4}\" otu"),
            ("net = \"\"\"drop \\\n   otu\"\"\"", "drop otu"),
        ] {
            assert_eq!(pointed(file, value, "otu"), "otu", "{file}");
        }
    }

    #[test]
    fn what_was_put_in_stands_where_its_name_stands() {
        let file = "net = \"delay ${d} otu\"";
        let text = Text::new(file, Span::new(6, file.len()), "delay ${d} otu");
        let expanded = text.expand(|name| (name == "d").then_some("300ms"), &Cell::new(5)).unwrap();
        assert_eq!(expanded.value, "delay 300ms otu");
        let at = |word: &str| {
            let start = expanded.value.find(word).unwrap();
            let span = expanded.span_of(Span::new(start, start + word.len()));
            &file[span.start..span.end]
        };
        assert_eq!((at("300ms"), at("otu"), at("00")), ("${d}", "otu", "${d}"));
        let span = Span::new(13, 17);
        let unknown = ExpandError::Unknown { name: "d".to_owned(), span };
        assert_eq!(text.expand(|_| None, &Cell::new(5)), Err(unknown));
        assert_eq!(text.expand(|_| Some("300ms"), &Cell::new(4)), Err(ExpandError::TooMuch { span }));
    }
}
