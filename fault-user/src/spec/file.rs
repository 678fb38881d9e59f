//! Faults of operations on files.

use std::collections::BTreeSet;

use super::delay::DelaySpec;
use super::errno::FileErrno;
use super::glob::FileGlob;
use super::source::{Located, Source};
use super::trigger::Trigger;

/// One thing that goes wrong with operations on files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// What happens to an operation that is hit.
    pub verb: FileVerb,
    /// Which operations of the target are looked at.
    pub filter: FileFilter,
    /// Which of those are hit.
    pub trigger: Trigger,
    /// The text it was read from.
    pub source: Source,
}

/// What happens to an operation on a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileVerb {
    /// It fails before it has done anything.
    Error(FileErrno),
    /// It begins late, by at most [`super::delay::DISK_HOLD_MAX`]. Only of operations that [may be](FileOp::may_be_late).
    Delay(DelaySpec),
}

/// Which operations. A field that is empty lets every operation pass; both must agree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileFilter {
    /// Any of them; empty means all.
    pub ops: BTreeSet<FileOp>,
    /// `file GLOB`: on files whose path this matches.
    pub glob: Option<Located<FileGlob>>,
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileOp {
    /// open(2) and its relatives.
    Open,
    /// read(2) and its relatives, of regular files.
    Read,
    /// write(2) and its relatives, fallocate(2), of regular files.
    Write,
    /// fsync(2), fdatasync(2).
    Fsync,
    /// A file is made: open(2) with `O_CREAT`, mknod(2).
    Create,
    /// unlink(2).
    Unlink,
    /// rename(2).
    Rename,
    /// mkdir(2).
    Mkdir,
    /// rmdir(2).
    Rmdir,
    /// link(2).
    Link,
    /// symlink(2).
    Symlink,
    /// truncate(2), ftruncate(2), open(2) with `O_TRUNC`.
    Truncate,
    /// mmap(2) of regular files.
    Mmap,
}

/// Why an operation cannot be late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeverLate {
    /// The kernel does not let a program sleep there.
    MustNotSleep,
    /// The directory is locked there: whoever works in it would wait as well.
    LocksDirectory,
    /// The file is locked there: whoever writes it would wait as well.
    LocksFile,
}

impl FileOp {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Fsync,
        Self::Create,
        Self::Unlink,
        Self::Rename,
        Self::Mkdir,
        Self::Rmdir,
        Self::Link,
        Self::Symlink,
        Self::Truncate,
        Self::Mmap,
    ];

    /// The word for it in a spec.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Fsync => "fsync",
            Self::Create => "create",
            Self::Unlink => "unlink",
            Self::Rename => "rename",
            Self::Mkdir => "mkdir",
            Self::Rmdir => "rmdir",
            Self::Link => "link",
            Self::Symlink => "symlink",
            Self::Truncate => "truncate",
            Self::Mmap => "mmap",
        }
    }

    /// Whether a task may wait where the kernel decides about this operation.
    ///
    /// # Errors
    /// Why not.
    pub const fn may_be_late(self) -> Result<(), NeverLate> {
        match self {
            Self::Open | Self::Mmap | Self::Fsync => Ok(()),
            // `security_file_permission` is not in `sleepable_lsm_hooks` (kernel/bpf/bpf_lsm.c).
            Self::Read | Self::Write => Err(NeverLate::MustNotSleep),
            // fs/namei.c asks security modules with the inode of the directory locked, fs/attr.c with that of the file.
            Self::Create
            | Self::Unlink
            | Self::Rename
            | Self::Mkdir
            | Self::Rmdir
            | Self::Link
            | Self::Symlink => Err(NeverLate::LocksDirectory),
            Self::Truncate => Err(NeverLate::LocksFile),
        }
    }

    /// Its bit in the kernel.
    pub const fn bit(self) -> u32 {
        use fault_common::rule::file::op;
        match self {
            Self::Open => op::OPEN,
            Self::Read => op::READ,
            Self::Write => op::WRITE,
            Self::Fsync => op::FSYNC,
            Self::Create => op::CREATE,
            Self::Unlink => op::UNLINK,
            Self::Rename => op::RENAME,
            Self::Mkdir => op::MKDIR,
            Self::Rmdir => op::RMDIR,
            Self::Link => op::LINK,
            Self::Symlink => op::SYMLINK,
            Self::Truncate => op::TRUNCATE,
            Self::Mmap => op::MMAP,
        }
    }
}
