//! COMMAND of `fault run`: started inside its cgroup, held before its first instruction until the session is
//! armed.
//!
//! The child exists from the moment it is spawned but only waits: for one byte (then it becomes COMMAND), for the
//! end of the pipe or for the death of the controller (then it exits and COMMAND never runs).

mod child;
mod image;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, pthread_sigmask},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::pipe2,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::target::pid::pidfd_open;
use child::Child;
use image::Image;

/// COMMAND could not be started, held, released or waited for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The command line after `--` is empty.
    #[error("no COMMAND after `--`")]
    Empty,
    /// A NUL byte in an argument.
    #[error("argument {0:?} of COMMAND holds a NUL byte")]
    Nul(OsString),
    /// No such program.
    #[error("{program:?}: command not found", program = .0)]
    NotFound(OsString),
    /// There is one, but it cannot be executed.
    #[error("cannot execute {program:?}: {source}")]
    NotExecutable {
        /// As given.
        program: OsString,
        /// What execve(2) said.
        source: io::Error,
    },
    /// A system call around it failed.
    #[error("cannot {operation} COMMAND: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl CommandError {
    /// Exit status of `fault run`, as a shell has it.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Empty | Self::Nul(_) => crate::exit::Class::Usage.status(),
            Self::NotFound(_) => 127,
            Self::NotExecutable { .. } => 126,
            Self::System { .. } => crate::exit::Class::Other.status(),
        }
    }
}

fn system(operation: &'static str) -> impl FnOnce(nix::Error) -> CommandError {
    move |error| CommandError::System { operation, source: error.into() }
}

/// How COMMAND ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Exited(u8),
    /// Killed by this signal.
    Killed(i32),
}

impl Ending {
    /// Exit status of `fault run`: COMMAND's own, or 128 + signal.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}

/// The child that will be COMMAND. Dropped, it exits without having run anything.
#[derive(Debug)]
pub struct Held {
    /// `None` once it was let go.
    running: Option<Running>,
    /// Written once to let go; closed to give up.
    gate: Option<File>,
    /// Says why execve(2) failed; ends when it succeeded.
    report: File,
    program: OsString,
    pid: u32,
}

/// COMMAND, running. Dropped, it is left alone.
#[derive(Debug)]
pub struct Running {
    pid: u32,
    pidfd: OwnedFd,
}

impl Held {
    /// Starts the child in the cgroup directory `cgroup`.
    ///
    /// It gets the standard streams, the controlling terminal, the process group, the environment and the signal
    /// mask of the calling thread; signal handlers are reset, and so is SIGPIPE, which Rust programs ignore.
    ///
    /// # Errors
    /// When the process cannot be made or put into the cgroup.
    pub fn spawn(command: &[OsString], cgroup: &Path) -> Result<Self, CommandError> {
        let mut image = Image::new(command)?;
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(system("make a pipe for"));
        let (gate_read, gate) = pipe()?;
        let (report, report_write) = pipe()?;
        let controller = pidfd_open(std::process::id()).map_err(system("open a pidfd for"))?;

        // No handler of the controller may run in the child, and the child starts with the caller's mask.
        let mut mask = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))
            .map_err(system("block signals for"))?;
        let child = Child {
            image: &mut image,
            gate: gate_read.as_raw_fd(),
            // Its own copy of the writing end would keep the gate from ever ending.
            unneeded: gate.as_raw_fd(),
            report: report_write.as_raw_fd(),
            controller: controller.as_raw_fd(),
            mask: *mask.as_ref(),
        };
        let spawned = child.start(cgroup);
        let restored = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
        let (pid, pidfd) = spawned.map_err(|source| CommandError::System { operation: "start", source })?;
        let held = Self {
            running: Some(Running { pid, pidfd }),
            gate: Some(gate.into()),
            report: report.into(),
            program: image.program,
            pid,
        };
        restored.map_err(system("restore the signal mask after starting"))?;
        Ok(held)
    }

    /// Its process id, which COMMAND will have too.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it become COMMAND.
    ///
    /// # Errors
    /// When there is no such program or it cannot be executed; the child is gone then.
    pub fn release(mut self) -> Result<Running, CommandError> {
        if let Some(mut gate) = self.gate.take() {
            match gate.write_all(&[1]) {
                // A child that was killed while it waited is COMMAND killed by that signal: `wait` tells.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                result => result.map_err(|source| CommandError::System { operation: "release", source })?,
            }
        }
        let mut errno = [0; 4];
        match self.report.read_exact(&mut errno) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let gone = || CommandError::System { operation: "release", source: Errno::ESRCH.into() };
                self.running.take().ok_or_else(gone)
            }
            Err(source) => Err(CommandError::System { operation: "hear from", source }),
            Ok(()) => {
                let source = io::Error::from_raw_os_error(i32::from_ne_bytes(errno));
                let program = std::mem::take(&mut self.program);
                Err(match source.raw_os_error() {
                    Some(libc::ENOENT | libc::ENOTDIR) => CommandError::NotFound(program),
                    _ => CommandError::NotExecutable { program, source },
                })
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gate = None;
        if let Some(running) = self.running.take() {
            // It exits at once; an error means that it is gone already.
            _ = running.wait();
        }
    }
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal, e.g. a SIGTERM that only the controller got. What the terminal sends (Ctrl-C, Ctrl-\,
    /// Ctrl-Z, hang-up) reaches COMMAND by itself, because it is in the controller's process group.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), CommandError> {
        // SAFETY: the descriptor is open and the call touches no memory of ours.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), signal as i32, 0usize, 0)
        };
        Errno::result(sent).map(drop).map_err(system("send a signal to"))
    }

    /// Waits for its end, blocking the thread.
    ///
    /// # Errors
    /// When somebody else has waited for it.
    pub fn wait(&self) -> Result<Ending, CommandError> {
        loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Ok(WaitStatus::Exited(_, status)) => return Ok(Ending::Exited(status as u8)),
                Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ending::Killed(signal as i32)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(system("wait for")(error)),
            }
        }
    }

    /// Waits for its end. Needs a tokio runtime with I/O enabled; may be dropped and called again.
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub async fn ended(&self) -> Result<Ending, CommandError> {
        let failed = |source| CommandError::System { operation: "wait for", source };
        // SAFETY: a borrowed descriptor is open and the same for as long as it is borrowed.
        let pidfd = unsafe { AsyncFd::register_with_interest(self.pidfd.as_fd(), Interest::READABLE) }
            .map_err(|error| failed(error.into()))?;
        // A pidfd is readable from the end of the process on.
        let _ready = pidfd.readable().await.map_err(failed)?;
        self.wait()
    }
}

impl AsFd for Running {
    /// The pidfd: readable when COMMAND has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
