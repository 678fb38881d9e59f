//! The summary: a short table on standard error when the session has ended.

use std::io::{self, Write};

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};

use super::{Exit, RuleReport, SessionReport, number};
use crate::spec::wants_color;

/// How to draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Bold and yellow.
    pub color: bool,
    /// Columns of the terminal; without one no line is broken.
    pub width: Option<u16>,
}

impl Style {
    /// What standard error can show: colour only on a terminal, `NO_COLOR` respected.
    #[must_use]
    pub fn of_stderr() -> Self {
        let width = rustix::termios::tcgetwinsize(io::stderr()).ok().map(|size| size.ws_col);
        Self { color: wants_color(&io::stderr()), width: width.filter(|columns| *columns >= 40) }
    }

    fn paint(self, codes: &str, text: &str) -> String {
        if self.color { format!("\x1b[{codes}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Writes the summary to standard error. That nobody reads it is no reason to fail.
pub fn print(report: &SessionReport) {
    _ = io::stderr().lock().write_all(render(report, Style::of_stderr()).as_bytes());
}

/// One line about the session, one row for each rule, one line for each exception, and a line for everything that needs one.
#[must_use]
pub fn render(report: &SessionReport, style: Style) -> String {
    let session = &report.session;
    let lasted = number::nanoseconds(session.lasted().as_nanos().try_into().unwrap_or(u64::MAX));
    let mut text =
        format!("fault: {lasted} on {}, seed {}; {}\n", session.target, session.seed, exit(&session.exit));
    for line in rules(&report.rules, style).lines() {
        text += line.trim_end();
        text.push('\n');
    }
    for exception in &report.except {
        let operations = if exception.spared == 1 { "operation" } else { "operations" };
        text += &format!("except `{}`: {} {operations} spared\n", exception.filter, exception.spared);
    }
    for rule in &report.rules {
        let Some(marked) = rule.marked.filter(|_| rule.injected != 0) else { continue };
        let lost = rule.injected.saturating_sub(marked);
        text += &format!("fault {}: {marked} of them marked, {lost} lost\n", rule.id);
    }
    if let Some(scenario) = &report.scenario {
        for expectation in &scenario.expectations {
            let label = match expectation.met {
                Some(true) => style.paint("32", "met:"),
                Some(false) => style.paint("31;1", "not met:"),
                None => style.paint("33;1", "not judged:"),
            };
            text += &format!("{label} {}: {}\n", expectation.what, expectation.found);
        }
    }
    let hints = report.rules.iter().filter_map(|rule| {
        let hint = rule.hint.as_ref()?;
        Some((true, format!("fault {} {hint}", rule.id)))
    });
    let notes = report.notes.iter().map(|note| (note.kind.is_warning(), note.to_string()));
    let troubles = report.troubles.iter().map(|trouble| (true, trouble.clone()));
    for (is_warning, line) in troubles.chain(hints).chain(notes) {
        let label = if is_warning { style.paint("33;1", "warning:") } else { "note:".to_owned() };
        text += &format!("{label} {line}\n");
    }
    text
}

pub(crate) fn rules(rules: &[RuleReport], style: Style) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match style.width {
        Some(width) => table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let head = |title| Cell::new(title).add_attribute(Attribute::Bold);
    let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let right = |title| head(title).set_alignment(CellAlignment::Right);
    // Of a scenario; the target only where there are several.
    let has_phases = rules.iter().any(|rule| rule.phase.is_some());
    let has_targets = rules.iter().any(|rule| rule.target != rules[0].target);
    let mut header = vec![head("#")];
    header.extend(has_phases.then(|| head("phase")));
    header.extend(has_targets.then(|| head("target")));
    header.extend([head("fault"), right("matched"), right("injected"), right("rate"), right("mean delay")]);
    table.set_header(header);
    for rule in rules {
        let mut row = vec![Cell::new(rule.id)];
        let word = |word: &Option<String>| Cell::new(word.as_deref().unwrap_or("-"));
        row.extend(has_phases.then(|| word(&rule.phase)));
        row.extend(has_targets.then(|| word(&rule.target)));
        row.extend([
            Cell::new(format!("{} {}", rule.layer, rule.spec)),
            number(rule.matched.to_string()),
            number(rule.injected.to_string()),
            number(rate(rule)),
            number(rule.mean_delay_ns.map_or_else(|| "-".to_owned(), number::nanoseconds)),
        ]);
        table.add_row(row);
    }
    table
}

pub(crate) fn rate(rule: &RuleReport) -> String {
    if rule.matched == 0 {
        return "-".to_owned();
    }
    number::percent(rule.injected as f64 / rule.matched as f64)
}

pub(super) fn exit(exit: &Exit) -> String {
    match exit {
        Exit::CommandExited { status } => format!("the command exited with status {status}"),
        Exit::CommandKilled { signal } => format!("the command was killed by {signal}"),
        Exit::Elapsed => "its time was over".to_owned(),
        Exit::Interrupted { signal } => format!("ended by {signal}"),
        Exit::Stalled { silence_ns } => {
            format!("healed early: the controller did not run for {}", number::nanoseconds(*silence_ns))
        }
        Exit::Deleted => "ended by a client".to_owned(),
        Exit::LeaseExpired => "its lease expired".to_owned(),
        Exit::Healed => "healed from `fault top`".to_owned(),
        Exit::TargetGone => "nobody was left to suffer".to_owned(),
        Exit::Released => "who had started it let go".to_owned(),
        Exit::Failed { error } => format!("healed early: {error}"),
    }
}
