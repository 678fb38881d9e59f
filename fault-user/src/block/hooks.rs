//! Arming block faults: which backend, which programs, in which order.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::programs::{KProbe, ProgramError, kprobe::KProbeLink};
use fault_common::limits::PARKING_PLACES_PER_CPU;

use super::{
    asynchronous,
    device::{self, DeviceNumber},
    parking_lot::{Heartbeat, ParkingLot, ParkingLotError, ParkingLotStats, Slots},
    selftest::{self, SelfTestError},
};
use crate::{
    exit::Class,
    kernel::{
        btf::Btf,
        control::map_data,
        load::Loaded,
        modify_return::{Copies, CopyError, Kind, attach_to_function, modifiers},
        patch::Constant,
    },
};

/// The function every bio passes, marked `ALLOW_ERROR_INJECTION` (`block/blk-core.c`).
pub const HOOK: &str = "should_fail_bio";

/// `--block-backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Whatever works, fmod_ret first.
    #[default]
    Auto,
    /// Only [`Backend::ModifyReturn`].
    ModifyReturn,
    /// Only [`Backend::Kprobe`].
    Kprobe,
}

/// How the hook gets in front of a bio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// fmod_ret programs; can delay.
    ModifyReturn,
    /// A kprobe with `bpf_override_return`; can only fail bios.
    Kprobe,
}

impl Backend {
    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ModifyReturn => "fmod_ret",
            Self::Kprobe => "kprobe",
        }
    }
}

/// What the session wants of the block hook.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `--block-backend`.
    pub choice: Choice,
    /// Some rule delays.
    pub delays: bool,
    /// A device that a rule names, to test the hook with.
    pub device: Option<DeviceNumber>,
}

