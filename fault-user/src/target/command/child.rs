//! The child between its birth and COMMAND. Everything here that runs in the child is async-signal-safe, because
//! the controller has threads.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
    ptr,
};

use super::image::{Image, errno};
use crate::target::pid::pidfd_open;

/// `CLONE_INTO_CGROUP`, linux/sched.h; Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_PIDFD`, linux/sched.h.
const CLONE_PIDFD: u64 = 0x1000;

/// `struct clone_args`, linux/sched.h, as of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What the child needs to know, and where it hears and speaks.
pub(super) struct Child<'a> {
    pub image: &'a mut Image,
    /// One byte: go on. End: give up.
    pub gate: RawFd,
    /// The other end of the gate, which the child must not keep open.
    pub unneeded: RawFd,
    /// Takes the error number of a failed execve(2).
    pub report: RawFd,
    /// pidfd of the controller.
    pub controller: RawFd,
    /// Signal mask to start with.
    pub mask: libc::sigset_t,
}

impl Child<'_> {
    /// Makes the process, in the cgroup from its first instruction. The caller has blocked all signals.
    pub(super) fn start(mut self, cgroup: &Path) -> io::Result<(u32, OwnedFd)> {
        match self.clone_into(cgroup) {
            // Linux < 5.7, or a seccomp filter (containers) that knows clone3(2) not or too well.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOSYS | libc::E2BIG | libc::EINVAL | libc::EPERM)
                ) =>
            {
                self.fork_into(cgroup)
            }
            result => result,
        }
    }

    fn clone_into(&mut self, cgroup: &Path) -> io::Result<(u32, OwnedFd)> {
        let directory = File::open(cgroup)?;
        let mut pidfd: RawFd = -1;
        let mut arguments = CloneArgs {
            flags: CLONE_INTO_CGROUP | CLONE_PIDFD,
            pidfd: &raw mut pidfd as u64,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: directory.as_raw_fd() as u64,
            ..CloneArgs::default()
        };
        // SAFETY: without CLONE_VM the child has its own copy of everything, as after fork(2), and `run` does only
        // what is allowed there. `arguments` and `pidfd` outlive the call.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArgs>()) } {
            -1 => Err(io::Error::last_os_error()),
            0 => self.run(),
            // SAFETY: the kernel has stored a new descriptor there.
            pid => Ok((pid as u32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        }
    }

    /// The same in two steps. The child waits at the gate meanwhile, so COMMAND notices no difference.
    fn fork_into(&mut self, cgroup: &Path) -> io::Result<(u32, OwnedFd)> {
        // SAFETY: `run` is async-signal-safe and never returns.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => self.run(),
            pid => pid as u32,
        };
        let placed = fs::write(cgroup.join("cgroup.procs"), pid.to_string());
        match placed.and_then(|()| pidfd_open(pid).map_err(io::Error::from)) {
            Ok(pidfd) => Ok((pid, pidfd)),
            Err(error) => {
                // SAFETY: `pid` is our child and nobody has waited for it.
                unsafe {
                    libc::kill(pid as i32, libc::SIGKILL);
                    libc::waitpid(pid as i32, ptr::null_mut(), 0);
                }
                Err(error)
            }
        }
    }

    /// Waits at the gate, then becomes COMMAND.
    fn run(&mut self) -> ! {
        // SAFETY: system calls on our own descriptors and memory.
        unsafe {
            libc::close(self.unneeded);
            for signal in 1..=libc::SIGRTMAX() {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, ptr::null(), &raw mut action);
                if action.sa_sigaction != libc::SIG_IGN || signal == libc::SIGPIPE {
                    action.sa_sigaction = libc::SIG_DFL;
                    action.sa_flags = 0;
                    libc::sigaction(signal, &raw const action, ptr::null_mut());
                }
            }
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.mask, ptr::null_mut());
            if !self.may_go_on() {
                // Nobody waits for this status: the controller gave up or is gone.
                libc::_exit(125);
            }
            let error = self.image.execute();
            libc::write(self.report, (&raw const error).cast(), size_of::<i32>());
            libc::_exit(if error == libc::ENOENT { 127 } else { 126 });
        }
    }

    /// Waits for the byte; `false` at the end of the pipe or of the controller.
    fn may_go_on(&self) -> bool {
        let mut waiting = [
            libc::pollfd { fd: self.gate, events: libc::POLLIN, revents: 0 },
            // A copy of the gate may live on in another child of a dead controller.
            libc::pollfd { fd: self.controller, events: libc::POLLIN, revents: 0 },
        ];
        loop {
            // SAFETY: two initialised entries, and a buffer of one byte.
            unsafe {
                if libc::poll(waiting.as_mut_ptr(), 2, -1) < 0 {
                    if errno() == libc::EINTR {
                        continue;
                    }
                    return false;
                }
                if waiting[0].revents == 0 {
                    return false;
                }
                let mut byte = 0u8;
                match libc::read(self.gate, (&raw mut byte).cast(), 1) {
                    1 => return true,
                    -1 if errno() == libc::EINTR => {}
                    _ => return false,
                }
            }
        }
    }
}
