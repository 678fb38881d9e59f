//! The parking lot: where tasks sleep whose block I/O is delayed.
//!
//! BPF cannot sleep for a given time. A sleepable program may however read another process' memory
//! (`bpf_copy_from_user_task`, Linux ≥ 5.18), and if that memory is a page of a file on our own
//! in-memory FUSE mount, the task sleeps in the kernel until we answer the read: exactly like a task
//! that waits for a slow disk, on no CPU.
//!
//! | part | what |
//! |---|---|
//! | [`Slots`] | deadline by page, written by the kernel programs, read by the answering process |
//! | mount | a FUSE file system mounted nowhere (`fsopen`/`fsmount`, Linux ≥ 5.2) |
//! | helper | a process that maps the file and does nothing else |
//! | answering process | reads requests, answers each at its deadline with EIO |
//!
//! Every answer is an error, so that no page becomes readable and the same page can be parked on
//! again at once. A page is used by one task at a time (a slot belongs to one copy of the parking
//! program on one CPU, and the kernel's recursion guard keeps others out), so the file's page cache
//! never exceeds the number of slots and is filled at start, not by a victim under memory pressure.
//!
//! Nothing survives the owner: both processes end when it dies, the FUSE connection aborts with the
//! only descriptor of its device, and everybody parked wakes.

mod answerer;
mod child;
mod lateness;
mod ledger;
mod mapping;
mod mount;
mod slots;
mod wire;

pub use ledger::LATE_BUCKETS;
pub use slots::Slots;

use child::Child;
use fault_common::limits::HEARTBEAT_TIMEOUT_NS;
use fault_common::shared::SharedU64;
use ledger::Ledger;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::PidfdFlags;
use rustix::time::Timespec;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often parking is rehearsed: as many as the answering process remembers.
const REHEARSALS: u64 = 4;
/// How long each lasts: long enough for the processors to fall idle.
const REHEARSED_NS: u64 = 3_000_000;
const PATIENCE_NS: u64 = 5_000_000_000;
/// How long start-up and a release may take before they count as failed.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A parking lot that could not be opened or used.
#[derive(Debug, thiserror::Error)]
#[error("parking lot: cannot {step}")]
pub struct ParkingLotError {
    step: &'static str,
    #[source]
    source: io::Error,
}

impl ParkingLotError {
    fn new(step: &'static str, source: impl Into<io::Error>) -> Self {
        Self { step, source: source.into() }
    }
}

/// Where the owner proves that it runs: a CLOCK_MONOTONIC time in ns in shared memory, renewed at
/// least every few hundred ms. 0 means that it has not started to yet.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat(*const SharedU64);

// SAFETY: points to shared memory of an atomic, valid as promised to `Heartbeat::new`.
unsafe impl Send for Heartbeat {}
// SAFETY: as above.
unsafe impl Sync for Heartbeat {}

impl Heartbeat {
    /// # Safety
    /// `at` must point into a `MAP_SHARED` mapping that is valid while [`ParkingLot::start`] runs.
    /// (The answering process inherits its own mapping of the same memory.)
    pub unsafe fn new(at: *const SharedU64) -> Self {
        Self(at)
    }

    /// When the owner becomes silent unless it renews its heartbeat.
    fn silent_at(&self) -> u64 {
        // SAFETY: valid and shared, see `new`; in the answering process the inherited mapping is
        // never unmapped.
        match unsafe { &*self.0 }.load() {
            0 => u64::MAX,
            beat => beat.saturating_add(HEARTBEAT_TIMEOUT_NS),
        }
    }
}

/// What the parking lot has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParkingLotStats {
    /// Tasks parked now.
    pub parked: u32,
    /// Most tasks parked at once.
    pub parked_max: u32,
    /// Reads answered, parked or not.
    pub answered: u64,
    /// Reads whose deadline had already passed when they arrived.
    pub at_once: u64,
    /// Reads that found every place taken and were let go at once.
    pub full: u64,
    /// Reads let go before their deadline: by [`ParkingLot::release_all`] or a silent owner.
    pub released: u64,
    /// How late answers were: bucket `i` counts those late by less than 2^i µs.
    pub late: [u64; LATE_BUCKETS],
}

