//! io_uring: operations go to the ring's workers, where parking one does not park the others.
//!
//! io_uring first tries each operation in the submitter's own context and hands it to a worker when that would
//! block. So we say that it would. Only direct I/O: buffered reads block only when they must, and then they are
//! handed over anyway.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use fault_common::counters::Counter;

use super::{
    fields::{FILE_FLAGS, TASK_FLAGS, current, read},
    syscall,
};
use crate::{emit, maps::CONTROL, who::task};

const EAGAIN: u64 = -11i64 as u64;
/// `O_DIRECT`, `include/uapi/asm-generic/fcntl.h`.
const DIRECT: u32 = 0o40000;
/// `PF_IO_WORKER`, `include/linux/sched.h`.
const IO_WORKER: u32 = 0x10;

/// fmod_ret on `security_file_permission(file, mask)`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/security_file_permission")]
pub extern "C" fn punt_uring(context: *mut c_void) -> u64 {
    // SAFETY: the context of a tracing program is its arguments and the result so far, 8 bytes each.
    let (file, result) = unsafe { (*context.cast::<u64>(), *context.cast::<u64>().add(2)) };
    let Some(control) = CONTROL.get(0) else { return result };
    if control.active.load() == 0
        || !task::is_current_target(control, task::current_tgid())
        || !syscall::is(syscall::IO_URING_ENTER)
    {
        return result;
    }
    let flags: u32 = read(current(), &TASK_FLAGS);
    // SAFETY: a helper without arguments or effects.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if flags & IO_WORKER != 0 || read::<u32>(file, &FILE_FLAGS) & DIRECT == 0 || !control.is_live(now_ns) {
        return result;
    }
    emit::count(Counter::Punted);
    EAGAIN
}
