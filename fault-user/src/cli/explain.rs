//! `fault explain`: what a spec will do, in plain words, and whether this kernel can.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

use super::{args::ExplainArgs, error::CliError, session};
use crate::{
    kernel::probe::{Capabilities, Capability, Feature},
    session::plan::Plan,
    spec::{self, Explanation, Fault, Layer, SpecError},
};

/// Columns of the words in front.
const MARGIN: usize = 8;
/// Columns of a line.
const WIDTH: usize = 100;

/// A spec of one layer, explained. Fields are only ever added.
#[derive(Serialize)]
struct Explained {
    layer: &'static str,
    /// In canonical form.
    spec: String,
    what: String,
    which: String,
    when: Vec<String>,
    needs: Vec<Need>,
}

#[derive(Serialize)]
struct Need {
    feature: &'static str,
    /// `null`: could not be tried.
    ok: Option<bool>,
    /// What it is, or why not.
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Status 0 when the spec can be read, whatever this kernel can do: as for `fault doctor`.
pub(super) fn main(arguments: &ExplainArgs) -> Result<ExitCode, CliError> {
    let mut explained = Vec::new();
    for fault in read(arguments)? {
        explained.push(one(fault)?);
    }
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

/// The spec, in each layer that has such a one.
fn read(arguments: &ExplainArgs) -> Result<Vec<Fault>, Box<SpecError>> {
    let layers = match &arguments.layer {
        Some(layer) => std::slice::from_ref(layer),
        None => Layer::ALL,
    };
    let (mut faults, mut nearest) = (Vec::new(), None::<SpecError>);
    for layer in layers {
        match spec::parse(*layer, &arguments.spec) {
            Ok(fault) => faults.push(fault),
            // The one that was understood for longer was meant.
            Err(error)
                if nearest.as_ref().is_none_or(|nearest| error.span().start > nearest.span().start) =>
            {
                nearest = Some(error);
            }
            Err(_) => {}
        }
    }
    match nearest {
        Some(error) if faults.is_empty() => Err(Box::new(error)),
        _ => Ok(faults),
    }
}

fn one(fault: Fault) -> Result<Explained, CliError> {
    let Explanation { what, which, when } = spec::explain(&fault);
    let (layer, spec) = (fault.layer().name(), fault.to_string());
    // What a device is called is no matter here.
    let plan = Plan::new(vec![fault], &[], 0, None)?;
    let features = session::features(plan.needs());
    let capabilities = Capabilities::probe_for(&features);
    let needs = features.into_iter().map(|feature| need(&capabilities, feature)).collect();
    Ok(Explained { layer, spec, what, which, when, needs })
}

fn need(capabilities: &Capabilities, feature: Feature) -> Need {
    let name = feature.name();
    match capabilities.require(feature) {
        Err(missing) if missing.capability == Capability::Permission => Need {
            feature: name,
            ok: None,
            why: format!("could not be tried: {}", missing.cause),
            remedy: Some(missing.remedy),
        },
        Err(missing) => Need {
            feature: name,
            ok: Some(false),
            why: format!("{}: {}", missing.capability.name(), missing.cause),
            remedy: Some(missing.remedy),
        },
        Ok(()) => {
            let ways: Vec<&str> = capabilities.choices(feature).map(Capability::name).collect();
            let through =
                if ways.is_empty() { String::new() } else { format!(" (through {})", ways.join(", else ")) };
            Need { feature: name, ok: Some(true), why: format!("{feature}{through}"), remedy: None }
        }
    }
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
