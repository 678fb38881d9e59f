//! A parker: sleeps until the deadline that the decider left. Loaded several times.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, generated::bpf_copy_from_user_task};
use fault_common::{
    control::Control,
    counters::Counter,
    limits::{COMMON_PLACES_PER_CPU, OWN_PLACES_PER_CPU, PARKING_PLACES_PER_CPU},
    who::ParkingPlace,
};

use super::{
    batch,
    decide::{FAIL, PASS_AT_ONCE},
    state,
};
use crate::{
    emit,
    kernel::{parker_number, task_from_pid, task_release},
    maps::{CONTROL, PARKING},
};

const PAGE: u64 = 4096;

/// Sleepable fmod_ret on the block hook.
///
/// Who has slept must not run into another program. Programs of a trampoline are freed one grace period after they
/// are detached, whoever still sleeps in an old image of it; the sleeping one alone is kept (it holds
/// `rcu_read_lock_trace`). If our controller or another session dies meanwhile, the next program in the chain is
/// gone, and calling it is a kernel panic: seen. So the chain ends here, whatever comes after.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry.s/should_fail_bio")]
pub extern "C" fn park_bio(_context: *mut c_void) -> u64 {
    let Some(fails) = sleep_if_asked() else { return 0 };
    if fails { FAIL } else { PASS_AT_ONCE }
}

/// Sleepable fmod_ret on system calls that reap. The call itself must follow, so this has to be the last program
/// of the chain, and there is one copy: what comes after it could be gone, see [`park_bio`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry.s/__x64_sys_io_getevents")]
pub extern "C" fn park_reaper(_context: *mut c_void) -> u64 {
    let _ = sleep_if_asked();
    0
}

/// Claims the deadline of the running task, if there is one, and sleeps; then whether its bio fails.
#[inline(always)]
fn sleep_if_asked() -> Option<bool> {
    let state = state::existing()?;
    let deadline_ns = state.pending.deadline_ns;
    if deadline_ns == 0 {
        return None;
    }
    let fails = state.pending.then_error != 0;
    state.pending.deadline_ns = 0;
    let control = CONTROL.get(0)?;
    sleep_until(control, deadline_ns);
    batch::resume(state);
    // Healed meanwhile: nothing is injected any more.
    // SAFETY: a helper without arguments or effects.
    Some(fails && control.is_live(unsafe { bpf_ktime_get_ns() }))
}

/// Sleeps until then. Only for sleepable programs, each copy of which has a parker's number of its own.
#[inline(always)]
pub fn sleep_until(control: &Control, deadline_ns: u64) {
    let slept = wait_until(control, deadline_ns);
    emit::count(if slept { Counter::Parked } else { Counter::ParkFailed });
}

/// The same for whoever waits for the controller, and not for a disk: it is no delay, and not counted as one. Whether it could.
#[inline(always)]
pub fn wait_until(control: &Control, deadline_ns: u64) -> bool {
    // This copy of the program and this CPU name a page nobody else can be on: the kernel lets one task at a
    // time into a copy per CPU, and the task stays on this CPU until the program ends.
    // SAFETY: a helper without arguments or effects.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let place = cpu * PARKING_PLACES_PER_CPU + parker_number();
    let Some(page) = PARKING.get(place) else { return false };
    page.deadline_ns.store(deadline_ns);
    sleep_at(control, place, page, deadline_ns)
}

/// Sleeps until then. Only for sleepable programs; any number of tasks may be in the same copy.
#[inline(always)]
pub fn sleep_somewhere_until(control: &Control, deadline_ns: u64) {
    // The task stays on this CPU until the program ends, but others may come and go meanwhile.
    // SAFETY: a helper without arguments or effects.
    let first = unsafe { bpf_get_smp_processor_id() } * PARKING_PLACES_PER_CPU + OWN_PLACES_PER_CPU;
    let mut number = 0;
    while number < COMMON_PLACES_PER_CPU {
        let place = first + number;
        let Some(page) = PARKING.get(place) else { break };
        if page.deadline_ns.load() == 0 && page.deadline_ns.compare_exchange(0, deadline_ns) == 0 {
            let slept = sleep_at(control, place, page, deadline_ns);
            emit::count(if slept { Counter::Parked } else { Counter::ParkFailed });
            return;
        }
        number += 1;
    }
    emit::count(Counter::ParkOverflow);
}

/// Sleeps in a page fault of the helper until the parking lot answers it, and leaves the page behind free. Whether that was
/// until the deadline, or until nothing is injected any more.
#[inline(always)]
fn sleep_at(control: &Control, place: u32, page: &ParkingPlace, deadline_ns: u64) -> bool {
    let helper = task_from_pid(control.helper_pid.load() as i32);
    if helper.is_null() {
        page.deadline_ns.store(0);
        return false;
    }
    let address = control.helper_base.load() + place as u64 * PAGE;
    let mut now_ns = 0;
    let mut nap = 0;
    // Tasks are answered a little early, by as much as they were seen to need for waking. Who is too quick for that
    // sleeps the rest, and is then not answered before the deadline.
    while nap < 2 {
        let mut byte = 0u8;
        // SAFETY: one byte on the stack; the address is the helper's, and the read always fails in the end.
        now_ns = unsafe {
            bpf_copy_from_user_task((&raw mut byte).cast(), 1, address as *const c_void, helper.cast(), 0);
            bpf_ktime_get_ns()
        };
        page.woke_ns.store(now_ns);
        if now_ns >= deadline_ns || !control.is_live(now_ns) {
            break;
        }
        nap += 1;
    }
    task_release(helper);
    page.deadline_ns.store(0);
    // Too early, and not because we are healing: the parking lot is gone.
    now_ns >= deadline_ns || !control.is_live(now_ns)
}
