//! From an operation to what becomes of it.

use core::ptr;

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns,
    generated::{
        bpf_get_current_cgroup_id, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_storage_get,
    },
};
use fault_common::{
    control::Control,
    counters::Counter,
    decide::Verdict,
    event::{Action, BioEvent, Event, FileEvent, PacketEvent},
    limits::{EVENT_PATH_BYTES, MAX_PARK_NS, MAX_RULES},
    rule::{
        Layer,
        file::{FileFacts, OPS, op},
    },
    who::FileState,
};

use super::{
    fields::{
        ENTRY_HASH, ENTRY_HASHED, ENTRY_INODE, FILE_ENTRY, FILE_INODE, FILE_MODE, FILE_OPEN_FLAGS,
        FILE_TASK_FLAGS, INODE_MODE, TASK_CREDENTIALS, TASK_OWN_CREDENTIALS,
    },
    path,
};
use crate::{
    block::{current, read, read_at},
    decision::{self, Memory},
    emit,
    maps::{CONTROL, EVENTS, FILE_STATES, RULES},
    who::task,
};

/// The operation goes on.
pub const PASS: u64 = 0;

/// `S_IFMT`, `S_IFREG`, `S_IFDIR`, include/uapi/linux/stat.h.
const KIND: u16 = 0o170000;
const REGULAR: u16 = 0o100000;
const DIRECTORY: u16 = 0o040000;
/// `FMODE_CREATED`, `__FMODE_EXEC`, include/linux/fs.h.
const CREATED: u32 = 0x10_0000;
const EXECUTES: u32 = 0x20;
/// `PF_KTHREAD`, include/linux/sched.h.
const KERNEL_THREAD: u32 = 0x0020_0000;
/// `BPF_LOCAL_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

/// The control block, if a rule in force looks at any of `ops` and the running task belongs to the target. Bystanders, and
/// the target's other operations, are out after a few loads.
#[inline(always)]
pub fn concerned(ops: u32) -> Option<&'static Control> {
    let control = CONTROL.get(0)?;
    if control.active.load() == 0 || candidates(control, ops) == 0 {
        return None;
    }
    let tgid = task::current_tgid();
    if !task::is_current_target(control, tgid)
        || tgid == control.helper_pid.load()
        || tgid == control.answerer_tgid.load()
    {
        return None;
    }
    // With the whole machine as target, whoever is in the root cgroup is: the kernel's own threads work for nobody.
    if read::<u32>(current(), &FILE_TASK_FLAGS) & KERNEL_THREAD != 0 {
        return None;
    }
    // A file system that stands on another one (overlayfs) does the same once more below, with rights of its own.
    let task = current();
    if read::<u64>(task, &TASK_CREDENTIALS) != read::<u64>(task, &TASK_OWN_CREDENTIALS) {
        return None;
    }
    Some(control)
}

#[inline(always)]
fn candidates(control: &Control, ops: u32) -> u64 {
    let bank = &control.banks[control.bank() as usize & 1];
    let mut slots = 0;
    let mut number = 0;
    while number < OPS {
        if ops >> number & 1 != 0 {
            slots |= bank.file[number];
        }
        number += 1;
    }
    slots & control.in_force.load()
}

/// An operation on an open file, of those that are about regular files only.
#[inline(always)]
pub fn on_file(control: &Control, file: u64, ops: u32) -> u64 {
    let (inode, flags): (u64, u32) = (read(file, &FILE_INODE), read(file, &FILE_OPEN_FLAGS));
    // What is executed is the kernel's to read and to map.
    if kind(inode) != REGULAR || flags & EXECUTES != 0 {
        return PASS;
    }
    let errno = decide(control, [read(file, &FILE_ENTRY), 0], ops);
    answer(errno)
}

