//! Asynchronous I/O begins: the programs that keep its depth ([`super::aio`], [`super::punt`]) are asked for.
//!
//! They sit on system calls, and on a function that every read(2) and write(2) of the machine passes, so they are attached
//! only when the target needs them: when one of its processes makes a libaio context or a ring, or is seen to submit by
//! one that was there before and that nobody had found. Who makes one waits until they are attached, so that they see its first
//! operation.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use fault_common::{
    control::{Control, asynchronous},
    who::TaskState,
};

use super::{aio, park::wait_until, syscall};
use crate::{
    maps::{BELL, CONTROL},
    who::task,
};

/// The first look for whether they are attached, in nanoseconds. Each of the next ones is twice as far off.
const FIRST_LOOK_NS: u64 = 2_000_000;
/// Looks. Two seconds in all: then whoever waits goes on without.
const LOOKS: u32 = 10;

/// fmod_ret on `io_setup`, before [`aio_awaited`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/__x64_sys_io_setup")]
pub extern "C" fn aio_begins(_context: *mut c_void) -> u64 {
    begins(asynchronous::LIBAIO)
}

/// fmod_ret on `io_uring_setup`, before [`uring_awaited`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/__x64_sys_io_uring_setup")]
pub extern "C" fn uring_begins(_context: *mut c_void) -> u64 {
    begins(asynchronous::URING)
}

/// Sleepable fmod_ret on `io_setup`. The call itself must follow, so this is the last program of the chain, and there is one
/// copy: see [`super::park`]. Who finds it taken on this CPU goes on without.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry.s/__x64_sys_io_setup")]
pub extern "C" fn aio_awaited(_context: *mut c_void) -> u64 {
    awaited(asynchronous::LIBAIO)
}

/// Sleepable fmod_ret on `io_uring_setup`, as [`aio_awaited`].
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry.s/__x64_sys_io_uring_setup")]
pub extern "C" fn uring_awaited(_context: *mut c_void) -> u64 {
    awaited(asynchronous::URING)
}

/// Whether a bio that is late need not keep its task, for its reaper will wait. The task may submit by an interface whose
/// programs nobody has asked for yet.
#[inline(always)]
pub fn is_reaped(control: &Control, state: &mut TaskState) -> bool {
    match syscall::number() {
        syscall::IO_SUBMIT => {
            ask(control, asynchronous::LIBAIO);
            aio::is_reaped(control, state)
        }
        syscall::IO_URING_ENTER => {
            ask(control, asynchronous::URING);
            false
        }
        _ => false,
    }
}

#[inline(always)]
fn begins(interface: u64) -> u64 {
    if let Some(control) = CONTROL.get(0)
        && task::is_current_target(control, task::current_tgid())
    {
        ask(control, interface);
    }
    0
}

#[inline(always)]
fn ask(control: &Control, interface: u64) {
    if control.asked.load() & interface == 0 {
        control.asked.set_bits(interface);
        // Should there be no room, it has been rung and not been heard yet.
        let _ = BELL.output(interface, 0);
    }
}

#[inline(always)]
fn awaited(interface: u64) -> u64 {
    let Some(control) = CONTROL.get(0) else { return 0 };
    if !task::is_current_target(control, task::current_tgid()) {
        return 0;
    }
    let mut look_ns = FIRST_LOOK_NS;
    let mut looks = 0;
    while looks < LOOKS && control.served.load() & interface == 0 {
        // SAFETY: a helper without arguments or effects.
        let now_ns = unsafe { bpf_ktime_get_ns() };
        if !control.is_live(now_ns) || !wait_until(control, now_ns.wrapping_add(look_ns)) {
            break;
        }
        look_ns *= 2;
        looks += 1;
    }
    0
}
