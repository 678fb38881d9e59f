//! The end of a session, told to the user.

use std::io::Write as _;

use super::{
    args::SessionArgs,
    error::{CliError, sentence},
};
use crate::session::heal::Healed;

/// Writes the summary and `--json`.
pub(super) fn report(healed: &Healed, options: &SessionArgs) -> Result<(), CliError> {
    let rules: Vec<_> = healed
        .plan
        .rules
        .iter()
        .zip(&healed.rules)
        .map(|(planned, totals)| {
            serde_json::json!({"id": planned.id, "layer": planned.fault.layer().name(), "spec": planned.fault.to_string(),
            "matched": totals.matched, "injected": totals.injected, "bytes": totals.bytes, "delay_ns": totals.delay_ns})
        })
        .collect();
    let json = serde_json::json!({"session": {"seed": healed.plan.seed}, "rules": rules});
    if !options.quiet {
        eprintln!("{json}");
        for trouble in &healed.troubles {
            eprintln!("fault: {}", sentence(trouble));
        }
    }
    if let Some(path) = &options.json {
        let write = |source| CliError::Write { what: "the report", path: path.display().to_string(), source };
        if path.as_os_str() == "-" {
            writeln!(std::io::stdout(), "{json}").map_err(write)?;
        } else {
            std::fs::write(path, json.to_string()).map_err(write)?;
        }
    }
    Ok(())
}
