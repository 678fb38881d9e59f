//! Which processes this program brought into the world: whatever became of their parents, they carry its mark in
//! their environment.

use std::fs;

/// The mark: `FAULT_E2E=PID`.
const MARK: &str = "FAULT_E2E";

/// Everything that is started from now on carries the mark. Call it before the first thread is started.
pub fn mark() {
    // SAFETY: no other thread runs that could read the environment.
    unsafe { std::env::set_var(MARK, std::process::id().to_string()) };
}

/// Whether a living process carries the mark of this one.
#[must_use]
pub fn is(pid: u32) -> bool {
    let mark = format!("{MARK}={}", std::process::id());
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()))
}
