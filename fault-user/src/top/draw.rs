//! The model as a screen. Pure: a model and a size in, characters out; readable from 80×24 on, and no worse than cut below.

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Wrap},
};

use serde_json::Value;

use super::{
    NOBODY, details,
    model::{Model, Row},
    words,
};
use crate::beacon::message::{Rule, Session, State};

/// Columns: number, fault, matched a second, hit a second, share, mean delay, hits of late.
const COLUMNS: [Constraint; 7] = [
    Constraint::Length(5),
    Constraint::Fill(1),
    Constraint::Length(9),
    Constraint::Length(6),
    Constraint::Length(6),
    Constraint::Length(8),
    Constraint::Length(SPARKS),
];
/// Intervals in the last column.
const SPARKS: u16 = 10;
/// Lines of the lower parts.
const DETAILS: u16 = 8;
const EVENTS: u16 = 5;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(4),
        Constraint::Length(DETAILS),
        Constraint::Length(EVENTS),
        Constraint::Length(1),
    ]);
    let [head, middle, lower, events, foot] = areas.areas(frame.area());
    frame.render_widget(header(model), head);
    let rows = model.rows();
    match rows.get(model.place()) {
        Some(row) => {
            table(frame, model, &rows, middle);
            details::of(frame, model, row, lower);
            last_events(frame, row, events);
        }
        None => {
            let sentence = Paragraph::new(NOBODY).wrap(Wrap { trim: true }).alignment(Alignment::Center);
            frame.render_widget(sentence, middle.union(lower).inner(ratatui::layout::Margin::new(4, 3)));
        }
    }
    frame.render_widget(footer(model), foot);
}

fn header(model: &Model) -> Paragraph<'static> {
    let (sessions, faults, step) = model.totals();
    let some = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let text = format!(
        " fault top   {}, {}   {}/s matched, {}/s hit",
        some(sessions, "session"),
        some(faults, "fault"),
        words::rate(step.matched),
        words::rate(step.injected)
    );
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD))
}

fn table(frame: &mut Frame<'_>, model: &Model, rows: &[Row<'_>], area: Rect) {
    let [title, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let titles = ["  #", "fault", "matched/s", "hit/s", "rate", "delay", "hits"].map(str::to_owned);
    cells(frame, titles, title, Style::new().bold());
    let height = usize::from(body.height);
    // The selected line in the middle, but no empty lines as long as there are others.
    let first = model.place().saturating_sub(height / 2).min(rows.len().saturating_sub(height));
    for ((place, row), line) in rows.iter().enumerate().skip(first).zip(body.rows()) {
        let selected = place == model.place();
        let mark = if selected { '▶' } else { ' ' };
        let emphasis = if selected { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        match row {
            Row::Session(found, session) => {
                let controller = &found.controller;
                let text =
                    format!("{mark}{} {}  {}", controller.pid, controller.verb, session_words(session));
                let style = emphasis.fg(state_color(session.state));
                frame.render_widget(Paragraph::new(fit(&text, line.width)).style(style), line);
            }
            Row::Rule(_, session, rule) => {
                let is_idle = !rule.in_force || session.state != State::Active;
                let style = if is_idle { emphasis.add_modifier(Modifier::DIM) } else { emphasis };
                cells(frame, rule_cells(model, row, rule, mark), line, style);
            }
            Row::Silent(pid) => {
                let text = format!("{mark}{pid} does not answer: it is stopped, or too busy");
                frame.render_widget(Paragraph::new(text).style(emphasis.fg(Color::Red)), line);
            }
        }
    }
    let hidden = rows.len().saturating_sub(height);
    if hidden > 0 {
        let text = format!("{}–{} of {} lines", first + 1, (first + height).min(rows.len()), rows.len());
        frame.render_widget(Paragraph::new(text).alignment(Alignment::Center).dim(), middle_of(title));
    }
}

/// Between the titles of the columns.
fn middle_of(title: Rect) -> Rect {
    Rect { x: title.x + 11.min(title.width), width: title.width.saturating_sub(55), ..title }
}

fn state_color(state: State) -> Color {
    match state {
        State::Active => Color::Cyan,
        State::Paused => Color::Yellow,
        State::Healing => Color::Green,
    }
}

fn session_words(session: &Session) -> String {
    let left = session.left_ns.map_or_else(String::new, |left| format!(", {} left", words::time(left)));
    format!("{} {}{left}  {}", session.state.word(), words::time(session.lasted_ns), session.target)
}

fn rule_cells(model: &Model, row: &Row<'_>, rule: &Rule, mark: char) -> [String; 7] {
    let history = model.history(row);
    let step = history.and_then(|history| history.last());
    let unknown = || "-".to_owned();
    let share = step.filter(|step| step.matched > 0.0).map(|step| step.injected / step.matched);
    let delay = step.and_then(|step| step.delay_ns);
    let steps = history.map(|history| history.steps.iter().copied().collect::<Vec<_>>()).unwrap_or_default();
    let late = &steps[steps.len().saturating_sub(SPARKS.into())..];
    let most = late.iter().map(|step| step.injected).fold(0.0, f64::max);
    let sparks = words::sparkline(late.iter().map(|step| Some(step.injected)), most);
    let phase = rule.phase.as_ref().map_or_else(String::new, |phase| format!("{phase}: "));
    [
        format!("{mark} {:>2}", rule.id),
        format!("{phase}{} {}", rule.layer, rule.spec),
        step.map_or_else(unknown, |step| words::rate(step.matched)),
        step.map_or_else(unknown, |step| words::rate(step.injected)),
        share.map_or_else(unknown, percent),
        delay.map_or_else(unknown, words::delay),
        format!("{sparks:>width$}", width = usize::from(SPARKS)),
    ]
}

/// `10.3%`, five columns at most.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 0.05 => "<0.1%".to_owned(),
        percent if percent < 99.95 => format!("{percent:.1}%"),
        _ => "100%".to_owned(),
    }
}

