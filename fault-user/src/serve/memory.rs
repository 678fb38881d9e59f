//! Arming takes some ten megabytes for a moment. glibc keeps what is free, and for each of several threads apart: a service of
//! which much was asked once would hold a hundred megabytes for ever.

/// From now on, one heap for all threads: sessions are armed one after the other anyway. `M_ARENA_MAX` of mallopt(3).
pub(super) fn keep_together() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time; heaps that there are already stay.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives what is free back to the kernel: malloc_trim(3).
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
