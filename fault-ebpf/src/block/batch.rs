//! Several bios of one operation share one deadline.
//!
//! A large read is many bios, submitted one after the other under one plug before their task waits for any of
//! them. A slow disk would serve them at the same time, so the delay of each counts from the first one.

use fault_common::who::TaskState;

use super::fields::{
    Look as _, PLUG_REQUESTS, TASK_MAJOR_FAULTS, TASK_PLUG, TASK_READ_CALLS, TASK_SWITCHES, TASK_WRITE_CALLS,
    Typed, current,
};

/// When the operation began that this bio is part of; begins a new one if it is the first.
///
/// The same operation means: same plug (an address on the task's stack, so not enough alone), the task has
/// not slept since, and no system call or page fault ended in between. A kernel that does not count system
/// calls of tasks (`CONFIG_TASK_XACCT`) is asked for less: that earlier bios still wait in the plug.
#[inline(always)]
pub fn began_ns(state: &mut TaskState, now_ns: u64) -> u64 {
    let task = current();
    let plug: u64 = Typed::read(task, &TASK_PLUG);
    let activity = activity(task);
    let certain = TASK_READ_CALLS.load() != 0 || Typed::read::<u16>(plug, &PLUG_REQUESTS) != 0;
    if plug != 0 && plug == state.plug && activity == state.activity && certain {
        return state.began_ns;
    }
    state.plug = plug;
    state.activity = activity;
    state.began_ns = now_ns;
    now_ns
}

/// The running task has slept, but on our behalf.
#[inline(always)]
pub fn resume(state: &mut TaskState) {
    state.activity = activity(current());
}

/// A number that moves whenever the task sleeps, ends a read or write call, or ends a major page fault.
#[inline(always)]
fn activity(task: u64) -> u64 {
    let mut sum =
        Typed::read::<u64>(task, &TASK_SWITCHES).wrapping_add(Typed::read(task, &TASK_MAJOR_FAULTS));
    if TASK_READ_CALLS.load() != 0 {
        sum = sum
            .wrapping_add(Typed::read(task, &TASK_READ_CALLS))
            .wrapping_add(Typed::read(task, &TASK_WRITE_CALLS));
    }
    sum
}
