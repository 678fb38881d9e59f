//! The two `bpf(2)` commands of this room, by file descriptor: aya attaches only programs it loaded itself.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_LINK_CREATE: libc::c_long = 28;

/// Put in front of the programs that are there already; without a relative program: of all.
pub(super) const BPF_F_BEFORE: u32 = 1 << 3;
/// Attach point of `tcx` on the way in (Linux 6.6).
pub(super) const BPF_TCX_INGRESS: u32 = 46;
/// Attach point of `tcx` on the way out (Linux 6.6).
pub(super) const BPF_TCX_EGRESS: u32 = 47;
/// Only create, never replace.
pub(super) const BPF_NOEXIST: u64 = 1;

/// `union bpf_attr` for `BPF_LINK_CREATE` with `tcx`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    _pad: u32,
    expected_revision: u64,
}

/// `union bpf_attr` for `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct MapUpdate {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Attaches `program` to an interface of the *calling thread's* namespace.
pub(super) fn link_tcx(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: program.as_raw_fd() as u32,
        ifindex,
        attach_type,
        flags,
        relative: 0,
        _pad: 0,
        expected_revision: 0,
    };
    let fd = bpf(BPF_LINK_CREATE, &attributes)?;
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Stores `value` under `key`.
pub(super) fn update<K: Copy, V: Copy>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
    flags: u64,
) -> io::Result<()> {
    let attributes = MapUpdate {
        map: map.as_raw_fd() as u32,
        _pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &attributes).map(|_| ())
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are a valid, fully initialised prefix of `union bpf_attr` for this command; what
    // they point to lives as long as the call, and the map's key and value sizes are the caller's contract.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
