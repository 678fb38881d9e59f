//! The one error of a wrong scenario: points into the file, at line and column.

use std::fmt;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use super::{SCENARIO_MAX_BYTES, text::Text};
use crate::{
    exit::Class,
    spec::{Span, SpecError, clamp, render_report, visible},
};

/// How much of a file that is too long an error message shows, in characters.
const SHOWN_MAX_CHARS: usize = 40;

/// A scenario that cannot be played.
///
/// [`Display`](fmt::Display) is the sentence alone; [`ScenarioError::render`] shows the line.
#[derive(Debug, Clone)]
pub struct ScenarioError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    sentence: String,
    labels: Vec<(Span, String)>,
    help: Option<String>,
    source: NamedSource<String>,
}

/// Where a scenario came from, and its text.
#[derive(Debug, Clone)]
pub struct Origin {
    /// A path, or what stands for one.
    pub name: String,
    /// All of it.
    pub text: String,
}

impl Origin {
    /// `sentence` says what is wrong, `label` is written under the word at `span`.
    pub fn wrong(&self, span: Span, sentence: impl Into<String>, label: impl Into<String>) -> ScenarioError {
        self.error(sentence.into(), vec![(span, label.into())], None)
    }

    /// It is longer than any scenario; only its beginning is shown.
    pub(super) fn too_long(&self) -> ScenarioError {
        let first = self.text.lines().next().unwrap_or_default().chars().take(SHOWN_MAX_CHARS).collect();
        let shown = Self { name: self.name.clone(), text: first };
        let sentence = format!("a scenario of {} bytes", self.text.len());
        let label = format!("at most {} MiB", SCENARIO_MAX_BYTES >> 20);
        shown.wrong(Span::new(0, shown.text.len()), sentence, label)
    }

    /// What is wrong with a spec that `text` holds.
    pub(super) fn spec(&self, text: &Text, error: &SpecError) -> ScenarioError {
        let labels = error.labels().into_iter().flatten();
        let labels = labels.map(|label| {
            let within = Span::new(label.offset(), label.offset() + label.len());
            (text.span_of(within), label.label().unwrap_or_default().to_owned())
        });
        self.error(error.to_string(), labels.collect(), error.help().map(|help| help.to_string()))
    }

    fn error(&self, sentence: String, labels: Vec<(Span, String)>, help: Option<String>) -> ScenarioError {
        // A line at a time: what acts on a terminal is not shown, but the lines are.
        let mut shown: String = self
            .text
            .split_inclusive('\n')
            .map(|line| match line.strip_suffix('\n') {
                Some(line) => visible(line) + "\n",
                None => visible(line),
            })
            .collect();
        if shown.is_empty() {
            // An empty file has no place to point at.
            shown.push(' ');
        }
        // They quote the file.
        let (sentence, help) = (visible(&sentence), help.as_deref().map(visible));
        let labels = labels.into_iter().map(|(span, label)| (clamp(&shown, span), visible(&label))).collect();
        ScenarioError(Box::new(Inner { sentence, labels, help, source: NamedSource::new(&self.name, shown) }))
    }
}

impl ScenarioError {
    /// The same with help.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(visible(&help.into()));
        self
    }

    /// The same with help, if there is any.
    #[must_use]
    pub fn did_you_mean(self, word: Option<&str>) -> Self {
        match word {
            Some(word) => self.with_help(format!("did you mean `{word}`?")),
            None => self,
        }
    }

    /// The exit status it leads to.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Usage
    }

    /// The report for people, as [`SpecError::render`].
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        render_report(self, color).unwrap_or_else(|| format!("error: {self}\n"))
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.sentence)
    }
}

impl std::error::Error for ScenarioError {}

impl Diagnostic for ScenarioError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.0.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = |(number, (span, label)): (usize, &(Span, String))| match number {
            0 => LabeledSpan::new_primary_with_span(Some(label.clone()), *span),
            _ => LabeledSpan::new_with_span(Some(label.clone()), *span),
        };
        Some(Box::new(self.0.labels.iter().enumerate().map(label)))
    }
}
