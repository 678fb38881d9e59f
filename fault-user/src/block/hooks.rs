//! Arming block faults: which backend, which programs, in which order.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::{
    asynchronous::Asynchronous,
    device::{self, DeviceNumber},
    parking::{self, Parking, ParkingError},
    selftest::{self, SelfTestError},
};
use crate::{
    exit::Class,
    kernel::{
        btf::Btf,
        load::Loaded,
        modify_return::{Copies, CopyError, Kind, attach_to_function, modifiers},
        patch::Constant,
    },
};
use aya::programs::{KProbe, ProgramError, kprobe::KProbeLink};

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
    Parking(#[from] ParkingError),
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
            Self::Object(_) | Self::Parking(_) => Class::Other,
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
    // Order of the fields, and of the links, is the order they are dropped in: decider first, so that nobody parks any more.
    _probe: Option<KProbeLink>,
    links: Vec<OwnedFd>,
    /// Something is late.
    asynchronous: Option<Asynchronous>,
}

impl BlockHooks {
    /// Loads and attaches the programs, opens `parking` if they need it, and makes sure they see a read.
    ///
    /// # Errors
    /// See [`BlockError`]. Nothing stays behind.
    pub fn arm(
        loaded: &mut Loaded,
        copies: &Copies,
        btf: &Btf,
        wanted: &Wanted,
        parking: &mut Parking,
    ) -> Result<Self, BlockError> {
        if wanted.choice == Choice::Kprobe && wanted.delays {
            return Err(BlockError::KprobeCannotDelay);
        }
        let hooks = match wanted.choice {
            Choice::Kprobe => Self::probe(loaded)?,
            Choice::ModifyReturn => Self::modify_return(loaded, copies, btf, wanted.delays, parking)?,
            Choice::Auto => match Self::modify_return(loaded, copies, btf, wanted.delays, parking) {
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

    fn modify_return(
        loaded: &Loaded,
        copies: &Copies,
        btf: &Btf,
        delays: bool,
        parking: &mut Parking,
    ) -> Result<Self, BlockError> {
        let plain = |name, constants: &[(Constant, u32)]| {
            let kind = Kind::ModifyReturn { function: HOOK, sleepable: false };
            copies.load(btf, name, kind, constants).map_err(BlockError::NoModifyReturn)
        };
        let attach = |program: &OwnedFd| attach_to_function(program.as_fd(), HOOK);
        let mut hooks = Self {
            backend: Backend::ModifyReturn,
            parkers: 0,
            _probe: None,
            links: Vec::new(),
            asynchronous: None,
        };
        if delays {
            let tally = plain("tally_bio", &[])?;
            let count = parkers(parking::cpus(loaded)? as usize);
            let load = |number| {
                let kind = Kind::ModifyReturn { function: HOOK, sleepable: true };
                copies.load(btf, "park_bio", kind, &[(Constant::ParkerNumber, number)])
            };
            // Nobody parks before the lot is open, so load first: a kernel that cannot is told from one where
            // FUSE is missing.
            let first = load(0).map_err(BlockError::NoParking)?;
            parking.open(loaded)?;
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
        let may_leave = alone && !kernel_injects();
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
            let watching = Asynchronous::watch(copies, btf, hooks.parkers).map_err(BlockError::NoParking)?;
            hooks.asynchronous = Some(watching);
        }
        Ok(hooks)
    }

    /// Keeps the depth of asynchronous I/O by `interfaces`, a mask of [`fault_common::control::asynchronous`], from now on. Until
    /// then who submits waits. Nothing to do where nothing is late.
    ///
    /// # Errors
    /// [`BlockError::NoParking`].
    pub fn serve(
        &mut self,
        loaded: &Loaded,
        copies: &Copies,
        btf: &Btf,
        interfaces: u64,
    ) -> Result<(), BlockError> {
        match &mut self.asynchronous {
            Some(asynchronous) => {
                asynchronous.serve(loaded, copies, btf, interfaces).map_err(BlockError::NoParking)
            }
            None => Ok(()),
        }
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
        Ok(Self {
            backend: Backend::Kprobe,
            parkers: 0,
            _probe: Some(link),
            links: Vec::new(),
            asynchronous: None,
        })
    }

    /// Whether the programs may ask for [`BlockHooks::serve`].
    #[must_use]
    pub fn may_ask(&self) -> bool {
        self.asynchronous.is_some()
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
}

/// With CONFIG_FAIL_MAKE_REQUEST the hooked function may inject faults of its own, on disks whose `make-it-fail` is
/// set (`should_fail_request`, block/blk-core.c). Those must not be skipped. A disk that is chosen while a session
/// is armed fails after that session only.
fn kernel_injects() -> bool {
    let chosen = |disk: std::fs::DirEntry| {
        std::fs::read_to_string(disk.path().join("make-it-fail")).is_ok_and(|value| value.trim() != "0")
    };
    std::fs::read_dir("/sys/block").is_ok_and(|mut disks| disks.any(|disk| disk.is_ok_and(chosen)))
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
