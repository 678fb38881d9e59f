//! A program for each hook. Those of security modules (security/security.c) are called before the file system is.

use core::ffi::c_void;

use fault_common::{counters::Counter, rule::file::op};

use super::{
    fields::{
        CALL_FIRST, CALL_NUMBER, CHANGE_WHAT, FILE_TASK_FLAGS, FILES_TABLE, TABLE_FILES, TABLE_SIZE,
        TASK_FILES,
    },
    judge::{self, PASS},
};
use crate::{
    block::{current, read, read_at, registers, sleep_somewhere_until, sleep_until},
    emit,
    maps::CONTROL,
};

/// `MAY_WRITE`, `MAY_READ`, include/linux/fs.h.
const MAY_WRITE: u32 = 2;
const MAY_READ: u32 = 4;
/// `ATTR_SIZE`, include/linux/fs.h.
const LENGTH: u32 = 1 << 3;
/// `PF_IO_WORKER`, include/linux/sched.h.
const IO_WORKER: u32 = 0x10;
/// `io_uring_enter`, `arch/x86/entry/syscalls/syscall_64.tbl`.
const IO_URING_ENTER: u64 = 426;

/// Argument `number` of the function a tracing program is attached to.
#[inline(always)]
fn argument(context: *mut c_void, number: usize) -> u64 {
    // SAFETY: the context of a tracing program is the arguments, 8 bytes each, and the verifier knows how many there are.
    unsafe { context.cast::<u64>().add(number).read_volatile() }
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident on $section:literal = $ops:expr, |$control:ident, $context:ident| $body:expr;)*) => {
        $($(#[$doc])*
        #[unsafe(no_mangle)]
        #[unsafe(link_section = $section)]
        pub extern "C" fn $name($context: *mut c_void) -> u64 {
            let Some($control) = judge::concerned($ops) else { return PASS };
            $body
        })*
    };
}

hooks! {
    /// `security_file_open(file)`. Where files are made its program has to look as well: see `judge::on_create`.
    file_open on "fentry/security_file_open" = op::OPEN | op::CREATE, |control, context|
        judge::on_open(control, argument(context, 0));
    /// `security_inode_create(dir, dentry, mode)`.
    file_create on "fentry/security_inode_create" = op::OPEN | op::CREATE, |control, context|
        judge::on_create(control, argument(context, 1));
    /// `security_inode_mknod(dir, dentry, mode, dev)`.
    file_mknod on "fentry/security_inode_mknod" = op::CREATE, |control, context|
        judge::on_entries(control, [argument(context, 1), 0], op::CREATE);
    /// `security_inode_unlink(dir, dentry)`.
    file_unlink on "fentry/security_inode_unlink" = op::UNLINK, |control, context|
        judge::on_entries(control, [argument(context, 1), 0], op::UNLINK);
    /// `security_inode_rmdir(dir, dentry)`.
    file_rmdir on "fentry/security_inode_rmdir" = op::RMDIR, |control, context|
        judge::on_entries(control, [argument(context, 1), 0], op::RMDIR);
    /// `security_inode_mkdir(dir, dentry, mode)`.
    file_mkdir on "fentry/security_inode_mkdir" = op::MKDIR, |control, context|
        judge::on_entries(control, [argument(context, 1), 0], op::MKDIR);
    /// `security_inode_symlink(dir, dentry, old_name)`.
    file_symlink on "fentry/security_inode_symlink" = op::SYMLINK, |control, context|
        judge::on_entries(control, [argument(context, 1), 0], op::SYMLINK);
    /// `security_inode_link(old_dentry, dir, new_dentry)`.
    file_link on "fentry/security_inode_link" = op::LINK, |control, context|
        judge::on_entries(control, [argument(context, 0), argument(context, 2)], op::LINK);
    /// `security_inode_rename(old_dir, old_dentry, new_dir, new_dentry, flags)`.
    file_rename on "fentry/security_inode_rename" = op::RENAME, |control, context|
        judge::on_entries(control, [argument(context, 1), argument(context, 3)], op::RENAME);
    /// `security_mmap_file(file, prot, flags)`; without a file for memory that is none.
    file_mmap on "fentry/security_mmap_file" = op::MMAP, |control, context| {
        let file = argument(context, 0);
        if file == 0 { PASS } else { judge::on_file(control, file, op::MMAP) }
    };
    /// `fsync(fd)`, `fdatasync(fd)`: for both system calls, whose argument is the registers.
    file_sync on "fentry/__x64_sys_fsync" = op::FSYNC, |control, context| {
        let descriptor: u32 = read(argument(context, 0), &CALL_FIRST);
        match open_file(descriptor) {
            0 => PASS,
            file => judge::on_file(control, file, op::FSYNC),
        }
    };
}

