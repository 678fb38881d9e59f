//! Which programs go in front of which kernel functions, and only those that a rule asks for.

use std::os::fd::{AsFd as _, OwnedFd};

use fault_common::{limits::OWN_PLACES_PER_CPU, rule::file::op};

use super::FileError;
use crate::{
    block::parking::Parking,
    kernel::{
        btf::Btf,
        load::Loaded,
        modify_return::{Copies, CopyError, Kind, attach_to_function, modifiers},
        patch::Constant,
        probe,
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

/// Where a task waits whose operation is late.
struct Sleeper {
    ops: u32,
    /// The function of [`HOOKS`] that decides, and comes first.
    decides: &'static str,
    waits: Waits,
}

/// In which program.
#[derive(Clone, Copy)]
enum Waits {
    /// In front of the system call that decides; one task at a time on each CPU, at the place with this number.
    BeforeCall(u32),
    /// In this function of bpf as a security module, which the function that decides is the first to call.
    AsModule(&'static str),
}

/// The parkers before system calls have the last numbers, far behind those on the block hook.
const SLEEPERS: &[Sleeper] = &[
    Sleeper { ops: op::FSYNC, decides: "__x64_sys_fsync", waits: Waits::BeforeCall(OWN_PLACES_PER_CPU - 2) },
    Sleeper {
        ops: op::FSYNC,
        decides: "__x64_sys_fdatasync",
        waits: Waits::BeforeCall(OWN_PLACES_PER_CPU - 1),
    },
    Sleeper { ops: op::OPEN, decides: "security_file_open", waits: Waits::AsModule("bpf_lsm_file_open") },
    Sleeper { ops: op::MMAP, decides: "security_mmap_file", waits: Waits::AsModule("bpf_lsm_mmap_file") },
];

/// Sees what those do not.
const WATCHER: (&str, &str, u32) = ("file_sync_unseen", "vfs_fsync_range", op::FSYNC);

/// Armed hooks on operations on files. They do nothing before the session is active.
#[derive(Debug, Default)]
pub struct FileHooks {
    _links: Vec<OwnedFd>,
}

impl FileHooks {
    /// Loads and attaches the programs for `ops`, a mask of [`op`], and those that wait, if some operations are late.
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
    /// Which operations are, a mask of [`op`].
    pub ops: u32,
    /// Tells where the map of deadlines is.
    pub loaded: &'a Loaded,
    /// Where tasks wait.
    pub parking: &'a mut Parking,
}

/// Those that sleep, and those that see who could not. What was attached last runs first, so these run behind those that decide;
/// and nobody's may run behind them (`fault-ebpf/src/block/park.rs` says why).
fn sleepers(copies: &Copies, btf: &Btf, late: Late<'_>) -> Result<Vec<OwnedFd>, FileError> {
    let wanted = || SLEEPERS.iter().filter(|sleeper| sleeper.ops & late.ops != 0);
    let is_module = |sleeper: &Sleeper| matches!(sleeper.waits, Waits::AsModule(_));
    if wanted().any(is_module) && !probe::asks_bpf(btf).map_err(FileError::NotProbed)? {
        return Err(FileError::NotAsked);
    }
    let mut programs = Vec::new();
    for sleeper in wanted() {
        let decides = sleeper.decides;
        let (function, parker) = match sleeper.waits {
            Waits::BeforeCall(number) => {
                let kind = Kind::ModifyReturn { function: decides, sleepable: true };
                let constants = [(Constant::ParkerNumber, number)];
                (decides, copies.load(btf, "park_sync", kind, &constants))
            }
            Waits::AsModule(function) => {
                (function, copies.load(btf, "park_opener", Kind::SecurityModule { function }, &[]))
            }
        };
        let refused = |function| move |source| FileError::CannotBeLate { function, source };
        if modifiers(btf, function).map_err(refused(function))? != 0 {
            return Err(FileError::Occupied { function });
        }
        let looks = copies.load(btf, "file_passed", Kind::Exit { function: decides }, &[]);
        programs.push((function, parker.map_err(refused(function))?));
        programs.push((decides, looks.map_err(refused(decides))?));
    }
    // A kernel that cannot is told from one without FUSE: so after the programs were loaded.
    late.parking.open(late.loaded)?;
    let attach = |(function, program): (_, OwnedFd)| {
        attach_to_function(program.as_fd(), function)
            .map_err(|source| FileError::CannotBeLate { function, source })
    };
    programs.into_iter().map(attach).collect()
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
            let sleepers = SLEEPERS.iter().filter(|sleeper| sleeper.ops & op.bit() != 0);
            let decides = |sleeper: &Sleeper| {
                HOOKS.iter().any(|(_, function, ops)| *function == sleeper.decides && ops & op.bit() != 0)
            };
            assert!(sleepers.clone().all(decides), "{op}");
            assert_eq!(sleepers.count() > 0, op.may_be_late().is_ok(), "{op}");
        }
        let all = FileOp::ALL.iter().fold(0, |mask, op| mask | op.bit());
        assert_eq!(all, (1 << fault_common::rule::file::OPS) - 1);
    }
}
