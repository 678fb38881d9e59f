//! The helper: a process whose only possession is a mapping of the parking file.
//!
//! Kernel programs read its memory with `bpf_copy_from_user_task`; the page fault that this causes
//! becomes a FUSE read, and the reader sleeps until that is answered. While it sleeps it holds the
//! helper's mmap lock for reading, so the helper must never change its address space, and therefore
//! does nothing at all once it has told its address. It holds no `/dev/fuse` descriptor.

use super::child::Child;
use super::wire;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Exit statuses of the helper when it cannot start.
pub(super) const CANNOT_OPEN: i32 = 2;
pub(super) const CANNOT_MAP: i32 = 3;

/// Forks the helper; it writes the address of its mapping (8 bytes, native order) to `address`.
pub(super) fn fork(
    mount: BorrowedFd<'_>,
    owner: BorrowedFd<'_>,
    address: BorrowedFd<'_>,
    pages: u64,
) -> io::Result<Child> {
    let body = || {
        let Ok(file) =
            rustix::fs::openat(mount, wire::FILE_NAME, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        else {
            return CANNOT_OPEN;
        };
        let len = (pages * wire::PAGE) as usize;
        // SAFETY: a new mapping at an address the kernel chooses; this process never reads it.
        let mapped = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file.as_fd(), 0)
        };
        let Ok(start) = mapped else { return CANNOT_MAP };
        // SAFETY: advice on the mapping just made; no read-ahead, so a read is about one page.
        if unsafe { rustix::mm::madvise(start, len, Advice::Random) }.is_err() {
            return CANNOT_MAP;
        }
        drop(file);
        let _ = rustix::io::write(address, &(start as u64).to_ne_bytes());
        // Wait for the owner to die. The mapping stays until this process ends.
        loop {
            let mut owner_died = [PollFd::new(&owner, PollFlags::IN)];
            match poll(&mut owner_died, None) {
                Err(rustix::io::Errno::INTR) => {}
                _ => return 0,
            }
        }
    };
    // SAFETY: `body` makes system calls only.
    unsafe { Child::fork(c"fault-park", &[mount, owner, address], body) }
}
