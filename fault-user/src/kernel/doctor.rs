//! `fault doctor`: what this kernel can do, what it cannot, and what to change.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;
use utoipa::ToSchema;

use super::probe::{Capabilities, Capability, Environment, Feature, Verdict};
use crate::exit::Class;

/// Probes and prints. The status to exit with is 0 when it could find out, whatever it found out, so that
/// scripts ask the JSON and not the status; and that of [`Class::NotPermitted`] when it was not allowed to try.
///
/// # Errors
/// When `out` cannot be written to. That nobody reads to the end is no error.
pub fn run(json: bool, out: &mut dyn Write) -> io::Result<u8> {
    let capabilities = Capabilities::probe();
    let written = if json { write_json(&capabilities, out) } else { write_text(&capabilities, out) };
    match written {
        // Whoever reads has seen enough (`fault doctor | head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(if capabilities.has(Capability::Permission) { 0 } else { Class::NotPermitted.status() })
}

/// One object; fields are only ever added.
#[derive(Serialize, ToSchema)]
#[schema(as = Doctor)]
pub struct Report<'a> {
    kernel: Kernel<'a>,
    capabilities: Vec<Line<'a>>,
    features: BTreeMap<&'static str, Answer<'a>>,
}

#[derive(Serialize, ToSchema)]
struct Kernel<'a> {
    release: &'a str,
    machine: &'a str,
    lockdown: Option<&'a str>,
    /// Where the explanations took the kernel's configuration from.
    config: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Capability)]
struct Line<'a> {
    name: &'static str,
    what: &'static str,
    /// `null`: could not be tried.
    ok: Option<bool>,
    why: Option<&'a str>,
    remedy: Option<&'a str>,
    needed_for: Vec<&'static str>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Feature)]
struct Answer<'a> {
    ok: bool,
    /// The ways it can be had, preferred first, where there are several.
    through: Vec<&'static str>,
    /// The first capability that is missing.
    missing: Option<&'static str>,
    why: Option<String>,
    remedy: Option<String>,
    /// What could not be tried.
    untried: Vec<Untried<'a>>,
}

#[derive(Serialize, ToSchema)]
struct Untried<'a> {
    name: &'static str,
    why: &'a str,
}

fn line(capability: Capability, verdict: &Verdict) -> Line<'_> {
    let (ok, why, remedy) = match verdict {
        Verdict::Yes => (Some(true), None, None),
        Verdict::No { cause, remedy } => (Some(false), Some(cause.as_str()), Some(remedy.as_str())),
        Verdict::Unknown { cause } => (None, Some(cause.as_str()), None),
    };
    let needed_for = capability.needed_for().map(Feature::name).collect();
    Line { name: capability.name(), what: capability.describe(), ok, why, remedy, needed_for }
}

fn answer(capabilities: &Capabilities, feature: Feature) -> Answer<'_> {
    let unsupported = capabilities.require(feature).err();
    let ok = unsupported.is_none();
    Answer {
        ok,
        through: if ok { capabilities.choices(feature).map(Capability::name).collect() } else { Vec::new() },
        missing: unsupported.as_ref().map(|missing| missing.capability.name()),
        untried: capabilities
            .untried(feature)
            .map(|(capability, why)| Untried { name: capability.name(), why })
            .collect(),
        why: unsupported.as_ref().map(|missing| missing.cause.clone()),
        remedy: unsupported.map(|missing| missing.remedy),
    }
}

/// Writes what was found as one object.
///
/// # Errors
/// When `out` cannot be written to.
pub fn write_json(capabilities: &Capabilities, out: &mut dyn Write) -> io::Result<()> {
    let Environment { release, machine, lockdown, config, .. } = capabilities.environment();
    let report = Report {
        kernel: Kernel {
            release,
            machine,
            lockdown: lockdown.as_deref(),
            config: config.as_ref().map(|config| config.source().display().to_string()),
        },
        capabilities: capabilities.iter().map(|(capability, verdict)| line(capability, verdict)).collect(),
        features: Feature::ALL
            .into_iter()
            .map(|feature| (feature.name(), answer(capabilities, feature)))
            .collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)
}

fn write_text(capabilities: &Capabilities, out: &mut dyn Write) -> io::Result<()> {
    let Environment { release, machine, .. } = capabilities.environment();
    writeln!(out, "Linux {release} {machine}\n")?;
    for feature in Feature::ALL {
        let answer = answer(capabilities, feature);
        let through = match answer.through.as_slice() {
            [] => String::new(),
            ways => format!("  through {}", ways.join(", else ")),
        };
        writeln!(out, "{:<17} {}{through}", feature.to_string(), if answer.ok { "yes" } else { "no" })?;
        if let (Some(missing), Some(why), Some(remedy)) = (answer.missing, answer.why, answer.remedy) {
            writeln!(out, "                  {missing}: {why}\n                  → {remedy}")?;
        } else {
            for untried in &answer.untried {
                writeln!(out, "                  not tried: {}: {}", untried.name, untried.why)?;
            }
        }
    }
    writeln!(out)?;
    for (capability, verdict) in capabilities.iter() {
        let answer = match verdict {
            Verdict::Yes => "yes",
            Verdict::No { .. } if capabilities.replaced(capability) => "no, not needed",
            Verdict::No { .. } => "no",
            Verdict::Unknown { .. } => "not tried",
        };
        writeln!(out, "{:<20} {answer:<14} {}", capability.name(), capability.describe())?;
        match verdict {
            Verdict::Yes => {}
            Verdict::No { cause, remedy } => {
                writeln!(out, "{:<35} why: {cause}\n{:<35} change: {remedy}", "", "")?;
            }
            Verdict::Unknown { cause } => writeln!(out, "{:<35} why: {cause}", "")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
