//! The control block: one entry of one mmapped array map, written by the controller, read by every program.

use crate::limits::{BANKS, HEARTBEAT_TIMEOUT_NS, MAX_CGROUPS};
use crate::rule::file::OPS;
use crate::shared::{SharedU32, SharedU64};

/// Interfaces of asynchronous I/O whose depth is kept by programs of their own: bits of [`Control::asked`] and
/// [`Control::served`].
pub mod asynchronous {
    /// libaio.
    pub const LIBAIO: u64 = 1;
    /// `io_uring`.
    pub const URING: u64 = 2;
    /// Both.
    pub const ALL: u64 = LIBAIO | URING;
}

/// Masks of slots that spare the programs a walk through all rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bank {
    /// Slots of net rules that look at packets.
    pub net: u64,
    /// Slots of net rules that look at what the target sends.
    pub net_out: u64,
    /// Slots of net rules that look at what the target receives.
    pub net_in: u64,
    /// Slots of net rules that look at packets, are of [`Bank::plain`], and ask for nothing but direction, protocol and ports.
    pub net_simple: u64,
    /// Slots of net rules without `to`: every peer passes.
    pub net_any_peer: u64,
    /// Slots of net rules without `iface`: every interface passes.
    pub net_any_iface: u64,
    /// Slots of net rules that need the exact time: those with a link (`rate`).
    pub net_timed: u64,
    /// Slots of net rules that look at calls, and not at packets.
    pub net_calls: u64,
    /// Slots of exceptions: alone they are no reason to decide anything.
    pub net_spare: u64,
    /// Slots of net rules that look at the packets of the wire: a super-packet is cut before they decide.
    pub net_cut: u64,
    /// Slots of net rules that need the checksum in the packet, as it would be on the wire.
    pub net_checksum: u64,
    /// Slots of net rules that ask what kind of segment it is, or where in its connection.
    pub net_segment: u64,
    /// Slots of net rules that ask where in its connection a packet is.
    pub net_position: u64,
    /// Slots of net rules that look at some connections only.
    pub net_connections: u64,
    /// Slots of net rules that mark packets: they ask whether that can be done.
    pub net_mark: u64,
    /// Slots of net rules that need any of that: time, cutter, checksum, segment, position, connections, mark. Most need nothing.
    pub net_demanding: u64,
    /// Slots of rules of which [`crate::decide::plain::lets_go`] may be asked.
    pub plain: u64,
    /// Slots of disk rules.
    pub disk: u64,
    /// Slots of disk rules that ask which sectors were written.
    pub disk_until_written: u64,
    /// Slots of disk rules with patterns.
    pub disk_globbed: u64,
    /// Slots of disk rules that ask where a bio goes: to which device, or to which of its sectors.
    pub disk_located: u64,
    /// Slots of disk rules that need the exact time to decide: those with a link (`rate`, `iops`).
    pub disk_timed: u64,
    /// Slots of file rules, by the number of the bit of [`crate::rule::file::op`].
    pub file: [u64; OPS],
    /// Slots of file rules with patterns.
    pub file_globbed: u64,
    /// Number of patterns, of disk rules and of file rules.
    pub globs: u64,
}

/// A cgroup the session aims at, with everything below it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupTarget {
    /// cgroup id: the inode number of its directory (`kernfs_node.id`). 0 is an empty entry.
    pub id: u64,
    /// Depth below the root of the v2 hierarchy (the root is 0): `bpf_get_current_ancestor_cgroup_id(level)`.
    pub level: u32,
    /// Explicit padding.
    pub _pad: u32,
}

