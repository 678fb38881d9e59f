//! Looking for residue, without anybody's help but the kernel's.
//!
//! | what | how it is told from a living session's |
//! |---|---|
//! | transient cgroups | the owner holds a lock on the directory |
//! | frozen cgroups | who froze it holds a lock on `cgroup.freeze` |
//! | filters, lane devices | a living session has bound its bit in the namespace |
//! | helper processes | their parent is the program they were forked from |
//! | eBPF programs | some process has a descriptor of the program or of its link |

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::{maps::loaded_maps, programs::loaded_programs};
use fault_common::control::Control;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procfs::process::{Process, all_processes};

use super::{Leftover, UndoError};
use crate::{
    net::{leftover, netns::NetnsHandle},
    target::{
        cgroup::{self, Cgroup, CgroupError},
        run,
    },
};

/// Names of the processes we fork: the keeper, the parking helper, and who answers it.
const HELPERS: [&str; 3] = ["fault-keeper", "fault-park", "fault-lot"];
/// Every program of ours uses the map of this name, which holds one [`Control`].
const CONTROL: &str = "CONTROL";
/// How long the kernel may take to free a program that lost its last owner.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something of ours that no living session owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Residue {
    /// A thing that the keeper would have undone.
    Leftover(Leftover),
    /// A forked helper whose controller is gone.
    Helper {
        /// Its process id.
        pid: u32,
        /// Its name.
        comm: String,
        /// When it started, in clock ticks since boot: tells it from a later process with its number.
        started: u64,
    },
    /// An eBPF program that nothing of ours holds.
    Program {
        /// Its id, as in `bpftool prog show id N`.
        id: u32,
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Residue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leftover(leftover) => leftover.fmt(f),
            Self::Helper { pid, comm, .. } => write!(f, "process {pid} ({comm}) without its controller"),
            Self::Program { id, name } => write!(f, "eBPF program {id} ({name}) without its controller"),
        }
    }
}

/// A residue could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It resists.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// The process cannot be ended.
    #[error("cannot end process {pid} ({comm}): {source}")]
    Helper {
        /// Its process id.
        pid: u32,
        /// Its name.
        comm: String,
        /// Why not.
        source: io::Error,
    },
    /// Somebody pinned or attached it elsewhere.
    #[error(
        "eBPF program {id} ({name}) is still attached or pinned by somebody: `bpftool link show`, `find /sys/fs/bpf` and `bpftool net` say where"
    )]
    Program {
        /// Its id.
        id: u32,
        /// Its name.
        name: String,
    },
}

/// Where could not be looked.
#[derive(Debug, thiserror::Error)]
#[error("cannot look for {what}: {source}")]
pub struct Unseen {
    /// What might be there.
    pub what: String,
    /// Why it is not known.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Things to remove, in the order to remove them.
    pub residue: Vec<Residue>,
    /// Where could not be looked.
    pub unseen: Vec<Unseen>,
}

impl Findings {
    fn take<E>(&mut self, what: &str, result: Result<impl IntoIterator<Item = Residue>, E>)
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match result {
            Ok(found) => self.residue.extend(found),
            Err(error) => self.unseen.push(Unseen { what: what.into(), source: error.into() }),
        }
    }
}

/// Everything of ours on this machine that no living session owns. Looks, and changes nothing.
#[must_use]
pub fn find() -> Findings {
    let mut findings = Findings::default();
    // A helper may hold what is found after it.
    findings.take("helper processes", helpers());
    findings.take("transient cgroups", cgroups());
    for netns in namespaces() {
        let found = leftover::find(&netns);
        let found = found.map(|found| found.into_iter().map(|each| Residue::Leftover(Leftover::Net(each))));
        findings.take(&format!("filters and lanes in {netns}"), found);
    }
    findings.take("eBPF programs", programs());
    findings
}

/// Removes one. That it is gone already is no error.
///
/// # Errors
/// When it is still there.
pub fn remove(residue: &Residue) -> Result<(), RemoveError> {
    match residue {
        Residue::Leftover(leftover) => leftover.undo().map_err(RemoveError::from),
        Residue::Helper { pid, comm, started } => {
            if helper(*pid).is_none_or(|found| found.started != *started) {
                return Ok(());
            }
            // A keeper at work is done in a moment.
            if gone(|| helper(*pid).is_none()) {
                return Ok(());
            }
            let failed = |source| RemoveError::Helper { pid: *pid, comm: comm.clone(), source };
            match kill(Pid::from_raw(*pid as i32), Signal::SIGKILL) {
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(error) => return Err(failed(error.into())),
            }
            if gone(|| helper(*pid).is_none()) { Ok(()) } else { Err(failed(io::ErrorKind::TimedOut.into())) }
        }
        Residue::Program { id, name } => {
            // It goes with whatever held it, which was removed before it.
            let exists = || loaded_programs().flatten().any(|program| program.id() == *id);
            if gone(|| !exists()) {
                Ok(())
            } else {
                Err(RemoveError::Program { id: *id, name: name.clone() })
            }
        }
    }
}

