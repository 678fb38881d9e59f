//! What is remembered about a target's socket and a target's task.

use crate::{
    decide::{Walk, past::Past},
    glob::States,
    limits::{MAX_PATH_BYTES, MAX_RULES},
    rule::{block::BioFacts, file::FileFacts},
    shared::SharedU64,
};

/// Of one stream (a socket or a thread): where it stands in the random sequence of each rule.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Number of the stream, from 1, in order of first appearance in the session (of a thread's block I/O: of the first
    /// that a rule may be interested in); 0 is not numbered yet.
    pub number: u64,
    /// Rule set [`Stream::ordinals`] belong to.
    pub generation: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// Matches so far, per slot.
    pub ordinals: [u32; MAX_RULES],
    /// What rules remember from one match to the next, per slot. A rule has one memory, so the compiler of
    /// specs refuses a per-connection rate with a trigger that remembers.
    pub memory: [Past; MAX_RULES],
}

impl Stream {
    /// A stream without a past.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self { number, generation: 0, _pad: 0, ordinals: [0; MAX_RULES], memory: [Past(0); MAX_RULES] }
    }

    /// What the rule in `slot` remembers.
    #[inline(always)]
    pub fn memory(&mut self, slot: u32) -> &mut Past {
        &mut self.memory[slot as usize & (MAX_RULES - 1)]
    }

    /// How many operations matched the rule in `slot` before this one; counts this one. Starts again after
    /// 2^32 operations.
    #[inline(always)]
    pub fn next(&mut self, slot: u32) -> u64 {
        let ordinal = &mut self.ordinals[slot as usize & (MAX_RULES - 1)];
        let before = *ordinal;
        *ordinal = before.wrapping_add(1);
        before as u64
    }
}

/// Of one connection, both directions: which one it is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Number of the connection, from 1, in order of first appearance in the session; 0 is not numbered yet.
    pub number: u64,
    /// Rule set [`Connection::places`] belong to.
    pub generation: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// Which of the connections that the rule in this slot met it is, from 1; 0 is not met yet.
    pub places: [u32; MAX_RULES],
}

impl Connection {
    /// A connection without a past.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self { number, generation: 0, _pad: 0, places: [0; MAX_RULES] }
    }

    /// Its place among those of the rule in `slot`.
    #[inline(always)]
    pub fn place(&mut self, slot: u32) -> &mut u32 {
        &mut self.places[slot as usize & (MAX_RULES - 1)]
    }
}

/// Value of the socket storage `SOCKETS`. A socket with an entry belongs to the target.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SocketState {
    /// 1: belongs to the target.
    pub member: u32,
    /// Process that made the socket, or held it when the session was armed.
    pub tgid: u32,
    /// cgroup v2 id of that process then; 0 when unknown.
    pub cgroup: u64,
    /// 1: a listener that decisions were made for. Accepted sockets start as a copy of their listener; this
    /// tells them to take sequences of their own.
    pub listening: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// `SO_COOKIE` of the socket this was written for; 0 when unknown. An accepted socket has the listener's.
    pub cookie: u64,
    /// Latest departure asked for, per direction (out, in), for `ordered`; `CLOCK_MONOTONIC` nanoseconds.
    pub departure_ns: [u64; 2],
    /// Decisions about packets out of and into this socket are separate sequences: acknowledgements coming
    /// in must not shift the fate of what goes out.
    pub streams: [Stream; 2],
    /// Which connection it is.
    pub connection: Connection,
}

/// A bio of this task waits to be parked.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PendingPark {
    /// When the task may go on, `CLOCK_MONOTONIC` nanoseconds; 0 is nothing to do.
    pub deadline_ns: u64,
    /// 1: fail the bio afterwards.
    pub then_error: u32,
    /// Explicit padding.
    pub _pad: u32,
}

/// A place of the parking lot, shared by the parked task's program and the process that answers it.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ParkingPlace {
    /// When to answer, `CLOCK_MONOTONIC` nanoseconds; 0 is at once.
    pub deadline_ns: SharedU64,
    /// When the task that parked here last ran again, `CLOCK_MONOTONIC` nanoseconds.
    pub woke_ns: SharedU64,
}

