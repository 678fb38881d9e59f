//! The one error of a wrong spec, and its report.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
    ThemeCharacters, ThemeStyles,
};

use super::Layer;
use super::problem::Problem;
use super::source::{Source, Span};

/// A spec that cannot be obeyed: what is wrong, the word that is wrong, and the right word.
///
/// [`Display`](fmt::Display) is the sentence alone; [`SpecError::render`] shows the line.
#[derive(Debug, Clone)]
pub struct SpecError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    problem: Problem,
    layer: Layer,
    span: Span,
    /// Another word that has to do with it, and how.
    related: Option<(Span, String)>,
    suggestion: Option<String>,
    source: NamedSource<String>,
}

impl SpecError {
    pub(super) fn new(layer: Layer, text: &str, span: Span, problem: Problem) -> Self {
        let shown = visible(text);
        Self(Box::new(Inner {
            problem,
            layer,
            span: clamp(&shown, span),
            related: None,
            suggestion: None,
            source: NamedSource::new(layer.option(), shown),
        }))
    }

    /// A word that names nothing on this machine, found after parsing: an unknown host, interface,
    /// device or mount point.
    ///
    /// `sentence` says so naming the object, `expected` is written under the word.
    pub fn unresolved(
        layer: Layer,
        source: &Source,
        span: Span,
        sentence: impl Into<String>,
        expected: impl Into<String>,
        help: Option<String>,
    ) -> Self {
        let problem = Problem::Unresolved { sentence: sentence.into(), expected: expected.into(), help };
        Self::new(layer, source.text(), span, problem)
    }

    /// The same error with another name for where the spec came from (`--net` or `--disk` unless
    /// told otherwise), such as a file and a step.
    #[must_use]
    pub fn with_origin(mut self, origin: &str) -> Self {
        let text = self.0.source.inner().clone();
        self.0.source = NamedSource::new(origin, text);
        self
    }

    pub(super) fn with_related(mut self, span: Span, label: impl Into<String>) -> Self {
        let span = clamp(self.0.source.inner(), span);
        self.0.related = Some((span, label.into()));
        self
    }

    pub(super) fn with_suggestion(mut self, word: impl Into<String>) -> Self {
        self.0.suggestion = Some(word.into());
        self
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The layer of the spec.
    pub fn layer(&self) -> Layer {
        self.0.layer
    }

    /// The word that is wrong, in bytes of the text.
    pub fn span(&self) -> Span {
        self.0.span
    }

    /// The right word, when one is near.
    pub fn suggestion(&self) -> Option<&str> {
        self.0.suggestion.as_deref()
    }

    /// The report for people: the sentence, the line, a caret under the word, what was expected,
    /// the suggestion. Several lines, plain ASCII except for what the user wrote; colours only with
    /// `color` (the caller knows whether it writes to a terminal and whether `NO_COLOR` is set).
    pub fn render(&self, color: bool) -> String {
        let styles = if color { ThemeStyles::ansi() } else { ThemeStyles::none() };
        let theme = GraphicalTheme { characters: characters(), styles };
        let mut report = String::new();
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_wrap_lines(false);
        if handler.render_report(&mut report, self).is_err() {
            // Writing to a string does not fail; the sentence is the least we owe.
            report = format!("error: {self}\n");
        }
        report
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.problem.fmt(f)
    }
}

impl std::error::Error for SpecError {}

impl Diagnostic for SpecError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let inner = &self.0;
        let suggestion = inner.suggestion.as_ref();
        match suggestion.map(|word| format!("did you mean `{word}`?")) {
            Some(text) => Some(Box::new(text)),
            None => match inner.problem.help(inner.layer) {
                Some(text) => Some(Box::new(text)),
                None => None,
            },
        }
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.0.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let inner = &self.0;
        let label = inner.problem.label(inner.layer);
        let word = LabeledSpan::new_primary_with_span(Some(label), inner.span);
        let related = inner.related.as_ref();
        let related = related.map(|(span, label)| LabeledSpan::new_with_span(Some(label.clone()), *span));
        Some(Box::new(std::iter::once(word).chain(related)))
    }
}

/// Plain ASCII, carets under the word.
fn characters() -> ThemeCharacters {
    ThemeCharacters {
        underbar: '^',
        ltop: '+',
        lbot: '+',
        error: "error:".to_owned(),
        ..ThemeCharacters::ascii()
    }
}

/// `text` with every character that would act on a terminal replaced by one of the same length in
/// UTF-8, so that spans keep their meaning. White space becomes a space: a spec is one line.
fn visible(text: &str) -> String {
    let dangerous = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let safe = |c: char| match c.len_utf8() {
        _ if !dangerous(c) => c,
        1 if c.is_whitespace() => ' ',
        1 => '?',
        2 => '\u{b7}',
        _ => '\u{fffd}',
    };
    text.chars().map(safe).collect()
}

/// `span` on character boundaries inside `text`.
fn clamp(text: &str, span: Span) -> Span {
    let boundary = |at: usize| {
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(span.start);
    Span::new(start, boundary(span.end).max(start))
}
