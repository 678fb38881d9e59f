//! The keeper: a tiny process that outlives the controller just long enough to undo what no file descriptor owns.
//!
//! A transient cgroup directory and, below Linux 6.6, clsact filters survive the controller's death. Before the
//! controller makes such a thing it announces it and waits for the confirmation; so whenever SIGKILL comes, the
//! keeper knows. When the controller is gone (its end of the socket closes, its pidfd becomes readable) the keeper
//! undoes everything that was not withdrawn, newest first, and exits.
//!
//! It is forked, not executed: at the very start of `main` there is one thread, so a fork is whole, needs no second
//! binary or hidden subcommand and cannot fail for want of either. It has its own session, so the terminal's
//! signals do not reach it; it ignores those that ask for an end; it holds no descriptor but its own three, so it
//! neither keeps a pipe open nor a mount busy. Only SIGKILL ends it early; `fault sweep` is for that.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd},
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{self, SigHandler, Signal},
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair,
            sockopt::ReceiveTimeout,
        },
        time::TimeVal,
        wait::waitpid,
    },
    unistd::{Pid, chdir, setsid},
};
use serde::{Deserialize, Serialize};

use super::residue::Leftover;
use crate::{kernel::control::monotonic_ns, target::pid::pidfd_open};

/// Name in `/proc/PID/comm`, at most 15 bytes.
pub const COMM: &std::ffi::CStr = c"fault-keeper";
/// How long the controller waits for a confirmation, in seconds. Reading one message takes microseconds.
const CONFIRMATION_S: i64 = 5;
/// How long the keeper tries to undo something that resists.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two rounds of that.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest message. Two paths of `PATH_MAX` and names.
const MESSAGE: usize = 16 * 1024;

/// The keeper could not be started or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// [`Keeper::fork`] came too late.
    #[error("the keeper must be forked before any thread is started ({0} threads run)")]
    Threads(usize),
    /// A system call failed.
    #[error("cannot {operation} the keeper: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Too long for a message, or a path that is not UTF-8.
    #[error("cannot announce {0:?} to the keeper")]
    Message(Leftover),
    /// It was killed.
    #[error(
        "the keeper (a process named fault-keeper) is gone, so nothing can be made that would outlive a crash: start again"
    )]
    Gone,
}

