//! `fault explain`: what a spec will do, in plain words, and whether this kernel can.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{args::ExplainArgs, error::CliError};
use crate::explained::{Explained, explain};

/// Columns of the words in front.
const MARGIN: usize = 8;
/// Columns of a line.
const WIDTH: usize = 100;

/// Status 0 when the spec can be read, whatever this kernel can do: as for `fault doctor`.
pub(super) fn main(arguments: &ExplainArgs) -> Result<ExitCode, CliError> {
    let explained = explain(&arguments.spec, arguments.layer)?;
    let mut out = io::stdout().lock();
    let written =
        if arguments.json { write_json(&explained, &mut out) } else { write_text(&explained, &mut out) };
    match written {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other.map_err(CliError::Stdout)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_json(explained: &[Explained], out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, explained)?;
    writeln!(out)
}

fn write_text(explained: &[Explained], out: &mut dyn Write) -> io::Result<()> {
    for (number, explained) in explained.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        writeln!(out, "--{} '{}'", explained.layer, explained.spec)?;
        paragraph(out, "what", &explained.what)?;
        paragraph(out, "which", &explained.which)?;
        match explained.when.as_slice() {
            [] => paragraph(out, "when", "always: all of these are hit")?,
            [first, rest @ ..] => {
                paragraph(out, "when", first)?;
                rest.iter().try_for_each(|when| paragraph(out, "", when))?;
            }
        }
        for need in &explained.needs {
            let answer = match need.ok {
                Some(true) => "this kernel can",
                Some(false) => "this kernel cannot",
                None => "not known",
            };
            paragraph(out, "needs", &format!("{}: {answer}: {}", need.feature, need.why))?;
            if let Some(remedy) = &need.remedy {
                paragraph(out, "", &format!("\u{2192} {remedy}"))?;
            }
        }
    }
    Ok(())
}

/// `text` in lines, behind `word`.
fn paragraph(out: &mut dyn Write, word: &str, text: &str) -> io::Result<()> {
    let mut line = format!("  {word:<MARGIN$}");
    let empty = line.len();
    for next in text.split(' ') {
        let used = line.chars().count();
        if used > empty && used + next.chars().count() >= WIDTH {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(empty);
        }
        line += next;
        line.push(' ');
    }
    writeln!(out, "{}", line.trim_end())
}
