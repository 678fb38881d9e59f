//! A process takes a name, or gives one up: execve(2), `prctl(PR_SET_NAME)`, `/proc/PID/comm`.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel_str_bytes, macros::raw_tracepoint, programs::RawTracePointContext,
};
use fault_common::who::{JOINED_BY_NAME, Name};

use super::{TASK_PID_OFFSET, TASK_TGID_OFFSET, field, is_kernel_thread, loaded};
use crate::{
    maps::{CONTROL, TASKS},
    who::task,
};

/// `task_rename(task, comm)`: before the name is changed (`__set_task_comm`). The new one may be longer than what is kept
/// of it.
///
/// A process is called what its first thread is called. When another thread calls execve(2), it has become the first by
/// now (`de_thread`).
#[raw_tracepoint(tracepoint = "task_rename")]
pub fn task_rename(ctx: RawTracePointContext) -> u32 {
    let Some(control) = CONTROL.get(0) else { return 0 };
    let task: *const u8 = ctx.arg(0);
    let (Some(pid), Some(tgid)) =
        (field::<u32>(task, loaded(&TASK_PID_OFFSET)), field::<u32>(task, loaded(&TASK_TGID_OFFSET)))
    else {
        return 0;
    };
    if pid != tgid || is_kernel_thread(task) {
        return 0;
    }
    let mut name = Name::default();
    // SAFETY: the helper copes with any address.
    if unsafe { bpf_probe_read_kernel_str_bytes(ctx.arg::<*const u8>(1), &mut name.0) }.is_err() {
        return 0;
    }
    if task::is_named(&name) {
        task::join_by_name(tgid);
    } else if control.only.load() != 0 && task::is_target_process(tgid) {
        // The name alone counts. Who was named by number stays.
        if TASKS.get_ptr(tgid).is_some_and(|how| {
            // SAFETY: a map value.
            unsafe { *how == JOINED_BY_NAME }
        }) {
            task::leave(tgid);
        }
    }
    0
}
