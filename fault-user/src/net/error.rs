//! What can go wrong between the session and the network stack.

use std::io;

use crate::exit::Class;

/// An operation on the network stack failed; the message names the operation and its object.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The process is gone, or never was.
    #[error("there is no process {pid}")]
    NoSuchProcess {
        /// Its PID.
        pid: u32,
    },
    /// The interface cannot carry what the fault does.
    #[error(
        "packets of '{name}' cannot be {what}: it has no Ethernet header; name an Ethernet-like interface, or use a \
         fault that neither delays nor corrupts"
    )]
    NoEthernet {
        /// The interface.
        name: String,
        /// `delayed` or `corrupted`.
        what: &'static str,
    },
    /// No target namespace has an interface of that name.
    #[error("no interface is named '{name}' in the target's network namespace{}", nearby(.known))]
    NoSuchInterface {
        /// As written in the filter.
        name: String,
        /// Names there are.
        known: Vec<String>,
    },
    /// A host name has no address.
    #[error("the name '{name}' does not resolve to any address{}", reason(.source.as_ref()))]
    Unresolved {
        /// As written in the filter.
        name: String,
        /// The resolver's words; none when it answered with an empty list.
        source: Option<io::Error>,
    },
    /// All session bits of a namespace are taken.
    #[error(
        "{sessions} sessions already share network namespace {netns}; heal one of them first \
         (`grep fault/session /proc/net/unix` in that namespace shows them)"
    )]
    TooManySessions {
        /// How many there can be.
        sessions: u32,
        /// Inode number of the namespace.
        netns: u64,
    },
    /// More interfaces than the packet tag can tell apart.
    #[error(
        "network namespace {netns} has more than {interfaces} interfaces, which is the limit of one session"
    )]
    TooManyInterfaces {
        /// How many there can be.
        interfaces: u32,
        /// Inode number of the namespace.
        netns: u64,
    },
    /// More namespaces than one session can watch.
    #[error("the target lives in {namespaces} network namespaces; the limit of one session is {limit}")]
    TooManyNamespaces {
        /// How many it lives in.
        namespaces: usize,
        /// How many there can be.
        limit: u32,
    },
    /// The kernel was built or booted without something.
    #[error("no {what}: this kernel has no {module} ({config}); {remedy}")]
    Missing {
        /// Device kind, queueing discipline or hook.
        what: &'static str,
        /// Kernel module that has it.
        module: &'static str,
        /// Build option behind it.
        config: &'static str,
        /// What to do about it.
        remedy: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The caller lacks a privilege.
    #[error("not permitted to {operation} {object}; this needs {needs}")]
    Denied {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// Capability or setting.
        needs: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Something that is in the way belongs to somebody else.
    #[error("cannot {operation} {object}: {occupant} is in the way and is not ours to remove")]
    Occupied {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// What is there.
        occupant: String,
    },
    /// The kernel refused a request.
    #[error("cannot {operation} {object}: {source}{}", words(.message.as_ref()))]
    Kernel {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// The kernel's own words, when it had some (netlink extended acknowledgement).
        message: Option<String>,
        /// The error number.
        source: io::Error,
    },
    /// The kernel's answer could not be understood.
    #[error("cannot understand the kernel's answer to {operation} {object}: {detail}")]
    Protocol {
        /// What was asked.
        operation: &'static str,
        /// About what.
        object: String,
        /// What was wrong with the answer.
        detail: String,
    },
}

impl NetError {
    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NoSuchProcess { .. } | Self::NoSuchInterface { .. } | Self::Unresolved { .. } => {
                Class::Usage
            }
            Self::Missing { .. } | Self::NoEthernet { .. } => Class::Unsupported,
            Self::Denied { .. } => Class::NotPermitted,
            Self::TooManySessions { .. }
            | Self::TooManyInterfaces { .. }
            | Self::TooManyNamespaces { .. }
            | Self::Occupied { .. }
            | Self::Kernel { .. }
            | Self::Protocol { .. } => Class::Other,
        }
    }

    /// The error of a system call, sorted by its number.
    pub(crate) fn os(operation: &'static str, object: impl Into<String>, source: io::Error) -> Self {
        Self::refused(operation, object, None, source)
    }

    /// As [`NetError::os`], with the kernel's own words.
    pub(crate) fn refused(
        operation: &'static str,
        object: impl Into<String>,
        message: Option<String>,
        source: io::Error,
    ) -> Self {
        let object = object.into();
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                let needs = "root (CAP_NET_ADMIN, CAP_BPF and CAP_SYS_ADMIN)";
                Self::Denied { operation, object, needs, source }
            }
            _ => Self::Kernel { operation, object, message, source },
        }
    }

    /// The error number behind this error.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Missing { source, .. } | Self::Denied { source, .. } | Self::Kernel { source, .. } => {
                source.raw_os_error()
            }
            Self::Unresolved { source, .. } => source.as_ref().and_then(io::Error::raw_os_error),
            _ => None,
        }
    }
}

fn nearby(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!(" (there are: {})", known.join(", ")) }
}

fn reason(source: Option<&io::Error>) -> String {
    source.map_or_else(String::new, |error| format!(": {error}"))
}

fn words(message: Option<&String>) -> String {
    message.map_or_else(String::new, |text| format!(" ({text})"))
}

/// Result of an operation on the network stack.
pub type Result<T, E = NetError> = std::result::Result<T, E>;
