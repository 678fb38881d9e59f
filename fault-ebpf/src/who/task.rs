//! Does the running task belong to the target?

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_ancestor_cgroup_id},
};
use fault_common::{
    control::Control,
    limits::MAX_CGROUPS,
    who::{JOINED_BY_NAME, JOINED_BY_NUMBER, Name, task_bit},
};

use crate::{
    decision::YES,
    maps::{CONTROL, NAMES, TASK_BITS, TASKS},
};

/// The process (thread group) that runs, in the initial PID namespace.
#[inline(always)]
pub fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The running process, and what is cheap to know about it.
#[derive(Clone, Copy)]
pub struct Suspect {
    /// Its number.
    pub tgid: u32,
    /// Whether it is one of the processes aimed at by number or name, or descends from one.
    pub is_target_process: bool,
}

impl Suspect {
    /// The running process, whose number is `tgid`.
    #[inline(always)]
    pub fn of(tgid: u32) -> Self {
        Self { tgid, is_target_process: is_target_process(tgid) }
    }

    /// Whether it is aimed at, also by its cgroup. The controller never is.
    #[inline(always)]
    pub fn is_current_target(self, control: &Control) -> bool {
        self.tgid != control.controller_tgid.load()
            && (self.is_target_process || is_in_target_cgroup(control))
    }
}

/// Whether `tgid` is one of the processes aimed at, or descends from one.
#[inline(always)]
pub fn is_target_process(tgid: u32) -> bool {
    let (word, bit) = task_bit(tgid);
    TASK_BITS.get(word).is_some_and(|word| word.load() & bit != 0)
}

/// Makes `tgid` one of the processes aimed at. A full map (65 536 processes) leaves it out.
#[inline(always)]
pub fn join(tgid: u32) {
    if TASKS.insert(tgid, JOINED_BY_NUMBER, 0).is_ok() {
        note(tgid);
    }
}

/// Makes `tgid` one of the processes aimed at because of its name, unless it is one already.
#[inline(always)]
pub fn join_by_name(tgid: u32) {
    if TASKS.insert(tgid, JOINED_BY_NAME, u64::from(BPF_NOEXIST)).is_ok() {
        note(tgid);
    }
}

/// Remembers that `tgid` is in [`TASKS`].
#[inline(always)]
fn note(tgid: u32) {
    let (word, bit) = task_bit(tgid);
    if let Some(word) = TASK_BITS.get(word) {
        word.set_bits(bit);
    }
}

/// `tgid` is not one of the processes aimed at any more. It need not have been one.
#[inline(always)]
pub fn leave(tgid: u32) {
    let (word, bit) = task_bit(tgid);
    if let Some(word) = TASK_BITS.get(word) {
        word.clear_bits(bit);
    }
    // Absent: somebody was here already.
    let _ = TASKS.remove(tgid);
}

/// Whether this name is aimed at. What follows its first zero must be zero.
#[inline(always)]
pub fn is_named(name: &Name) -> bool {
    NAMES.get_ptr(name).is_some()
}

/// Whether the running task lives in, or below, one of the cgroups aimed at. Mostly that is one, or none.
#[inline(always)]
pub fn is_in_target_cgroup(control: &Control) -> bool {
    match control.cgroup_count.load() {
        0 => false,
        count => is_in_cgroup(control, 0) || (count > 1 && is_in_further_cgroup() != 0),
    }
}

/// Whether the running task lives in, or below, one of the cgroups aimed at behind the first.
///
/// A global function: the verifier walks the loop once, and not once for each way that leads there.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_in_further_cgroup() -> u32 {
    let Some(control) = CONTROL.get(0) else { return 0 };
    let count = control.cgroup_count.load();
    let mut i = 1;
    while i < MAX_CGROUPS && (i as u32) < count {
        if is_in_cgroup(control, i) {
            return YES;
        }
        i += 1;
    }
    0
}

/// Whether the running task lives in, or below, the cgroup at place `i` of those aimed at.
#[inline(always)]
fn is_in_cgroup(control: &Control, i: usize) -> bool {
    let cgroup = &control.cgroups[i];
    // SAFETY: a helper without side effects; 0 when there is no ancestor at that level.
    cgroup.id != 0 && unsafe { bpf_get_current_ancestor_cgroup_id(cgroup.level as i32) } == cgroup.id
}

/// Whether the running task, of process `tgid`, is aimed at. The controller never is.
#[inline(always)]
pub fn is_current_target(control: &Control, tgid: u32) -> bool {
    Suspect::of(tgid).is_current_target(control)
}
