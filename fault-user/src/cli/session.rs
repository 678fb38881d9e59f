//! What `run` and `inject` share: from arguments to an armed session.

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use fault_common::limits::MAX_RULES;

use super::{
    ACTIVE,
    args::{BlockBackend, FaultArgs, SessionArgs},
    error::CliError,
};
use crate::{
    block::hooks::Choice,
    file::{places::Pattern, present},
    net::peers,
    report::{
        dry_run::{self, Resolved},
        events::EventWriter,
        html,
        output::Destination,
    },
    sentence::sentence,
    session::{
        Active,
        arm::{Armed, Request},
        keeper::Keeper,
        plan::Plan,
        prepare::{self, device_of},
    },
    spec::{Fault, NetFilter, Peer},
    target::Target,
};

/// Parses all specs, in the order given, and compiles them with the devices they name on this machine.
pub(super) fn plan(arguments: &FaultArgs, options: &SessionArgs) -> Result<Plan, CliError> {
    Ok(prepare::plan(&arguments.ordered, &arguments.except, options.seed, options.duration)?)
}

/// Checked before anything else is touched, so that the sentence is about the reason and not about a symptom.
pub(super) fn require_root() -> Result<(), CliError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(CliError::NotRoot) }
}

/// Where the report and the events go; asked before anything is armed whether they can go there.
pub(super) fn check_outputs(options: &SessionArgs) -> Result<(), CliError> {
    let outputs =
        [(&options.json, "the report"), (&options.events, "the events"), (&options.report, html::WHAT)];
    for (path, what) in outputs {
        if let Some(path) = path {
            Destination::from(path.clone()).check(what)?;
        }
    }
    Ok(())
}

/// Arms.
pub(super) fn arm(request: Request) -> Result<Armed, CliError> {
    Ok(prepare::arm(request)?)
}

/// The request of a session.
pub(super) fn request(
    plan: Plan,
    target: Target,
    options: &SessionArgs,
    keeper: &Arc<Keeper>,
) -> Result<Request, CliError> {
    let ids: Vec<Option<u32>> =
        (0..MAX_RULES as u32).map(|slot| plan.in_slot(slot).map(|planned| planned.id)).collect();
    let events = options
        .events
        .as_ref()
        .map(|path| {
            // One rule set in a session of the command line, so a slot is enough.
            let rule_of = move |_, slot: u32| ids.get(slot as usize).copied().flatten();
            EventWriter::open(&Destination::from(path.clone()), Box::new(rule_of))
        })
        .transpose()?;
    Ok(Request { backend: backend(options), events, ..Request::new(plan, target, Arc::clone(keeper)) })
}

/// `--block-backend`.
pub(super) const fn backend(options: &SessionArgs) -> Choice {
    match options.block_backend {
        BlockBackend::Auto => Choice::Auto,
        BlockBackend::FmodRet => Choice::ModifyReturn,
        BlockBackend::Kprobe => Choice::Kprobe,
    }
}

/// Says which of the names that the target is known by nobody bears yet.
pub(super) fn tell_unborn(target: &Target, options: &SessionArgs) -> Result<(), CliError> {
    if !options.quiet {
        for name in target.unborn()? {
            eprintln!("fault: no process is named {name} yet; those that will be are hit");
        }
    }
    Ok(())
}

/// Says which patterns of paths match nothing yet, as somebody of the target sees it: often enough they are misspelt.
pub(super) fn tell_unmatched(plan: &Plan, target: &Target, options: &SessionArgs) -> Result<(), CliError> {
    if options.quiet || plan.globs().next().is_none() {
        return Ok(());
    }
    let root =
        target.snapshot()?.members.first().map(|process| PathBuf::from(format!("/proc/{process}/root")));
    let root = root.filter(|root| root.exists()).unwrap_or_else(|| PathBuf::from("/"));
    for Pattern { glob, .. } in plan.globs() {
        // Nothing is said where it would take too long to find out.
        if present::any(&root, glob) == Some(false) {
            eprintln!("fault: no file matches {glob} yet; those that will be are hit");
        }
    }
    Ok(())
}

/// The runtime of a session: one thread, because the heartbeat must stop when that thread does.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)
}

/// `fault: active …`, which scripts wait for.
pub(super) fn announce(active: &Active, target: &str, options: &SessionArgs) {
    if options.quiet {
        return;
    }
    tell_hidden(active, options);
    let plan = active.plan();
    let count = plan.rules.len();
    let faults = if count == 1 { "fault" } else { "faults" };
    eprintln!("{ACTIVE}, {count} {faults} on {target}, seed {}", plan.seed);
}

/// Says why the live view does not see the session, if it does not. Nothing else is the worse for it.
pub(super) fn tell_hidden(active: &Active, options: &SessionArgs) {
    if let Some(error) = active.hidden().filter(|_| options.verbose) {
        eprintln!("fault: `fault top` does not see this session: {}", sentence(error));
    }
}

/// `--dry-run`: resolves everything, arms nothing.
pub(super) fn dry_run(plan: &Plan, target: &Target, words: &str) -> Result<ExitCode, CliError> {
    // Nobody lives in the target of `run` yet: it will live where we do.
    crate::session::check_interfaces(plan, &target.snapshot()?.netns)?;
    crate::session::check_patterns(plan, target)?;
    let mut resolved = Vec::new();
    for planned in &plan.rules {
        resolved.push(names_of(&planned.fault)?);
    }
    for planned in &plan.exceptions {
        resolved.push(peers_of(&planned.exception.filter)?);
    }
    let text = dry_run::dry_run(plan, words, &resolved);
    std::io::stdout().write_all(text.as_bytes()).map_err(CliError::Stdout)?;
    Ok(ExitCode::SUCCESS)
}

/// What the host names in a filter stand for.
fn peers_of(filter: &NetFilter) -> Result<Vec<Resolved>, CliError> {
    let mut resolved = Vec::new();
    for endpoint in &filter.to {
        let Peer::Name(name) = &endpoint.value.peer else { continue };
        let networks = peers::resolve(&endpoint.value.peer).map_err(crate::session::SessionError::from)?;
        let addresses: Vec<String> = networks.iter().map(|network| network.network().to_string()).collect();
        resolved.push((format!("to {name}"), addresses.join(", ")));
    }
    Ok(resolved)
}

/// What the names in a fault stand for.
fn names_of(fault: &Fault) -> Result<Vec<Resolved>, CliError> {
    let mut resolved = Vec::new();
    match fault {
        Fault::Net(net) => return peers_of(&net.filter),
        // Patterns stand for files that are not there yet.
        Fault::File(_) | Fault::Proc(_) => {}
        Fault::Disk(disk) => {
            if let (Some(on), Some(device)) = (&disk.filter.on, device_of(fault)?) {
                let kind = if device.whole_disk { "disk" } else { "partition" };
                let (major, minor) = (device.dev >> 20, device.dev & 0xf_ffff);
                resolved.push((format!("on {}", on.value.display()), format!("the {kind} {major}:{minor}")));
            }
        }
    }
    Ok(resolved)
}
