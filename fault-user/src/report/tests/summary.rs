//! The table.

use crate::report::{
    ExceptionReport, Exit,
    table::{Style, render},
};

use super::{golden, report};

#[test]
fn plain() {
    golden("table.txt", &render(&report(), Style::default()));
}

#[test]
fn colour_is_only_added() {
    let colored = render(&report(), Style { color: true, width: None });
    golden("table-color.txt", &colored);
    let mut plain = String::new();
    let mut rest = colored.as_str();
    while let Some(start) = rest.find('\x1b') {
        plain += &rest[..start];
        rest = rest[start..].split_once('m').unwrap().1;
    }
    plain += rest;
    let trimmed: Vec<&str> = plain.lines().map(str::trim_end).collect();
    let expected = render(&report(), Style::default());
    assert_eq!(trimmed, expected.lines().collect::<Vec<_>>());
}

#[test]
fn a_narrow_terminal_breaks_the_spec_not_the_table() {
    let text = render(&report(), Style { color: false, width: Some(60) });
    golden("table-narrow.txt", &text);
}

#[test]
fn nothing_to_say_is_said_briefly() {
    let mut report = report();
    report.rules.truncate(1);
    report.notes.clear();
    report.troubles.push("deleting the lane failed".to_owned());
    report.session.exit = Exit::CommandExited { status: 3 };
    report.session.target = "`curl http://10.0.0.7/`".to_owned();
    golden("table-short.txt", &render(&report, Style::default()));
}

#[test]
fn what_was_spared_is_said() {
    let mut report = report();
    let exception =
        |filter: &str, spared| ExceptionReport { filter: filter.to_owned(), matched: spared, spared };
    report.except = vec![exception("tcp port 22", 12), exception("icmp", 1)];
    let text = render(&report, Style::default());
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("except")).collect();
    assert_eq!(lines, ["except `tcp port 22`: 12 operations spared", "except `icmp`: 1 operation spared"]);
}
