//! The end of a session, told to the user.

use std::ffi::OsString;

use nix::sys::signal::Signal;

use super::{
    args::SessionArgs,
    error::{CliError, sentence},
};
use crate::{
    report::{Exit, SessionReport, html, json, output::Destination, table},
    session::{End, heal::Healed, history::Point},
    target::command::Ending,
};

/// Whose session it was.
pub(super) struct Subject {
    /// Who suffered, in words.
    pub target: String,
    /// COMMAND.
    pub command: Option<Vec<String>>,
    /// How it ended.
    pub ending: Option<Ending>,
}

impl Subject {
    /// Of `fault run`.
    pub(super) fn command(arguments: &[OsString]) -> Self {
        let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        Self { target: format!("`{}`", words.join(" ")), command: Some(words), ending: None }
    }
}

/// Writes the summary, `--json` and `--report`.
pub(super) fn report(healed: &Healed, subject: Subject, options: &SessionArgs) -> Result<(), CliError> {
    write(&of(healed, subject), &healed.history, options)
}

/// What there is to say.
pub(super) fn of(healed: &Healed, subject: Subject) -> SessionReport {
    let troubles: Vec<String> = healed.troubles.iter().map(|trouble| sentence(trouble)).collect();
    let exit = exit(healed.end, subject.ending, &troubles);
    SessionReport::new(healed, subject.target, subject.command, exit, troubles)
}

/// Says it.
pub(super) fn write(
    report: &SessionReport,
    history: &[Vec<Point>],
    options: &SessionArgs,
) -> Result<(), CliError> {
    if !options.quiet {
        table::print(report);
    }
    if let Some(path) = &options.json {
        json::write(report, &Destination::from(path.clone()))?;
    }
    if let Some(path) = &options.report {
        html::write(report, history, &Destination::from(path.clone()))?;
    }
    Ok(())
}

fn exit(end: End, command: Option<Ending>, troubles: &[String]) -> Exit {
    match end {
        End::Deadline => Exit::Elapsed,
        End::Signal(number) => Exit::Interrupted { signal: signal(number) },
        End::TargetGone => Exit::TargetGone,
        End::Released => Exit::Released,
        End::Stalled(silence) => {
            Exit::Stalled { silence_ns: u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX) }
        }
        End::Trouble => Exit::Failed { error: troubles.last().cloned().unwrap_or_default() },
        End::CommandEnded => match command {
            Some(Ending::Exited(status)) => Exit::CommandExited { status: status.into() },
            Some(Ending::Killed(number)) => Exit::CommandKilled { signal: signal(number) },
            None => Exit::TargetGone,
        },
    }
}

fn signal(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}
