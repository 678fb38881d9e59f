//! libaio: the submitter goes on, the reaper waits.
//!
//! Each libaio context has a queue of the times at which its operations may come back. `io_getevents` for n
//! events waits until the nth oldest of them is due, then returns what the disk has long finished. The queue has
//! one entry for each operation: the bios of one operation are one entry (same `bi_private`), and when
//! `io_submit` returns, operations that made no bio or were spared get entries that are due at once.
//!
//! One reaper for each CPU waits at a time: a second copy of the program that sleeps would be a program that comes
//! after it. Who finds it taken returns early, which is counted, and waits before it submits the next: there are more parkers
//! for bios.
//!
//! A reaper that only looks (`min_nr` 0, or a timeout) waits as well: events cannot be hidden from it.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_user};
use fault_common::{
    control::Control,
    counters::Counter,
    who::{AIO_DEPTH, AioKey, AioQueue, PendingPark, TaskState},
};

use super::{
    fields::{BIO_PRIVATE, REGS_FIRST, REGS_SECOND, read},
    state, syscall,
};
use crate::{
    emit,
    maps::{AIO_BLANK, AIO_QUEUES, CONTROL},
    who::task,
};

/// `BPF_NOEXIST`.
const ONLY_NEW: u64 = 1;

/// Whether the reaper will wait for what the running task submits by `io_submit`; else it waits itself.
#[inline(always)]
pub fn is_reaped(control: &Control, state: &mut TaskState) -> bool {
    if control.reap.load() == 0 {
        state.aio_unseen = 1;
    }
    state.aio_unseen == 0
}

/// Notes when the operation of `bio` may come back; false when there is no room.
#[inline(always)]
pub fn push(state: &mut TaskState, tgid: u32, bio: u64, deadline_ns: u64) -> bool {
    let key = AioKey { context: syscall::first_argument(), tgid: tgid as u64 };
    let Some(queue) = queue_or_new(&key) else { return false };
    let operation: u64 = read(bio, &BIO_PRIVATE);
    if state.aio_pushed != 0 && operation != 0 && operation == state.aio_operation {
        let last = &queue.deadlines_ns[slot(queue.tail.load().wrapping_sub(1))];
        if last.load() < deadline_ns {
            last.store(deadline_ns);
        }
        return true;
    }
    if queue.tail.load().wrapping_sub(queue.head.load()) >= AIO_DEPTH as u64 {
        return false;
    }
    queue.deadlines_ns[slot(queue.tail.fetch_add(1))].store(deadline_ns);
    state.aio_operation = operation;
    state.aio_pushed = state.aio_pushed.wrapping_add(1);
    true
}

/// When an operation begins that the running task submits: when what it reaped too early was due, but not before now.
#[inline(always)]
pub fn begins_ns(state: &mut TaskState, now_ns: u64) -> u64 {
    let owed_ns = state.aio_owed_ns;
    state.aio_owed_ns = 0;
    if owed_ns > now_ns { owed_ns } else { now_ns }
}

/// Operations of a context that the disk has finished and nobody has reaped. More than are queued: then so many are older than the
/// queue, and wait for nothing.
///
/// A context's number is the address of its ring in the process, which begins with `id`, `nr`, `head` and `tail`, 32 bits each
/// (`struct aio_ring`, fs/aio.c). The kernel reads it there at every call (`lookup_ioctx`), so it is in memory.
#[inline(always)]
fn ready(context: u64) -> u64 {
    let mut ring = [0u32; 4];
    // SAFETY: the helper writes sixteen bytes to the stack, or fails, whatever the address is.
    let failed = unsafe {
        bpf_probe_read_user((&raw mut ring).cast(), size_of_val(&ring) as u32, context as *const c_void)
    };
    let [_, room, head, tail] = ring;
    if failed != 0 {
        return 0;
    }
    if tail >= head {
        (tail - head) as u64
    } else {
        (room as u64 + tail as u64).wrapping_sub(head as u64) & 0xffff
    }
}

#[inline(always)]
fn slot(number: u64) -> usize {
    number as usize & (AIO_DEPTH - 1)
}

#[inline(always)]
fn queue(key: &AioKey) -> Option<&'static AioQueue> {
    // SAFETY: a map value; when another thread removes it, its memory stays until this program ends.
    AIO_QUEUES.get_ptr(key).map(|queue| unsafe { &*queue })
}

#[inline(always)]
fn queue_or_new(key: &AioKey) -> Option<&'static AioQueue> {
    if let Some(queue) = queue(key) {
        return Some(queue);
    }
    // Losing the race against another thread of the process is fine: then the queue is there.
    let _ = AIO_QUEUES.insert(key, AIO_BLANK.get(0)?, ONLY_NEW);
    queue(key)
}

