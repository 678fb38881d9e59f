//! What this kernel can do, found out by doing it.
//!
//! Nothing is concluded from a version or an option: distributions backport, patch and leave out. Every probe
//! tries the real thing with a program of a few instructions that changes nothing, in a network namespace of
//! its own where devices are involved, and everything it makes is owned by descriptors it closes.
//! Configuration and version are only used to explain an answer.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::{AsFd, OwnedFd},
};

use self::{
    bpf::{Attempt, Failure},
    explain::Reason,
};
use super::btf::{Btf, BtfError};
use crate::exit::Class;

mod block;
pub(crate) mod bpf;
mod capability;
mod environment;
mod explain;
mod host;
mod insn;
mod netns;
mod packet;

pub use capability::{Capability, Feature};
pub use environment::Environment;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was done.
    Yes,
    /// It was tried and refused.
    No {
        /// Why, as one clause, with the kernel's own words.
        cause: String,
        /// What to change, as one clause in the imperative.
        remedy: String,
    },
    /// It could not be tried.
    Unknown {
        /// Why not.
        cause: String,
    },
}

/// A fault this kernel cannot inject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// What was asked for.
    pub feature: Feature,
    /// What is missing.
    pub capability: Capability,
    /// Why.
    pub cause: String,
    /// What to change.
    pub remedy: String,
}

impl Unsupported {
    /// Not permitted, or not supported.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self.capability {
            Capability::Permission => Class::NotPermitted,
            _ => Class::Unsupported,
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let impossible = match self.class() {
            Class::NotPermitted => "not permitted",
            _ => "not possible with this kernel",
        };
        let Self { feature, capability, cause, remedy } = self;
        write!(f, "{feature} is {impossible}: {}: {cause}; to change that, {remedy}", capability.name())
    }
}

impl std::error::Error for Unsupported {}

/// What was found out about the running kernel.
#[derive(Debug, Clone)]
pub struct Capabilities {
    environment: Environment,
    found: BTreeMap<Capability, Verdict>,
}

impl Capabilities {
    /// Tries everything.
    #[must_use]
    pub fn probe() -> Self {
        Self::probe_for(&Feature::ALL)
    }

    /// Tries what `features` need.
    #[must_use]
    pub fn probe_for(features: &[Feature]) -> Self {
        let mut prober = Prober {
            environment: Environment::here(),
            wanted: features.iter().flat_map(|feature| feature.needs()).flatten().copied().collect(),
            found: BTreeMap::new(),
        };
        prober.run();
        Self { environment: prober.environment, found: prober.found }
    }

    /// As if this had been found.
    #[cfg(test)]
    pub(super) fn of(found: impl IntoIterator<Item = (Capability, Verdict)>) -> Self {
        let environment = Environment { release: "6.12.0-test".into(), ..Environment::default() };
        Self { environment, found: found.into_iter().collect() }
    }

    /// What the explanations rest on.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Everything that was tried, in the order of [`Capability::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Capability, &Verdict)> {
        self.found.iter().map(|(capability, verdict)| (*capability, verdict))
    }

    /// Whether it was tried and works.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.found.get(&capability) == Some(&Verdict::Yes)
    }

    /// Whether `feature` works here. What could not be tried (the self-test, without a block device to read
    /// from) stands in nobody's way.
    ///
    /// # Errors
    /// The first thing it lacks.
    pub fn require(&self, feature: Feature) -> Result<(), Unsupported> {
        for group in feature.needs() {
            if group.iter().any(|capability| self.has(*capability)) {
                continue;
            }
            let refused = group.iter().find_map(|capability| match self.found.get(capability) {
                Some(Verdict::No { cause, remedy }) => Some((*capability, cause, remedy)),
                _ => None,
            });
            if let Some((capability, cause, remedy)) = refused {
                let (cause, remedy) = (cause.clone(), remedy.clone());
                return Err(Unsupported { feature, capability, cause, remedy });
            }
        }
        Ok(())
    }

    /// The alternatives that work, where `feature` can be had in several ways; the preferred one first.
    pub fn choices(&self, feature: Feature) -> impl Iterator<Item = Capability> {
        feature
            .needs()
            .filter(|group| group.len() > 1)
            .flatten()
            .copied()
            .filter(|capability| self.has(*capability))
    }

    /// What `feature` needs that could not be tried.
    pub fn untried(&self, feature: Feature) -> impl Iterator<Item = (Capability, &str)> {
        feature.needs().flatten().filter_map(|capability| match self.found.get(capability) {
            Some(Verdict::Unknown { cause }) => Some((*capability, cause.as_str())),
            _ => None,
        })
    }

    /// Whether something else does the job of `capability`.
    #[must_use]
    pub fn replaced(&self, capability: Capability) -> bool {
        Feature::ALL
            .into_iter()
            .flat_map(Feature::needs)
            .filter(|group| group.contains(&capability))
            .all(|group| group.iter().any(|other| self.has(*other)))
    }
}

