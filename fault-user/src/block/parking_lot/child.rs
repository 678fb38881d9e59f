//! Small child processes without `exec`: the answering process and the helper.

use rustix::process::{Pid, PidfdFlags, Signal, WaitIdOptions};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// A forked process, killed and reaped when dropped.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

/// Ends the process whatever happens: a child must never return into its parent's stack frames.
struct ExitOnDrop;

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        // SAFETY: `_exit` runs no handlers and never returns.
        unsafe { libc::_exit(70) }
    }
}

impl Child {
    /// Forks a process called `name` that keeps the descriptors `keep`, no others, and runs `body`.
    ///
    /// The child leaves the session and process group of its parent and blocks all signals, so that
    /// neither Ctrl-C nor Ctrl-Z on the controller reaches it. It must end by itself when the
    /// controller dies (watch its pidfd): a parent-death signal would fire when the *thread* that
    /// forked ends, and that may be any worker of a runtime.
    ///
    /// # Safety
    /// The process may have other threads, so `body` may only make system calls and touch memory
    /// that exists: no allocation, no locks, no standard streams.
    pub(super) unsafe fn fork(
        name: &'static CStr,
        keep: &[BorrowedFd<'_>],
        body: impl FnOnce() -> i32,
    ) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let mut keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
        keep.sort_unstable();
        // SAFETY: the child only makes system calls until it ends (contract of this function).
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let _end = ExitOnDrop;
            let status = if become_independent(name, &keep).is_ok() { body() } else { 71 };
            // SAFETY: as in `ExitOnDrop`.
            unsafe { libc::_exit(status) }
        }
        let Some(pid) = Pid::from_raw(pid) else {
            return Err(io::Error::last_os_error());
        };
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Self { pid, pidfd }),
            Err(error) => {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                Err(error.into())
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Asks the kernel never to pick this process when memory runs out.
    pub(super) fn protect_from_oom_killer(&self) -> io::Result<()> {
        std::fs::write(format!("/proc/{}/oom_score_adj", self.pid()), "-1000")
    }
}

impl AsFd for Child {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED,
        );
    }
}

fn become_independent(name: &CStr, keep: &[RawFd]) -> rustix::io::Result<()> {
    rustix::process::setsid()?;
    rustix::thread::set_name(name)?;
    rustix::process::chdir(c"/")?;
    // SAFETY: both sets are plain values on this stack; blocking every signal in a process of ours
    // with a single thread concerns nobody else.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    let mut first: u32 = 0;
    for fd in keep.iter().map(|fd| fd.unsigned_abs()) {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

/// Linux ≥ 5.9.
fn close_range(first: u32, last: u32) -> rustix::io::Result<()> {
    // SAFETY: closes descriptors of this single-threaded process that nobody uses any more.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) };
    if closed < 0 { Err(rustix::io::Errno::INVAL) } else { Ok(()) }
}