/// The context that a system call of libaio is about, for a target. `registers` is the call's only argument.
#[inline(always)]
fn context_of_target(registers: u64) -> Option<AioKey> {
    let control = CONTROL.get(0)?;
    let tgid = task::current_tgid();
    if control.reap.load() == 0 || !task::is_current_target(control, tgid) {
        return None;
    }
    Some(AioKey { context: read(registers, &REGS_FIRST), tgid: tgid as u64 })
}

/// fexit of `io_submit`: as many entries as operations.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fexit/__x64_sys_io_submit")]
pub extern "C" fn aio_submitted(context: *mut c_void) -> u64 {
    // SAFETY: the context of a tracing program is its arguments and the result, 8 bytes each.
    let (registers, submitted) = unsafe { (*context.cast::<u64>(), *context.cast::<i64>().add(1)) };
    let Some(key) = context_of_target(registers) else { return 0 };
    let Some(state) = state::existing() else { return 0 };
    state.aio_unseen = 0;
    let mut pushed = state.aio_pushed;
    state.aio_pushed = 0;
    state.aio_operation = 0;
    if pushed == 0 {
        // Nothing was late; if nothing is under way either, there is no need for a queue.
        if queue(&key).is_none_or(|queue| queue.head.load() == queue.tail.load()) {
            return 0;
        }
    }
    let Some(queue) = queue(&key) else { return 0 };
    let submitted = if submitted < 0 { 0 } else { submitted as u64 };
    while pushed < submitted && pushed < AIO_DEPTH as u64 {
        queue.deadlines_ns[slot(queue.tail.fetch_add(1))].store(0);
        pushed += 1;
    }
    if pushed > submitted {
        queue.tail.fetch_sub(pushed - submitted);
    }
    0
}

/// fmod_ret on `io_getevents` and its relatives: leaves the deadline that this call must wait for.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/__x64_sys_io_getevents")]
pub extern "C" fn aio_reaps(context: *mut c_void) -> u64 {
    // SAFETY: as above.
    let registers = unsafe { *context.cast::<u64>() };
    let Some(key) = context_of_target(registers) else { return 0 };
    let Some(control) = CONTROL.get(0) else { return 0 };
    // SAFETY: a helper without arguments or effects.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if !control.is_live(now_ns) {
        return 0;
    }
    let Some(queue) = queue(&key) else { return 0 };
    let (head, tail) = (queue.head.load(), queue.tail.load());
    let (ready, queued) = (ready(key.context), tail.wrapping_sub(head));
    let older = if ready > queued { ready - queued } else { 0 };
    queue.older.store(older);
    let wanted: u64 = read(registers, &REGS_SECOND);
    let wanted = if wanted == 0 { 1 } else { wanted };
    if head == tail || wanted <= older {
        return 0;
    }
    let mut last = head.wrapping_add(wanted - older - 1);
    if last.wrapping_sub(head) >= tail.wrapping_sub(head) {
        last = tail.wrapping_sub(1);
    }
    let deadline_ns = queue.deadlines_ns[slot(last)].load();
    if deadline_ns > now_ns
        && let Some(state) = state::numbered(control)
    {
        state.pending = PendingPark { deadline_ns, then_error: 0, _pad: 0 };
    }
    0
}

/// fexit of `io_getevents` and its relatives: what came back is no longer under way.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fexit/__x64_sys_io_getevents")]
pub extern "C" fn aio_reaped(context: *mut c_void) -> u64 {
    // SAFETY: as above.
    let (registers, reaped) = unsafe { (*context.cast::<u64>(), *context.cast::<i64>().add(1)) };
    let Some(key) = context_of_target(registers) else { return 0 };
    if let Some(state) = state::existing()
        && state.pending.deadline_ns != 0
    {
        state.aio_owed_ns = state.pending.deadline_ns;
        state.pending.deadline_ns = 0;
        emit::count(Counter::ParkOverflow);
    }
    if reaped <= 0 {
        return 0;
    }
    let Some(queue) = queue(&key) else { return 0 };
    let under_way = queue.tail.load().wrapping_sub(queue.head.load());
    let (reaped, older) = (reaped as u64, queue.older.load());
    // Those that were never queued came first.
    queue.older.store(if older > reaped { older - reaped } else { 0 });
    let reaped = if reaped > older { reaped - older } else { 0 };
    queue.head.fetch_add(if reaped < under_way { reaped } else { under_way });
    0
}

/// fentry of `io_destroy`: the number may be given to another context.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/__x64_sys_io_destroy")]
pub extern "C" fn aio_destroyed(context: *mut c_void) -> u64 {
    // SAFETY: as above.
    let registers = unsafe { *context.cast::<u64>() };
    if let Some(key) = context_of_target(registers) {
        let _ = AIO_QUEUES.remove(key);
    }
    0
}