/// `security_file_permission(file, mask)`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/security_file_permission")]
pub extern "C" fn file_access(context: *mut c_void) -> u64 {
    let mask = argument(context, 1) as u32;
    let reads = if mask & MAY_READ != 0 { op::READ } else { 0 };
    let ops = reads | if mask & MAY_WRITE != 0 { op::WRITE } else { 0 };
    let Some(control) = judge::concerned(ops) else { return PASS };
    judge::on_file(control, argument(context, 0), ops)
}

/// `security_inode_setattr(idmap, dentry, attr)`, the way of every change of length.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/security_inode_setattr")]
pub extern "C" fn file_truncate(context: *mut c_void) -> u64 {
    truncate(argument(context, 1), argument(context, 2))
}

/// `security_inode_setattr(dentry, attr)`, before Linux 6.0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/security_inode_setattr")]
pub extern "C" fn file_truncate_without_idmap(context: *mut c_void) -> u64 {
    truncate(argument(context, 0), argument(context, 1))
}

#[inline(always)]
fn truncate(entry: u64, change: u64) -> u64 {
    let Some(control) = judge::concerned(op::TRUNCATE) else { return PASS };
    if read_at::<u32>(change + CHANGE_WHAT.load() as u64) & LENGTH == 0 || !judge::is_regular(entry) {
        return PASS;
    }
    judge::on_entries(control, [entry, 0], op::TRUNCATE)
}

/// fentry on `vfs_fsync_range`: counts those of io_uring, which pass no system call that could fail.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/vfs_fsync_range")]
pub extern "C" fn file_sync_unseen(_context: *mut c_void) -> u64 {
    if judge::concerned(op::FSYNC).is_none() {
        return 0;
    }
    let is_worker = read::<u32>(current(), &FILE_TASK_FLAGS) & IO_WORKER != 0;
    if is_worker || CALL_NUMBER.load() != 0 && read::<u64>(registers(), &CALL_NUMBER) == IO_URING_ENTER {
        emit::count(Counter::UringSync);
    }
    0
}

/// Sleepable fmod_ret on fsync and fdatasync, behind `file_sync`: waits for what that left. The call itself must follow, so this
/// is the last program of the chain, and there is one copy for each call: see `block::park`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry.s/__x64_sys_fsync")]
pub extern "C" fn park_sync(_context: *mut c_void) -> u64 {
    let deadline_ns = judge::take_deadline();
    if deadline_ns != 0
        && let Some(control) = CONTROL.get(0)
    {
        sleep_until(control, deadline_ns);
    }
    PASS
}

/// Sleepable program of a security module, which `security_file_open` and `security_mmap_file` ask after the program above
/// them has decided: waits for what that left. The call must follow, so this is the last program of its chain as well; but any
/// number of tasks may wait in it (Linux 6.2: `bpf_prog_check_recur`, include/linux/bpf_verifier.h).
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry.s/bpf_lsm_file_open")]
pub extern "C" fn park_opener(_context: *mut c_void) -> u64 {
    let deadline_ns = judge::take_deadline();
    if deadline_ns != 0
        && let Some(control) = CONTROL.get(0)
    {
        sleep_somewhere_until(control, deadline_ns);
    }
    PASS
}

/// fexit of what was decided about: who still has a deadline found `park_sync` taken by another task on this CPU, or was
/// turned away by another security module before it could wait.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fexit/__x64_sys_fsync")]
pub extern "C" fn file_passed(_context: *mut c_void) -> u64 {
    if judge::take_deadline() != 0 {
        emit::count(Counter::ParkOverflow);
    }
    0
}

/// The running task's open file with this descriptor; 0 if there is none.
#[inline(always)]
fn open_file(descriptor: u32) -> u64 {
    let files: u64 = read(current(), &TASK_FILES);
    let table: u64 = read(files, &FILES_TABLE);
    if descriptor >= read_at::<u32>(table + TABLE_SIZE.load() as u64) {
        return 0;
    }
    let open: u64 = read(table, &TABLE_FILES);
    read_at(open + descriptor as u64 * 8)
}
