//! Who suffers: processes with their descendants, cgroup v2 subtrees, and what has a name and can be found by it.
//!
//! A [`TargetRequest`] is what a user names, a [`Target`] is what was found, a [`Snapshot`] is who belongs to it right
//! now. Whoever joins later (forks, processes that enter the cgroup, accepted sockets) is the kernel programs'
//! business; what is found again under its name after a restart, [`Target::refresh`]'s.

pub mod cgroup;
pub mod comm;
pub mod command;
pub mod container;
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

use crate::{exit::Class, net::netns::NetnsHandle, spec::Exception};
use cgroup::{Cgroup, CgroupError};
use comm::CommError;
use container::ContainerError;
pub use follow::Followed;
use host::HostError;
use pid::PidError;
pub use request::TargetRequest;
use unit::UnitError;

/// A target could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// About a process.
    #[error(transparent)]
    Pid(#[from] PidError),
    /// About a cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// About a unit of systemd.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// About a container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// About a name of processes.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// About the whole machine.
    #[error(transparent)]
    Host(#[from] HostError),
    /// More than the kernel programs have room for.
    #[error(
        "{0} cgroups (units and containers are cgroups, too) in one session; the limit is {MAX_CGROUPS}: aim at what they have in common"
    )]
    TooManyCgroups(usize),
}

impl TargetError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Pid(error) => error.class(),
            Self::Cgroup(error) => error.class(),
            Self::Unit(error) => error.class(),
            Self::Container(error) => error.class(),
            Self::Comm(error) => error.class(),
            Self::Host(error) => error.class(),
            Self::TooManyCgroups(_) => Class::Usage,
        }
    }
}

/// Who suffers. Several may be named; together they are one target.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// What was named, in the order given.
    pub requests: Vec<TargetRequest>,
    /// Processes named by `--pid`, each with a descriptor that stands for this process and no later one of its number.
    pids: BTreeMap<u32, Arc<OwnedFd>>,
    /// Names aimed at.
    names: BTreeSet<String>,
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
                    self.follow(request, cgroup);
                }
            }
            TargetRequest::Host => self.live_in(host::everybody()?),
            TargetRequest::Container(name) => self.follow(request, container::find(name)?),
            TargetRequest::Comm(name) => {
                comm::name(name)?;
                self.names.insert(name.clone());
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

    fn live_in(&mut self, cgroup: Cgroup) {
        if !self.cgroups.contains(&cgroup) {
            self.cgroups.push(cgroup);
        }
    }

    fn follow(&mut self, request: &TargetRequest, cgroup: Cgroup) {
        if !self.requests.contains(request) {
            self.followed.push(Followed::new(request.clone(), cgroup));
        }
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
    ///
    /// # Errors
    /// None, for names that were added.
    pub fn names(&self) -> Result<Vec<Name>, TargetError> {
        self.names.iter().map(|name| Ok(comm::name(name)?)).collect()
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

    /// Who belongs to the target now. Take it after the fork programs are attached (see [`pid::snapshot`]).
    ///
    /// # Errors
    /// When `/proc` or a cgroup cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, TargetError> {
        let mut named = comm::bearers(&self.names)?;
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
        tasks.retain(|pid| !self.pids.contains_key(pid) || now.contains(pid));
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

    /// Those of the named processes that have not ended.
    fn living(&self) -> BTreeSet<u32> {
        self.pids.iter().filter(|(_, pidfd)| !pid::has_ended(pidfd)).map(|(pid, _)| *pid).collect()
    }

    /// Those of the named processes that have ended: their numbers may be somebody else's.
    #[must_use]
    pub fn ended(&self) -> BTreeSet<u32> {
        self.pids.iter().filter(|(_, pidfd)| pid::has_ended(pidfd)).map(|(pid, _)| *pid).collect()
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
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
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
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn child() -> process::Child {
        Command::new("cat").stdin(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn the_heir_of_a_number_is_nobody() {
        let (mut victim, mut heir) = (child(), child());
        let mut target = Target::nobody([]);
        target.add_pid(victim.id()).unwrap();
        assert_eq!(target.snapshot().unwrap().tasks, [victim.id()].into());
        // The number of a living process with the descriptor of one that has ended: what a reused number looks like.
        let pidfd = target.pids.remove(&victim.id()).unwrap();
        target.pids.insert(heir.id(), pidfd);
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert!(target.snapshot().unwrap().members.is_empty());
        assert_eq!(target.ended(), [heir.id()].into());
        heir.kill().unwrap();
        heir.wait().unwrap();
    }

    #[test]
    fn several_requests_are_one_target() {
        let (mut one, mut other) = (child(), child());
        let mut target = Target::nobody([other.id()]);
        target.add_pid(one.id()).unwrap();
        target.add(&TargetRequest::Comm("fault-no-such".to_owned())).unwrap();
        assert!(target.add_pid(other.id()).is_err(), "a helper");
        assert_eq!(
            target.to_string(),
            format!(
                "pid {} and its descendants and processes named fault-no-such and their descendants",
                one.id()
            )
        );
        assert!(
            target.has_processes() && target.may_come_back() && target.is_followed() && !target.is_host()
        );
        assert!(target.lifelines().is_empty() && target.confirm(false).is_ok());
        for process in [&mut one, &mut other] {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    #[test]
    fn names_have_a_limit() {
        let mut target = Target::nobody([]);
        for number in 0..MAX_NAMES {
            target.add(&TargetRequest::Comm(format!("name-{number}"))).unwrap();
        }
        target.add(&TargetRequest::Comm("name-0".to_owned())).unwrap();
        let error = target.add(&TargetRequest::Comm("one-more".to_owned())).unwrap_err();
        assert_eq!(error.class(), Class::Usage, "{error}");
    }
}
