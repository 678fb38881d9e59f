//! A task ends: when it was the last thread of its process, the number may be given to somebody else. When that was the
//! controller, everybody is let go at once: its descriptors are closed later in its exit (`do_exit`), one after the other, and
//! taking a tracing program off its function waits for a grace period of tasks each time.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use super::{CONTROLLER, SIGNAL_LIVE_OFFSET, TASK_SIGNAL_OFFSET, field, loaded};
use crate::{maps::CONTROL, who::task};

/// `sched_process_exit(task, …)`: runs in the task that ends.
///
/// The leader may end long before other threads; `signal->live` counts those still alive and has been
/// decremented for this one (`do_exit`).
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn task_exit(ctx: RawTracePointContext) -> u32 {
    let tgid = task::current_tgid();
    let is_controller = tgid as usize == loaded(&CONTROLLER);
    if !is_controller && !task::is_target_process(tgid) {
        return 0;
    }
    let task: *const u8 = ctx.arg(0);
    let Some(signal) = field::<*const u8>(task, loaded(&TASK_SIGNAL_OFFSET)) else { return 0 };
    if field::<i32>(signal, loaded(&SIGNAL_LIVE_OFFSET)).is_some_and(|live| live <= 0) {
        if is_controller {
            if let Some(control) = CONTROL.get(0) {
                control.active.store(0);
            }
            return 0;
        }
        task::leave(tgid);
    }
    0
}
