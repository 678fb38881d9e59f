//! What became of every part of a test run.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::progress::seconds;

/// The counts in the last line a test harness printed.
pub fn last_result(stdout: &str) -> Option<&str> {
    let line = stdout.lines().rev().find_map(|line| line.strip_prefix("test result: "))?;
    let counts = line.split_once(". ").map_or(line, |(_, counts)| counts);
    Some(counts.split("; finished").next().unwrap_or(counts).trim())
}

/// What a test harness said of its failed tests: all between the list's heading and the result.
pub fn failures(stdout: &str) -> String {
    let lines = stdout.lines().skip_while(|line| *line != "failures:").skip(1);
    let lines = lines.take_while(|line| !line.starts_with("test result: "));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// How one part ended.
#[derive(Default)]
pub struct Part {
    pub passed: bool,
    /// Counts, or why it did not run.
    pub detail: String,
    /// What its failed tests said.
    pub failures: String,
}

/// How all of it ended.
#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
}

/// One part of the report.
pub struct Row {
    name: String,
    verdict: Verdict,
    detail: String,
    failures: String,
    time: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// Runs one part and says how it went.
pub fn row(name: &str, run: impl FnOnce() -> Result<Part>) -> Row {
    eprintln!("== {name}");
    let started = Instant::now();
    let part = run().unwrap_or_else(|error| {
        let detail = format!("{error:#}");
        eprintln!("{detail}");
        Part { detail, ..Part::default() }
    });
    Row {
        name: name.to_owned(),
        verdict: if part.passed { Verdict::Passed } else { Verdict::Failed },
        detail: part.detail,
        failures: part.failures,
        time: started.elapsed(),
    }
}

impl Report {
    /// Runs one part; whatever becomes of it, the next ones still run.
    pub fn part(&mut self, name: &str, run: impl FnOnce() -> Result<Part>) {
        self.rows.push(row(name, run));
    }

    /// Notes a part that cannot run here.
    pub fn skipped(&mut self, name: &str, why: &str) {
        self.rows.push(Row {
            name: name.to_owned(),
            verdict: Verdict::Skipped,
            detail: why.to_owned(),
            failures: String::new(),
            time: Duration::ZERO,
        });
    }

    /// Nothing failed.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.verdict != Verdict::Failed)
    }

    /// What the failed tests of every part said, once more at the end, where it is looked for.
    pub fn failures(&self) -> String {
        let said = self.rows.iter().filter(|row| !row.failures.is_empty());
        said.map(|row| format!("\n== failures of {}\n{}\n", row.name, row.failures)).collect()
    }

    /// A line for each part.
    pub fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let mut text = String::from("\n");
        for row in &self.rows {
            let verdict = match row.verdict {
                Verdict::Passed => "ok",
                Verdict::Failed => "FAILED",
                Verdict::Skipped => "skipped",
            };
            let line = format!("{:width$}  {verdict:7}  {:>13}  {}", row.name, seconds(row.time), row.detail);
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_the_last_result() {
        let out = "test result: ok. 1 passed; 0 failed; finished in 0.01s\nnoise\n\
                   test result: FAILED. 7 passed; 2 failed; 0 ignored; finished in 9s\n";
        assert_eq!(last_result(out), Some("7 passed; 2 failed; 0 ignored"));
        assert_eq!(last_result("nothing"), None);
    }

    #[test]
    fn what_failed_is_said_again_at_the_end() {
        let out = "test a ... FAILED\n\nfailures:\n\n---- a ----\nbroken\n\n\nfailures:\n    a\n\n\
                   test result: FAILED. 0 passed; 1 failed; finished in 1s\n";
        let mut report = Report::default();
        report.part("x", || Ok(Part { failures: failures(out), ..Part::default() }));
        report.part("y", || Ok(Part { passed: true, ..Part::default() }));
        let said = report.failures();
        assert!(said.contains("failures of x") && said.contains("---- a ----\nbroken"), "{said}");
        assert!(!said.contains("failures of y") && !said.contains("test result"), "{said}");
    }

    #[test]
    fn one_failed_part_fails_the_whole_and_the_rest_still_runs() {
        let mut report = Report::default();
        report.part("a", || anyhow::bail!("broken"));
        report.part("b", || Ok(Part { passed: true, detail: "3 passed".to_owned(), ..Part::default() }));
        report.skipped("c", "needs root");
        assert!(!report.passed());
        let table = report.table();
        assert!(table.contains("FAILED") && table.contains("3 passed") && table.contains("needs root"));
    }
}
