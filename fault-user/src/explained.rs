//! What a spec will do, in plain words, and whether this kernel can.

use serde::Serialize;

use crate::{
    kernel::probe::{Capabilities, Capability, Feature},
    session::{
        plan::Plan,
        prepare::{PrepareError, features},
    },
    spec::{self, Explanation, Fault, Layer, SpecError},
};

/// A spec of one layer, explained. Fields are only ever added.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Explained {
    /// `net` or `disk`.
    pub layer: &'static str,
    /// In canonical form.
    pub spec: String,
    /// What happens.
    pub what: String,
    /// To which operations.
    pub which: String,
    /// How often; empty: always.
    pub when: Vec<String>,
    /// What the kernel must be able to do.
    pub needs: Vec<Need>,
}

/// What a spec takes, and whether this kernel has it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Need {
    /// In the words of `fault doctor`.
    pub feature: &'static str,
    /// `null`: could not be tried.
    pub ok: Option<bool>,
    /// What it is, or why not.
    pub why: String,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Explains `spec` in `layer`, or in each layer that has such a one.
///
/// # Errors
/// When no layer has such a spec.
pub fn explain(spec: &str, layer: Option<Layer>) -> Result<Vec<Explained>, PrepareError> {
    read(spec, layer)?.into_iter().map(one).collect()
}

/// The spec, in each layer that has such a one.
fn read(spec: &str, layer: Option<Layer>) -> Result<Vec<Fault>, Box<SpecError>> {
    let layers = match &layer {
        Some(layer) => std::slice::from_ref(layer),
        None => Layer::ALL,
    };
    let (mut faults, mut nearest) = (Vec::new(), None::<SpecError>);
    for layer in layers {
        match spec::parse(*layer, spec) {
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

fn one(fault: Fault) -> Result<Explained, PrepareError> {
    let Explanation { what, which, when } = spec::explain(&fault);
    let (layer, spec) = (fault.layer().name(), fault.to_string());
    // What a device is called is no matter here.
    let plan = Plan::new(vec![fault], &[], 0, None)?;
    let features = features(plan.needs());
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