/// open(2), when the file is found, or made.
#[inline(always)]
pub fn on_open(control: &Control, file: u64) -> u64 {
    let inode: u64 = read(file, &FILE_INODE);
    let (mode, flags): (u32, u32) = (read(file, &FILE_MODE), read(file, &FILE_OPEN_FLAGS));
    // What is executed is no open(2).
    if !matches!(kind(inode), REGULAR | DIRECTORY) || flags & EXECUTES != 0 {
        return PASS;
    }
    let entry: u64 = read(file, &FILE_ENTRY);
    if let Some(state) = state(0)
        && state.created == entry
        && state.created_name == read(entry, &ENTRY_HASH)
        && state.created_generation == control.generation.load()
    {
        // Decided about before the kernel knew whether the file was there: one operation, decided about once.
        state.created = 0;
        return if mode & CREATED != 0 { PASS } else { answer(state.created_errno) };
    }
    // Made by an open(2) that was decided about when it was clear that there was no file.
    if mode & CREATED != 0 {
        return PASS;
    }
    answer(decide(control, [entry, 0], op::OPEN))
}

/// open(2) that may make a file, and mknod(2).
#[inline(always)]
pub fn on_create(control: &Control, entry: u64) -> u64 {
    // Not to be found yet: open(2) asks before it looks whether the file is there. mknod(2) has looked.
    let undecided = read::<u64>(entry, &ENTRY_HASHED) == 0 && read::<u64>(entry, &ENTRY_INODE) == 0;
    let errno = decide(control, [entry, 0], op::CREATE | op::OPEN);
    if undecided && let Some(state) = state(CREATE) {
        state.created = entry;
        state.created_name = read(entry, &ENTRY_HASH);
        state.created_errno = errno;
        state.created_generation = control.generation.load();
    }
    answer(errno)
}

/// An operation on directory entries; the second one is 0 if there is only one.
#[inline(always)]
pub fn on_entries(control: &Control, entries: [u64; 2], ops: u32) -> u64 {
    answer(decide(control, entries, ops))
}

#[inline(always)]
fn answer(errno: u32) -> u64 {
    (errno as i64).wrapping_neg() as u64
}

/// The kind of file, as in `st_mode`.
#[inline(always)]
fn kind(inode: u64) -> u16 {
    read_at::<u16>(inode + INODE_MODE.load() as u64) & KIND
}

/// The kind of file that `entry` names is a regular one.
#[inline(always)]
pub fn is_regular(entry: u64) -> bool {
    kind(read(entry, &ENTRY_INODE)) == REGULAR
}

/// The state of the running thread.
#[inline(always)]
fn state<'a>(flags: u64) -> Option<&'a mut FileState> {
    // SAFETY: as in `block::state`: zeroed when it is created, and only its own thread touches it.
    unsafe {
        bpf_task_storage_get(FILE_STATES.as_ptr(), bpf_get_current_task_btf(), ptr::null_mut(), flags)
            .cast::<FileState>()
            .as_mut()
    }
}

