//! Which programs go in front of which kernel functions, and only those that a rule asks for.

use std::os::fd::{AsFd as _, OwnedFd};

use fault_common::{limits::PARKING_PLACES_PER_CPU, rule::file::op};

use super::FileError;
use crate::{
    block::parking::Parking,
    kernel::{
        btf::Btf,
        load::Loaded,
        modify_return::{Copies, CopyError, Kind, attach_to_function, modifiers},
        patch::Constant,
    },
};

/// Program, function, and the operations they are there for. The functions of security modules are called first thing by the
/// virtual file system; each is open to fmod_ret by its name (`check_attach_modify_return`, kernel/bpf/verifier.c). A system
/// call is where it is open to error injection.
const HOOKS: &[(&str, &str, u32)] = &[
    // First: where these are refused, the others need not be taken away again, which takes its time.
    ("file_sync", "__x64_sys_fsync", op::FSYNC),
    ("file_sync", "__x64_sys_fdatasync", op::FSYNC),
    ("file_open", "security_file_open", op::OPEN | op::CREATE),
    ("file_create", "security_inode_create", op::OPEN | op::CREATE),
    ("file_mknod", "security_inode_mknod", op::CREATE),
    ("file_access", "security_file_permission", op::READ | op::WRITE),
    ("file_unlink", "security_inode_unlink", op::UNLINK),
    ("file_rmdir", "security_inode_rmdir", op::RMDIR),
    ("file_mkdir", "security_inode_mkdir", op::MKDIR),
    ("file_symlink", "security_inode_symlink", op::SYMLINK),
    ("file_link", "security_inode_link", op::LINK),
    ("file_rename", "security_inode_rename", op::RENAME),
    ("file_truncate", "security_inode_setattr", op::TRUNCATE),
    ("file_mmap", "security_mmap_file", op::MMAP),
];

/// The same as `file_truncate`, for kernels where the function has one argument less (before Linux 6.0).
const TRUNCATE_WITHOUT_IDMAP: &str = "file_truncate_without_idmap";

/// The system calls that can be late.
const LATE: [&str; 2] = ["__x64_sys_fsync", "__x64_sys_fdatasync"];

/// Number of the first parker of [`LATE`]: the last ones, far behind those on the block hook.
const FIRST_PARKER: u32 = PARKING_PLACES_PER_CPU - LATE.len() as u32;

/// Sees what those do not.
const WATCHER: (&str, &str, u32) = ("file_sync_unseen", "vfs_fsync_range", op::FSYNC);

/// Armed hooks on operations on files. They do nothing before the session is active.
#[derive(Debug, Default)]
pub struct FileHooks {
    _links: Vec<OwnedFd>,
}

impl FileHooks {
    /// Loads and attaches the programs for `ops`, a mask of [`op`], and those that wait, if some `fsync` is late.
    ///
    /// # Errors
    /// See [`FileError`]. Nothing stays behind.
    pub fn arm(copies: &Copies, btf: &Btf, ops: u32, late: Option<Late<'_>>) -> Result<Self, FileError> {
        let mut links = match late {
            Some(late) => sleepers(copies, btf, late)?,
            None => Vec::new(),
        };
        for &(program, function, for_ops) in HOOKS {
            if ops & for_ops != 0 {
                let program = match program {
                    "file_truncate" if btf.arguments(function).is_ok_and(|arguments| arguments == 2) => {
                        TRUNCATE_WITHOUT_IDMAP
                    }
                    program => program,
                };
                let kind = Kind::ModifyReturn { function, sleepable: false };
                links.push(attach(copies, btf, (program, function), kind)?);
            }
        }
        let (program, function, for_ops) = WATCHER;
        if ops & for_ops != 0 {
            links.push(attach(copies, btf, (program, function), Kind::Entry { function })?);
        }
        Ok(Self { _links: links })
    }
}

/// What it takes to be late.
pub struct Late<'a> {
    /// Tells where the map of deadlines is.
    pub loaded: &'a Loaded,
    /// Where tasks wait.
    pub parking: &'a mut Parking,
}

/// Those that sleep, and those that see who could not. What was attached last runs first, so these run behind those that decide;
/// and nobody's may run behind them (`fault-ebpf/src/block/park.rs` says why).
fn sleepers(copies: &Copies, btf: &Btf, late: Late<'_>) -> Result<Vec<OwnedFd>, FileError> {
    let refused = |function| move |source| FileError::CannotBeLate { function, source };
    let mut programs = Vec::new();
    for (function, number) in LATE.into_iter().zip(FIRST_PARKER..) {
        if modifiers(btf, function).map_err(refused(function))? != 0 {
            return Err(FileError::Occupied { function });
        }
        let kind = Kind::ModifyReturn { function, sleepable: true };
        let sleeps = copies.load(btf, "park_sync", kind, &[(Constant::ParkerNumber, number)]);
        let looks = copies.load(btf, "file_synced", Kind::Exit { function }, &[]);
        programs.extend([(function, sleeps), (function, looks)]);
    }
    // A kernel that cannot is told from one without FUSE: so after the programs were loaded.
    let mut loaded = Vec::new();
    for (function, program) in programs {
        loaded.push((function, program.map_err(refused(function))?));
    }
    late.parking.open(late.loaded)?;
    let attach = |(function, program): (_, OwnedFd)| {
        attach_to_function(program.as_fd(), function).map_err(refused(function))
    };
    loaded.into_iter().map(attach).collect()
}

fn attach(
    copies: &Copies,
    btf: &Btf,
    (program, function): (&str, &'static str),
    kind: Kind<'_>,
) -> Result<OwnedFd, FileError> {
    let attached: Result<_, CopyError> = copies
        .load(btf, program, kind, &[])
        .and_then(|program| attach_to_function(program.as_fd(), function));
    attached.map_err(|source| FileError::NoHook { function, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::FileOp;

    #[test]
    fn every_operation_has_its_hook() {
        for op in FileOp::ALL {
            assert!(HOOKS.iter().any(|(_, _, ops)| ops & op.bit() != 0), "{op}");
        }
        let all = FileOp::ALL.iter().fold(0, |mask, op| mask | op.bit());
        assert_eq!(all, (1 << fault_common::rule::file::OPS) - 1);
    }
}
