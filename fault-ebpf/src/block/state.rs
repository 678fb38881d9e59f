//! What is remembered about a thread that does block I/O.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_storage_get};
use fault_common::{control::Control, limits::MAX_RULES, who::TaskState};

use crate::maps::TASK_STATES;

/// `BPF_LOCAL_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

/// The state of the running thread, if it has one.
#[inline(always)]
pub fn existing<'a>() -> Option<&'a mut TaskState> {
    get(0)
}

/// The state of the running thread, with its stream numbered and in step with the rule set in force.
#[inline(always)]
pub fn numbered<'a>(control: &Control) -> Option<&'a mut TaskState> {
    let state = get(CREATE)?;
    if state.stream.number == 0 {
        state.stream.number = control.streams.fetch_add(1).wrapping_add(1);
    }
    let generation = control.generation.load();
    if state.stream.generation != generation {
        state.stream.generation = generation;
        state.stream.ordinals = [0; MAX_RULES];
    }
    Some(state)
}

#[inline(always)]
fn get<'a>(flags: u64) -> Option<&'a mut TaskState> {
    // SAFETY: the value is zeroed when it is created and lives as long as its task, which runs. Only its own
    // thread touches it, outside of interrupts: there is one `&mut` at a time.
    unsafe {
        bpf_task_storage_get(TASK_STATES.as_ptr(), bpf_get_current_task_btf(), core::ptr::null_mut(), flags)
            .cast::<TaskState>()
            .as_mut()
    }
}