/// What the operation `ops` on `entries` fails with; 0 is nothing.
///
/// A function of its own: each program would hold a copy of all of it.
#[inline(never)]
fn decide(control: &Control, [first, second]: [u64; 2], ops: u32) -> u32 {
    // SAFETY: a helper without arguments or effects.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if !control.is_live(now_ns) {
        return 0;
    }
    let Some(state) = state(CREATE) else { return 0 };
    if state.deadline_ns != 0 {
        // Of a call that came to nothing before it could wait: the file it was to make could not be made.
        state.deadline_ns = 0;
        emit::count(Counter::ParkOverflow);
    }
    let generation = control.generation.load();
    if state.stream.number == 0 {
        state.stream.number = control.streams.fetch_add(1).wrapping_add(1);
    }
    if state.stream.generation != generation {
        state.stream.generation = generation;
        state.stream.ordinals = [0; MAX_RULES];
    }
    let index = generation & 1;
    let bank = &control.banks[index as usize];
    let mut slots = candidates(control, ops);
    if slots == 0 {
        return 0;
    }
    let wants_events = control.tells(now_ns);
    let globbed = slots & bank.file_globbed;
    let device = path::device(first);
    let mut is_whole = true;
    if globbed != 0 || wants_events {
        let mut found = 0;
        if second != 0 && globbed != 0 {
            is_whole = path::write(state, second);
            if is_whole {
                found |= path::matching(state, bank, index, path::device(second));
            }
        }
        // Last, for the event.
        is_whole &= path::write(state, first);
        if globbed != 0 {
            if is_whole {
                found |= path::matching(state, bank, index, device);
            } else {
                emit::count(Counter::PathUnknown);
            }
            slots &= !bank.file_globbed | found;
        }
    }
    if slots == 0 {
        return 0;
    }
    let moment = &mut state.walk.moment;
    moment.seed = control.seed.load();
    moment.stream = state.stream.number;
    moment.elapsed_ns = control.elapsed_ns(now_ns);
    moment.bytes = 0;
    state.walk.facts = FileFacts { ops, _pad: 0 };
    let memory = Memory { stream: &raw mut state.stream, connection: ptr::null_mut() };
    decision::decide(&mut state.walk, index, slots, memory);
    let outcome = &state.walk.outcome;
    let (hits, delay_ns) = (outcome.hits, outcome.delay_ns);
    if hits == 0 {
        return 0;
    }
    let mut errno = 0;
    if matches!(outcome.verdict, Verdict::Error) {
        // Such a rule ends the matter, so it is the last one that hit.
        let place = index * MAX_RULES as u32 + (63 - hits.leading_zeros() & (MAX_RULES as u32 - 1));
        let Some(rule) = RULES.get(place) else { return 0 };
        errno = rule.errno & 0xfff;
    }
    if wants_events {
        report(state, now_ns, generation, (ops, errno, device));
    }
    // What fails is not late: no rule that delays was asked.
    if errno == 0 && delay_ns != 0 {
        let delay_ns = if delay_ns < MAX_PARK_NS { delay_ns } else { MAX_PARK_NS };
        state.deadline_ns = now_ns.wrapping_add(delay_ns);
    }
    errno
}

/// When the call that was decided about last may begin, once; 0 is at once.
#[inline(always)]
pub fn take_deadline() -> u64 {
    let Some(state) = state(0) else { return 0 };
    let deadline_ns = state.deadline_ns;
    state.deadline_ns = 0;
    deadline_ns
}

/// Tells userspace.
#[inline(always)]
fn report(state: &mut FileState, now_ns: u64, generation: u32, (ops, errno, device): (u32, u32, u32)) {
    let Some(mut entry) = EVENTS.reserve_untyped::<FileEvent>(0) else {
        emit::lost();
        return;
    };
    let to = entry.as_mut_ptr();
    let identity = bpf_get_current_pid_tgid();
    let event = Event {
        time_ns: now_ns,
        hits: state.walk.outcome.hits,
        delay_ns: state.walk.outcome.delay_ns,
        // SAFETY: a helper without arguments or effects.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        generation,
        layer: Layer::File as u32,
        action: if errno == 0 { Action::Delay } else { Action::Fail } as u32,
        tgid: (identity >> 32) as u32,
        pid: identity as u32,
        bytes: 0,
        comm: bpf_get_current_comm().unwrap_or_default(),
        packet: PacketEvent {
            local: [0; 16],
            remote: [0; 16],
            local_port: 0,
            remote_port: 0,
            direction: 0,
            protocol: 0,
            ifindex: 0,
        },
        bio: BioEvent { sector: 0, device: 0, ops: 0 },
    };
    // SAFETY: the reserved room is a `FileEvent`, every field of which is written; a map value may be read as kernel memory.
    unsafe {
        (&raw mut (*to).event).write(event);
        (&raw mut (*to).ops).write(ops);
        (&raw mut (*to).errno).write(errno);
        (&raw mut (*to).device).write(device);
        (&raw mut (*to).length).write(if state.entry == 0 { state.length } else { 0 });
        bpf_probe_read_kernel(
            (&raw mut (*to).path).cast(),
            EVENT_PATH_BYTES as u32,
            (&raw const state.path).cast(),
        );
    }
    entry.submit(0);
}
