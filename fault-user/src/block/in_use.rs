//! Which interfaces of asynchronous I/O a process has, as `/proc` tells.
//!
//! What does not show there (a ring whose descriptor was closed after the ring was registered with itself) is noticed when it is used.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead as _, BufReader},
};

use fault_common::control::asynchronous;

/// What the link of a descriptor reads that is a ring (`io_uring_get_file`, io_uring/io_uring.c).
const RING: &str = "anon_inode:[io_uring]";
/// How the mapping of a libaio context is called (`aio_private_file`, fs/aio.c).
const CONTEXT: &str = "/[aio]";

/// Mask of [`asynchronous`]. Who has ended meanwhile has nothing.
#[must_use]
pub fn by(processes: &BTreeSet<u32>) -> u64 {
    let mut found = 0;
    // Operations that all contexts of the machine have room for: mappings are only looked through when there are any.
    let any_context = fs::read_to_string("/proc/sys/fs/aio-nr").map_or(true, |number| number.trim() != "0");
    for pid in processes {
        if found & asynchronous::URING == 0 && has_ring(*pid) {
            found |= asynchronous::URING;
        }
        if any_context && found & asynchronous::LIBAIO == 0 && has_context(*pid) {
            found |= asynchronous::LIBAIO;
        }
        if found == asynchronous::ALL {
            break;
        }
    }
    found
}

fn has_ring(pid: u32) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .into_iter()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == RING))
}

fn has_context(pid: u32) -> bool {
    let Ok(maps) = File::open(format!("/proc/{pid}/maps")) else { return false };
    // Other mappings may have names that are not text.
    BufReader::new(maps).split(b'\n').map_while(Result::ok).any(|line| {
        String::from_utf8_lossy(&line).split_ascii_whitespace().nth(5).is_some_and(|name| name == CONTEXT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A context of libaio, until dropped.
    struct Context(libc::c_ulong);

    impl Context {
        fn new() -> Self {
            let mut context: libc::c_ulong = 0;
            // SAFETY: the call writes the number of the context.
            let result = unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            Self(context)
        }
    }

    impl Drop for Context {
        fn drop(&mut self) {
            // SAFETY: the context of this value; nothing is under way.
            unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
        }
    }

    #[test]
    fn a_context_shows_and_so_does_its_end() {
        let us = std::process::id();
        assert!(!has_context(us));
        let context = Context::new();
        assert!(has_context(us));
        assert_ne!(by(&BTreeSet::from([us])) & asynchronous::LIBAIO, 0);
        drop(context);
        assert!(!has_context(us));
    }

    #[test]
    fn who_has_ended_has_nothing() {
        // Above the highest number a process can have (`PID_MAX_LIMIT`, include/linux/threads.h).
        assert_eq!(by(&BTreeSet::from([1 << 23])), 0);
    }
}
