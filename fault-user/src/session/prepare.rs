//! From specs to a plan, and from a request to an armed session with a refusal that names cause and remedy: what the
//! command line and the service share.

use std::time::Duration;

use fault_common::rule::file::op;

use super::{
    arm::{Armed, Request},
    error::SessionError,
    plan::{Needs, Plan, PlanError},
    tables::TableError,
};
use crate::{
    block::{
        device::{self, DeviceError, DeviceNumber},
        hooks::Choice,
    },
    exit::Class,
    kernel::probe::{Capabilities, Feature, Unsupported},
    sentence::sentence,
    spec::{self, Fault, Layer, SpecError},
};

/// The specs do not make a plan.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// One of them.
    #[error(transparent)]
    Spec(#[from] Box<SpecError>),
    /// All together.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// A session could not be armed.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// What was refused.
    #[error(transparent)]
    Session(#[from] Box<SessionError>),
    /// The kernel cannot do it, in the words of `fault doctor`.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// Parses all specs, in the order given, and compiles them with the devices they name on this machine.
///
/// # Errors
/// The first spec that is wrong, or names a device that does not exist; or what is wrong with all of them together.
pub fn plan(
    faults: &[(Layer, String)],
    except: &[String],
    seed: Option<u64>,
    duration: Option<Duration>,
) -> Result<Plan, PrepareError> {
    let parse = |(layer, text): &(Layer, String)| spec::parse(*layer, text).map_err(Box::new);
    let faults = faults.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let parse = |text: &String| spec::parse_exception(text).map_err(Box::new);
    let exceptions = except.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    faults.iter().try_for_each(check_table)?;
    let devices = faults.iter().map(device_of).collect::<Result<Vec<_>, _>>()?;
    let seed = seed.unwrap_or_else(random_seed);
    Ok(Plan::new(faults, &devices, seed, duration)?.except(exceptions)?)
}

/// Whether the `table` of a fault can be read.
///
/// # Errors
/// When it is no distribution; the error points at the word.
pub fn check_table(fault: &Fault) -> Result<(), Box<SpecError>> {
    let Some(path) = super::plan::table(fault) else { return Ok(()) };
    let wrong = |error: TableError| {
        let (layer, source, sentence) = (fault.layer(), fault.source(), sentence(&error));
        let expected = "a distribution as tc(8) reads it, such as `/usr/lib/tc/normal.dist`";
        Box::new(SpecError::unresolved(layer, source, path.span, sentence, expected, None))
    };
    super::tables::read(&path.value).map(|_| ()).map_err(wrong)
}

/// What the `on` of a fault names.
///
/// # Errors
/// When it is no block device or mount point, or has fewer sectors than the fault names; the error points at the word.
pub fn device_of(fault: &Fault) -> Result<Option<DeviceNumber>, Box<SpecError>> {
    let Fault::Disk(disk) = fault else { return Ok(None) };
    let Some(on) = &disk.filter.on else { return Ok(None) };
    let wrong = |error: DeviceError| {
        let sentence = sentence(&error);
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
        return Err(Box::new(error));
    }
    Ok(Some(device))
}

/// Arms; when the kernel cannot, finds out why by trying, so that the sentence names cause and remedy as
/// `fault doctor` does.
///
/// # Errors
/// When anything is refused; then nothing is left.
pub fn arm(request: Request) -> Result<Armed, ArmError> {
    let (needs, backend) = (request.plan.needs(), request.backend);
    Armed::arm(request).map_err(|error| {
        // Of a backend that was asked for by name, the refusal itself says most.
        if error.class() != Class::Unsupported || backend != Choice::Auto {
            return Box::new(error).into();
        }
        let features = features(needs);
        let capabilities = Capabilities::probe_for(&features);
        let refusal = features.into_iter().find_map(|feature| capabilities.require(feature).err());
        refusal.map_or_else(|| Box::new(error).into(), ArmError::Unsupported)
    })
}

/// What a kernel must be able to do, in the words of `fault doctor`.
#[must_use]
pub fn features(needs: Needs) -> Vec<Feature> {
    let features = [
        (needs.packets, Feature::PacketDrop),
        (needs.packet_delay, Feature::PacketDelay),
        (needs.checksum, Feature::PacketCorruption),
        (needs.calls, Feature::Calls),
        (needs.bios, Feature::DiskError),
        (needs.bio_delay, Feature::DiskDelay),
        // What is asked for before what it is made of: the first that is refused is told.
        (needs.late_files & !op::FSYNC != 0, Feature::FileOpenDelay),
        (needs.late_files & op::FSYNC != 0, Feature::FileSyncDelay),
        (needs.files & !op::FSYNC != 0, Feature::FileError),
        (needs.files & op::FSYNC != 0, Feature::FileSync),
    ];
    features.into_iter().filter(|(needed, _)| *needed).map(|(_, feature)| feature).collect()
}

/// 53 bits, so that the number survives JSON readers that know only doubles (RFC 8259, section 6).
#[must_use]
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The standard library's hash keys come from getrandom(2).
    std::hash::RandomState::new().build_hasher().finish() >> 11
}
