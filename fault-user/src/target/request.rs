//! What a user names as the target: one word of the command line, of a scenario, of the service.

use std::{fmt, path::PathBuf};

/// One thing a user names. Several may be named; together they are one target ([`super::Target`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetRequest {
    /// `--pid`: a process, with its descendants.
    Pid(u32),
    /// `--cgroup`: a cgroup v2 directory and everything below it.
    Cgroup(PathBuf),
    /// `--unit`: a unit of systemd, of the system's manager or of a user's.
    Unit(String),
    /// `--container`: a container by name, by the beginning of its id, or as `pod/namespace/container`.
    Container(String),
    /// `--comm`: every process that bears this name or will, with its descendants.
    Comm(String),
    /// `--host`: everybody on this machine.
    Host,
}

impl fmt::Display for TargetRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "pid {pid}"),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Unit(name) => write!(f, "unit {name}"),
            Self::Container(name) => write!(f, "container {name}"),
            Self::Comm(name) => write!(f, "processes named {name}"),
            Self::Host => f.write_str("this whole machine"),
        }
    }
}
