//! The page of a scenario, and the index of all.

use std::fmt::Write as _;

use anyhow::Context as _;

use super::{
    Scenario,
    record::{Record, View},
    stage::{Stage, Table},
};
use crate::process::Ended;

/// The page, in Markdown.
///
/// # Errors
/// When uname(1) fails.
pub fn render(scenario: &Scenario, stage: &Stage) -> anyhow::Result<String> {
    let Scenario { name, number, story, .. } = scenario;
    let commands = stage.commands.join("\n");
    let versions: Vec<String> =
        stage.versions.iter().map(|(package, version)| format!("- {package} {version}")).collect();
    let tables: String = stage.tables.iter().map(extra).collect();
    let checks: Vec<String> =
        stage.checks.sentences().iter().map(|sentence| format!("- {sentence}")).collect();
    let kernel = Ended::of(std::process::Command::new("uname").arg("-sr")).context("uname")?.stdout;
    Ok(format!(
        "# {title}\n\n{lead}\n\n![Latency of each request, with the phases]({name}.svg)\n\n\
         ## In production\n\n{production}\n\n\
         ## The command\n\n```text\n{commands}\n```\n\n{who}\n\n\
         ## What to look for\n\n{look_for}\n\n\
         ## Measured\n\n{measured}\n{tables}\
         Latencies are those of an emulated machine: compare them with each other.\n\n\
         ## What held\n\nThe run ends with an error unless all of this is so.\n\n{checks}\n\n\
         ## What ran\n\n{versions}\n- {kernel}\n\n\
         Number {number} of the [list of partial failures](../presets/README.md). This page and its plot were written by \
         `cargo xtask gallery {name}`.\n",
        title = story.title,
        lead = story.lead,
        production = story.production,
        who = story.who,
        look_for = story.look_for,
        measured = measured(&stage.record),
        checks = checks.join("\n"),
        versions = versions.join("\n"),
        kernel = kernel.trim(),
    ))
}

/// Who felt what in which phase.
fn measured(record: &Record) -> String {
    let mut text = "| phase | who | requests | as wanted | median | slowest | how they ended |\n|---|---|--:|--:|--:|--:|---|\n"
        .to_owned();
    let mut names: Vec<&str> = Vec::new();
    for phase in &record.phases {
        if !names.contains(&phase.name.as_str()) {
            names.push(&phase.name);
        }
    }
    for phase in names {
        for who in record.who() {
            let seen = record.of(who, phase);
            if seen.count() > 0 {
                // Writing to a string cannot fail.
                _ = writeln!(text, "| {phase} | {who} | {}", row(&seen));
            }
        }
    }
    text
}

fn row(seen: &View<'_>) -> String {
    let outcomes: Vec<String> =
        seen.outcomes().into_iter().map(|(outcome, count)| format!("{count} × {}", cell(outcome))).collect();
    format!(
        "{} | {} | {} | {} | {} |",
        seen.count(),
        seen.good(),
        milliseconds(seen.median_ms()),
        milliseconds(seen.worst_ms()),
        outcomes.join(", ")
    )
}

fn milliseconds(value: f64) -> String {
    match value {
        1000.0.. => format!("{:.2} s", value / 1e3),
        10.0.. => format!("{value:.0} ms"),
        _ => format!("{value:.1} ms"),
    }
}

/// What a table's cell can hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn extra(table: &Table) -> String {
    let line = |cells: &[String]| {
        format!("| {} |\n", cells.iter().map(|text| cell(text)).collect::<Vec<_>>().join(" | "))
    };
    let rule = format!("|{}\n", "---|".repeat(table.head.len()));
    let rows: String = table.rows.iter().map(|row| line(row)).collect();
    format!("### {}\n\n{}{rule}{rows}\n", table.title, line(&table.head))
}

/// The page that leads to all others.
pub fn index<'a>(scenarios: impl Iterator<Item = &'a Scenario>) -> String {
    let mut text = "# The gallery\n\nPartial failures on systems everybody knows: unmodified, from Debian's packages, in a \
                    virtual machine. Each page has the one command that breaks the system, a plot of what its users felt, \
                    what was measured before, during and after, and what had to hold.\n\n\
                    ```text\ncargo xtask gallery                  all of it, and these pages\n\
                    cargo xtask gallery five-states      one of them\n```\n\n| | scenario | |\n|---|---|---|\n"
        .to_owned();
    for Scenario { name, number, story, .. } in scenarios {
        // Writing to a string cannot fail.
        _ = writeln!(text, "| {number} | [{}]({name}.md) | {} |", story.title, story.lead);
    }
    text += "\nThe numbers are those of the [presets](../presets/README.md). Scenario files that are not presets are in \
             [`scenarios/`](../../scenarios); the small services around the real systems are in \
             [`tests/services/`](../../tests/services).\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gallery::{Pace, record::Phase},
        victim::report::Sample,
    };

    #[test]
    fn a_page_has_what_was_measured() {
        let mut stage = Stage::new(Pace::Short);
        stage.record.phases.push(Phase { name: "during".to_owned(), begin_ns: 0, end_ns: 10, hurt: true });
        stage.record.samples.push(Sample {
            who: "user".to_owned(),
            what: "/".to_owned(),
            at_ns: 3,
            took_ns: 2_500_000_000,
            outcome: "a | b".to_owned(),
            good: false,
        });
        let text = measured(&stage.record);
        assert!(text.contains("| during | user | 1 | 0 | 2.50 s | 2.50 s | 1 × a \\| b |"), "{text}");
        let scenarios = crate::gallery::all();
        assert!(index(scenarios).contains("(five-states.md)"));
    }
}
