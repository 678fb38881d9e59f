//! The few words of the FUSE protocol that a parking lot needs.
//!
//! A library is not used here on purpose: the answering side may neither allocate nor lock once
//! tasks are parked on it, must know the request's number to answer it much later, and serves one
//! file with one operation. Source of the layouts: `include/uapi/linux/fuse.h`, protocol 7.31
//! (Linux 5.2); every newer kernel speaks it.

use bytemuck::{Pod, Zeroable};
use std::ffi::CStr;

/// Protocol version we answer with; the kernel steps down to it.
pub(super) const MAJOR: u32 = 7;
pub(super) const MINOR: u32 = 31;
/// Smallest buffer the kernel accepts for reads of `/dev/fuse` (`FUSE_MIN_READ_BUFFER`).
pub(super) const READ_BUFFER: usize = 8192;
/// Size of a page of the parking file, which is the unit the deadline table is indexed by.
pub(super) const PAGE: u64 = 4096;
/// Name of the only file.
pub(super) const FILE_NAME: &CStr = c"park";

const ROOT_NODE: u64 = 1;
const FILE_NODE: u64 = 2;
/// Seconds for which the kernel may believe what we said about names and attributes: for ever.
const VALID: u64 = u32::MAX as u64;

pub(super) mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const RELEASE: u32 = 18;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct InHeader {
    pub len: u32,
    pub opcode: u32,
    pub unique: u64,
    pub nodeid: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct OutHeader {
    pub len: u32,
    pub error: i32,
    pub unique: u64,
}

/// The head of `fuse_read_in`; what follows (flags, lock owner) does not concern us.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct ReadIn {
    pub fh: u64,
    pub offset: u64,
    pub size: u32,
    pub read_flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct InterruptIn {
    /// Number of the request whose task got a signal.
    pub unique: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InitOut {
    major: u32,
    minor: u32,
    max_readahead: u32,
    flags: u32,
    max_background: u16,
    congestion_threshold: u16,
    max_write: u32,
    time_gran: u32,
    max_pages: u16,
    map_alignment: u16,
    unused: [u32; 8],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Attr {
    ino: u64,
    size: u64,
    blocks: u64,
    times: [u64; 3],
    times_nsec: [u32; 3],
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    rdev: u32,
    blksize: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct EntryOut {
    nodeid: u64,
    generation: u64,
    entry_valid: u64,
    attr_valid: u64,
    entry_valid_nsec: u32,
    attr_valid_nsec: u32,
    attr: Attr,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AttrOut {
    attr_valid: u64,
    attr_valid_nsec: u32,
    dummy: u32,
    attr: Attr,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct OpenOut {
    fh: u64,
    open_flags: u32,
    padding: u32,
}

const _: () = assert!(size_of::<InHeader>() == 40);
const _: () = assert!(size_of::<OutHeader>() == 16);
const _: () = assert!(size_of::<InitOut>() == 64);
const _: () = assert!(size_of::<Attr>() == 88);
const _: () = assert!(size_of::<EntryOut>() == 128);
const _: () = assert!(size_of::<AttrOut>() == 104);
const _: () = assert!(size_of::<OpenOut>() == 16);

/// One answer, built in place: no allocation.
pub(super) struct Answer {
    bytes: [u8; size_of::<OutHeader>() + size_of::<EntryOut>()],
    len: usize,
}

impl Answer {
    fn new(unique: u64, error: i32, body: &[u8]) -> Self {
        let mut bytes = [0; size_of::<OutHeader>() + size_of::<EntryOut>()];
        let len = size_of::<OutHeader>() + body.len();
        let header = OutHeader { len: len as u32, error: -error, unique };
        bytes[..size_of::<OutHeader>()].copy_from_slice(bytemuck::bytes_of(&header));
        bytes[size_of::<OutHeader>()..len].copy_from_slice(body);
        Self { bytes, len }
    }

    /// An answer that carries only an errno (positive; 0 for success).
    pub(super) fn error(unique: u64, errno: i32) -> Self {
        Self::new(unique, errno, &[])
    }

    /// The handshake: no read-ahead (a read must be about exactly one page), nothing optional.
    pub(super) fn init(unique: u64) -> Self {
        let body = InitOut {
            major: MAJOR,
            minor: MINOR,
            max_readahead: 0,
            flags: 0,
            max_background: 16,
            congestion_threshold: 12,
            max_write: PAGE as u32,
            time_gran: 1,
            max_pages: 0,
            map_alignment: 0,
            unused: [0; 8],
        };
        Self::new(unique, 0, bytemuck::bytes_of(&body))
    }

    /// The parking file, found by name in the root directory.
    pub(super) fn entry(unique: u64, pages: u64) -> Self {
        let body = EntryOut {
            nodeid: FILE_NODE,
            generation: 1,
            entry_valid: VALID,
            attr_valid: VALID,
            entry_valid_nsec: 0,
            attr_valid_nsec: 0,
            attr: attributes(FILE_NODE, pages),
        };
        Self::new(unique, 0, bytemuck::bytes_of(&body))
    }

    /// Attributes of the root directory or of the parking file.
    pub(super) fn attributes(unique: u64, node: u64, pages: u64) -> Self {
        let body = AttrOut { attr_valid: VALID, attr_valid_nsec: 0, dummy: 0, attr: attributes(node, pages) };
        Self::new(unique, 0, bytemuck::bytes_of(&body))
    }

    /// An open file. The kernel may use its page cache, which the mapping needs.
    pub(super) fn opened(unique: u64) -> Self {
        const FOPEN_KEEP_CACHE: u32 = 1 << 1;
        let body = OpenOut { fh: 1, open_flags: FOPEN_KEEP_CACHE, padding: 0 };
        Self::new(unique, 0, bytemuck::bytes_of(&body))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn attributes(node: u64, pages: u64) -> Attr {
    let (mode, size, nlink) = if node == ROOT_NODE {
        (libc::S_IFDIR | 0o500, 0, 2)
    } else {
        (libc::S_IFREG | 0o400, pages * PAGE, 1)
    };
    Attr {
        ino: node,
        size,
        blocks: 0,
        times: [0; 3],
        times_nsec: [0; 3],
        mode,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        padding: 0,
    }
}
