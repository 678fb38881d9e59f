//! A task ends: when it was the last thread of its process, the number may be given to somebody else.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use super::{SIGNAL_LIVE_OFFSET, TASK_SIGNAL_OFFSET, field, loaded};
use crate::{maps::TASKS, who::task};

/// `sched_process_exit(task, …)`: runs in the task that ends.
///
/// The leader may end long before other threads; `signal->live` counts those still alive and has been
/// decremented for this one (`do_exit`).
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn task_exit(ctx: RawTracePointContext) -> u32 {
    let tgid = task::current_tgid();
    if !task::is_target_process(tgid) {
        return 0;
    }
    let task: *const u8 = ctx.arg(0);
    let Some(signal) = field::<*const u8>(task, loaded(&TASK_SIGNAL_OFFSET)) else { return 0 };
    if field::<i32>(signal, loaded(&SIGNAL_LIVE_OFFSET)).is_some_and(|live| live <= 0) {
        // Absent: another thread was here already.
        let _ = TASKS.remove(tgid);
    }
    0
}
