//! A slow link, or a slow disk: packets wait for those before them, each for as long as it takes to be sent.
//!
//! One number describes the link: when it is free again. A packet that comes before that waits until then, and then for
//! its own time; the queue is what lies between now and that moment. netem computes its `rate` in the same way
//! (`packet_time_ns`, net/sched/sch_netem.c).
//!
//! A disk loses nothing: whoever comes waits, however long the queue, and who submits at most so many operations at a time
//! is held back by that. It also differs in that an operation goes on to the real disk when it has waited, and its task
//! comes back later than that by what the disk takes, and by what the machine takes to wake it. Were the link idle
//! meanwhile, it would be slower than asked; so what was missed can be [caught up](CATCH_UP_NS) with.

use crate::{limits::MAX_PARK_NS, shared::SharedU64};

/// [`Rate::flags`]: each socket (and direction) has a link of its own.
pub const PER_CONNECTION: u32 = 1;

/// [`Rate::flags`]: the link carries [`Rate::bytes_per_second`] operations, however large, and not bytes. Of disks.
pub const OPERATIONS: u32 = 2;

/// How much of the time that a disk's link was idle can be made up for: 20 ms, more than a disk takes for one operation.
/// After a rest, so much is served at once.
pub const CATCH_UP_NS: u64 = 20_000_000;

/// The queue holds at least this much time: 1 s. Longer waits look like an outage to TCP.
const QUEUE_NS: u64 = 1_000_000_000;
/// And at least this many bytes, 64 full Ethernet frames, or a slow link could not hold one TCP window.
const QUEUE_BYTES: u64 = 64 * 1514;

const NS_PER_S: u64 = 1_000_000_000;

/// How fast.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// More than 0, at most 2^40 (8.8 Tbit/s).
    pub bytes_per_second: u64,
    /// [`PER_CONNECTION`], [`OPERATIONS`] or 0.
    pub flags: u32,
    /// What the link adds to each packet (or takes off, when it is less than 0), in bytes.
    pub overhead: i32,
    /// Payload of a cell, in bytes, where packets travel in cells, and the last one is filled up (ATM); 0 is no cells.
    pub cell: u32,
    /// What the link adds to each cell (or takes off), in bytes; more than minus [`Rate::cell`].
    pub cell_overhead: i32,
}

impl Rate {
    /// How long a packet of `bytes` (less than 2^32) occupies the link, in nanoseconds, rounded up.
    #[must_use]
    #[inline(always)]
    pub const fn transmission_ns(&self, bytes: u64) -> u64 {
        self.takes_ns(self.on_link(bytes))
    }

    /// How long an operation occupies the link of a disk, in nanoseconds, rounded up.
    #[must_use]
    #[inline(always)]
    pub const fn service_ns(&self, bytes: u64) -> u64 {
        self.takes_ns(if self.flags & OPERATIONS != 0 { 1 } else { bytes })
    }

    /// How long so many bytes (or operations, less than 2^32) take, in nanoseconds, rounded up.
    #[inline(always)]
    const fn takes_ns(&self, amount: u64) -> u64 {
        let rate = if self.bytes_per_second == 0 { 1 } else { self.bytes_per_second };
        // As `div_ceil`, which asks for the remainder; the sum fits with any rate that the compiler of specs lets through.
        ((amount & 0xffff_ffff) * NS_PER_S).wrapping_add(rate - 1) / rate
    }

    /// What a packet of `bytes` (less than 2^32) is on the link: netem's arithmetic (`packet_time_ns`,
    /// net/sched/sch_netem.c).
    #[inline(always)]
    const fn on_link(&self, bytes: u64) -> u64 {
        let bytes = (bytes & 0xffff_ffff) as i64 + self.overhead as i64;
        let bytes = if bytes < 0 { 0 } else { bytes as u64 };
        let cell = self.cell as u64;
        if cell == 0 {
            return bytes;
        }
        // Wrapping: the compiler of specs keeps all of them small, and the kernel has no 128-bit product.
        let whole = (cell as i64 + self.cell_overhead as i64) as u64;
        bytes.div_ceil(cell).wrapping_mul(whole)
    }

    /// How long a packet may have to wait for the link, in nanoseconds: whoever would wait longer is lost.
    #[must_use]
    #[inline(always)]
    pub const fn queue_ns(&self) -> u64 {
        let bytes = self.takes_ns(QUEUE_BYTES);
        if bytes > QUEUE_NS { bytes } else { QUEUE_NS }
    }

    /// Sends a packet that occupies the link for `own_ns` over one that others use at the same time: how late it arrives, in
    /// nanoseconds, or `None` when the queue is full. `free_ns` is when the link is free, on the clock of `now_ns`.
    #[inline(always)]
    pub fn send(&self, free_ns: &SharedU64, now_ns: u64, own_ns: u64) -> Option<u64> {
        let free = free_ns.load();
        if free > now_ns.saturating_add(self.queue_ns()) {
            return None;
        }
        if free <= now_ns && free_ns.compare_exchange(free, now_ns.wrapping_add(own_ns)) == free {
            return Some(own_ns);
        }
        // Busy, or somebody was quicker: behind those.
        let done = free_ns.fetch_add(own_ns).wrapping_add(own_ns);
        Some(done.saturating_sub(now_ns))
    }

    /// Sends an operation that occupies the link of a disk for `own_ns`: how long it waits, in nanoseconds. More than
    /// [`MAX_PARK_NS`] is more than anybody can wait; if the link is as far behind as that already, the operation does not put it
    /// further behind.
    #[inline(always)]
    pub fn hold(&self, free_ns: &SharedU64, now_ns: u64, own_ns: u64) -> u64 {
        let free = free_ns.load();
        if free > now_ns.saturating_add(MAX_PARK_NS) {
            return free - now_ns;
        }
        let idle_since = now_ns.saturating_sub(CATCH_UP_NS);
        let done =
            if free < idle_since && free_ns.compare_exchange(free, idle_since.wrapping_add(own_ns)) == free {
                idle_since.wrapping_add(own_ns)
            } else {
                free_ns.fetch_add(own_ns).wrapping_add(own_ns)
            };
        done.saturating_sub(now_ns)
    }

    /// As [`Rate::send`], over a link of one stream.
    #[inline(always)]
    pub const fn send_alone(&self, free_ns: &mut u64, now_ns: u64, own_ns: u64) -> Option<u64> {
        if *free_ns > now_ns.saturating_add(self.queue_ns()) {
            return None;
        }
        let start = if *free_ns > now_ns { *free_ns } else { now_ns };
        *free_ns = start.wrapping_add(own_ns);
        Some(free_ns.wrapping_sub(now_ns))
    }
}

const _: () = assert!(size_of::<Rate>() == 24);
