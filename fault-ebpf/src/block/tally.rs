//! The tally: counts deadlines that no parker was free to claim. A silent miss would be a lie.

use core::ffi::c_void;

use fault_common::counters::Counter;

use super::{decide::FAIL, state};
use crate::emit;

/// fmod_ret, after the parkers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/should_fail_bio")]
pub extern "C" fn tally_bio(_context: *mut c_void) -> u64 {
    let Some(state) = state::existing() else { return 0 };
    if state.pending.deadline_ns == 0 {
        return 0;
    }
    state.pending.deadline_ns = 0;
    emit::count(Counter::ParkOverflow);
    // A bio that was to fail after its delay fails all the same.
    if state.pending.then_error != 0 { FAIL } else { 0 }
}
