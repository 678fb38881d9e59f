//! The end of a session, told to the user.

use std::ffi::OsString;

use super::{args::SessionArgs, error::CliError};
use crate::{
    report::{Exit, SessionReport, html, json, output::Destination, table},
    sentence::sentence,
    session::{heal::Healed, history::Point},
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
    let exit = Exit::of(healed.end, subject.ending, &troubles);
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