/// Value of the task storage `TASK_STATES`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TaskState {
    /// What the decider left for the parkers.
    pub pending: PendingPark,
    /// `task->plug` of the operation this task was last delayed in: its bios share one deadline.
    pub plug: u64,
    /// A number that moves when the task does something else in between.
    pub activity: u64,
    /// When that operation began, `CLOCK_MONOTONIC` nanoseconds.
    pub began_ns: u64,
    /// Entries this thread put into its [`AioQueue`] in the `io_submit` that runs.
    pub aio_pushed: u64,
    /// `bio->bi_private` of the last of them: the bios of one operation are one entry.
    pub aio_operation: u64,
    /// Until when this thread should have waited for what it reaped, and could not: it submits nothing before. `CLOCK_MONOTONIC`
    /// nanoseconds; 0 is nothing owed.
    pub aio_owed_ns: u64,
    /// 1: the end of the `io_submit` that runs may pass no program, since it began before the programs of libaio were
    /// attached. What it submits is not queued.
    pub aio_unseen: u64,
    /// Where the thread stands in the random sequences.
    pub stream: Stream,
    /// The decision that is being made. Here and not on the stack, which the way through all rules would overflow; of the
    /// task and not of the CPU, for another task may preempt it in the middle.
    pub walk: Walk<BioFacts>,
}

/// Bytes of a name with the zero behind it (`NAME_MAX`, include/uapi/linux/limits.h).
pub const NAME_ROOM: usize = 256;

/// Value of the task storage `FILE_STATES`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FileState {
    /// Where the thread stands in the random sequences.
    pub stream: Stream,
    /// The decision that is being made; as in [`TaskState`].
    pub walk: Walk<FileFacts>,
    /// The directory entry that an open(2) was about to make when it was decided about.
    pub created: u64,
    /// Hash and length of its name: entries are freed, and their places used again.
    pub created_name: u64,
    /// What was decided: the error number, or 0.
    pub created_errno: u32,
    /// Generation of the rule set that decided.
    pub created_generation: u32,
    /// The directory entry whose name comes next, on the way to the root; 0 when there is none.
    pub entry: u64,
    /// Bytes of [`FileState::path`]; more than [`MAX_PATH_BYTES`] is a path that is too long.
    pub length: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// When the system call that was decided about may begin, `CLOCK_MONOTONIC` nanoseconds; 0 is nothing to wait for.
    pub deadline_ns: u64,
    /// Of the pattern that is being matched.
    pub states: States,
    /// The path within its file system, the last component first, each followed by a slash.
    pub path: [u8; MAX_PATH_BYTES + NAME_ROOM],
}

/// Key of `AIO_QUEUES`: contexts are numbers within a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AioKey {
    /// `aio_context_t`.
    pub context: u64,
    /// Process.
    pub tgid: u64,
}

/// Operations of one libaio context that an [`AioQueue`] has room for; a power of two.
pub const AIO_DEPTH: usize = 512;

/// Value of `AIO_QUEUES`: when the operations of a libaio context may come back, in order of submission.
#[repr(C)]
#[derive(Debug)]
pub struct AioQueue {
    /// Operations that came back.
    pub head: SharedU64,
    /// Operations submitted; `tail - head` are under way.
    pub tail: SharedU64,
    /// Operations that were submitted before there was a queue and come back next, as far as is known.
    pub older: SharedU64,
    /// By number of the operation modulo [`AIO_DEPTH`]; `CLOCK_MONOTONIC` nanoseconds, 0 is at once.
    pub deadlines_ns: [SharedU64; AIO_DEPTH],
}

/// Key of the LPM trie `PEERS`: IPv6, or IPv4 mapped into `::ffff:0:0/96`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub [u8; 16]);

/// Value of `PEERS`: slots whose `to` covers this address, per bank.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerRules(pub [u64; crate::limits::BANKS]);

