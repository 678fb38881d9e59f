//! Why something cannot be a target.

use fault_common::limits::MAX_CGROUPS;

use super::{
    TargetRequest, cgroup::CgroupError, comm::CommError, container::ContainerError, host::HostError,
    pid::PidError, unit::UnitError,
};
use crate::exit::Class;

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
    /// Something with a name was found, and stopped since.
    #[error("{0} has stopped in the meantime: start it first")]
    Stopped(TargetRequest),
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
            Self::Stopped(_) | Self::TooManyCgroups(_) => Class::Usage,
        }
    }
}