/// State of the whole session.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Control {
    /// 0: every program passes everything. The last store of arming, the first of healing.
    pub active: SharedU32,
    /// Number of rule sets seen so far; `generation % 2` is the bank in force.
    pub generation: SharedU32,
    /// Last sign of life of the controller, `CLOCK_MONOTONIC` nanoseconds (`bpf_ktime_get_ns`).
    pub heartbeat_ns: SharedU64,
    /// Nothing is injected from this moment on; `u64::MAX` is never.
    pub deadline_ns: SharedU64,
    /// When the session became active: `after` and `for` count from here.
    pub started_ns: SharedU64,
    /// `--seed`.
    pub seed: SharedU64,
    /// Streams (sockets, threads) numbered so far.
    pub streams: SharedU64,
    /// Connections numbered so far.
    pub connections: SharedU64,
    /// Until this moment injections are told, `CLOCK_MONOTONIC` nanoseconds; `u64::MAX` is always (`--events`). Whoever only
    /// looks on moves it as long as they look, so that nobody has to notice that they have gone.
    pub events_until_ns: SharedU64,
    /// The controller: never a target.
    pub controller_tgid: SharedU32,
    /// Process whose reads are counted as [`crate::counters::Counter::SelfTest`] even while inactive; 0 is none.
    pub selftest_tgid: SharedU32,
    /// 1: bios are looked at whoever submits them. 0: those of no process of `TASK_BITS` concern nobody.
    pub everybodys_bios: SharedU32,
    /// PID of the parking helper; 0 is none.
    pub helper_pid: SharedU32,
    /// Address of the parking lot in the helper.
    pub helper_base: SharedU64,
    /// The process that answers parked tasks: never a target.
    pub answerer_tgid: SharedU32,
    /// 1: libaio submissions are let through and their reapers made to wait.
    pub reap: SharedU32,
    /// Number of [`Control::cgroups`] in use.
    pub cgroup_count: SharedU32,
    /// `--only`: children of the target's processes are not its descendants.
    pub only: SharedU32,
    /// Number of names aimed at: `NAMES`.
    pub names: SharedU32,
    /// 1: the whole machine suffers, but for what keeps it reachable: neighbour discovery is let through.
    pub guarded: SharedU32,
    /// Timer tick (`bpf_jiffies64`) at which a program last read the clock. Belongs to the programs.
    pub tick: SharedU64,
    /// What the clock said then: `CLOCK_MONOTONIC` nanoseconds. Belongs to the programs.
    pub tick_ns: SharedU64,
    /// Mask of the slots in force, whatever the rule set holds: a scenario goes from phase to phase by one store here, and
    /// what goes on keeps its counts, its budget and its sequences. All ones where there are no phases.
    pub in_force: SharedU64,
    /// Mask of [`asynchronous`]: what the target was seen to use. Set by the programs, which then ring `BELL`.
    pub asked: SharedU64,
    /// Mask of [`asynchronous`]: whose programs are attached, or found not to be possible. Set by the controller.
    pub served: SharedU64,
    /// Masks of the two rule sets.
    pub banks: [Bank; BANKS],
    /// The cgroups aimed at. One that was restarted gets a new entry while `active` is 1.
    pub cgroups: [CgroupTarget; MAX_CGROUPS],
}

impl Control {
    /// Whether anything may be injected now.
    #[must_use]
    #[inline(always)]
    pub fn is_live(&self, now_ns: u64) -> bool {
        self.active.load() != 0
            && now_ns < self.deadline_ns.load()
            // Signed: a beat on another CPU may be newer than our `now`.
            && (now_ns.wrapping_sub(self.heartbeat_ns.load()) as i64) < HEARTBEAT_TIMEOUT_NS as i64
    }

    /// Whether an injection now is told to userspace.
    #[must_use]
    #[inline(always)]
    pub fn tells(&self, now_ns: u64) -> bool {
        now_ns < self.events_until_ns.load()
    }

    /// Whether somebody wants every injection, and is to hear of those that could not be told.
    #[must_use]
    #[inline(always)]
    pub fn tells_all(&self) -> bool {
        self.events_until_ns.load() == u64::MAX
    }

    /// Nanoseconds since the session became active; 0 for a `now` read just before that on another CPU.
    #[must_use]
    #[inline(always)]
    pub fn elapsed_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.started_ns.load())
    }

    /// Index of the bank in force, 0 or 1.
    #[must_use]
    #[inline(always)]
    pub fn bank(&self) -> u32 {
        self.generation.load() & 1
    }
}

const _: () = assert!(size_of::<Control>().is_multiple_of(8));
