//! A new task: children of the target belong to the target, and so do those that are born with a name aimed at.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use fault_common::who::Name;

use super::{TASK_COMM_OFFSET, TASK_TGID_OFFSET, field, is_kernel_thread, loaded};
use crate::{maps::CONTROL, who::task};

/// `sched_process_fork(parent, child)`: runs in the parent, before the child runs.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn task_fork(ctx: RawTracePointContext) -> u32 {
    let Some(control) = CONTROL.get(0) else { return 0 };
    let parent = task::current_tgid();
    let descends = control.only.load() == 0 && task::is_target_process(parent);
    if !descends && control.names.load() == 0 {
        return 0;
    }
    let child: *const u8 = ctx.arg(1);
    let Some(tgid) = field::<u32>(child, loaded(&TASK_TGID_OFFSET)) else { return 0 };
    if tgid == parent {
        return 0;
    }
    if descends {
        task::join(tgid);
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!(&ctx, "process {} joins the target, a child of {}", tgid, parent);
    } else if let Some(name) = field::<Name>(child, loaded(&TASK_COMM_OFFSET))
        && task::is_named(&name)
        && !is_kernel_thread(child)
    {
        // A child is called what the thread is called that made it.
        task::join_by_name(tgid);
    }
    0
}
