//! The lower half of the screen: what there is to say of the selected line.

use ratatui::{
    Frame,
    layout::Rect,
    style::Stylize as _,
    text::{Line, Span},
    widgets::{Paragraph, Wrap},
};

use super::{
    draw::{part, percent},
    model::{History, Model, Row},
    words,
};
use crate::beacon::message::{Controller, Delays, Rule, Session};

/// Columns of the names on the left.
const LABEL: usize = 9;

/// Draws them.
pub(super) fn of(frame: &mut Frame<'_>, model: &Model, row: &Row<'_>, area: Rect) {
    let (title, lines) = match row {
        Row::Session(found, session) => ("the session".to_owned(), of_session(&found.controller, session)),
        Row::Rule(_, _, rule) => {
            (format!("fault {}", rule.id), of_rule(model.history(row), rule, area.width))
        }
        Row::Silent(pid) => (
            format!("{pid}"),
            vec![Line::from(
                " The controller does not answer. While it is stopped its programs withdraw their faults by \
                 themselves, five seconds after its last sign of life.",
            )],
        ),
    };
    let paragraph = Paragraph::new(lines).wrap(Wrap { trim: false }).block(part(&title, area.width));
    frame.render_widget(paragraph, area);
}

fn labelled(label: &str, text: impl AsRef<str>) -> Line<'static> {
    Line::from(vec![Span::from(format!(" {label:<LABEL$}")).dim(), Span::from(words::tame(text.as_ref()))])
}

fn of_session(controller: &Controller, session: &Session) -> Vec<Line<'static>> {
    let (matched, injected) =
        session.rules.iter().fold((0, 0), |sum, rule| (sum.0 + rule.matched, sum.1 + rule.injected));
    let left = session.left_ns.map_or_else(String::new, |left| format!(", {} left", words::time(left)));
    vec![
        labelled(
            "state",
            format!(
                "{}, since {} ({}{left})",
                session.state.word(),
                session.started,
                words::time(session.lasted_ns)
            ),
        ),
        labelled("seed", session.seed.to_string()),
        labelled("total", format!("{} matched, {} hit", words::count(matched), words::count(injected))),
        labelled("by", format!("fault {} {}, process {}", controller.fault, controller.verb, controller.pid)),
        // Last, because it may be longer than the screen.
        labelled("target", &session.target),
    ]
}

fn of_rule(history: Option<&History>, rule: &Rule, width: u16) -> Vec<Line<'static>> {
    let share = if rule.matched == 0 { 0.0 } else { rule.injected as f64 / rule.matched as f64 };
    let mean = rule
        .mean_delay_ns
        .map_or_else(String::new, |ns| format!(", {} late on average", words::delay(ns as f64)));
    let total = format!(
        "{} matched, {} hit ({}), {}{mean}",
        words::count(rule.matched),
        words::count(rule.injected),
        percent(share),
        words::bytes(rule.bytes),
    );
    let mut lines = vec![labelled("total", total)];
    if let Some(phase) = &rule.phase {
        let is = if rule.in_force { "in force" } else { "not in force" };
        lines.push(labelled("phase", format!("{phase}, {is}")));
    }
    let columns = usize::from(width).saturating_sub(LABEL + 30);
    if let Some(history) = history {
        lines.push(plot(
            "hit/s",
            history.steps.iter().map(|step| Some(step.injected)),
            columns,
            (" up to", words::rate),
        ));
        if rule.mean_delay_ns.is_some() {
            lines.push(plot(
                "delay",
                history.steps.iter().map(|step| step.delay_ns),
                columns,
                (" on average, up to", words::delay),
            ));
        }
    }
    lines.extend(rule.delays.as_ref().and_then(|delays| histogram(delays)));
    // Last, because it may be longer than the screen.
    lines.push(labelled("fault", format!("{} {}", rule.layer, rule.spec)));
    lines
}

/// The last values, newest on the right, and the largest of them.
fn plot(
    label: &str,
    values: impl DoubleEndedIterator<Item = Option<f64>> + ExactSizeIterator + Clone,
    columns: usize,
    (up_to, number): (&str, impl Fn(f64) -> String),
) -> Line<'static> {
    let values = values.clone().skip(values.len().saturating_sub(columns));
    let most = values.clone().flatten().fold(0.0, f64::max);
    let sparks = words::sparkline(values, most);
    let most = if most > 0.0 { format!("{up_to} {}", number(most)) } else { String::new() };
    labelled(label, format!("{sparks}{most}"))
}

/// Events by the length of the delay asked for, from the first step that has any to the last.
fn histogram(delays: &[Delays]) -> Option<Line<'static>> {
    let first = delays.iter().position(|step| step.count > 0)?;
    let last = delays.iter().rposition(|step| step.count > 0)?;
    let shown = &delays[first..=last];
    let most = shown.iter().map(|step| step.count).max().unwrap_or_default() as f64;
    let bars = shown.iter().flat_map(|step| [Some(step.count as f64); 2]).collect::<Vec<_>>();
    let end = |step: &Delays| {
        step.up_to_ns.map_or_else(|| "longer".to_owned(), |ns| format!("≤ {}", words::delay(ns as f64)))
    };
    let bars = words::sparkline(bars.into_iter(), most);
    let total: u64 = shown.iter().map(|step| step.count).sum();
    let text = match shown {
        [only] => format!("{} {bars} of {} events", end(only), words::count(total)),
        [first, .., last] => format!("{} {bars} {} of {} events", end(first), end(last), words::count(total)),
        [] => return None,
    };
    Some(labelled("delays", text))
}
