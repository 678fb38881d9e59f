//! Faults of operations on files: which kernel functions stand before them, and where a pattern of paths leads.

use std::io;

use fault_common::limits::MAX_GLOBS;

use crate::{
    block::parking::ParkingError,
    exit::Class,
    kernel::{modify_return::CopyError, probe::bpf::Failure},
};

pub mod fields;
pub mod hooks;
pub mod names;
pub mod places;
pub mod present;

/// File faults cannot be armed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No fmod_ret on a hook of security modules.
    #[error("this kernel does not let operations on files be failed by fmod_ret on {function}")]
    NoHook {
        /// The kernel function.
        function: &'static str,
        /// Why.
        source: CopyError,
    },
    /// No program that sleeps in a system call, or in a security module.
    #[error("this kernel does not let operations on files be late by a program on {function}")]
    CannotBeLate {
        /// The kernel function.
        function: &'static str,
        /// Why.
        source: CopyError,
    },
    /// Somebody else's programs would run behind one that sleeps.
    #[error(
        "operations cannot be late at {function}: the eBPF programs of another session or tool modify what it returns; end that one first"
    )]
    Occupied {
        /// The kernel function.
        function: &'static str,
    },
    /// bpf is not among the security modules of this boot.
    #[error(
        "the kernel does not ask eBPF programs as a security module; add bpf to lsm= on the kernel command line"
    )]
    NotAsked,
    /// It could not be found out.
    #[error("whether the kernel asks eBPF programs as a security module could not be found out: {0}")]
    NotProbed(Failure),
    /// The parking lot.
    #[error(transparent)]
    Parking(#[from] ParkingError),
    /// The mounts of a process could not be read.
    #[error("reading the mounts of process {process} failed")]
    Mounts {
        /// `self`, or its number.
        process: String,
        /// Why.
        source: io::Error,
    },
    /// A pattern that leads to too many file systems.
    #[error(
        "the `file` patterns of one session lead to {0} file systems; the limit is {MAX_GLOBS}: begin them with more of the path"
    )]
    TooMany(usize),
    /// A pattern that is too long with where its file system is mounted from.
    #[error("`file {glob}` is too long for the file system at {mount}, whose own path comes before it")]
    TooLong {
        /// As written.
        glob: String,
        /// The mount point.
        mount: String,
    },
    /// A pattern for block operations where there are none.
    #[error(
        "`file {glob}` leads to {mount}, a {kind}, which lies on no disk that could be late or fail: fail operations on its files by \
         --file 'error ERRNO … file {glob}', or name them where they lie on a disk"
    )]
    NoDisk {
        /// As written.
        glob: String,
        /// The mount point.
        mount: String,
        /// The type of the file system.
        kind: String,
    },
}

impl FileError {
    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NoHook { source, .. } | Self::CannotBeLate { source, .. } => source.class(),
            Self::Occupied { .. } | Self::NotAsked | Self::NotProbed(_) => Class::Unsupported,
            Self::Mounts { .. } | Self::Parking(_) => Class::Other,
            Self::TooMany(_) | Self::TooLong { .. } | Self::NoDisk { .. } => Class::Usage,
        }
    }
}
