//! `fault sweep`: find and remove what a session left behind.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::{args::SweepArgs, error::CliError, session};
use crate::{exit::Class, sentence::sentence, session::residue};

/// Status 0 when nothing is left afterwards, 1 otherwise; with `--dry-run`, 0 when there is nothing to remove.
pub(super) fn main(arguments: &SweepArgs) -> Result<ExitCode, CliError> {
    session::require_root()?;
    sweep(arguments, &mut io::stdout().lock()).map_err(CliError::Stdout)
}

fn sweep(arguments: &SweepArgs, out: &mut impl Write) -> io::Result<ExitCode> {
    let findings = residue::find();
    let mut is_clean = findings.unseen.is_empty();
    for unseen in &findings.unseen {
        eprintln!("fault: {}", sentence(unseen));
    }
    for residue in &findings.residue {
        if arguments.dry_run {
            is_clean = false;
            writeln!(out, "found {residue}")?;
            continue;
        }
        match residue::remove(residue) {
            Ok(()) => writeln!(out, "removed {residue}")?,
            Err(error) => {
                is_clean = false;
                eprintln!("fault: {}", sentence(&error));
            }
        }
    }
    if is_clean && findings.residue.is_empty() {
        writeln!(out, "no residue")?;
    }
    Ok(if is_clean { ExitCode::SUCCESS } else { Class::Other.into() })
}