/// Value of `INTERFACES`, keyed by [`interface_key`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Slot in the [`crate::tag`].
    pub slot: u32,
    /// 1: loopback; its way in must be left by its way out, see the lane.
    pub loopback: u32,
    /// 1: its packets can be delayed. 0: no rule needs a lane, or they have no Ethernet header to take it with.
    pub has_lane: u32,
    /// 1: its super-packets can be cut.
    pub has_cutter: u32,
    /// Slots whose `iface` names this interface, per bank.
    pub rules: [u64; crate::limits::BANKS],
}

/// Key of `INTERFACES`: interface indices are only unique within a network namespace.
#[must_use]
#[inline(always)]
pub const fn interface_key(netns: u32, ifindex: u32) -> u64 {
    (netns as u64) << 32 | ifindex as u64
}

/// Key of `LANE_EXITS`: which interface a [`crate::tag::Tag::slot`] stands for.
#[must_use]
#[inline(always)]
pub const fn exit_key(netns: u32, slot: u32) -> u32 {
    netns * crate::limits::MAX_INTERFACES_PER_NETNS + slot
}

/// Value of `LANE_EXITS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneExit {
    /// Where the packet goes back to.
    pub ifindex: u32,
    /// 1: loopback.
    pub loopback: u32,
}

/// Key of `ECHOES`: an ICMP echo request of the target, so that its reply can be told from others'.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoKey {
    /// Who was asked (IPv4 mapped).
    pub peer: [u8; 16],
    /// Identifier, network byte order.
    pub identifier: u16,
    /// Explicit padding.
    pub _pad: u16,
    /// Namespace number of the session.
    pub netns: u32,
}

/// Value of `ECHOES`: what a [`SocketState`] is to other packets, for the replies to one identifier.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EchoState {
    /// Process that asked.
    pub tgid: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// Its cgroup v2 id; 0 when unknown.
    pub cgroup: u64,
    /// Latest departure asked for; `CLOCK_MONOTONIC` nanoseconds.
    pub departure_ns: u64,
    /// Decisions about the replies.
    pub stream: Stream,
    /// Which conversation it is.
    pub connection: Connection,
}

/// Index into and bit of `LOCAL_PORTS` (one bit for each TCP and UDP port a target socket is bound to).
#[must_use]
#[inline(always)]
pub const fn port_bit(is_udp: bool, port: u16) -> (u32, u64) {
    let bit = (is_udp as u32) << 16 | port as u32;
    (bit >> 6, 1 << (bit & 63))
}

/// Index into and bit of `TASK_BITS`: set while the process is in `TASKS`.
#[must_use]
#[inline(always)]
pub const fn task_bit(tgid: u32) -> (u32, u64) {
    (tgid >> 6 & (TASK_WORDS - 1), 1 << (tgid & 63))
}

/// Key of `NAMES`: the name of a process as the kernel keeps it, filled up with zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name(pub [u8; crate::limits::NAME_BYTES]);

/// Value of `TASKS`: a process named by its number, or a descendant.
pub const JOINED_BY_NUMBER: u32 = 1;
/// Value of `TASKS`: a process that bears a name aimed at.
pub const JOINED_BY_NAME: u32 = 2;

/// Words of `TASK_BITS`: a bit for each number a process can have (`PID_MAX_LIMIT`, include/linux/threads.h, of a 64-bit kernel).
pub const TASK_WORDS: u32 = (1 << 22) / 64;

/// Words of `LOCAL_PORTS`.
pub const PORT_WORDS: u32 = 2 * 65536 / 64;

const _: () = assert!(size_of::<Stream>() == 16 + (4 + 8) * MAX_RULES);
const _: () =
    assert!(size_of::<SocketState>() == 4 * 8 + 2 * 8 + 2 * size_of::<Stream>() + size_of::<Connection>());
const _: () = assert!(size_of::<Connection>() == 16 + 4 * MAX_RULES);
const _: () = assert!(size_of::<PendingPark>() == 16);
const _: () =
    assert!(size_of::<TaskState>() == 16 + 7 * 8 + size_of::<Stream>() + size_of::<Walk<BioFacts>>());
const _: () = assert!(size_of::<PeerRules>() == 8 * crate::limits::BANKS);
const _: () = assert!(size_of::<Interface>() == 16 + 8 * crate::limits::BANKS);
const _: () = assert!(size_of::<EchoKey>() == 24);
