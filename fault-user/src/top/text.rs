//! One snapshot as text or JSON.

use serde::Serialize;

use super::{NOBODY, words};
use crate::{
    beacon::{
        client::Everyone,
        message::{Controller, Rule, Session},
    },
    report::{RuleReport, table},
};

/// `fault top --json`.
#[derive(Serialize)]
struct Snapshot<'a> {
    controllers: Vec<&'a Controller>,
    silent: &'a [u32],
}

/// One object on one line.
#[must_use]
pub fn json(everyone: &Everyone) -> String {
    let controllers = everyone.found.iter().map(|found| &found.controller).collect();
    let snapshot = Snapshot { controllers, silent: &everyone.silent };
    // Strings, numbers and lists of them: nothing that JSON could not say.
    serde_json::to_string(&snapshot).map(|line| line + "\n").unwrap_or_default()
}

/// A line for each session, with a table of its faults.
#[must_use]
pub fn table(everyone: &Everyone) -> String {
    let mut text = String::new();
    for controller in everyone.found.iter().map(|found| &found.controller) {
        for session in &controller.sessions {
            text += &format!("{}\n", words::tame(&about(controller, session)));
            let rules: Vec<RuleReport> = session.rules.iter().map(report).collect();
            for line in table::rules(&rules, table::Style::default()).to_string().lines() {
                text += &format!("  {}\n", words::tame(line.trim_end()));
            }
        }
    }
    for pid in &everyone.silent {
        text += &format!("{pid} does not answer: it is stopped, or too busy\n");
    }
    if text.is_empty() { format!("{NOBODY}\n") } else { text }
}

/// `4711 inject, active for 12.3 s on pid 4710, seed 42`.
pub(super) fn about(controller: &Controller, session: &Session) -> String {
    let left = session.left_ns.map_or_else(String::new, |left| format!(", {} left", words::time(left)));
    format!(
        "{} {}, {} after {}{left}, on {}, seed {}",
        controller.pid,
        controller.verb,
        session.state.word(),
        words::time(session.lasted_ns),
        session.target,
        session.seed
    )
}

fn report(rule: &Rule) -> RuleReport {
    let Rule { id, phase, matched, injected, bytes, delay_ns, mean_delay_ns, .. } = rule.clone();
    RuleReport {
        id,
        layer: match rule.layer.as_str() {
            "net" => "net",
            "disk" => "disk",
            "file" => "file",
            _ => "?",
        },
        spec: rule.spec.clone(),
        phase,
        matched,
        injected,
        spared: matched.saturating_sub(injected),
        bytes,
        delay_ns,
        mean_delay_ns,
        ..RuleReport::default()
    }
}
