//! netem and `fault` side by side, and the table of docs/parity-netem.md.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use super::{
    Setting,
    figure::{Figure, Target},
};
use crate::parity::{Of, Repeat, compare, correlations, table};

/// Datagrams each way, for each row.
const DATAGRAMS: u64 = 5_000;

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let mut verdicts = compare(Of::Delays, DATAGRAMS, Repeat::Never)?;
    verdicts.append(&mut compare(Of::Links, DATAGRAMS, Repeat::Never)?);
    verdicts.append(&mut compare(Of::Fates, DATAGRAMS, Repeat::Never)?);
    let differ =
        verdicts.iter().filter_map(|verdict| Some((verdict.fault.as_str(), verdict.differs.as_deref()?)));
    publish("parity.md", &table(&verdicts), differ)?;
    let (asked, netem, fault) = correlations(DATAGRAMS)?;
    println!(
        "rank correlation of a delay with the one before: {asked} asked, netem {netem:.3}, fault {fault:.3}"
    );
    let same = verdicts.iter().filter(|verdict| verdict.differs.is_none()).count();
    let all = verdicts.len();
    let what = format!("rows that cannot be told apart, of {all}");
    let resemble = "rank correlation of a delay with the one before, of 0.5 asked";
    Ok(vec![
        Figure::median(what, "", &[same as f64]).target(Target::AtLeast(all as f64)),
        Figure::median(resemble, "", &[fault]).target(Target::AtLeast(0.45)),
        Figure::median(format!("{resemble}, by netem"), "", &[netem]),
    ])
}

/// Prints a table of the documentation, says what differs, and leaves it in `$FAULT_JOB/NAME`.
pub(super) fn publish<'a>(
    name: &str,
    text: &str,
    differ: impl Iterator<Item = (&'a str, &'a str)>,
) -> anyhow::Result<()> {
    print!("{text}");
    for (fault, how) in differ {
        eprintln!("  {fault}: {how}");
    }
    if let Some(directory) = std::env::var_os("FAULT_JOB") {
        let path = PathBuf::from(directory).join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
