//! Which operations on files a rule looks at.

/// What is done to a file: bits of [`FileFilter::ops`] and of [`FileFacts::ops`].
pub mod op {
    /// An existing file or directory is opened, or a new file by open(2).
    pub const OPEN: u32 = 1;
    /// A regular file is read.
    pub const READ: u32 = 1 << 1;
    /// A regular file is written, or room for it is set aside.
    pub const WRITE: u32 = 1 << 2;
    /// A file comes into being: open(2) with `O_CREAT`, mknod(2).
    pub const CREATE: u32 = 1 << 3;
    /// A name is removed.
    pub const UNLINK: u32 = 1 << 4;
    /// A directory is removed.
    pub const RMDIR: u32 = 1 << 5;
    /// A directory is made.
    pub const MKDIR: u32 = 1 << 6;
    /// A symbolic link is made.
    pub const SYMLINK: u32 = 1 << 7;
    /// A second name is made.
    pub const LINK: u32 = 1 << 8;
    /// A name is changed.
    pub const RENAME: u32 = 1 << 9;
    /// The length of a file is set.
    pub const TRUNCATE: u32 = 1 << 10;
    /// A regular file is mapped.
    pub const MMAP: u32 = 1 << 11;
    /// fsync(2), fdatasync(2).
    pub const FSYNC: u32 = 1 << 12;
}

/// Number of [`op`] bits.
pub const OPS: usize = 13;

/// Which operations of the target a rule looks at.
///
/// Which files (`file GLOB`) is not here: patterns are matched once for all rules, see [`crate::glob`], and come out as a
/// mask of slots.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFilter {
    /// Mask of [`op`] bits; 0 is every operation.
    pub ops: u32,
    /// 1: only files that a pattern of this rule matches.
    pub globbed: u32,
}

/// What a filter needs to know of an operation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Mask of [`op`] bits: what makes a file by open(2) both creates and opens.
    pub ops: u32,
    /// Explicit padding.
    pub _pad: u32,
}

impl FileFilter {
    /// Whether this operation passes the filter, patterns apart.
    #[must_use]
    #[inline(always)]
    pub const fn matches(&self, file: &FileFacts) -> bool {
        self.ops == 0 || self.ops & file.ops != 0
    }
}

const _: () = assert!(size_of::<FileFilter>() == 8);
const _: () = assert!(size_of::<FileFacts>() == 8);
