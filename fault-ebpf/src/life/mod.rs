//! Descendants and namesakes of the target.

mod exit;
mod fork;
mod rename;

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// Offset of `tgid` in `struct task_struct`; set by the loader from BTF.
#[unsafe(no_mangle)]
static TASK_TGID_OFFSET: u32 = 0;
/// Offset of `pid` in `struct task_struct`; set by the loader from BTF.
#[unsafe(no_mangle)]
static TASK_PID_OFFSET: u32 = 0;
/// Offset of `comm` in `struct task_struct`; set by the loader from BTF.
#[unsafe(no_mangle)]
static TASK_COMM_OFFSET: u32 = 0;
/// Offset of `flags` in `struct task_struct`; set by the loader from BTF.
#[unsafe(no_mangle)]
static TASK_FLAGS_OFFSET: u32 = 0;
/// Offset of `signal` in `struct task_struct`; set by the loader from BTF.
#[unsafe(no_mangle)]
static TASK_SIGNAL_OFFSET: u32 = 0;
/// Offset of `live` in `struct signal_struct`; set by the loader from BTF.
#[unsafe(no_mangle)]
static SIGNAL_LIVE_OFFSET: u32 = 0;

/// Process number of the controller in the initial PID namespace; 0 when that is not known. Set by the loader.
#[unsafe(no_mangle)]
static CONTROLLER: u32 = 0;

/// The value the loader has put into `global`.
#[inline(always)]
fn loaded(global: &'static u32) -> usize {
    // SAFETY: a valid static. Volatile: the compiler must not take the placeholder for the value.
    unsafe { core::ptr::read_volatile(global) as usize }
}

/// Reads a `T` at `base + offset` in kernel memory.
#[inline(always)]
fn field<T>(base: *const u8, offset: usize) -> Option<T> {
    // SAFETY: the helper copes with any address.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset).cast::<T>()) }.ok()
}

/// Whether the task at `task` is one of the kernel's own, whatever it is called. `PF_KTHREAD` (include/linux/sched.h) has not
/// moved since Linux 2.6.
#[inline(always)]
fn is_kernel_thread(task: *const u8) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    field::<u32>(task, loaded(&TASK_FLAGS_OFFSET)).is_none_or(|flags| flags & PF_KTHREAD != 0)
}
