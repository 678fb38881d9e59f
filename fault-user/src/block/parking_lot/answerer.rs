//! The answering process: reads requests, keeps the parked ones by deadline, answers on time.
//!
//! A process and not a thread of the controller, so that a controller that is stopped, swapped out
//! or wedged (SIGSTOP, a debugger) does not leave tasks parked: this process notices the silent
//! heartbeat and lets everybody go. It is the only holder of the `/dev/fuse` descriptor; when it
//! dies, for which it is enough that its owner dies, the kernel aborts the connection and wakes
//! everybody.
//!
//! One thread and one event loop, not several readers and a timer: requests, timer and answers then
//! need no lock and no hand-over between threads, and one core answers far more requests than tasks
//! can be parked (at most programs × CPUs at once). After start-up the loop neither allocates nor
//! locks nor touches a file, and all of its memory is locked.

use super::Heartbeat;
use super::child::Child;
use super::lateness::{Recent, Ways};
use super::ledger::{Counters, Ledger};
use super::slots::Slots;
use super::wire::{self, Answer, InHeader, InterruptIn, OutHeader, ReadIn, op};
use fault_common::limits::MAX_PARK_NS;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mm::MlockAllFlags;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

/// Names of the start-up steps, for [`Counters::failed_step`].
pub(super) const STEPS: [&str; 1] = ["lock the memory of the answering process (mlockall)"];

/// Requests read in a row before due answers get their turn.
const BATCH: usize = 64;

/// What the answering process works with.
pub(super) struct Files<'a> {
    pub device: BorrowedFd<'a>,
    pub owner: BorrowedFd<'a>,
    /// eventfd, readable after the owner changed something in the ledger.
    pub command: BorrowedFd<'a>,
    /// eventfd, written when a command has been carried out.
    pub done: BorrowedFd<'a>,
}

pub(super) fn fork(
    files: Files<'_>,
    slots: &Slots,
    ledger: &Ledger,
    heartbeat: Option<&Heartbeat>,
) -> io::Result<Child> {
    let keep = [files.device, files.owner, files.command, files.done];
    let capacity = slots.len() + 64;
    let mut lot = Answerer {
        files,
        slots,
        counters: ledger,
        heartbeat,
        parked: BinaryHeap::with_capacity(capacity),
        capacity,
        buffer: [0; wire::READ_BUFFER],
        own_lateness: Recent::default(),
        ways: Ways::new(slots.len()),
    };
    // Let the clock's first call, which sets up the vDSO, happen before the fork.
    let _ = now_ns();
    let body = move || lot.run();
    // SAFETY: everything `run` needs is allocated above; it only makes system calls and uses memory
    // that exists (the heap never grows beyond its capacity).
    unsafe { Child::fork(c"fault-lot", &keep, body) }
}

struct Answerer<'a> {
    files: Files<'a>,
    slots: &'a Slots,
    counters: &'a Counters,
    heartbeat: Option<&'a Heartbeat>,
    /// Earliest first.
    parked: BinaryHeap<Reverse<Parked>>,
    capacity: usize,
    buffer: [u8; wire::READ_BUFFER],
    /// How late timers wake this process, which asks to be woken that much earlier and then sleeps the rest: short
    /// sleeps end on time. Microseconds on hardware, half a millisecond on an emulated machine whose processors are idle.
    own_lateness: Recent,
    /// How long parked tasks take to run again once they are answered.
    ways: Ways,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Parked {
    /// When to answer it, CLOCK_MONOTONIC ns.
    due_ns: u64,
    /// FUSE's number of it.
    unique: u64,
    /// Page of the parking file.
    page: u64,
}

/// Why the loop ended.
enum End {
    OwnerDied,
    ConnectionGone,
}

