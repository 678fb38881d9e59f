//! What `run` and `inject` share: from arguments to an armed session.

use std::{io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use fault_common::{limits::MAX_RULES, rule::file::op};

use super::{
    ACTIVE,
    args::{BlockBackend, FaultArgs, SessionArgs},
    error::CliError,
};
use crate::{
    block::{
        device::{self, DeviceError, DeviceNumber},
        hooks::Choice,
    },
    exit::Class,
    file::present,
    kernel::probe::{Capabilities, Feature},
    net::peers,
    report::{
        dry_run::{self, Resolved},
        events::EventWriter,
        html,
        output::Destination,
    },
    session::{
        arm::{Armed, Request},
        keeper::Keeper,
        plan::{Needs, Plan},
    },
    spec::{self, Fault, Layer, NetFilter, Peer, SpecError},
    target::Target,
};

/// Parses all specs, in the order given, and compiles them with the devices they name on this machine.
pub(super) fn plan(arguments: &FaultArgs, options: &SessionArgs) -> Result<Plan, CliError> {
    let parse = |(layer, text): &(Layer, String)| spec::parse(*layer, text).map_err(Box::new);
    let faults = arguments.ordered.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let except = |text: &String| spec::parse_exception(text).map_err(Box::new);
    let exceptions = arguments.except.iter().map(except).collect::<Result<Vec<_>, _>>()?;
    let devices = faults.iter().map(device_of).collect::<Result<Vec<_>, _>>()?;
    let seed = options.seed.unwrap_or_else(random_seed);
    Ok(Plan::new(faults, &devices, seed, options.duration)?.except(exceptions)?)
}

/// What the `on` of a fault names.
pub(super) fn device_of(fault: &Fault) -> Result<Option<DeviceNumber>, CliError> {
    let Fault::Disk(disk) = fault else { return Ok(None) };
    let Some(on) = &disk.filter.on else { return Ok(None) };
    let wrong = |error: DeviceError| {
        let sentence = super::error::sentence(&error);
        let expected = "a block device or a mount point";
        let help = Some(error.help());
        Box::new(SpecError::unresolved(Layer::Disk, &disk.source, on.span, sentence, expected, help))
    };
    let device = device::resolve(&on.value).map_err(wrong)?;
    if let (Some(asked), Some(sectors)) = (&disk.filter.sectors, device::sectors(device))
        && asked.end() > sectors
    {
        let name = on.value.display();
        let sentence =
            format!("{name} has {sectors} sectors of 512 bytes, and `{}` goes beyond them", asked.value);
        let expected = format!("expected sectors from 0 to {sectors}");
        let help =
            Some("sectors are counted from the start of the disk or partition that `on` names".to_owned());
        let error = SpecError::unresolved(Layer::Disk, &disk.source, asked.span, sentence, expected, help);
        return Err(Box::new(error).into());
    }
    Ok(Some(device))
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

/// Arms; when the kernel cannot, finds out why by trying, so that the sentence names cause and remedy as
/// `fault doctor` does.
pub(super) fn arm(request: Request, options: &SessionArgs) -> Result<Armed, CliError> {
    let needs = request.plan.needs();
    Armed::arm(request).map_err(|error| {
        // Of a backend that was asked for by name, the refusal itself says most.
        if error.class() != Class::Unsupported || options.block_backend != BlockBackend::Auto {
            return error.into();
        }
        let features = features(needs);
        let capabilities = Capabilities::probe_for(&features);
        let refusal = features.into_iter().find_map(|feature| capabilities.require(feature).err());
        refusal.map_or_else(|| error.into(), CliError::Unsupported)
    })
}

/// What a kernel must be able to do, in the words of `fault doctor`.
pub(super) fn features(needs: Needs) -> Vec<Feature> {
    let features = [
        (needs.packets, Feature::PacketDrop),
        (needs.packet_delay, Feature::PacketDelay),
        (needs.checksum, Feature::PacketCorruption),
        (needs.calls, Feature::Calls),
        (needs.bios, Feature::DiskError),
        (needs.bio_delay, Feature::DiskDelay),
        (needs.files & !op::FSYNC != 0, Feature::FileError),
        (needs.files & op::FSYNC != 0, Feature::FileSync),
    ];
    features.into_iter().filter(|(needed, _)| *needed).map(|(_, feature)| feature).collect()
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
    Ok(Request { plan, target, backend: backend(options), events, keeper: Arc::clone(keeper) })
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
    for (_, glob) in plan.globs() {
        // Nothing is said where it would take too long to find out.
        if present::any(&root, glob) == Some(false) {
            eprintln!("fault: no file matches {glob} yet; those that will be are hit");
        }
    }
    Ok(())
}

/// 53 bits, so that the number survives JSON readers that know only doubles (RFC 8259, section 6).
pub(super) fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library's hash keys come from getrandom(2).
    std::hash::RandomState::new().build_hasher().finish() >> 11
}

/// The runtime of a session: one thread, because the heartbeat must stop when that thread does.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)
}

/// `fault: active …`, which scripts wait for.
pub(super) fn announce(plan: &Plan, target: &str, options: &SessionArgs) {
    if options.quiet {
        return;
    }
    let count = plan.rules.len();
    let faults = if count == 1 { "fault" } else { "faults" };
    eprintln!("{ACTIVE}, {count} {faults} on {target}, seed {}", plan.seed);
}

/// `--dry-run`: resolves everything, arms nothing.
pub(super) fn dry_run(plan: &Plan, target: &Target, words: &str) -> Result<ExitCode, CliError> {
    // Nobody lives in the target of `run` yet: it will live where we do.
    crate::session::check_interfaces(plan, &target.snapshot()?.netns)?;
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
        Fault::File(_) => {}
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