/// One line of the table; numbers to the right.
fn cells(frame: &mut Frame<'_>, texts: [String; 7], line: Rect, style: Style) {
    let areas: [Rect; 7] = Layout::horizontal(COLUMNS).spacing(1).areas(line);
    for (place, (text, area)) in texts.iter().zip(areas).enumerate() {
        let alignment = if (2..6).contains(&place) { Alignment::Right } else { Alignment::Left };
        frame.render_widget(Paragraph::new(fit(text, area.width)).alignment(alignment).style(style), area);
    }
}

/// The text in so many columns, with an ellipsis where it is cut.
pub(super) fn fit(text: &str, columns: u16) -> String {
    let text = words::tame(text);
    let columns = usize::from(columns);
    if Span::raw(&text).width() <= columns {
        return text;
    }
    let mut cut = String::new();
    let mut width = 1;
    for letter in text.chars() {
        width += Span::raw(letter.to_string()).width();
        if width > columns {
            break;
        }
        cut.push(letter);
    }
    cut.push('…');
    cut
}

/// A part of the screen with a title on the line above it.
pub(super) fn part(title: &str, width: u16) -> Block<'static> {
    let title = fit(title, width.saturating_sub(4));
    Block::new().borders(Borders::TOP).border_style(Style::new().dim()).title(format!(" {title} "))
}

fn last_events(frame: &mut Frame<'_>, row: &Row<'_>, area: Rect) {
    let block = part("last events", area.width);
    let inner = block.inner(area);
    let events = row.session().and_then(|(_, session)| session.events.as_ref());
    let is_of = |event: &Value| match row {
        Row::Rule(_, _, rule) => event["rules"].as_array().is_some_and(|hit| hit.contains(&rule.id.into())),
        Row::Session(..) | Row::Silent(_) => true,
    };
    let events = events.map(|all| all.iter().filter(|event| is_of(event)).collect::<Vec<_>>());
    let lines: Vec<Line<'_>> = match &events {
        None => vec![Line::from(" this controller does not tell them").dim()],
        Some(events) if events.is_empty() => vec![Line::from(" none of late").dim()],
        Some(events) => {
            let first = events.len().saturating_sub(inner.height.into());
            let shown = events[first..].iter().map(|event| words::event(event));
            shown.map(|text| Line::from(fit(&format!(" {text}"), inner.width))).collect()
        }
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn footer(model: &Model) -> Paragraph<'static> {
    if model.question.is_some() {
        let text = match model.rows().get(model.place()).and_then(Row::session) {
            Some((found, session)) => format!(
                " y heals the session of {} {}, any other key does not ({})",
                found.controller.pid, found.controller.verb, session.target
            ),
            None => String::new(),
        };
        return Paragraph::new(words::tame(&text)).style(Style::new().fg(Color::Yellow).bold());
    }
    match &model.message {
        Some(message) => {
            Paragraph::new(format!(" {}", words::tame(message))).style(Style::new().fg(Color::Red))
        }
        None => Paragraph::new(" ↑↓ select   p pause, resume   h heal   q quit").dim(),
    }
}
