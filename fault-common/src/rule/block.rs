//! Which block I/O a rule looks at.

/// What a bio does: bits of [`BlockFilter::ops`] and [`BioFacts::ops`].
pub mod op {
    /// `REQ_OP_READ`.
    pub const READ: u32 = 1;
    /// `REQ_OP_WRITE` and its relatives: `REQ_OP_WRITE_ZEROES`, after which the sectors read as zeroes, and
    /// `REQ_OP_ZONE_APPEND`.
    pub const WRITE: u32 = 2;
    /// `REQ_OP_FLUSH`, or any bio with `REQ_PREFLUSH`.
    pub const FLUSH: u32 = 4;
    /// Everything else (zone management).
    pub const OTHER: u32 = 8;
    /// `REQ_OP_DISCARD` and `REQ_OP_SECURE_ERASE`: the sectors are given up.
    pub const DISCARD: u32 = 16;
}

/// How it does it: bits of [`BlockFilter::manners`] and [`BioFacts::ops`], none of them one of [`op`].
pub mod manner {
    /// `REQ_FUA`: through the device's cache, durable when it is done.
    pub const FUA: u32 = 1 << 16;
    /// `REQ_META`: the file system's own data.
    pub const META: u32 = 1 << 17;
    /// `REQ_SYNC`: somebody waits for it.
    pub const SYNC: u32 = 1 << 18;
}

/// Which bios of the target a rule looks at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockFilter {
    /// Mask of [`op`] bits; 0 is every operation.
    pub ops: u32,
    /// The kernel's `dev_t` (major << 20 | minor); 0 is every device.
    pub device: u32,
    /// 1: `device` is a whole disk and its partitions count too; sectors are then sectors of the disk.
    pub whole_disk: u32,
    /// Mask of [`manner`] bits, all of which the bio must have; 0 is every bio.
    pub manners: u32,
    /// First 512-byte sector of the range.
    pub sector_start: u64,
    /// Sector after the last one of the range, more than `sector_start`; `u64::MAX` is a range without an
    /// end, 0 is no range at all, whatever `sector_start` says.
    pub sector_end: u64,
}

/// What a filter needs to know of a bio.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BioFacts {
    /// Mask of [`op`] and [`manner`] bits: a write with `REQ_PREFLUSH` is both a write and a flush.
    pub ops: u32,
    /// `dev_t` of the block device the bio names (a partition or a disk).
    pub device: u32,
    /// `dev_t` of the whole disk.
    pub disk: u32,
    /// Length in 512-byte sectors; 0 for an empty flush.
    pub sectors: u32,
    /// First sector, relative to `device`.
    pub sector: u64,
    /// First sector of `device` on `disk`.
    pub device_start: u64,
}

impl BlockFilter {
    /// Whether this bio passes the filter. A bio of which one sector lies in the range counts; one without
    /// sectors (an empty flush) lies in no range.
    #[must_use]
    #[inline(always)]
    pub const fn matches(&self, bio: &BioFacts) -> bool {
        if self.ops != 0 && self.ops & bio.ops == 0 || self.manners & bio.ops != self.manners {
            return false;
        }
        let mut start = bio.sector;
        if self.device != 0 {
            if self.whole_disk != 0 {
                if self.device != bio.disk {
                    return false;
                }
                start = start.saturating_add(bio.device_start);
            } else if self.device != bio.device {
                return false;
            }
        }
        if self.sector_end != 0 {
            let end = start.saturating_add(bio.sectors as u64);
            if bio.sectors == 0 || end <= self.sector_start || start >= self.sector_end {
                return false;
            }
        }
        true
    }
}

const _: () = assert!(size_of::<BlockFilter>() == 32);
const _: () = assert!(size_of::<BioFacts>() == 32);
