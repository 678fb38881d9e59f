//! What `run` and `inject` share: from arguments to an armed session.

use std::{process::ExitCode, sync::Arc};

use super::{
    args::{BlockBackend, FaultArgs, SessionArgs},
    error::CliError,
};
use crate::{
    block::{
        device::{self, DeviceNumber},
        hooks::Choice,
    },
    report::{dry_run, output::Destination},
    session::{arm::Request, keeper::Keeper, plan::Plan},
    spec::{self, DiskFault, DiskFilter, Fault},
    target::Target,
};

/// Parses all specs, in the order given.
pub(super) fn faults(arguments: &FaultArgs) -> Result<Vec<Fault>, CliError> {
    arguments
        .ordered
        .iter()
        .map(|(layer, text)| spec::parse(*layer, text).map_err(|error| Box::new(error).into()))
        .collect()
}

/// Compiles the faults, with what they name on this machine.
pub(super) fn plan(faults: Vec<Fault>, options: &SessionArgs) -> Result<Plan, CliError> {
    let devices = faults.iter().map(device).collect::<Result<Vec<_>, _>>()?;
    let seed = options.seed.unwrap_or_else(random_seed);
    Ok(Plan::new(faults, &devices, seed, options.duration)?)
}

/// `--dry-run`: says what would be armed, on standard output.
pub(super) fn dry_run(plan: &Plan, target: &str) -> Result<ExitCode, CliError> {
    Destination::Stdout.write("the plan", dry_run::dry_run(plan, target, &[]).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What the `on` of a fault names on this machine.
fn device(fault: &Fault) -> Result<Option<DeviceNumber>, CliError> {
    match fault {
        Fault::Disk(DiskFault { filter: DiskFilter { on: Some(on), .. }, .. }) => {
            Ok(Some(device::resolve(&on.value)?))
        }
        Fault::Disk(_) | Fault::Net(_) => Ok(None),
    }
}

/// Checked before anything else is touched, so that the sentence is about the reason and not about a symptom.
pub(super) fn require_root() -> Result<(), CliError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(CliError::NotRoot) }
}

/// The request of a session.
pub(super) fn request(plan: Plan, target: Target, options: &SessionArgs, keeper: &Arc<Keeper>) -> Request {
    let backend = match options.block_backend {
        BlockBackend::Auto => Choice::Auto,
        BlockBackend::FmodRet => Choice::ModifyReturn,
        BlockBackend::Kprobe => Choice::Kprobe,
    };
    Request { plan, target, events: options.events.is_some(), backend, keeper: Arc::clone(keeper) }
}

/// 53 bits, so that the number survives JSON readers that know only doubles (RFC 8259, section 6).
fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library's hash keys come from getrandom(2).
    std::hash::RandomState::new().build_hasher().finish() >> 11
}

/// The runtime of a session: one thread, because the heartbeat must stop when that thread does.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)
}

/// `fault: active …`, which scripts wait for.
pub(super) fn announce(plan: &Plan, options: &SessionArgs) {
    if options.quiet {
        return;
    }
    let count = plan.rules.len();
    let faults = if count == 1 { "fault" } else { "faults" };
    eprintln!("fault: active ({count} {faults}, seed {})", plan.seed);
}
