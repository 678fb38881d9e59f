//! The one error of a wrong spec, and its report.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
    ThemeCharacters, ThemeStyles,
};

use super::Layer;
use super::problem::Problem;
use super::source::{Source, Span, visible};
use crate::exit::Class;

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
    /// The right word.
    suggestion: Option<String>,
    /// More help than the problem alone can give.
    remark: Option<String>,
    source: NamedSource<String>,
}

impl SpecError {
    pub(super) fn new(layer: Layer, text: &str, span: Span, problem: Problem) -> Self {
        // An empty line has no place to point at.
        let shown = if text.is_empty() { " ".to_owned() } else { visible(text) };
        Self(Box::new(Inner {
            problem,
            layer,
            span: clamp(&shown, span),
            related: None,
            suggestion: None,
            remark: None,
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

    pub(super) fn with_advice(mut self, word: Option<String>, remark: Option<String>) -> Self {
        self.0.suggestion = word;
        self.0.remark = remark;
        self
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    /// The exit status it leads to.
    pub const fn class(&self) -> Class {
        Class::Usage
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
        render_report(self, color).unwrap_or_else(|| format!("error: {self}\n"))
    }
}

/// A report for people, see [`SpecError::render`]. None where it cannot be drawn: the sentence is the least we owe.
pub(crate) fn render_report(error: &dyn Diagnostic, color: bool) -> Option<String> {
    let styles = if color { ThemeStyles::ansi() } else { ThemeStyles::none() };
    let theme = GraphicalTheme { characters: characters(), styles };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_width(REPORT_COLUMNS)
        .with_break_words(false);
    let mut report = String::new();
    handler.render_report(&mut report, error).is_ok().then_some(report)
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
        let question = inner.suggestion.as_ref().map(|word| format!("did you mean `{word}`?"));
        let text = match (question, &inner.remark) {
            (Some(question), Some(remark)) => Some(format!("{question} {remark}")),
            (Some(text), None) => Some(text),
            (None, Some(remark)) => Some(remark.clone()),
            (None, None) => inner.problem.help(inner.layer),
        };
        text.map(|text| Box::new(text) as Box<dyn fmt::Display>)
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

/// Where the sentence and the help are wrapped.
const REPORT_COLUMNS: usize = 100;

/// Whether a report written to `stream` should have colours: it is a terminal, and `NO_COLOR` is
/// not set to anything (<https://no-color.org>).
pub fn wants_color(stream: &impl IsTerminal) -> bool {
    color(stream.is_terminal(), std::env::var_os("NO_COLOR").as_deref())
}

fn color(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
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

/// `span` on character boundaries inside `text`, where it should be already: a report must not fail because of a wrong one.
pub(crate) fn clamp(text: &str, span: Span) -> Span {
    let boundary = |at: usize| {
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(span.start);
    let inside = Span::new(start, boundary(span.end).max(start));
    debug_assert_eq!(inside, span, "a place that is not in {text:?}");
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{NetFault, parse};

    #[test]
    fn colours_are_for_terminals_and_can_be_refused() {
        assert!(color(true, None));
        assert!(color(true, Some(OsStr::new(""))));
        assert!(!color(true, Some(OsStr::new("1"))));
        assert!(!color(false, None));
    }

    #[test]
    fn only_a_coloured_report_has_escapes() {
        let error = parse(Layer::Net, "dorp").expect_err("a wrong verb");
        assert!(!error.render(false).contains('\u{1b}'));
        assert!(error.render(true).contains('\u{1b}'));
    }

    #[test]
    fn what_the_user_wrote_cannot_act_on_the_terminal() {
        let error = parse(Layer::Net, "drop \u{1b}[31m\u{9b}0m\u{202e}x\u{7}").expect_err("garbage");
        for report in [error.render(false), error.to_string()] {
            assert!(report.contains("?[31m\u{b7}0m\u{fffd}x?"), "{report}");
        }
    }

    #[test]
    fn a_name_that_is_not_found_later_is_pointed_at() {
        let fault: NetFault = "drop 5% iface eht0".parse().expect("a fault");
        let iface = fault.filter.iface.expect("an interface");
        let error = SpecError::unresolved(
            Layer::Net,
            &fault.source,
            iface.span,
            "there is no interface `eht0`",
            "expected an interface of the target",
            Some("did you mean `eth0`?".to_owned()),
        );
        assert_eq!(error.class(), Class::Usage);
        assert_eq!(
            error.with_origin("outage.toml, step 2").render(false),
            "  error: there is no interface `eht0`
   +-[outage.toml, step 2:1:15]
 1 | drop 5% iface eht0
   :               ^^^^
   :                 +-- expected an interface of the target
   +----
  help: did you mean `eth0`?
"
        );
    }
}
