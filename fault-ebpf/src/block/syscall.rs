//! The system call that the running task is in (x86-64; elsewhere the loader gives no offsets).

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};

use super::fields::{REGS_FIRST, REGS_SYSCALL, read};

/// `io_submit`, `arch/x86/entry/syscalls/syscall_64.tbl`.
pub const IO_SUBMIT: u64 = 209;
/// `io_uring_enter`.
pub const IO_URING_ENTER: u64 = 426;

/// Whether the running task is in the system call `number`.
#[inline(always)]
pub fn is(number: u64) -> bool {
    self::number() == number
}

/// Its number; `u64::MAX` where that cannot be known.
#[inline(always)]
pub fn number() -> u64 {
    if REGS_SYSCALL.load() == 0 { u64::MAX } else { read(registers(), &REGS_SYSCALL) }
}

/// Its first argument.
#[inline(always)]
pub fn first_argument() -> u64 {
    read(registers(), &REGS_FIRST)
}

/// Registers of the running task when it entered the kernel.
#[inline(always)]
pub fn registers() -> u64 {
    // SAFETY: helpers without effects; the task is the running one.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
}
