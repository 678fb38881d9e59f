//! `/metrics`: the counters of live sessions as OpenMetrics text.

use std::fmt::Write as _;

use super::{hub::Hub, owner::Look};
use crate::report::RuleReport;

/// The media type of the text.
pub(super) const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A counter of a rule: its name, what it means, and where it is.
type Family = (&'static str, &'static str, fn(&RuleReport) -> u64);

const RULES: [Family; 5] = [
    ("fault_rule_matched", "Operations that passed the filter.", |rule| rule.matched),
    ("fault_rule_injected", "Operations that were hit.", |rule| rule.injected),
    ("fault_rule_bytes", "Bytes of the operations that were hit.", |rule| rule.bytes),
    ("fault_rule_delay_ns", "Sum of the delays asked for, in nanoseconds.", |rule| rule.delay_ns),
    ("fault_rule_overflow", "Operations that found the queue of a rate full.", |rule| {
        rule.overflowed.unwrap_or_default()
    }),
];

/// The whole text.
pub(super) async fn text(hub: &Hub) -> String {
    let mut looks = Vec::new();
    for entry in hub.all() {
        if let Some(Ok(look)) = entry.look().await {
            looks.push((entry.id, look));
        }
    }
    render(&looks, hub.created())
}

fn render(looks: &[(String, Look)], created: u64) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    _ = writeln!(text, "# TYPE fault_sessions gauge\n# HELP fault_sessions Active sessions.");
    _ = writeln!(text, "fault_sessions {}", looks.len());
    _ = writeln!(
        text,
        "# TYPE fault_sessions_created counter\n# HELP fault_sessions_created Sessions ever made."
    );
    _ = writeln!(text, "fault_sessions_created_total {created}");
    for (name, help, value) in RULES {
        _ = writeln!(text, "# TYPE {name} counter\n# HELP {name} {help}");
        for (id, look) in looks {
            for rule in &look.rules {
                let (number, layer, spec) = (rule.id, rule.layer, escaped(&rule.spec));
                let labels = format!(r#"session="{id}",rule="{number}",layer="{layer}",spec="{spec}""#);
                _ = writeln!(text, "{name}_total{{{labels}}} {}", value(rule));
            }
        }
    }
    _ = writeln!(
        text,
        "# TYPE fault_session_counter counter\n# HELP fault_session_counter Counters of a session."
    );
    for (id, look) in looks {
        let counters = serde_json::to_value(look.counters).unwrap_or_default();
        for (name, value) in counters.as_object().into_iter().flatten() {
            _ = writeln!(text, r#"fault_session_counter_total{{session="{id}",counter="{name}"}} {value}"#);
        }
    }
    text + "# EOF\n"
}

/// As a label's value (OpenMetrics 1.0, section 3.2.1).
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::heal::Totals;

    #[test]
    fn labels_are_escaped_and_the_text_ends() {
        let rule = RuleReport {
            layer: "disk",
            spec: r#"error on "/mnt/a b\"""#.to_owned(),
            matched: 7,
            ..RuleReport::default()
        };
        let look = Look { rules: vec![rule], except: Vec::new(), counters: Totals::default() };
        let text = render(&[("a-1".to_owned(), look)], 3);
        let line = r#"fault_rule_matched_total{session="a-1",rule="0",layer="disk",spec="error on \"/mnt/a b\\\"\""} 7"#;
        assert!(text.contains(line) && text.ends_with("\n# EOF\n"), "{text}");
        assert!(text.contains("fault_sessions_created_total 3\n"));
    }
}
