//! A new task: children of the target belong to the target.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use super::{TASK_TGID_OFFSET, field, loaded};
use crate::{maps::CONTROL, who::task};

/// `sched_process_fork(parent, child)`: runs in the parent, before the child runs.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn task_fork(ctx: RawTracePointContext) -> u32 {
    let Some(control) = CONTROL.get(0) else { return 0 };
    let parent = task::current_tgid();
    if control.only.load() != 0 || !task::is_target_process(parent) {
        return 0;
    }
    let child: *const u8 = ctx.arg(1);
    if let Some(tgid) = field::<u32>(child, loaded(&TASK_TGID_OFFSET))
        && tgid != parent
    {
        task::join(tgid);
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(&ctx, "process {} joins the target, a child of {}", tgid, parent);
    }
    0
}