fn system(operation: &'static str) -> impl FnOnce(Errno) -> KeeperError {
    move |error| match error {
        Errno::EPIPE | Errno::ECONNRESET => KeeperError::Gone,
        error => KeeperError::System { operation, source: error.into() },
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Announce { number: u64, leftover: Leftover },
    Withdraw { number: u64 },
}

/// The controller's side. Dropped, it makes the keeper undo whatever was not withdrawn, and waits for that.
#[derive(Debug)]
pub struct Keeper {
    pid: Pid,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` once dismissed.
    socket: Option<OwnedFd>,
    announced: BTreeMap<u64, Leftover>,
    next: u64,
}

impl Keeper {
    /// Starts the keeper. The first thing to do in `main`.
    ///
    /// # Errors
    /// When the process has threads already, or cannot fork.
    pub fn fork() -> Result<Self, KeeperError> {
        let threads = fs::read_dir("/proc/self/task")
            .map_err(|source| KeeperError::System { operation: "count threads before forking", source })?
            .count();
        if threads != 1 {
            return Err(KeeperError::Threads(threads));
        }
        let (ours, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(system("make a socket for"))?;
        let controller = pidfd_open(process::id()).map_err(system("open a pidfd for"))?;
        setsockopt(&ours, ReceiveTimeout, &TimeVal::new(CONFIRMATION_S, 0))
            .map_err(system("configure the socket of"))?;
        // SAFETY: there is one thread, so the child may do whatever this process may.
        match unsafe { libc::fork() } {
            -1 => Err(system("fork")(Errno::last())),
            0 => {
                drop(ours);
                keep(its, controller)
            }
            pid => Ok(Self {
                pid: Pid::from_raw(pid),
                state: Mutex::new(State { socket: Some(ours), announced: BTreeMap::new(), next: 0 }),
            }),
        }
    }

    /// Its process id, which is never a target.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    /// Tells it about something that is about to be made. When this returns, it is safe to make it.
    ///
    /// # Errors
    /// When the keeper does not confirm; then it must not be made.
    pub fn announce(&self, leftover: &Leftover) -> Result<(), KeeperError> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.tell(&Message::Announce { number, leftover: leftover.clone() })?;
        state.announced.insert(number, leftover.clone());
        Ok(())
    }

    /// Tells it that an announced thing has been undone.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn withdraw(&self, leftover: &Leftover) -> Result<(), KeeperError> {
        let mut state = self.state();
        let number =
            state.announced.iter().find_map(|(number, known)| (known == leftover).then_some(*number));
        let Some(number) = number else { return Ok(()) };
        state.tell(&Message::Withdraw { number })?;
        state.announced.remove(&number);
        Ok(())
    }

    /// Ends it. What was not withdrawn it undoes first.
    pub fn dismiss(&self) {
        if self.state().socket.take().is_some() {
            // Somebody else may have waited for it; gone is gone.
            _ = waitpid(self.pid, None);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A message is sent whole or not at all.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.dismiss();
    }
}

impl State {
    fn tell(&self, message: &Message) -> Result<(), KeeperError> {
        let socket = self.socket.as_ref().ok_or(KeeperError::Gone)?.as_raw_fd();
        let bytes = serde_json::to_vec(message).ok().filter(|bytes| bytes.len() <= MESSAGE);
        let bytes = match (bytes, message) {
            (Some(bytes), _) => bytes,
            (None, Message::Announce { leftover, .. }) => return Err(KeeperError::Message(leftover.clone())),
            (None, Message::Withdraw { .. }) => return Ok(()),
        };
        retry(|| send(socket, &bytes, MsgFlags::MSG_NOSIGNAL)).map_err(system("send to"))?;
        let mut confirmed = [0];
        match retry(|| recv(socket, &mut confirmed, MsgFlags::empty())) {
            Ok(1..) => Ok(()),
            Ok(0) => Err(KeeperError::Gone),
            Err(error) => Err(system("hear from")(error)),
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// The keeper's whole life.
fn keep(socket: OwnedFd, controller: OwnedFd) -> ! {
    let (socket, controller) = detach(socket, controller);
    let announced = listen(socket, controller);
    let finished = undo(announced);
    // SAFETY: always allowed. The controller's exit handlers are not ours to run.
    unsafe { libc::_exit(i32::from(!finished)) }
}

/// Lets go of everything shared with the controller: terminal, process group, descriptors, working directory.
fn detach(socket: OwnedFd, controller: OwnedFd) -> (RawFd, RawFd) {
    /// Above what is being rearranged.
    const ASIDE: RawFd = 64;
    // A failure of any of these leaves the keeper less detached but able to do its work, and nobody to tell.
    _ = setsid();
    _ = prctl::set_name(COMM);
    _ = chdir("/");
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGPIPE,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        // SAFETY: no handler is installed.
        _ = unsafe { signal::signal(signal, SigHandler::SigIgn) };
    }
    // Descriptors 0 to 2 are /dev/null, 3 the socket, 4 the controller, and nothing else is open.
    let (socket, controller) = (socket.into_raw_fd(), controller.into_raw_fd());
    // SAFETY: system calls on descriptors; this process has one thread and no other owner of any of them.
    unsafe {
        let socket = libc::fcntl(socket, libc::F_DUPFD, ASIDE);
        let controller = libc::fcntl(controller, libc::F_DUPFD, ASIDE);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        let null = libc::fcntl(null, libc::F_DUPFD, ASIDE);
        for stream in 0..=2 {
            libc::dup2(null, stream);
        }
        libc::dup2(socket, 3);
        libc::dup2(controller, 4);
        close_from(5);
    }
    (3, 4)
}

/// Closes every descriptor from `first` on.
fn close_from(first: RawFd) {
    // SAFETY: nothing in this process owns a descriptor up there any more.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return;
    }
    // Linux < 5.9.
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&fd| fd >= first)
        .collect();
    for fd in open {
        // SAFETY: as above; the directory's own descriptor is closed already, which is an error without effect.
        unsafe { libc::close(fd) };
    }
}

/// Takes messages until the controller is gone; answers with what is left to be undone.
fn listen(socket: RawFd, controller: RawFd) -> BTreeMap<u64, Leftover> {
    let mut announced = BTreeMap::new();
    let mut buffer = vec![0; MESSAGE];
    loop {
        let mut waiting = [
            libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 },
            // Another child of the controller may hold a copy of its end of the socket.
            libc::pollfd { fd: controller, events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: two initialised entries.
        unsafe { libc::poll(waiting.as_mut_ptr(), 2, undo_due(&announced)) };
        if waiting[0].revents == 0 {
            if waiting[1].revents != 0 {
                return announced;
            }
            continue;
        }
        let Ok(length @ 1..) = retry(|| recv(socket, &mut buffer, MsgFlags::empty())) else {
            return announced;
        };
        match serde_json::from_slice(&buffer[..length]) {
            Ok(Message::Announce { number, leftover }) => _ = announced.insert(number, leftover),
            Ok(Message::Withdraw { number }) => _ = announced.remove(&number),
            // No confirmation: the controller will not make it.
            Err(_) => continue,
        }
        // If it is gone by now, the next round notices.
        _ = retry(|| send(socket, &[1], MsgFlags::MSG_NOSIGNAL));
    }
}

/// Undoes what is a matter of time and overdue; milliseconds until the next of that, or -1: there is none. It stays announced,
/// for the controller to withdraw: to undo it again does nothing.
fn undo_due(announced: &BTreeMap<u64, Leftover>) -> i32 {
    let now = monotonic_ns();
    let mut next = None;
    for leftover in announced.values() {
        match leftover.until_ns() {
            Some(until) if until <= now => {
                // Once more when the controller is gone, if this fails.
                _ = leftover.undo();
            }
            Some(until) => next = next.into_iter().chain([until]).min(),
            None => {}
        }
    }
    next.map_or(-1, |until| ((until - now) / 1_000_000 + 1).try_into().unwrap_or(i32::MAX))
}

/// Whether everything could be undone.
fn undo(mut announced: BTreeMap<u64, Leftover>) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let newest_first: Vec<u64> = announced.keys().rev().copied().collect();
        for number in newest_first {
            if announced.get(&number).is_some_and(|leftover| leftover.undo().is_ok()) {
                announced.remove(&number);
            }
        }
        if announced.is_empty() || Instant::now() >= deadline {
            return announced.is_empty();
        }
        thread::sleep(PAUSE);
    }
}
