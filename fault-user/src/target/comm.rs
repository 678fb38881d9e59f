//! `--comm NAME`: processes by the name the kernel keeps of them, those that bear it now and those that will.

use std::collections::BTreeSet;

use fault_common::{
    limits::{MAX_NAMES, NAME_BYTES},
    who::Name,
};
use procfs::process::{StatFlags, all_processes};

use super::pid::{self, PidError};
use crate::exit::Class;

/// Bytes of a name that the kernel keeps.
const KEPT: usize = NAME_BYTES - 1;

/// A name cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum CommError {
    /// Nothing.
    #[error("--comm wants a name as in /proc/PID/comm, and got none")]
    Empty,
    /// The kernel cuts it off.
    #[error(
        "no process can be named {given:?}: the kernel keeps {KEPT} bytes of a name; to aim at all that begin like this, use --comm {kept:?}"
    )]
    TooLong {
        /// What the user wrote.
        given: String,
        /// What the kernel makes of it.
        kept: String,
    },
    /// A zero ends it.
    #[error("no process can be named {0:?}: a name has no zero byte in it")]
    Zero(String),
    /// More than the kernel programs have room for.
    #[error("more than {MAX_NAMES} names in one session")]
    TooMany,
    /// PIDs here are not the kernel's.
    #[error(
        "--comm needs the host's PID namespace, because the kernel's programs know processes by the host's numbers: run fault on the host or with `docker run --pid=host`, or aim with --cgroup"
    )]
    ForeignNamespace,
    /// `/proc` could not be read.
    #[error(transparent)]
    Proc(#[from] PidError),
}

impl CommError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Empty | Self::TooLong { .. } | Self::Zero(_) | Self::TooMany => Class::Usage,
            Self::ForeignNamespace => Class::Unsupported,
            Self::Proc(error) => error.class(),
        }
    }
}

/// The name as the kernel keeps it.
///
/// # Errors
/// When no process can bear it.
pub fn name(given: &str) -> Result<Name, CommError> {
    let bytes = given.as_bytes();
    if bytes.is_empty() {
        return Err(CommError::Empty);
    }
    if bytes.contains(&0) {
        return Err(CommError::Zero(given.to_owned()));
    }
    if bytes.len() > KEPT {
        // Not in the middle of a letter, which would be half a letter.
        let end = (0..=KEPT).rev().find(|end| given.is_char_boundary(*end)).unwrap_or(0);
        return Err(CommError::TooLong { given: given.to_owned(), kept: given[..end].to_owned() });
    }
    if !pid::is_initial_namespace() {
        return Err(CommError::ForeignNamespace);
    }
    let mut name = Name::default();
    name.0[..bytes.len()].copy_from_slice(bytes);
    Ok(name)
}

/// The user processes that bear one of `names` now.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn bearers(names: &BTreeSet<String>) -> Result<BTreeSet<u32>, CommError> {
    if names.is_empty() {
        return Ok(BTreeSet::new());
    }
    let processes =
        all_processes().map_err(|source| PidError::Proc { object: "processes".to_owned(), source })?;
    // A process that is gone before it is read is simply not there.
    Ok(processes
        .flatten()
        .filter_map(|process| process.stat().ok())
        .filter(|stat| names.contains(&stat.comm))
        .filter(|stat| stat.flags & StatFlags::PF_KTHREAD.bits() == 0 && !matches!(stat.state, 'Z' | 'X'))
        .map(|stat| stat.pid as u32)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn fifteen_bytes_are_a_name() {
        assert_eq!(&name("nginx").unwrap().0, b"nginx\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&name("123456789012345").unwrap().0, b"123456789012345\0");
        let error = name("postgresql-server").unwrap_err();
        assert!(matches!(&error, CommError::TooLong { kept, .. } if kept == "postgresql-serv"), "{error}");
        assert_eq!(error.class().status(), 2);
        // Fourteen letters and one of two bytes: half a letter is not kept.
        let error = name("12345678901234é").unwrap_err();
        assert!(matches!(&error, CommError::TooLong { kept, .. } if kept == "12345678901234"), "{error}");
        assert!(matches!(name(""), Err(CommError::Empty)));
        assert!(matches!(name("a\0b"), Err(CommError::Zero(_))));
    }

    #[test]
    fn bearers_are_found_by_their_first_thread() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("aimed (at) me");
        std::fs::copy("/bin/cat", &program).unwrap();
        let mut process = Command::new(&program).stdin(Stdio::piped()).spawn().unwrap();
        let found = bearers(&["aimed (at) me".to_owned()].into()).unwrap();
        assert_eq!(found, [process.id()].into());
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(bearers(&["aimed (at) me".to_owned()].into()).unwrap().is_empty());
        // The kernel's own.
        assert!(bearers(&["kthreadd".to_owned()].into()).unwrap().is_empty());
    }
}
