//! The path of a directory entry within its file system, and which patterns match it.
//!
//! The way goes from the entry to the root of its file system. So it does not matter by which mount point, of which mount
//! namespace, a file is reached, nor what its directories were called when it was opened.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel_str};
use fault_common::{
    control::Bank,
    glob::Glob,
    limits::{MAX_GLOBS, MAX_PATH_BYTES},
    who::{FileState, NAME_ROOM},
};

use super::fields::{ENTRY_NAME, ENTRY_PARENT, ENTRY_SYSTEM, SYSTEM_DEVICE};
use crate::{block::read, maps::GLOBS};

/// Directories on the longest path: a name and a slash each.
const MAX_DEPTH: u32 = MAX_PATH_BYTES as u32 / 2;
const MASK: usize = MAX_PATH_BYTES - 1;
const _: () = assert!(MAX_PATH_BYTES.is_power_of_two());

/// `super_block.s_dev` of the file system that `entry` lies in.
#[inline(always)]
pub fn device(entry: u64) -> u32 {
    let system: u64 = read(entry, &ENTRY_SYSTEM);
    read(system, &SYSTEM_DEVICE)
}

/// Writes the path of `entry` into `state`; whether all of it is there.
#[inline(always)]
pub fn write(state: &mut FileState, entry: u64) -> bool {
    state.length = 0;
    state.entry = entry;
    let callback: unsafe extern "C" fn(u64, *mut *mut FileState) -> u64 = climb;
    let mut context: *mut FileState = state;
    // SAFETY: the helper calls `climb` with the address of `context`, which lives until it returns.
    unsafe { bpf_loop(MAX_DEPTH, callback as *mut c_void, (&raw mut context).cast(), 0) };
    state.entry == 0
}

/// One component: 1 ends the loop. At the root, nothing is left of the way.
unsafe extern "C" fn climb(_index: u64, context: *mut *mut FileState) -> u64 {
    // SAFETY: `write` hands the address of a pointer to a state.
    let state = unsafe { &mut **context };
    let entry = state.entry;
    let parent: u64 = read(entry, &ENTRY_PARENT);
    if parent == 0 {
        return 1;
    }
    if parent == entry {
        state.entry = 0;
        return 1;
    }
    let length = state.length as usize;
    if length >= MAX_PATH_BYTES {
        return 1;
    }
    let name: u64 = read(entry, &ENTRY_NAME);
    let place = length & MASK;
    // SAFETY: behind every place there is room for a name.
    let read = unsafe {
        let to = state.path.as_mut_ptr().add(place);
        bpf_probe_read_kernel_str(to.cast(), NAME_ROOM as u32, name as *const c_void)
    };
    if read <= 1 {
        return 1;
    }
    // With its zero, whose place the slash takes.
    let length = length + read as usize;
    if length > MAX_PATH_BYTES {
        return 1;
    }
    state.path[(length - 1) & MASK] = b'/';
    state.length = length as u32;
    state.entry = parent;
    0
}

/// What [`compare`] is handed.
struct Comparison {
    state: *mut FileState,
    glob: *const Glob,
}

/// Slots of the rules of `bank`, number `index`, a pattern of which matches the path in `state`, on `device`.
#[inline(always)]
pub fn matching(state: &mut FileState, bank: &Bank, index: u32, device: u32) -> u64 {
    let mut slots = 0;
    let mut number = 0;
    while number < MAX_GLOBS as u32 {
        if number as u64 >= bank.globs {
            break;
        }
        slots |= slot_if_match(state, index * MAX_GLOBS as u32 + number, device);
        number += 1;
    }
    slots
}

/// The slot, as a mask, of the rule to which the pattern at `place` of [`GLOBS`] belongs, if it matches; otherwise 0.
///
/// A global function: the verifier looks at it once and by itself, instead of twice for each pattern there may be. That
/// was nine tenths of the time it took to load a program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn slot_if_match(state: *mut FileState, place: u32, device: u32) -> u64 {
    let (Some(glob), false) = (GLOBS.get(place), state.is_null()) else { return 0 };
    // SAFETY: not null, and the verifier has checked its size.
    if glob.device == device && matches(unsafe { &mut *state }, glob) { 1 << (glob.slot & 63) } else { 0 }
}

#[inline(always)]
fn matches(state: &mut FileState, glob: &Glob) -> bool {
    state.states = glob.automaton.start();
    let length = state.length;
    let callback: unsafe extern "C" fn(u64, *mut Comparison) -> u64 = compare;
    let mut context = Comparison { state, glob };
    // SAFETY: the helper calls `compare` with the address of `context`, which lives until it returns.
    unsafe { bpf_loop(length, callback as *mut c_void, (&raw mut context).cast(), 0) };
    glob.automaton.accepts(&state.states)
}

/// One byte.
unsafe extern "C" fn compare(index: u64, context: *mut Comparison) -> u64 {
    // SAFETY: `matches` hands the address of its `Comparison`, whose parts are map values.
    let (state, glob) = unsafe { (&mut *(*context).state, &*(*context).glob) };
    let byte = state.path[index as usize & MASK];
    state.states = glob.automaton.step(state.states, byte);
    0
}