/// Block faults cannot be armed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// `--block-backend kprobe` with a delay.
    #[error(
        "--block-backend kprobe can only fail block I/O, not delay it, because a kprobe cannot sleep; use \
         fmod_ret or auto for `delay` and `hang`"
    )]
    KprobeCannotDelay,
    /// No fmod_ret.
    #[error(
        "this kernel does not let block I/O be failed or delayed by fmod_ret on {HOOK} (it needs CONFIG_FUNCTION_ERROR_INJECTION)"
    )]
    NoModifyReturn(#[source] CopyError),
    /// No sleepable fmod_ret.
    #[error(
        "this kernel does not let block I/O be delayed (it needs Linux 6.2 and CONFIG_FUNCTION_ERROR_INJECTION)"
    )]
    NoParking(#[source] CopyError),
    /// No kprobe override.
    #[error(
        "this kernel does not let block I/O be failed by a kprobe on {HOOK} (it needs CONFIG_BPF_KPROBE_OVERRIDE)"
    )]
    NoKprobe(#[source] io::Error),
    /// Neither.
    #[error(
        "this kernel cannot fail block I/O: it needs CONFIG_FUNCTION_ERROR_INJECTION (for fmod_ret on {HOOK}) or CONFIG_BPF_KPROBE_OVERRIDE"
    )]
    NoBackend(#[source] CopyError),
    /// The object and this binary are of different builds.
    #[error("the eBPF object has no {0}")]
    Object(&'static str),
    /// The parking lot.
    #[error(transparent)]
    ParkingLot(#[from] ParkingLotError),
    /// The deadlines could not be mapped.
    #[error("mapping the deadlines of the parking lot failed")]
    Slots(#[source] std::io::Error),
    /// The hook is attached and does nothing.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
}

impl BlockError {
    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::KprobeCannotDelay => Class::Unsupported,
            Self::NoModifyReturn(error) | Self::NoParking(error) | Self::NoBackend(error) => error.class(),
            Self::NoKprobe(_) | Self::SelfTest(_) => Class::Unsupported,
            Self::Object(_) | Self::ParkingLot(_) | Self::Slots(_) => Class::Other,
        }
    }
}

/// What the kernel answered, without the verifier's log: that is pages of a program that is in order, and says in its
/// last line that a helper is missing.
fn answer(error: ProgramError) -> io::Error {
    match error {
        ProgramError::LoadError { io_error, .. } => io_error,
        other => io::Error::other(other),
    }
}

/// Copies of the parking program for a machine with this many CPUs.
///
/// Each copy parks one task a CPU at a time, and a task stays where it parks: 32 threads of one target may well
/// gather on one CPU of two. All programs of all sessions on one function are at most 38 (`BPF_MAX_TRAMP_LINKS`),
/// so three are left for a second session. Larger machines spread their threads; each copy costs time to attach.
#[must_use]
pub fn parkers(cpus: usize) -> u32 {
    (80 / cpus.max(1)).clamp(8, 33) as u32
}

/// Armed block hooks. They do nothing before the session is active.
#[derive(Debug)]
pub struct BlockHooks {
    backend: Backend,
    parkers: u32,
    // Order of the fields is the order they are dropped in: decider first, so that nobody parks any more.
    _probe: Option<KProbeLink>,
    links: Vec<OwnedFd>,
    lot: Option<ParkingLot>,
}

impl BlockHooks {
    /// Opens the parking lot if it is wanted, loads and attaches the programs, and makes sure they see a read.
    ///
    /// # Errors
    /// See [`BlockError`]. Nothing stays behind.
    pub fn arm(loaded: &mut Loaded, copies: &Copies, btf: &Btf, wanted: &Wanted) -> Result<Self, BlockError> {
        if wanted.choice == Choice::Kprobe && wanted.delays {
            return Err(BlockError::KprobeCannotDelay);
        }
        let hooks = match wanted.choice {
            Choice::Kprobe => Self::probe(loaded)?,
            Choice::ModifyReturn => Self::modify_return(loaded, copies, btf, wanted.delays)?,
            Choice::Auto => match Self::modify_return(loaded, copies, btf, wanted.delays) {
                Err(BlockError::NoModifyReturn(refused)) if !wanted.delays => {
                    Self::probe(loaded).map_err(|_| BlockError::NoBackend(refused))?
                }
                other => other?,
            },
        };
        let node = wanted.device.and_then(device::node).or_else(device::any_readable);
        selftest::run(loaded, &node.ok_or(SelfTestError::NoDevice)?)?;
        Ok(hooks)
    }

    fn modify_return(loaded: &Loaded, copies: &Copies, btf: &Btf, delays: bool) -> Result<Self, BlockError> {
        let plain = |name, constants: &[(Constant, u32)]| {
            let kind = Kind::ModifyReturn { function: HOOK, sleepable: false };
            copies.load(btf, name, kind, constants).map_err(BlockError::NoModifyReturn)
        };
        let attach = |program: &OwnedFd| attach_to_function(program.as_fd(), HOOK);
        let mut hooks =
            Self { backend: Backend::ModifyReturn, parkers: 0, _probe: None, links: Vec::new(), lot: None };
        if delays {
            let tally = plain("tally_bio", &[])?;
            let count = parkers(possible_cpus(loaded)?);
            let load = |number| {
                let kind = Kind::ModifyReturn { function: HOOK, sleepable: true };
                copies.load(btf, "park_bio", kind, &[(Constant::ParkerNumber, number)])
            };
            // Nobody parks before the lot is open, so load first: a kernel that cannot is told from one where
            // FUSE is missing.
            let first = load(0).map_err(BlockError::NoParking)?;
            hooks.lot = Some(open_parking_lot(loaded)?);
            hooks.links.push(attach(&tally).map_err(BlockError::NoModifyReturn)?);
            hooks.links.push(attach(&first).map_err(BlockError::NoParking)?);
            hooks.parkers = 1;
            for number in 1..count {
                let link = load(number).and_then(|program| attach(&program));
                match link {
                    Ok(link) => hooks.links.push(link),
                    // The function is full: other sessions have programs on it too.
                    Err(CopyError::Attach { source, .. }) if source.raw_os_error() == Some(libc::E2BIG) => {
                        break;
                    }
                    Err(error) => return Err(BlockError::NoParking(error)),
                }
                hooks.parkers += 1;
            }
        }
        // Programs that are attached by now run after the decider; those of others must not be skipped.
        let alone = modifiers(btf, HOOK).map_err(BlockError::NoModifyReturn)? == hooks.links.len();
        let may_leave = delays && alone && !kernel_injects();
        let decider = plain("decide_bio", &[(Constant::DeciderMayLeave, may_leave.into())])?;
        let decider_link = match attach(&decider) {
            // Room for the one program that matters.
            Err(CopyError::Attach { source, .. })
                if source.raw_os_error() == Some(libc::E2BIG) && hooks.parkers > 1 =>
            {
                hooks.links.pop();
                hooks.parkers -= 1;
                attach(&decider)
            }
            attached => attached,
        };
        hooks.links.insert(0, decider_link.map_err(BlockError::NoModifyReturn)?);
        if delays {
            let attached = asynchronous::attach(copies, btf, hooks.parkers).map_err(BlockError::NoParking)?;
            hooks.links.extend(attached.links);
            // From here on submissions of libaio are let through.
            loaded.control.reap.store(attached.reaps.into());
        }
        Ok(hooks)
    }

    fn probe(loaded: &mut Loaded) -> Result<Self, BlockError> {
        let program: &mut KProbe = loaded
            .ebpf
            .program_mut("decide_bio_kprobe")
            .and_then(|program| program.try_into().ok())
            .ok_or(BlockError::Object("program decide_bio_kprobe"))?;
        let refused = |error| BlockError::NoKprobe(answer(error));
        program.load().map_err(refused)?;
        let link = program.attach(HOOK, 0).and_then(|id| program.take_link(id)).map_err(refused)?;
        Ok(Self { backend: Backend::Kprobe, parkers: 0, _probe: Some(link), links: Vec::new(), lot: None })
    }

    /// The backend in use.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Copies of the parking program: that many tasks per CPU can be late at the same time.
    #[must_use]
    pub fn parkers(&self) -> u32 {
        self.parkers
    }

    /// Processes that must never be targets.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.lot.as_ref().map(|lot| lot.pids().to_vec()).unwrap_or_default()
    }

    /// What the parking lot has done, if there is one.
    #[must_use]
    pub fn parking(&self) -> Option<ParkingLotStats> {
        self.lot.as_ref().map(ParkingLot::stats)
    }

    /// Wakes everybody, then detaches. The session must be inactive already.
    ///
    /// # Errors
    /// When the parking lot does not answer; everything is detached and everybody woken all the same.
    pub fn heal(mut self) -> Result<(), BlockError> {
        let released = self.lot.as_ref().map_or(Ok(()), ParkingLot::release_all);
        self.links.clear();
        Ok(released?)
    }
}