struct Prober {
    environment: Environment,
    wanted: std::collections::BTreeSet<Capability>,
    found: BTreeMap<Capability, Verdict>,
}

impl Prober {
    fn run(&mut self) {
        let permitted =
            self.note(Capability::Permission, packet::classifier().and(netns::in_private(|_| ())));
        let btf = match Btf::vmlinux() {
            Ok(btf) => {
                self.note(Capability::Btf, Ok(()));
                Some(btf)
            }
            Err(BtfError::Read { path, source }) => {
                self.note::<()>(
                    Capability::Btf,
                    Err(Failure::io(format!("reading {}", path.display()), &source)),
                );
                None
            }
            Err(error) => {
                self.note::<()>(Capability::Btf, Err(block::unknown_to_btf(&error)));
                None
            }
        };
        if !permitted {
            for capability in self.wanted.clone() {
                self.unknown(capability, "needs more privileges to find out");
            }
            return;
        }
        self.try_(Capability::Jit, host::jit);
        self.try_(Capability::RingBuffer, host::ring_buffer);
        self.try_(Capability::MappableArray, host::mappable_array);
        self.try_(Capability::ForkTracepoint, host::fork_tracepoint);
        self.packets();
        self.block(btf.as_ref());
    }

    fn packets(&mut self) {
        if self.wants(&[Capability::Cgroup2, Capability::SocketHook]) {
            let root = host::cgroup_root();
            match &root {
                Ok(root) => self.try_(Capability::SocketHook, || packet::socket_hook(root.as_fd())),
                Err(_) => self.unknown(Capability::SocketHook, "there is no cgroup to attach to"),
            }
            self.note(Capability::Cgroup2, root);
        }
        self.try_(Capability::SocketStorage, packet::socket_storage);
        self.try_(Capability::PidfdGetfd, packet::pidfd_getfd);
        self.try_(Capability::DepartureTime, packet::departure_time);
        self.try_(Capability::SetRetval, packet::set_retval);
        let devices = [
            Capability::Tcx,
            Capability::Clsact,
            Capability::Tap,
            Capability::Macvlan,
            Capability::Vlan,
            Capability::Fq,
        ];
        if !self.wants(&devices) {
            return;
        }
        let attempts = netns::in_private(|netlink| {
            let tcx = packet::tcx();
            let tap = netns::add_tap();
            let macvlan = tap.as_ref().ok().map(|tap| netlink.add_macvlan(tap.index).map(drop));
            let vlan = tap.as_ref().ok().map(|tap| netlink.add_vlan(tap.index).map(drop));
            let fq = netlink.add_fq(netns::LOOPBACK);
            (tcx, packet::clsact(netlink), tap.map(drop), (macvlan, vlan), fq)
        });
        match attempts {
            Ok((tcx, clsact, tap, (macvlan, vlan), fq)) => {
                self.note(Capability::Tcx, tcx);
                self.note(Capability::Clsact, clsact);
                self.note(Capability::Tap, tap);
                for (capability, device) in [(Capability::Macvlan, macvlan), (Capability::Vlan, vlan)] {
                    match device {
                        Some(device) => drop(self.note(capability, device)),
                        None => self.unknown(capability, "there is no tap to put one on"),
                    }
                }
                self.note(Capability::Fq, fq);
            }
            Err(failure) => {
                for capability in devices {
                    self.note::<()>(capability, Err(failure.clone()));
                }
            }
        }
    }

