//! `--report`: a page for a browser that needs nothing but itself, with what was hit over time.

mod chart;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    RuleReport, SessionReport, number,
    output::{Destination, OutputError},
    scenario::{ExpectationReport, ScenarioReport},
    table,
};
use crate::session::history::Point;

/// What it is called where it cannot be written.
pub const WHAT: &str = "the page";

const STYLE: &str = include_str!("page.css");

/// Writes the page to `destination`; `history` has the points of each rule, in their order.
///
/// # Errors
/// When it cannot be written.
pub fn write(
    report: &SessionReport,
    history: &[Vec<Point>],
    destination: &Destination,
) -> Result<(), OutputError> {
    destination.write(WHAT, render(report, history).as_bytes())
}

/// The page. What users, files and kernels call things is escaped.
#[must_use]
pub fn render(report: &SessionReport, history: &[Vec<Point>]) -> String {
    let session = &report.session;
    let lasted_ns = u64::try_from(session.lasted().as_nanos()).unwrap_or(u64::MAX);
    let title = format!("fault: {}", session.target);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                p {
                    (number::nanoseconds(lasted_ns)) " from " (session.started.strftime("%F %T UTC"))
                    ", seed " (session.seed) "; " (table::exit(&session.exit))
                    span.soft { " · fault " (session.version) }
                }
                (remarks(report))
                (rules(report))
                @if let Some(scenario) = &report.scenario {
                    (phases(scenario, lasted_ns))
                    (expectations(&scenario.expectations))
                }
                @for (rule, points) in report.rules.iter().zip(history) {
                    (over_time(rule, points, lasted_ns))
                }
            }
        }
    };
    page.into_string()
}

/// What went otherwise than asked.
fn remarks(report: &SessionReport) -> Markup {
    let hints =
        report.rules.iter().filter_map(|rule| Some(format!("fault {} {}", rule.id, rule.hint.as_ref()?)));
    html! {
        @for line in report.troubles.iter().cloned().chain(hints) {
            p.bad { (line) }
        }
        @for note in &report.notes {
            p.bad[note.kind.is_warning()] { (note) }
        }
    }
}

fn rules(report: &SessionReport) -> Markup {
    let has_phases = report.rules.iter().any(|rule| rule.phase.is_some());
    html! {
        h2 { "Faults" }
        table {
            tr {
                th { "#" }
                @if has_phases { th { "phase" } th { "target" } }
                th { "fault" }
                @for title in ["matched", "injected", "rate", "mean delay"] { th.n { (title) } }
            }
            @for rule in &report.rules {
                tr {
                    td { (rule.id) }
                    @if has_phases {
                        td { (rule.phase.as_deref().unwrap_or("-")) }
                        td { (rule.target.as_deref().unwrap_or("-")) }
                    }
                    td { code { (rule.layer) " " (rule.spec) } }
                    td.n { (rule.matched) }
                    td.n { (rule.injected) }
                    td.n { (table::rate(rule)) }
                    td.n { (rule.mean_delay_ns.map_or_else(|| "-".to_owned(), number::nanoseconds)) }
                }
            }
        }
        @for exception in &report.except {
            p { "except " code { (exception.filter) } ": " (number::count(exception.spared, "operation", "operations")) " spared" }
        }
    }
}

fn phases(scenario: &ScenarioReport, lasted_ns: u64) -> Markup {
    html! {
        h2 { "Phases of " code { (scenario.file) } }
        (chart::turns(&scenario.phases, lasted_ns))
    }
}

fn expectations(all: &[ExpectationReport]) -> Markup {
    html! {
        @if !all.is_empty() {
            h2 { "Expected" }
            @for expectation in all {
                p.bad[expectation.met == Some(false)] {
                    @match expectation.met {
                        Some(true) => "met: ",
                        Some(false) => "not met: ",
                        None => "not judged: ",
                    }
                    (expectation.what) ": " (expectation.found)
                }
            }
        }
    }
}

fn over_time(rule: &RuleReport, points: &[Point], lasted_ns: u64) -> Markup {
    html! {
        h2 { "Fault " (rule.id) ": " code { (rule.layer) " " (rule.spec) } }
        (chart::operations(points, lasted_ns))
        @if rule.mean_delay_ns.is_some() {
            (chart::delays(points, lasted_ns))
        }
    }
}
