//! Which block I/O a rule looks at.

/// Sectors remembered together: the bits of one entry of the kernel map `WRITTEN`.
const WORD: u64 = 64;

/// Key of `WRITTEN`, whose values are 64 bits: which of these sectors were written since the rule came into force.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WrittenKey {
    /// Index of the rule in `RULES`.
    pub place: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// First of the sectors, as [`BlockFilter`] counts them, divided by 64.
    pub word: u64,
}

/// Sectors that a bio and the range of a rule have in common: at least one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first.
    pub start: u64,
    /// The one after the last.
    pub end: u64,
}

impl Extent {
    /// How many entries of `WRITTEN` it lies in.
    #[must_use]
    #[inline(always)]
    pub const fn words(&self) -> u64 {
        (self.end - 1) / WORD - self.start / WORD + 1
    }

    /// The entry with this index among them, below [`Extent::words`]: its [`WrittenKey::word`], and the bits of the
    /// sectors that lie in it.
    #[must_use]
    #[inline(always)]
    pub const fn word(&self, index: u64) -> (u64, u64) {
        let word = self.start / WORD + index;
        let first = word * WORD;
        let low = self.start.saturating_sub(first);
        let high = if self.end - first < WORD { self.end - first } else { WORD };
        // Shifts by less than 64, whatever the index.
        let below = u64::MAX >> ((WORD - high) & (WORD - 1));
        (word, below & (u64::MAX << (low & (WORD - 1))))
    }
}

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
    /// 1: only bios that touch a sector of the range that nobody has written since the rule came into force. Whether that
    /// is so is no part of [`BlockFilter::matches`].
    pub until_written: u32,
    /// Explicit padding.
    pub _pad: u32,
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
        if !self.takes(bio.ops) {
            return false;
        }
        if self.sector_end != 0 { self.extent(bio).is_some() } else { self.is_device_of(bio) }
    }

    /// Whether the filter takes a bio that does this: mask of [`op`] and [`manner`] bits. All of [`BlockFilter::matches`] for a
    /// filter without device and range.
    #[must_use]
    #[inline(always)]
    pub const fn takes(&self, ops: u32) -> bool {
        (self.ops == 0 || self.ops & ops != 0) && self.manners & ops == self.manners
    }

    /// Whether the bio goes to the device, or to one of its partitions.
    #[inline(always)]
    const fn is_device_of(&self, bio: &BioFacts) -> bool {
        self.device == 0 || self.device == if self.whole_disk != 0 { bio.disk } else { bio.device }
    }

    /// The sectors of the bio that lie in the range, counted from the start of the device that the filter names. Nothing
    /// for a bio without sectors (an empty flush), of another device, or for a filter without a range.
    #[must_use]
    #[inline(always)]
    pub const fn extent(&self, bio: &BioFacts) -> Option<Extent> {
        if !self.is_device_of(bio) {
            return None;
        }
        let on_disk = self.device != 0 && self.whole_disk != 0;
        let first = if on_disk { bio.sector.saturating_add(bio.device_start) } else { bio.sector };
        let after = first.saturating_add(bio.sectors as u64);
        let start = if first > self.sector_start { first } else { self.sector_start };
        let end = if after < self.sector_end { after } else { self.sector_end };
        if bio.sectors == 0 || start >= end { None } else { Some(Extent { start, end }) }
    }
}

const _: () = assert!(size_of::<BlockFilter>() == 40);
const _: () = assert!(size_of::<WrittenKey>() == 16);
const _: () = assert!(size_of::<BioFacts>() == 32);