/// With CONFIG_FAIL_MAKE_REQUEST the hooked function may inject faults of its own, on disks whose `make-it-fail` is
/// set (`should_fail_request`, block/blk-core.c). Those must not be skipped. A disk that is chosen while a session
/// delays fails after that session only.
fn kernel_injects() -> bool {
    let chosen = |disk: std::fs::DirEntry| {
        std::fs::read_to_string(disk.path().join("make-it-fail")).is_ok_and(|value| value.trim() != "0")
    };
    std::fs::read_dir("/sys/block").is_ok_and(|mut disks| disks.any(|disk| disk.is_ok_and(chosen)))
}

fn possible_cpus(loaded: &Loaded) -> Result<usize, BlockError> {
    Ok((slots(loaded)? / PARKING_PLACES_PER_CPU) as usize)
}

fn slots(loaded: &Loaded) -> Result<u32, BlockError> {
    let map = loaded.ebpf.map("PARKING").map(map_data).ok_or(BlockError::Object("map PARKING"))?;
    map.info().map(|info| info.max_entries()).map_err(|error| BlockError::Slots(std::io::Error::other(error)))
}

fn open_parking_lot(loaded: &Loaded) -> Result<ParkingLot, BlockError> {
    let map = loaded.ebpf.map("PARKING").map(map_data).ok_or(BlockError::Object("map PARKING"))?;
    let slots = Slots::of_map(map.fd().as_fd(), slots(loaded)?).map_err(BlockError::Slots)?;
    let control = &*loaded.control;
    // SAFETY: the control block is mapped shared and outlives this call.
    let heartbeat = unsafe { Heartbeat::new(&raw const control.heartbeat_ns) };
    let lot = ParkingLot::start(slots, Some(heartbeat))?;
    let [helper, answerer] = lot.pids();
    control.helper_pid.store(helper);
    control.answerer_tgid.store(answerer);
    control.helper_base.store(lot.base_address());
    Ok(lot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cpus_hold_32_threads_and_a_second_session_finds_room() {
        assert!(parkers(2) >= 32, "even if all gather on one CPU");
        for cpus in [0, 1, 2, 4, 64, 4096] {
            let programs = parkers(cpus) + 2;
            assert!((10..=35).contains(&programs), "{cpus} CPUs: {programs} programs");
        }
    }

    #[test]
    fn a_kprobe_cannot_delay_and_says_so() {
        assert_eq!(BlockError::KprobeCannotDelay.class(), Class::Unsupported);
        assert!(BlockError::KprobeCannotDelay.to_string().contains("cannot sleep"));
    }
}