    fn block(&mut self, btf: Option<&Btf>) {
        self.try_(Capability::KprobeOverride, || {
            block::kprobe_override(&block::counter(&block::counter_map()?, block::unique_name(), true))
                .map(drop)
        });
        self.try_(Capability::TaskStorage, block::task_storage);
        self.try_(Capability::CopyFromUserTask, block::copy_from_user_task);
        self.try_(Capability::DetachedFuse, block::detached_fuse);
        match btf {
            Some(btf) => {
                let passing = insn::return_only(0);
                self.try_(Capability::FmodRet, || block::modify_return(btf, &passing, false).map(drop));
                self.try_(Capability::FmodRetSleepable, || {
                    block::modify_return(btf, &passing, true).map(drop)
                });
                for (capability, function) in [
                    (Capability::SecurityHook, "security_file_open"),
                    (Capability::SyscallHook, "__x64_sys_fsync"),
                ] {
                    self.try_(capability, || {
                        block::modify_return_of(btf, function, &passing, false).map(drop)
                    });
                }
                self.try_verdict(Capability::SecurityModule, || block::asks_bpf(btf).map(asked));
                let sleepable = self.found.get(&Capability::FmodRetSleepable) == Some(&Verdict::Yes);
                self.try_(Capability::TaskFromPid, || block::task_from_pid(btf, sleepable));
            }
            None => {
                for capability in [
                    Capability::FmodRet,
                    Capability::FmodRetSleepable,
                    Capability::TaskFromPid,
                    Capability::SecurityHook,
                    Capability::SyscallHook,
                    Capability::SecurityModule,
                ] {
                    self.unknown(capability, "needs BTF to find out");
                }
            }
        }
        if self.wants(&[Capability::HookCalled]) {
            let verdict = self.self_test(btf);
            self.try_verdict(Capability::HookCalled, || verdict);
        }
    }

    /// Watches one real read of our own.
    fn self_test(&self, btf: Option<&Btf>) -> Attempt<Verdict> {
        let unknown = |cause: String| Ok(Verdict::Unknown { cause });
        let (map, name) = (block::counter_map()?, block::unique_name());
        let works = |capability| self.found.get(&capability) == Some(&Verdict::Yes);
        let attached = match btf {
            Some(btf) if works(Capability::FmodRet) => {
                block::modify_return(btf, &block::counter(&map, name, false), false)?
            }
            _ if works(Capability::KprobeOverride) => {
                block::kprobe_override(&block::counter(&map, name, true))?
            }
            _ => return unknown("nothing attaches to should_fail_bio, so nothing can watch it".to_owned()),
        };
        let read = block::read_a_device(name);
        drop(attached);
        match read {
            block::DeviceRead::NoDevice(None) => unknown("there is no block device to read from".to_owned()),
            block::DeviceRead::NoDevice(Some(error)) => {
                unknown(format!("no block device can be read from: {error}"))
            }
            block::DeviceRead::Done(device) => Ok(if count(&map)? > 0 {
                Verdict::Yes
            } else {
                let Reason { cause, remedy } = explain::never_called(&device, &self.environment);
                Verdict::No { cause, remedy }
            }),
        }
    }

    fn wants(&self, capabilities: &[Capability]) -> bool {
        capabilities.iter().any(|capability| self.wanted.contains(capability))
    }

    fn try_(&mut self, capability: Capability, attempt: impl FnOnce() -> Attempt<()>) {
        if self.wanted.contains(&capability) {
            self.note(capability, attempt());
        }
    }

    /// As [`Self::try_`], of what may go well and be no good all the same.
    fn try_verdict(&mut self, capability: Capability, attempt: impl FnOnce() -> Attempt<Verdict>) {
        if self.wanted.contains(&capability) {
            match attempt() {
                Ok(verdict) => drop(self.found.insert(capability, verdict)),
                Err(failure) => drop(self.note::<()>(capability, Err(failure))),
            }
        }
    }

    /// Records an attempt; whether it went well.
    fn note<T>(&mut self, capability: Capability, attempt: Attempt<T>) -> bool {
        let verdict = match &attempt {
            Ok(_) => Verdict::Yes,
            Err(failure) => {
                let Reason { cause, remedy } = explain::explain(capability, failure, &self.environment);
                Verdict::No { cause, remedy }
            }
        };
        if self.wanted.contains(&capability) {
            self.found.insert(capability, verdict);
        }
        attempt.is_ok()
    }

    fn unknown(&mut self, capability: Capability, cause: &str) {
        if self.wanted.contains(&capability) {
            self.found.entry(capability).or_insert_with(|| Verdict::Unknown { cause: cause.to_owned() });
        }
    }
}

/// Whether the kernel asks BPF programs as a security module: watches an open of our own.
///
/// # Errors
/// When no such program can be loaded or attached.
pub(crate) fn asks_bpf(btf: &Btf) -> Attempt<bool> {
    block::asks_bpf(btf)
}

fn asked(is_asked: bool) -> Verdict {
    match is_asked {
        true => Verdict::Yes,
        false => {
            let Reason { cause, remedy } = explain::never_asked();
            Verdict::No { cause, remedy }
        }
    }
}

fn count(map: &OwnedFd) -> Attempt<u64> {
    let mut element = [0; 2];
    bpf::read_element(map.as_fd(), &mut element)?;
    Ok(element[0])
}

#[cfg(test)]
mod tests;