/// An open parking lot. Dropping it lets everybody go and removes it.
#[derive(Debug)]
pub struct ParkingLot {
    // Order matters: the helper's mapping may go only when nobody is parked on it any more, which
    // the end of the answering process (and so of the FUSE connection) guarantees.
    answerer: Child,
    helper: Child,
    base: u64,
    command: OwnedFd,
    done: OwnedFd,
    slots: Slots,
    ledger: Ledger,
}

impl ParkingLot {
    /// Opens a parking lot with one page per slot of `slots`.
    ///
    /// The two processes it forks end when the calling *process* dies. With a `heartbeat` everybody
    /// is also let go while the owner is silent for [`HEARTBEAT_TIMEOUT_NS`].
    pub fn start(slots: Slots, heartbeat: Option<Heartbeat>) -> Result<Self, ParkingLotError> {
        let ledger = Ledger::new().map_err(|e| ParkingLotError::new("map its counters", e))?;
        let owner = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(|e| ParkingLotError::new("watch its owner (pidfd_open)", e))?;
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|e| ParkingLotError::new("create an eventfd", e))
        };
        let (command, done) = (event()?, event()?);
        let (address, address_in) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|e| ParkingLotError::new("create a pipe", e))?;

        let fuse = mount::detached()?;
        let files = answerer::Files {
            device: fuse.device.as_fd(),
            owner: owner.as_fd(),
            command: command.as_fd(),
            done: done.as_fd(),
        };
        let answerer = answerer::fork(files, &slots, &ledger, heartbeat.as_ref())
            .map_err(|e| ParkingLotError::new("fork the answering process", e))?;
        // From here on the answering process alone holds the device, so its death ends everything.
        drop(fuse.device);
        let helper = mapping::fork(fuse.mount.as_fd(), owner.as_fd(), address_in.as_fd(), slots.len() as u64)
            .map_err(|e| ParkingLotError::new("fork the helper", e))?;
        drop(address_in);

        let mut lot = Self { answerer, helper, base: 0, command, done, slots, ledger };
        lot.base = lot.wait_for_address(&address)?;
        for child in [&lot.answerer, &lot.helper] {
            // Needs CAP_SYS_RESOURCE. Without it the two are merely as mortal as everybody else, and
            // their death wakes everybody.
            let _ = child.protect_from_oom_killer();
        }
        lot.warm_up();
        lot.rehearse();
        lot.forbid_interrupts();
        Ok(lot)
    }

    fn wait_for_address(&self, address: &OwnedFd) -> Result<u64, ParkingLotError> {
        let mut ready = [PollFd::new(address, PollFlags::IN), PollFd::new(&self.answerer, PollFlags::IN)];
        let waited =
            poll(&mut ready, Some(&PATIENCE)).map_err(|e| ParkingLotError::new("wait for the helper", e))?;
        let errno = self.ledger.failure.load(Ordering::Acquire);
        if errno != 0 {
            let step = self.ledger.failed_step.load(Ordering::Acquire) as usize;
            let step = answerer::STEPS.get(step).copied().unwrap_or("start the answering process");
            return Err(ParkingLotError::new(step, io::Error::from_raw_os_error(errno)));
        }
        let mut bytes = [0; 8];
        if waited == 0 || !ready[0].revents().contains(PollFlags::IN) {
            let error = io::Error::other("a process of the parking lot ended early or is stuck");
            return Err(ParkingLotError::new("start its processes", error));
        }
        rustix::io::read(address, &mut bytes)
            .map_err(|e| ParkingLotError::new("learn the helper's address", e))?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Touches every page once with no deadline: fills the page cache of the file here instead of in
    /// a victim, and brings the whole answer path into locked memory.
    ///
    /// Best effort: a sandbox may forbid this look into the helper, and parking works without it.
    fn warm_up(&self) {
        for slot in 0..self.slots.len() as u64 {
            if self.touch(slot).is_err() {
                break;
            }
        }
    }

    /// Parks the calling thread a few times, so that the answering process knows how late it and its tasks wake on this
    /// machine before the first of them is a victim.
    fn rehearse(&self) {
        for _ in 0..REHEARSALS {
            self.slots.set_deadline(0, answerer::now_ns() + REHEARSED_NS);
            let touched = self.touch(0);
            self.slots.set_woke(0, answerer::now_ns());
            if touched.is_err() {
                break;
            }
        }
        self.slots.set_deadline(0, 0);
    }

    /// Makes everybody who parks sleep like one who waits for a disk: uninterruptibly (state D).
    ///
    /// FUSE lets signals interrupt a request until a server has refused to be interrupted once. So one process
    /// of ours parks and is killed, and the answering process refuses. Best effort, as above: without it parked
    /// tasks are in state S, though no signal but SIGKILL wakes them either.
    fn forbid_interrupts(&self) {
        let Ok(memory) = std::fs::File::open(format!("/proc/{}/mem", self.helper_pid())) else { return };
        self.slots.set_deadline(0, answerer::now_ns() + PATIENCE_NS);
        let mut byte = [0; 1];
        let base = self.base;
        let body = || i32::from(memory.read_at(&mut byte, base).is_ok());
        // SAFETY: `body` is one system call.
        let Ok(parked) = (unsafe { Child::fork(c"fault-park", &[memory.as_fd()], body) }) else { return };
        let give_up = answerer::now_ns() + PATIENCE_NS;
        while self.stats().parked == 0 && answerer::now_ns() < give_up {
            std::thread::sleep(Duration::from_micros(200));
        }
        // Kills and reaps it.
        drop(parked);
        self.slots.set_deadline(0, 0);
    }

    /// Parks the calling thread on page `slot` until the deadline in the table, as a kernel program
    /// does, and gives the error that the read of the page then ended with.
    pub fn touch(&self, slot: u64) -> io::Result<io::Error> {
        touch(self.helper_pid(), self.base + slot * wire::PAGE)
    }

    /// The process whose memory kernel programs must read.
    pub fn helper_pid(&self) -> u32 {
        self.helper.pid()
    }

    /// Processes of the parking lot, none of which may ever be a target.
    pub fn pids(&self) -> [u32; 2] {
        [self.helper.pid(), self.answerer.pid()]
    }

    /// Address of page 0 in the helper; page `k` is `k` × 4096 bytes further.
    pub fn base_address(&self) -> u64 {
        self.base
    }

    /// Number of pages, which is the number of slots.
    pub fn pages(&self) -> usize {
        self.slots.len()
    }

    /// The table of deadlines.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Whether both processes still live. If not, nobody is delayed any more.
    pub fn is_alive(&self) -> bool {
        let mut ended =
            [PollFd::new(&self.answerer, PollFlags::IN), PollFd::new(&self.helper, PollFlags::IN)];
        matches!(poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }

    /// Lets everybody go now, and from now on everybody who comes.
    pub fn release_all(&self) -> Result<(), ParkingLotError> {
        self.ledger.release.store(1, Ordering::Release);
        rustix::io::write(&self.command, &1u64.to_ne_bytes())
            .map_err(|e| ParkingLotError::new("tell the answering process", e))?;
        let mut ready = [
            PollFd::new(&self.done, PollFlags::IN),
            // If it has died, everybody is awake already.
            PollFd::new(&self.answerer, PollFlags::IN),
        ];
        match poll(&mut ready, Some(&PATIENCE)) {
            Ok(0) => {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                Err(ParkingLotError::new("have everybody let go", error))
            }
            Ok(_) => Ok(()),
            Err(e) => Err(ParkingLotError::new("wait for the answering process", e)),
        }
    }

    /// Counters so far.
    pub fn stats(&self) -> ParkingLotStats {
        let counters = &*self.ledger;
        let mut late = [0; LATE_BUCKETS];
        for (to, from) in late.iter_mut().zip(&counters.late) {
            *to = from.load(Ordering::Relaxed);
        }
        ParkingLotStats {
            parked: counters.parked.load(Ordering::Relaxed),
            parked_max: counters.parked_max.load(Ordering::Relaxed),
            answered: counters.answered.load(Ordering::Relaxed),
            at_once: counters.at_once.load(Ordering::Relaxed),
            full: counters.full.load(Ordering::Relaxed),
            released: counters.released.load(Ordering::Relaxed),
            late,
        }
    }
}

/// Reads one byte at `address` of process `pid` through `/proc/PID/mem`, which takes the very path
/// into the page fault that `bpf_copy_from_user_task` takes (`access_remote_vm`). Gives the error
/// the read ended with: EIO when the page was answered with an error, as all are.
fn touch(pid: u32, address: u64) -> io::Result<io::Error> {
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    match memory.read_at(&mut [0], address) {
        Ok(_) => Err(io::Error::other("a page of the parking file became readable")),
        Err(error) => Ok(error),
    }
}

#[cfg(test)]
mod tests;
