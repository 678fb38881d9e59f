//! Processes as a target: `--pid N` and its descendants.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::{
        fd::{AsFd as _, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    process,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use procfs::process::{Process, StatFlags, all_processes};

use crate::exit::Class;

/// `PROC_PID_INIT_INO`, linux/proc_ns.h: the inode number of the first PID namespace.
const INITIAL_NAMESPACE: u64 = 0xEFFF_FFFC;
/// Scans of `/proc` before a tree that never stops forking is taken as it is; in-kernel fork tracking has the rest.
const SCANS: u32 = 16;

/// A process cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum PidError {
    /// No such process.
    #[error("no process {0}")]
    Unknown(u32),
    /// It has exited and only waits for its parent to notice.
    #[error("process {0} has already exited (zombie)")]
    Exited(u32),
    /// It was looked up, and has ended since; its number may be somebody else's.
    #[error("process {0} has ended in the meantime, and nobody was hit in its place")]
    Ended(u32),
    /// The kernel's own.
    #[error(
        "process {pid} ({comm}) is a kernel thread: faults are aimed at user processes; for the I/O it does on their behalf, aim at those (their cgroup)"
    )]
    KernelThread {
        /// What the user wrote.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A thread that is not the first of its process.
    #[error("{tid} is a thread of process {tgid}: use --pid {tgid}")]
    Thread {
        /// What the user wrote.
        tid: u32,
        /// The process.
        tgid: u32,
    },
    /// `fault` itself.
    #[error("process {0} is fault itself, which is never a target")]
    Ourselves(u32),
    /// PIDs here are not the kernel's.
    #[error(
        "--pid needs the host's PID namespace, because the kernel's programs know processes by the host's numbers: run fault on the host or with `docker run --pid=host`, or aim with --cgroup"
    )]
    ForeignNamespace,
    /// `/proc` could not be read.
    #[error("cannot read {object} in /proc: {source}")]
    Proc {
        /// What was to be read.
        object: String,
        /// Why not.
        source: procfs::ProcError,
    },
}

impl PidError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Proc { source: procfs::ProcError::PermissionDenied(_), .. } => Class::NotPermitted,
            Self::Proc { .. } => Class::Other,
            Self::ForeignNamespace => Class::Unsupported,
            _ => Class::Usage,
        }
    }
}

/// Makes sure that `pid` may be a target: a living user process, in the namespace whose numbers the kernel uses,
/// and not one of `exempt` (the controller's helpers) or the controller.
///
/// # Errors
/// See [`PidError`].
pub fn check(pid: u32, exempt: &BTreeSet<u32>) -> Result<(), PidError> {
    if !is_initial_namespace() {
        return Err(PidError::ForeignNamespace);
    }
    if pid == process::id() || exempt.contains(&pid) {
        return Err(PidError::Ourselves(pid));
    }
    let failed = |source| match source {
        procfs::ProcError::NotFound(_) => PidError::Unknown(pid),
        source => PidError::Proc { object: format!("process {pid}"), source },
    };
    let number = i32::try_from(pid).map_err(|_| PidError::Unknown(pid))?;
    if number == 0 {
        return Err(PidError::Unknown(pid));
    }
    let process = Process::new(number).map_err(failed)?;
    // `/proc/TID` can be opened for every thread, although only processes are listed.
    let tgid = process.status().map_err(failed)?.tgid as u32;
    if tgid != pid {
        return Err(if tgid == process::id() || exempt.contains(&tgid) {
            PidError::Ourselves(pid)
        } else {
            PidError::Thread { tid: pid, tgid }
        });
    }
    let stat = process.stat().map_err(failed)?;
    if stat.flags & StatFlags::PF_KTHREAD.bits() != 0 {
        return Err(PidError::KernelThread { pid, comm: stat.comm });
    }
    if matches!(stat.state, 'Z' | 'X') {
        return Err(PidError::Exited(pid));
    }
    Ok(())
}

/// A descriptor of `pid`, made sure of as [`check`] does: it stands for the process that was looked at, also when that has
/// ended and the number is somebody else's.
///
/// # Errors
/// See [`PidError`].
pub fn open(pid: u32, exempt: &BTreeSet<u32>) -> Result<OwnedFd, PidError> {
    // Of a thread the kernel gives none before Linux 6.9; the check has the better words for that.
    let pidfd = pidfd_open(pid);
    check(pid, exempt)?;
    // Opened before the look and alive after it: what was looked at was this process.
    match pidfd {
        Ok(pidfd) if !has_ended(&pidfd) => Ok(pidfd),
        Ok(_) => Err(PidError::Exited(pid)),
        Err(Errno::ESRCH) => Err(PidError::Unknown(pid)),
        Err(error) => Err(PidError::Proc {
            object: format!("process {pid}"),
            source: procfs::ProcError::Io(error.into(), None),
        }),
    }
}

/// Whether the process behind a pidfd has ended; a zombie has.
#[must_use]
pub fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut waiting = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    // An error would be one of our arguments; readable means ended, whatever else is said.
    poll(&mut waiting, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// `roots` and all their descendants that are alive, without the processes in `exempt` and *their* descendants.
///
/// `/proc` is read until two scans agree, so that a child forked during one scan is found by the next. From
/// the moment the fork programs are attached they see every new child; taking the snapshot *after* that leaves
/// no gap. Roots that are gone are left out.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn snapshot(roots: &BTreeSet<u32>, exempt: &BTreeSet<u32>) -> Result<BTreeSet<u32>, PidError> {
    let mut previous = BTreeSet::new();
    for _ in 0..SCANS {
        let found = tree(&parents()?, roots, exempt);
        if found == previous {
            break;
        }
        // A process seen once belongs to the target even if its parent died and it was adopted since.
        previous.extend(found);
    }
    previous.retain(|pid| is_alive(*pid));
    Ok(previous)
}