impl Answerer<'_> {
    fn run(&mut self) -> i32 {
        if let Err(errno) = make_steadfast() {
            self.counters.failure.store(errno.raw_os_error(), Ordering::Release);
            return 1;
        }
        match self.serve() {
            End::OwnerDied | End::ConnectionGone => 0,
        }
    }

    fn serve(&mut self) -> End {
        loop {
            for _ in 0..BATCH {
                match rustix::io::read(self.files.device, &mut self.buffer) {
                    Ok(len) => self.take_in(len),
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR | Errno::NOENT) => {}
                    Err(_) => return End::ConnectionGone,
                }
            }
            let now = now_ns();
            let silent = self.owner_is_silent(now);
            let released = self.counters.release.load(Ordering::Acquire) != 0;
            if silent || released {
                self.let_everybody_go();
            } else {
                self.answer_due(now);
            }
            if let Some(end) = self.wait(silent || released) {
                return end;
            }
        }
    }

    /// Sleeps until a request, a command, the next deadline or the next heartbeat check.
    fn wait(&mut self, released: bool) -> Option<End> {
        let mut wait_ns = None;
        let mut wake_ns = None;
        if let Some(Reverse(first)) = self.parked.peek() {
            let now = now_ns();
            let left = first.due_ns.saturating_sub(now);
            let lead = self.own_lateness.most();
            // Woken too early: sleep the rest, however late that ends.
            let sleep_ns = if left > lead { left - lead } else { left };
            let silence_ns =
                self.heartbeat.map_or(u64::MAX, |heartbeat| heartbeat.silent_at().saturating_sub(now));
            if silence_ns < sleep_ns {
                wait_ns = Some(silence_ns.max(1_000_000));
            } else {
                wait_ns = Some(sleep_ns);
                wake_ns = Some(now + sleep_ns);
            }
        }
        let timeout = wait_ns
            .map(|ns| Timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as _ });
        let mut ready = [
            PollFd::new(&self.files.device, PollFlags::IN),
            PollFd::new(&self.files.command, PollFlags::IN),
            PollFd::new(&self.files.owner, PollFlags::IN),
        ];
        match poll(&mut ready, timeout.as_ref()) {
            Ok(0) => {
                if let Some(wake_ns) = wake_ns {
                    self.own_lateness.add(now_ns().saturating_sub(wake_ns));
                }
                return None;
            }
            Err(Errno::INTR) => return None,
            Ok(_) => {}
            Err(_) => return Some(End::ConnectionGone),
        }
        if !ready[2].revents().is_empty() {
            return Some(End::OwnerDied);
        }
        if ready[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return Some(End::ConnectionGone);
        }
        // A command is done when the loop has been through once more with it visible.
        if !ready[1].revents().is_empty() && (released || self.counters.release.load(Ordering::Acquire) != 0)
        {
            let mut count = [0; 8];
            let _ = rustix::io::read(self.files.command, &mut count);
            self.let_everybody_go();
            let _ = rustix::io::write(self.files.done, &1u64.to_ne_bytes());
        }
        None
    }

    /// Handles one request of `len` bytes in the buffer.
    fn take_in(&mut self, len: usize) {
        let (header_len, read_len) = (size_of::<InHeader>(), size_of::<ReadIn>());
        if len < header_len {
            return;
        }
        let request: InHeader = bytemuck::pod_read_unaligned(&self.buffer[..header_len]);
        let answer = match request.opcode {
            op::READ if len >= header_len + read_len => {
                let read: ReadIn =
                    bytemuck::pod_read_unaligned(&self.buffer[header_len..header_len + read_len]);
                return self.park(request.unique, read.offset / wire::PAGE);
            }
            op::FORGET | op::BATCH_FORGET => return,
            op::INIT => Answer::init(request.unique),
            op::LOOKUP => {
                if self.buffer[header_len..len] == *wire::FILE_NAME.to_bytes_with_nul() {
                    Answer::entry(request.unique, self.slots.len() as u64)
                } else {
                    Answer::error(request.unique, libc::ENOENT)
                }
            }
            op::GETATTR => Answer::attributes(request.unique, request.nodeid, self.slots.len() as u64),
            op::OPEN => Answer::opened(request.unique),
            op::FLUSH | op::RELEASE | op::DESTROY => Answer::error(request.unique, 0),
            op::INTERRUPT if len >= header_len + size_of::<InterruptIn>() => {
                let body = &self.buffer[header_len..header_len + size_of::<InterruptIn>()];
                let interrupted: InterruptIn = bytemuck::pod_read_unaligned(body);
                let refusal = Answer::error(request.unique, libc::ENOSYS);
                let _ = rustix::io::write(self.files.device, refusal.as_bytes());
                return self.let_one_go(interrupted.unique);
            }
            _ => Answer::error(request.unique, libc::ENOSYS),
        };
        let _ = rustix::io::write(self.files.device, answer.as_bytes());
    }

    fn park(&mut self, unique: u64, page: u64) {
        self.ways.learn(page, self.slots.woke(page));
        let deadline = self.slots.deadline(page);
        // 0 means "at once" to everybody, and is what most reads outside of a session carry.
        let now = if deadline == 0 { 0 } else { now_ns() };
        if deadline <= now {
            self.counters.at_once.fetch_add(1, Ordering::Relaxed);
            if deadline != 0 {
                self.counters.answered_late_by(now - deadline);
            }
            return self.answer(unique);
        }
        if self.parked.len() >= self.capacity {
            self.counters.full.fetch_add(1, Ordering::Relaxed);
            return self.answer(unique);
        }
        let due_ns = deadline.min(now + MAX_PARK_NS) - self.ways.head_start(page, deadline);
        self.parked.push(Reverse(Parked { due_ns, unique, page }));
        let parked = self.parked.len() as u32;
        self.counters.parked.store(parked, Ordering::Relaxed);
        self.counters.parked_max.fetch_max(parked, Ordering::Relaxed);
    }

    fn answer_due(&mut self, mut now: u64) {
        while let Some(Reverse(first)) = self.parked.peek().copied() {
            if first.due_ns > now {
                now = now_ns();
                if first.due_ns > now {
                    break;
                }
            }
            self.parked.pop();
            self.counters.answered_late_by(now - first.due_ns);
            self.ways.answered(first.page, now);
            self.answer(first.unique);
        }
        self.counters.parked.store(self.parked.len() as u32, Ordering::Relaxed);
    }

    /// For the one interrupt there ever is, see `ParkingLot::forbid_interrupts`.
    fn let_one_go(&mut self, unique: u64) {
        let before = self.parked.len();
        self.parked.retain(|Reverse(parked)| parked.unique != unique);
        if self.parked.len() < before {
            self.answer(unique);
            self.counters.parked.store(self.parked.len() as u32, Ordering::Relaxed);
        }
    }

    fn let_everybody_go(&mut self) {
        while let Some(Reverse(parked)) = self.parked.pop() {
            self.counters.released.fetch_add(1, Ordering::Relaxed);
            self.answer(parked.unique);
        }
        self.counters.parked.store(0, Ordering::Relaxed);
    }

    /// Always an error: a page that was never read stays out of the page tables, so the next task
    /// to touch it parks again.
    fn answer(&self, unique: u64) {
        let header = OutHeader { len: size_of::<OutHeader>() as u32, error: -libc::EIO, unique };
        // ENOENT: the request is gone already. Nothing else can be done about any error here.
        let _ = rustix::io::write(self.files.device, bytemuck::bytes_of(&header));
        self.counters.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn owner_is_silent(&self, now: u64) -> bool {
        self.heartbeat.is_some_and(|heartbeat| heartbeat.silent_at() <= now)
    }
}

/// Nothing may come between a due answer and this process: no paging, no dirty-page throttling, no
/// timer slack, no busy neighbour. Only the first is indispensable.
fn make_steadfast() -> rustix::io::Result<()> {
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    // Linux ≥ 5.6; tells reclaim that it must not wait for I/O on behalf of this process.
    let _ = rustix::process::configure_io_flusher_behavior(true);
    // The kernel's sched_param is this one number. Its wrapper in musl refuses without asking the kernel,
    // so the static binary needs the system call itself.
    let realtime: libc::c_int = 1;
    // SAFETY: sets scheduling class and timer slack of this process; the kernel reads one int.
    unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const realtime);
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0_u64, 0_u64, 0_u64);
    }
    Ok(())
}

pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
