//! Commands that must say what they should.

use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt as _, process::Command, time::timeout};

use crate::{report::scenario::ExpectationReport, scenario::Probe, spec::print_duration};

/// How much of what a probe printed is told.
const SHOWN: usize = 200;

/// Runs it to its end, or until its time is over; what was found.
pub(super) async fn judge(probe: &Probe) -> ExpectationReport {
    let (met, found) = match timeout(probe.within, found(probe)).await {
        Ok(result) => result,
        Err(_) => (false, format!("it had not ended after {}", print_duration(probe.within))),
    };
    ExpectationReport { what: what(probe), met: Some(met), found }
}

/// `` `curl …` at 10s ``
pub(super) fn what(probe: &Probe) -> String {
    let when = |at: Duration| format!("at {}", print_duration(at));
    format!("`{}` {}", probe.line(), probe.at.map_or_else(|| "when all is healed".to_owned(), when))
}

async fn found(probe: &Probe) -> (bool, String) {
    let Some((program, arguments)) = probe.run.split_first() else { return (false, "no command".to_owned()) };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    // A group of its own: Ctrl-C is for the scenario, and whoever is killed takes its children along.
    command.process_group(0).kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return (false, format!("it could not be started: {error}")),
    };
    let mut printed = Vec::new();
    let mut stdout = child.stdout.take();
    let read = async {
        if let Some(stdout) = &mut stdout {
            // What could be read counts.
            _ = stdout.read_to_end(&mut printed).await;
        }
    };
    let (status, ()) = tokio::join!(child.wait(), read);
    let status = match status {
        Ok(status) => status,
        Err(error) => return (false, format!("waiting for it failed: {error}")),
    };
    let printed = String::from_utf8_lossy(&printed);
    let printed = printed.trim();
    if status.code() != Some(probe.status.into()) {
        return (false, format!("{status} instead of {}{}", probe.status, said(printed)));
    }
    if let Some(wanted) = &probe.stdout
        && wanted.trim() != printed
    {
        return (false, format!("it did not print {:?}{}", wanted.trim(), said(printed)));
    }
    if let Some(wanted) = &probe.stdout_has
        && !printed.contains(wanted)
    {
        return (false, format!("{wanted:?} is not in what it printed{}", said(printed)));
    }
    (true, format!("exit status {}", probe.status))
}

fn said(printed: &str) -> String {
    if printed.is_empty() {
        return ", it printed nothing".to_owned();
    }
    let shown: String = printed.chars().take(SHOWN).collect();
    let more = if shown.len() < printed.len() { "…" } else { "" };
    format!(", it printed {shown:?}{more}")
}