/// Process → parent, for every process.
fn parents() -> Result<BTreeMap<u32, u32>, PidError> {
    let processes =
        all_processes().map_err(|source| PidError::Proc { object: "processes".into(), source })?;
    // A process that is gone before it is read is simply not there.
    Ok(processes
        .flatten()
        .filter_map(|process| process.stat().ok())
        .map(|stat| (stat.pid as u32, stat.ppid as u32))
        .collect())
}

fn tree(parents: &BTreeMap<u32, u32>, roots: &BTreeSet<u32>, exempt: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (&pid, &parent) in parents {
        children.entry(parent).or_default().push(pid);
    }
    let mut found = BTreeSet::new();
    let mut open: Vec<u32> = roots.iter().copied().filter(|pid| parents.contains_key(pid)).collect();
    while let Some(pid) = open.pop() {
        if !exempt.contains(&pid) && found.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// Whether a process (not only its zombie) exists.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    i32::try_from(pid)
        .ok()
        .and_then(|pid| Process::new(pid).ok()?.stat().ok())
        .is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Whether no thread of the process `pid` runs any more. Where [`is_alive`] looks at the first thread, which may have ended before
/// the others.
#[must_use]
pub fn is_gone(pid: u32) -> bool {
    match pidfd_open(pid) {
        Ok(pidfd) => has_ended(&pidfd),
        // A number of nobody, or by now that of a thread (EINVAL or, in newer kernels, ENOENT: kernel/pid.c, kernel/fork.c).
        Err(error) => matches!(error, Errno::ESRCH | Errno::EINVAL | Errno::ENOENT),
    }
}

/// A descriptor of a process: readable when it has ended. Linux 5.3.
pub(crate) fn pidfd_open(pid: u32) -> nix::Result<OwnedFd> {
    // SAFETY: no memory of ours is involved.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether PIDs here are the ones the kernel's programs see.
#[must_use]
pub fn is_initial_namespace() -> bool {
    // Without PID namespaces there is only the first.
    std::fs::metadata("/proc/self/ns/pid").map_or(true, |namespace| namespace.ino() == INITIAL_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn set<const N: usize>(pids: [u32; N]) -> BTreeSet<u32> {
        pids.into()
    }

    #[test]
    fn the_tree_stops_at_exempt_processes() {
        // 1 ─ 10 ─ 20 ─ 30
        //        └ 21(exempt) ─ 31
        let parents = [(1, 0), (10, 1), (20, 10), (30, 20), (21, 10), (31, 21)].into();
        assert_eq!(tree(&parents, &set([10]), &set([21])), set([10, 20, 30]));
        assert_eq!(tree(&parents, &set([10]), &set([])), set([10, 20, 21, 30, 31]));
        assert_eq!(tree(&parents, &set([99]), &set([])), set([]));
    }

    #[test]
    fn grandchildren_are_found() {
        let mut shell = Command::new("sh")
            .args(["-c", "sh -c 'sleep 1000 & echo ready; wait'; :"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.stdout.take().unwrap()), &mut line)
            .unwrap();
        let found = snapshot(&set([shell.id()]), &set([])).unwrap();
        assert!(found.contains(&shell.id()) && found.len() == 3, "{found:?}");
        assert!(snapshot(&set([shell.id()]), &set([shell.id()])).unwrap().is_empty());
        for pid in found {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL).ok();
        }
        shell.wait().unwrap();
    }

    #[test]
    fn refusals_name_the_reason() {
        let none = set([]);
        assert!(matches!(check(0, &none), Err(PidError::Unknown(0))));
        assert!(matches!(check(u32::MAX, &none), Err(PidError::Unknown(_))));
        assert!(matches!(check(process::id(), &none), Err(PidError::Ourselves(_))));
        assert!(matches!(check(1, &set([1])), Err(PidError::Ourselves(1))));
        // kthreadd
        let error = check(2, &none).unwrap_err();
        assert!(matches!(&error, PidError::KernelThread { comm, .. } if comm == "kthreadd"), "{error}");
    }

    #[test]
    fn a_descriptor_outlives_its_process_and_says_so() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pidfd = open(child.id(), &set([])).unwrap();
        assert!(!has_ended(&pidfd) && !is_gone(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_gone(child.id()));
        // Whoever has the number now.
        assert!(has_ended(&pidfd));
        assert!(matches!(open(child.id(), &set([])), Err(PidError::Unknown(_))));
        assert!(matches!(open(process::id(), &set([])), Err(PidError::Ourselves(_))));
        assert!(matches!(open(0, &set([])), Err(PidError::Unknown(0))));
        assert!(matches!(open(2, &set([])), Err(PidError::KernelThread { .. })));
    }

    #[test]
    fn a_thread_is_not_a_process() {
        let (tell, told) = std::sync::mpsc::channel();
        let mut shell = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(check(shell.id(), &set([])).is_ok());
        let thread = std::thread::spawn(move || {
            // SAFETY: gettid(2) has no arguments and cannot fail.
            tell.send(unsafe { libc::gettid() } as u32).unwrap();
            std::thread::park();
        });
        // A thread of ours is ours.
        assert!(matches!(check(told.recv().unwrap(), &set([])), Err(PidError::Ourselves(_))));
        thread.thread().unpark();
        thread.join().unwrap();
        shell.kill().unwrap();
        // Not yet waited for: a zombie.
        while is_alive(shell.id()) {
            std::thread::yield_now();
        }
        assert!(matches!(check(shell.id(), &set([])), Err(PidError::Exited(_))));
        shell.wait().unwrap();
        assert!(matches!(check(shell.id(), &set([])), Err(PidError::Unknown(_))));
    }
}