fn gone(is_gone: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if is_gone() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Our cgroups whose owner is dead.
fn cgroups() -> Result<Vec<Residue>, CgroupError> {
    let mut found = Vec::new();
    let mut open = vec![Cgroup::root()?.path];
    while let Some(directory) = open.pop() {
        // One that cannot be listed is gone.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            if cgroup::is_forgotten(&path) {
                // Whatever time it was given is over: nobody keeps it any more.
                found.push(Residue::Leftover(Leftover::Frozen { path: path.clone(), until_ns: 0 }));
            }
            if is_transient_name(&entry.file_name()) && is_orphan(&path) {
                found.push(Residue::Leftover(Leftover::Cgroup { path, home: directory.clone() }));
            } else {
                open.push(path);
            }
        }
    }
    Ok(found)
}

/// `fault-PID-HEX`: anybody may have a cgroup called `fault-tolerance`.
fn is_transient_name(name: &OsStr) -> bool {
    let parts = name.to_str().and_then(|name| name.strip_prefix(run::PREFIX)?.split_once('-'));
    parts.is_some_and(|(pid, salt)| {
        pid.parse::<u32>().is_ok() && salt.len() >= 10 && salt.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// The owner of a transient cgroup holds a lock on it as long as it lives, whatever PID namespace it lives in.
fn is_orphan(path: &Path) -> bool {
    File::open(path).is_ok_and(|directory| Flock::lock(directory, FlockArg::LockSharedNonblock).is_ok())
}

/// Every network namespace that a process lives in or a file names, each once.
fn namespaces() -> Vec<NetnsHandle> {
    let processes =
        fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path().join("ns/net"));
    let named = ["/run/netns", "/run/docker/netns"]
        .into_iter()
        .flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten())
        .map(|entry| entry.path());
    let mut seen = BTreeSet::new();
    processes
        .chain(named)
        .filter(|path| fs::metadata(path).is_ok_and(|status| seen.insert((status.dev(), status.ino()))))
        .filter_map(|path: PathBuf| NetnsHandle::open(&path).ok())
        .collect()
}

/// A process we forked, or another of the same name.
struct Helper {
    comm: String,
    started: u64,
    parent: i32,
}

fn helper(pid: u32) -> Option<Helper> {
    let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    (HELPERS.contains(&stat.comm.as_str()) && !matches!(stat.state, 'Z' | 'X')).then_some(Helper {
        comm: stat.comm,
        started: stat.starttime,
        parent: stat.ppid,
    })
}

fn helpers() -> Result<Vec<Residue>, procfs::ProcError> {
    let program =
        |pid: i32| fs::metadata(format!("/proc/{pid}/exe")).map(|file| (file.dev(), file.ino())).ok();
    let orphans = all_processes()?.flatten().filter_map(|process| {
        let helper = helper(process.pid as u32)?;
        // Adopted by init: the parent is no longer the program it was forked from.
        let is_orphan = program(helper.parent) != program(process.pid);
        let Helper { comm, started, .. } = helper;
        is_orphan.then_some(Residue::Helper { pid: process.pid as u32, comm, started })
    });
    Ok(orphans.collect())
}

/// eBPF programs of ours that no process holds.
fn programs() -> Result<Vec<Residue>, Box<dyn std::error::Error + Send + Sync>> {
    let mut controls = BTreeSet::new();
    for map in loaded_maps().flatten() {
        if map.name_as_str() == Some(CONTROL) && map.value_size() as usize == size_of::<Control>() {
            controls.insert(map.id());
        }
    }
    if controls.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for program in loaded_programs().flatten() {
        let ours = program.map_ids()?.into_iter().flatten().any(|map| controls.contains(&map));
        if ours {
            found.push((program.id(), program.name_as_str().unwrap_or_default().to_owned()));
        }
    }
    let held = held_programs();
    found.retain(|(id, _)| !held.contains(id));
    Ok(found.into_iter().map(|(id, name)| Residue::Program { id, name }).collect())
}

/// Ids of the programs that some process has a descriptor of, directly or by a link.
fn held_programs() -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let descriptors = processes.flat_map(|process| {
        let infos = process.path().join("fdinfo");
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        descriptors
            .filter(|descriptor| {
                let target = fs::read_link(descriptor.path()).unwrap_or_default();
                target.to_str().is_some_and(|target| target.starts_with("anon_inode:bpf"))
            })
            .map(move |descriptor| infos.join(descriptor.file_name()))
    });
    descriptors
        .filter_map(|info| fs::read_to_string(info).ok())
        .filter_map(|info| info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_left_alone() {
        for (name, ours) in [
            ("fault-1234-0123abcd00", true),
            ("fault-tolerance", false),
            ("fault-1234-", false),
            ("fault-injector-0123abcd00", false),
            ("default-1234-0123abcd00", false),
        ] {
            assert_eq!(is_transient_name(name.as_ref()), ours, "{name}");
        }
    }
}
