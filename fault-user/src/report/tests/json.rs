//! `--json`.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::report::{ExceptionReport, Exit, json::render};

use super::{golden, report};

#[test]
fn golden_object() {
    golden("report.json", &render(&report()));
}

#[test]
fn what_design_promises() {
    let value: Value = serde_json::from_str(&render(&report())).unwrap();
    assert_eq!(value["session"]["seed"], 42);
    assert_eq!(value["session"]["started"], "2026-11-20T08:54:31.250Z");
    assert_eq!(value["session"]["ended"], "2026-11-20T08:54:43.500Z");
    let rule = &value["rules"][0];
    for (field, expected) in [
        ("id", json!(0)),
        ("layer", json!("net")),
        ("spec", json!("drop 10% out tcp")),
        ("matched", json!(1000)),
        ("injected", json!(103)),
        ("spared", json!(897)),
        ("bytes", json!(149_350)),
        ("delay_ns", json!(0)),
    ] {
        assert_eq!(rule[field], expected, "{field}");
    }
    assert_eq!(value["rules"][1]["mean_delay_ns"], 30_100_000);
    assert_eq!(value["counters"]["park_overflow"], 3);
}

#[test]
fn exceptions_are_there_when_there_are_any() {
    let mut report = report();
    let value: Value = serde_json::from_str(&render(&report)).unwrap();
    assert!(value.get("except").is_none());
    report.except = vec![ExceptionReport { filter: "tcp port 22".to_owned(), matched: 9, spared: 7 }];
    let value: Value = serde_json::from_str(&render(&report)).unwrap();
    assert_eq!(value["except"], json!([{ "filter": "tcp port 22", "matched": 9, "spared": 7 }]));
    assert_eq!(value["rules"].as_array().map(Vec::len), Some(4));
}

proptest! {
    #[test]
    fn whatever_happened_it_is_json(
        seed: u64,
        matched: u64,
        injected: u64,
        target in ".*",
        error in ".*",
        command in prop::collection::vec(".*", 0..4),
        hint in ".*",
    ) {
        let mut report = report();
        report.session.seed = seed;
        report.session.target = target;
        report.session.command = Some(command);
        report.session.exit = Exit::Failed { error };
        report.rules[0].matched = matched;
        report.rules[0].injected = injected;
        report.rules[0].hint = Some(hint);
        let text = render(&report);
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&value, &serde_json::to_value(&report).unwrap());
        prop_assert_eq!(value["session"]["seed"].as_u64(), Some(seed));
        prop_assert_eq!(value["session"]["target"].as_str(), Some(report.session.target.as_str()));
        let closed = text.ends_with("}\n");
        prop_assert!(closed);
    }
}
