//! One injection, as it travels through the ring buffer `EVENTS`.

use crate::limits::EVENT_PATH_BYTES;

/// Size of `task->comm`.
pub const COMM_LEN: usize = 16;

/// What was done; [`Event::action`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Packet lost.
    Drop = 1,
    /// Packet, bio or operation on a file late.
    Delay = 2,
    /// Bio failed.
    Error = 3,
    /// Bio late, then failed.
    DelayThenError = 4,
    /// Packet doubled, and not late.
    Duplicate = 5,
    /// Call failed, or operation on a file.
    Fail = 6,
    /// Bits of the packet flipped, and it is not late.
    Corrupt = 7,
    /// Packet turned into the end of its connection.
    Reset = 8,
    /// Packet marked (congestion experienced), and not late.
    Mark = 9,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Drop,
        Self::Delay,
        Self::Error,
        Self::DelayThenError,
        Self::Duplicate,
        Self::Fail,
        Self::Corrupt,
        Self::Reset,
        Self::Mark,
    ];

    /// Its name in events.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Delay => "delay",
            Self::Error => "error",
            Self::DelayThenError => "delay_then_error",
            Self::Duplicate => "duplicate",
            Self::Fail => "fail",
            Self::Corrupt => "corrupt",
            Self::Reset => "reset",
            Self::Mark => "mark",
        }
    }
}

/// Of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketEvent {
    /// Target's address, IPv4 mapped.
    pub local: [u8; 16],
    /// Peer's address, IPv4 mapped.
    pub remote: [u8; 16],
    /// Host byte order.
    pub local_port: u16,
    /// Host byte order.
    pub remote_port: u16,
    /// A [`crate::rule::net::Direction`].
    pub direction: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// Interface the packet was seen on.
    pub ifindex: u32,
}

/// Of a bio.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BioEvent {
    /// First 512-byte sector, relative to the device.
    pub sector: u64,
    /// `dev_t`.
    pub device: u32,
    /// Mask of [`crate::rule::block::op`].
    pub ops: u32,
}

/// One injection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Mask of slots that hit.
    pub hits: u64,
    /// Delay asked for, nanoseconds.
    pub delay_ns: u64,
    /// cgroup v2 id of the task or socket, 0 when unknown.
    pub cgroup: u64,
    /// Rule set the slots belong to.
    pub generation: u32,
    /// A [`crate::rule::Layer`].
    pub layer: u32,
    /// An [`Action`].
    pub action: u32,
    /// Process, 0 when unknown.
    pub tgid: u32,
    /// Thread, 0 when unknown.
    pub pid: u32,
    /// Bytes of the packet or bio.
    pub bytes: u32,
    /// Name of the task, empty when unknown.
    pub comm: [u8; COMM_LEN],
    /// For packets.
    pub packet: PacketEvent,
    /// For bios.
    pub bio: BioEvent,
}

/// One injection into an operation on a file. A longer item of the ring than an [`Event`], so that those stay short.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileEvent {
    /// What all injections have in common. Its packet and its bio are empty.
    pub event: Event,
    /// Mask of [`crate::rule::file::op`].
    pub ops: u32,
    /// Error number; 0 of an operation that is late.
    pub errno: u32,
    /// `super_block.s_dev`; 0 when unknown.
    pub device: u32,
    /// Bytes of the path; more than [`EVENT_PATH_BYTES`]: the rest, its beginning, is missing.
    pub length: u32,
    /// The path within its file system, the last component first, each followed by a slash.
    pub path: [u8; EVENT_PATH_BYTES],
}

const _: () = assert!(size_of::<FileEvent>() == size_of::<Event>() + 16 + EVENT_PATH_BYTES);
const _: () = assert!(size_of::<Event>() == 8 * 4 + 4 * 6 + COMM_LEN + 48 + 16);
