//! Who suffers: processes with their descendants, and cgroup v2 subtrees.
//!
//! A [`Target`] is what the command line names; a [`Snapshot`] is who belongs to it right now. Whoever joins
//! later (forks, processes that enter the cgroup, accepted sockets) is the kernel programs' business.

pub mod cgroup;
pub mod command;
pub mod pid;
pub mod run;

use std::{collections::BTreeSet, path::Path, process};

use crate::{exit::Class, net::netns::NetnsHandle};
use cgroup::{Cgroup, CgroupError};
use pid::PidError;

/// A target could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// About a process.
    #[error(transparent)]
    Pid(#[from] PidError),
    /// About a cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl TargetError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Pid(error) => error.class(),
            Self::Cgroup(error) => error.class(),
        }
    }
}

/// Who suffers, as named on the command line. Several may be named; together they are one target.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Processes named by `--pid`.
    pub pids: BTreeSet<u32>,
    /// Whether the descendants of [`Target::pids`] belong to the target (not with `--only`).
    pub descendants: bool,
    /// Cgroups with everything below them.
    pub cgroups: Vec<Cgroup>,
    /// The controller and its helpers: never part of the target, whatever else is said.
    pub exempt: BTreeSet<u32>,
}

impl Target {
    /// Nobody yet. The calling process is the controller; `helpers` (keeper, parking helper) are exempt as it is.
    #[must_use]
    pub fn nobody(helpers: impl IntoIterator<Item = u32>) -> Self {
        let exempt = helpers.into_iter().chain([process::id()]).collect();
        Self { descendants: true, exempt, ..Self::default() }
    }

    /// Adds `--pid`.
    ///
    /// # Errors
    /// When this is no process that may be a target.
    pub fn add_pid(&mut self, pid: u32) -> Result<(), TargetError> {
        pid::check(pid, &self.exempt)?;
        self.pids.insert(pid);
        Ok(())
    }

    /// Adds `--cgroup`.
    ///
    /// # Errors
    /// When this is no cgroup v2 directory.
    pub fn add_cgroup(&mut self, path: &Path) -> Result<(), TargetError> {
        let cgroup = Cgroup::resolve(path)?;
        if !self.cgroups.contains(&cgroup) {
            self.cgroups.push(cgroup);
        }
        Ok(())
    }

    /// Who belongs to the target now. Take it after the fork programs are attached (see [`pid::snapshot`]).
    ///
    /// # Errors
    /// When `/proc` or a cgroup cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, TargetError> {
        let tasks: BTreeSet<u32> = if self.descendants {
            pid::snapshot(&self.pids, &self.exempt)?
        } else {
            self.pids.difference(&self.exempt).copied().filter(|pid| pid::is_alive(*pid)).collect()
        };
        let mut members = tasks.clone();
        for cgroup in &self.cgroups {
            members.extend(cgroup::processes(&cgroup.path)?.difference(&self.exempt));
        }
        let netns = namespaces(&members);
        Ok(Snapshot { tasks, members, netns })
    }
}

/// Who belonged to a [`Target`] at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Processes that are targets by their number: `--pid` and descendants. These go into the `TASKS` map.
    pub tasks: BTreeSet<u32>,
    /// Every process of the target, including those that belong to it by their cgroup: their sockets are adopted.
    pub members: BTreeSet<u32>,
    /// The network namespaces [`Snapshot::members`] live in, each once.
    pub netns: Vec<NetnsHandle>,
}

/// The network namespaces of living processes, each once; ours when nobody lives yet.
fn namespaces(pids: &BTreeSet<u32>) -> Vec<NetnsHandle> {
    let mut found: Vec<NetnsHandle> = Vec::new();
    // A process that has exited meanwhile has no traffic left.
    for netns in pids.iter().filter_map(|&pid| NetnsHandle::of_pid(pid).ok()) {
        if !found.contains(&netns) {
            found.push(netns);
        }
    }
    if found.is_empty() {
        found.extend(NetnsHandle::current());
    }
    found
}
