//! Who suffers: processes with their descendants, cgroup v2 subtrees, and what has a name and can be found by it.
//!
//! A [`TargetRequest`] is what a user names, a [`Target`] is what was found, a [`Snapshot`] is who belongs to it right
//! now. Whoever joins later (forks, processes that enter the cgroup, accepted sockets) is the kernel programs'
//! business; what is found again under its name after a restart, [`Target::refresh`]'s.

pub mod cgroup;
pub mod comm;
pub mod command;
pub mod container;
mod error;
mod follow;
pub mod host;
pub mod pid;
mod request;
pub mod run;
pub mod unit;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    os::fd::OwnedFd,
    path::Path,
    process,
    sync::Arc,
};

use fault_common::{
    limits::{MAX_CGROUPS, MAX_NAMES},
    who::Name,
};

use crate::{net::netns::NetnsHandle, spec::Exception};
use cgroup::{Cgroup, CgroupError};
use comm::CommError;
pub use error::TargetError;
pub use follow::{Again, Followed};
use host::HostError;
use pid::PidError;
pub use request::TargetRequest;

/// Who suffers. Several may be named; together they are one target.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// What was named, in the order given.
    pub requests: Vec<TargetRequest>,
    /// Processes named by `--pid`, each with a descriptor that stands for this process and no later one of its number.
    pids: BTreeMap<u32, Arc<OwnedFd>>,
    /// Processes that became part of the target of an earlier session, as above.
    heirs: BTreeMap<u32, Arc<OwnedFd>>,
    /// Names aimed at.
    names: BTreeMap<String, Name>,
    /// Whether the descendants of processes belong to the target (not with `--only`).
    pub descendants: bool,
    /// Cgroups with everything below them, each the very directory that was found.
    pub cgroups: Vec<Cgroup>,
    /// Cgroups that are found again under their name.
    followed: Vec<Followed>,
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

    /// Adds what a user named.
    ///
    /// # Errors
    /// When there is no such thing, or not now, or it cannot be a target.
    pub fn add(&mut self, request: &TargetRequest) -> Result<(), TargetError> {
        match request {
            TargetRequest::Pid(pid) => {
                self.pids.insert(*pid, Arc::new(pid::open(*pid, &self.exempt)?));
            }
            TargetRequest::Cgroup(path) => self.live_in(Cgroup::resolve(path)?),
            TargetRequest::Unit(name) => {
                let cgroup = unit::find(name)?;
                // `-.slice` is never restarted.
                if host::is_everybody(&cgroup) {
                    self.live_in(cgroup);
                } else {
                    self.follow(request, cgroup, Again::Path);
                }
            }
            TargetRequest::Host => self.live_in(host::everybody()?),
            TargetRequest::Container(name) => {
                let found = container::find(name)?;
                self.follow(request, found.cgroup, Again::Container(found.lasting));
            }
            TargetRequest::Comm(name) => {
                self.names.insert(name.clone(), comm::name(name)?);
                if self.names.len() > MAX_NAMES {
                    return Err(CommError::TooMany.into());
                }
            }
        }
        let count = self.cgroups.len() + self.followed.len();
        if count > MAX_CGROUPS {
            return Err(TargetError::TooManyCgroups(count));
        }
        self.requests.push(request.clone());
        Ok(())
    }

    /// Adds processes of which an earlier session knows that they belong to the target, whatever has become of their
    /// ancestors. Those that have ended meanwhile are left out.
    pub(crate) fn inherit(&mut self, members: impl IntoIterator<Item = u32>) {
        for pid in members {
            if let Ok(pidfd) = pid::open(pid, &self.exempt) {
                self.heirs.insert(pid, Arc::new(pidfd));
            }
        }
    }

    /// Only those of [`Target::inherit`] that are among `members`.
    pub(crate) fn keep_heirs(&mut self, members: &BTreeSet<u32>) {
        self.heirs.retain(|pid, _| members.contains(pid));
    }

    fn live_in(&mut self, cgroup: Cgroup) {
        if !self.cgroups.contains(&cgroup) {
            self.cgroups.push(cgroup);
        }
    }

    fn follow(&mut self, request: &TargetRequest, cgroup: Cgroup, again: Again) {
        if !self.requests.contains(request) {
            self.followed.push(Followed::new(request.clone(), cgroup, again));
        }
    }

    /// Names aimed at that nobody bears now.
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub fn unborn(&self) -> Result<Vec<&str>, TargetError> {
        let mut unborn = Vec::new();
        for name in self.names.keys() {
            if comm::bearers(|comm| comm == name)?.is_empty() {
                unborn.push(name.as_str());
            }
        }
        Ok(unborn)
    }

    /// Whether it is the whole machine, however that was said.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.cgroups.iter().any(host::is_everybody)
    }

    /// Makes sure that the whole machine was meant: `yes` is `--yes`.
    ///
    /// # Errors
    /// When it is the whole machine and nobody said so.
    pub fn confirm(&self, yes: bool) -> Result<(), TargetError> {
        let said = if self.requests.contains(&TargetRequest::Host) { "--host" } else { "the root cgroup" };
        if self.is_host() && !yes { Err(HostError::Unconfirmed(said).into()) } else { Ok(()) }
    }

    /// What net faults must spare so that the machine can still be reached ([`host::lifelines`]): nothing, unless the target
    /// is the whole machine.
    #[must_use]
    pub fn lifelines(&self) -> Vec<Exception> {
        if self.is_host() { host::lifelines() } else { Vec::new() }
    }

    /// Adds `--pid`.
    ///
    /// # Errors
    /// As [`Target::add`].
    pub fn add_pid(&mut self, pid: u32) -> Result<(), TargetError> {
        self.add(&TargetRequest::Pid(pid))
    }

    /// Adds `--cgroup`.
    ///
    /// # Errors
    /// As [`Target::add`].
    pub fn add_cgroup(&mut self, path: &Path) -> Result<(), TargetError> {
        self.add(&TargetRequest::Cgroup(path.into()))
    }

    /// Whether processes belong to it by their number or name, and not by where they live.
    #[must_use]
    pub fn has_processes(&self) -> bool {
        !self.pids.is_empty() || !self.names.is_empty()
    }

    /// Whether somebody may still join although nobody is left.
    #[must_use]
    pub fn may_come_back(&self) -> bool {
        !self.followed.is_empty() || !self.names.is_empty() || self.cgroups.iter().any(Cgroup::exists)
    }

    /// Whether it is found by names, so that it has to be looked for again and again.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        !self.followed.is_empty() || !self.names.is_empty()
    }

    /// The names aimed at, as the kernel keeps them.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        self.names.values().copied().collect()
    }

    /// Every cgroup aimed at that exists now.
    pub fn present_cgroups(&self) -> impl Iterator<Item = &Cgroup> {
        self.cgroups.iter().chain(self.followed.iter().filter_map(Followed::cgroup))
    }

    /// Looks where the things are now that are followed by their name. Whether anything has moved.
    ///
    /// What cannot be asked now (an engine that restarts) is looked for again the next time.
    pub fn refresh(&mut self) -> bool {
        // No short cut: each of them has to look.
        self.followed.iter_mut().fold(false, |moved, followed| followed.refresh() | moved)
    }

    /// Makes sure that everything that was named is still there, the same as when it was found: between the finding and the
    /// arming a process may end, a cgroup be removed, a container stop. Call [`Target::refresh`] first, which finds what was
    /// only restarted.
    ///
    /// # Errors
    /// About the first that is gone.
    pub fn check_present(&self) -> Result<(), TargetError> {
        if let Some(pid) = self.ended().first() {
            return Err(PidError::Ended(*pid).into());
        }
        if let Some(cgroup) = self.cgroups.iter().find(|cgroup| !cgroup.exists()) {
            return Err(CgroupError::Removed(cgroup.path.clone()).into());
        }
        let is_down = |followed: &&Followed| !followed.cgroup().is_some_and(Cgroup::is_populated);
        match self.followed.iter().find(is_down) {
            Some(followed) => Err(TargetError::Stopped(followed.request.clone())),
            None => Ok(()),
        }
    }

    /// Who belongs to the target now. Take it after the fork programs are attached (see [`pid::snapshot`]).
    ///
    /// # Errors
    /// When `/proc` or a cgroup cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, TargetError> {
        let mut named = match self.names.is_empty() {
            true => BTreeSet::new(),
            false => comm::bearers(|comm| self.names.contains_key(comm))?,
        };
        named.retain(|pid| !self.exempt.contains(pid));
        let mut roots = self.living();
        let mut tasks: BTreeSet<u32> = if self.descendants {
            roots.append(&mut named);
            pid::snapshot(&roots, &self.exempt)?
        } else {
            roots.difference(&self.exempt).copied().filter(|pid| pid::is_alive(*pid)).collect()
        };
        // The number may have been given to somebody else while we looked.
        let now = self.living();
        tasks.retain(|pid| !self.is_numbered(*pid) || now.contains(pid));
        named.retain(|pid| !tasks.contains(pid));
        let mut members: BTreeSet<u32> = tasks.union(&named).copied().collect();
        members.extend(self.inhabitants()?);
        let netns = namespaces(&members);
        Ok(Snapshot { tasks, named, members, netns })
    }

    /// The processes that belong to the target because of the cgroup they live in.
    ///
    /// # Errors
    /// When a cgroup cannot be read. One that is gone has no inhabitants.
    pub fn inhabitants(&self) -> Result<BTreeSet<u32>, TargetError> {
        let mut found = BTreeSet::new();
        for cgroup in self.present_cgroups() {
            found.extend(cgroup.processes()?.difference(&self.exempt));
        }
        Ok(found)
    }

    /// Every process with a descriptor.
    fn numbered(&self) -> impl Iterator<Item = (&u32, &Arc<OwnedFd>)> {
        self.pids.iter().chain(&self.heirs)
    }

    fn is_numbered(&self, pid: u32) -> bool {
        self.pids.contains_key(&pid) || self.heirs.contains_key(&pid)
    }

    /// Those of the named processes that have not ended.
    fn living(&self) -> BTreeSet<u32> {
        self.numbered().filter(|(_, pidfd)| !pid::has_ended(pidfd)).map(|(pid, _)| *pid).collect()
    }

    /// Those of the named processes that have ended: their numbers may be somebody else's.
    #[must_use]
    pub fn ended(&self) -> BTreeSet<u32> {
        &self.numbered().map(|(pid, _)| *pid).collect() - &self.living()
    }
}

