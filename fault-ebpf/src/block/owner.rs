//! Whose bio is it: the task's that submits it, or, when a kernel thread does, its own cgroup's.

use fault_common::{control::Control, limits::MAX_CGROUPS};

use super::fields::{
    BIO_GROUP, BLKCG_CGROUP, CGROUP_ANCESTORS, CGROUP_LEVEL, CGROUP_NODE, CGROUP_ROOT, GROUP_BLKCG,
    Look as _, NODE_ID, ROOT_HIERARCHY, TASK_FLAGS, Typed, current, read, read_at,
};
use crate::{
    decision::YES,
    maps::CONTROL,
    who::task::{Suspect, is_in_target_cgroup},
};

/// `PF_KTHREAD`, `PF_MEMALLOC` (`include/linux/sched.h`): numbers that have not moved since Linux 2.6.
const KERNEL_THREAD: u32 = 0x0020_0000;
const RECLAIMS_MEMORY: u32 = 0x0000_0800;

/// By what a bio is the target's.
#[derive(Clone, Copy)]
pub enum Owner {
    /// The task that submits it belongs to the target.
    Submitter,
    /// The bio's own cgroup does; a kernel thread submits it.
    Cgroup,
}

impl Owner {
    /// Whether the task that submits `bio` may sleep on its behalf.
    ///
    /// A kernel thread sleeps only for a bio that is the target's by the bio's own cgroup: what else it does
    /// (journal, other people's writeback) would wait with it. Memory reclaim never sleeps for us.
    #[inline(always)]
    pub fn may_park(self, bio: u64) -> bool {
        let flags: u32 = Typed::read(current(), &TASK_FLAGS);
        let own = match self {
            Self::Submitter => flags & KERNEL_THREAD == 0 || bio_is_of_target(bio),
            Self::Cgroup => true,
        };
        own && flags & RECLAIMS_MEMORY == 0
    }
}

/// Whether [`of`] may find an owner, by what is cheap to ask: a rule's filter is cheaper than the rest.
#[inline(always)]
pub fn may_be(control: &Control, suspect: Suspect) -> bool {
    if suspect.is_target_process {
        return true;
    }
    if control.cgroup_count.load() == 0 {
        return false;
    }
    is_in_target_cgroup(control) || Typed::read::<u32>(current(), &TASK_FLAGS) & KERNEL_THREAD != 0
}

/// The owner of `bio`, if the session aims at it.
#[inline(always)]
pub fn of(control: &Control, suspect: Suspect, bio: u64) -> Option<Owner> {
    if suspect.is_current_target(control) {
        let tgid = suspect.tgid;
        let is_ours = tgid == control.helper_pid.load() || tgid == control.answerer_tgid.load();
        return (!is_ours).then_some(Owner::Submitter);
    }
    if control.cgroup_count.load() == 0 {
        return None;
    }
    let flags: u32 = Typed::read(current(), &TASK_FLAGS);
    (flags & KERNEL_THREAD != 0 && bio_is_of_target(bio)).then_some(Owner::Cgroup)
}

/// Whether the bio's own cgroup is, or lies below, one of the cgroups aimed at.
#[inline(always)]
fn bio_is_of_target(bio: u64) -> bool {
    BIO_GROUP.load() != 0 && group_is_of_target(read(bio, &BIO_GROUP)) != 0
}

/// Whether the cgroup of `group`, a `struct blkcg_gq`, is, or lies below, one of the cgroups aimed at.
///
/// A global function: the verifier walks the loop once, and not once for each way that leads there.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn group_is_of_target(group: u64) -> u32 {
    let Some(control) = CONTROL.get(0) else { return 0 };
    let blkcg: u64 = read(group, &GROUP_BLKCG);
    let cgroup: u64 = read(blkcg, &BLKCG_CGROUP);
    // Where the io controller is on a v1 hierarchy, ids are of that hierarchy: v2 is number 0.
    let root: u64 = read(cgroup, &CGROUP_ROOT);
    if root == 0 || read::<u32>(root, &ROOT_HIERARCHY) != 0 {
        return 0;
    }
    let level: u32 = read(cgroup, &CGROUP_LEVEL);
    let count = control.cgroup_count.load();
    let mut i = 0;
    while i < MAX_CGROUPS && (i as u32) < count {
        let target = &control.cgroups[i];
        if target.id != 0 && target.level <= level {
            let ancestor = if target.level == level || CGROUP_ANCESTORS.load() == 0 {
                cgroup
            } else {
                read_at(cgroup + CGROUP_ANCESTORS.load() as u64 + target.level as u64 * 8)
            };
            let node: u64 = read(ancestor, &CGROUP_NODE);
            if read::<u64>(node, &NODE_ID) == target.id {
                return YES;
            }
        }
        i += 1;
    }
    0
}