/// In words: `pid 4711 and its descendants`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        let pids: Vec<String> = self.pids.keys().map(u32::to_string).collect();
        let (noun, theirs) = if pids.len() == 1 { ("pid", "its") } else { ("pids", "their") };
        if !pids.is_empty() {
            let descendants =
                if self.descendants { format!(" and {theirs} descendants") } else { String::new() };
            parts.push(format!("{noun} {}{descendants}", pids.join(", ")));
        }
        let names: Vec<&str> = self.names.keys().map(String::as_str).collect();
        if !names.is_empty() {
            let descendants = if self.descendants { " and their descendants" } else { "" };
            parts.push(format!("processes named {}{descendants}", names.join(", ")));
        }
        parts.extend(self.cgroups.iter().map(|cgroup| match host::is_everybody(cgroup) {
            true => TargetRequest::Host.to_string(),
            false => format!("cgroup {}", cgroup.path.display()),
        }));
        parts.extend(self.followed.iter().map(|followed| followed.request.to_string()));
        f.write_str(&parts.join(" and "))
    }
}

/// Who belonged to a [`Target`] at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Processes that are targets by their number: `--pid`, `--comm` and descendants. These go into the `TASKS` map.
    pub tasks: BTreeSet<u32>,
    /// Processes that are targets by their name only (with `--only`): they leave when they give it up.
    pub named: BTreeSet<u32>,
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

#[cfg(test)]
mod tests;
