//! Sizes both halves rely on.

/// Rules of one session: a rule is one bit of a 64-bit mask.
pub const MAX_RULES: usize = 64;
/// Bits of one packet that one `corrupt` may flip.
pub const MAX_CORRUPT_BITS: u32 = 32;
/// Rule sets kept side by side, so that a session changes from one to the other by one store.
pub const BANKS: usize = 2;
/// cgroups one session may aim at.
pub const MAX_CGROUPS: usize = 16;
/// Names one session may aim at.
pub const MAX_NAMES: usize = 16;
/// Bytes the kernel keeps of the name of a process (`TASK_COMM_LEN`), with the zero at the end.
pub const NAME_BYTES: usize = 16;
/// Sessions that may share one network namespace (each owns one bit of the [`crate::tag`]).
pub const MAX_SESSIONS_PER_NETNS: u32 = 6;
/// Interfaces of one network namespace that one session may watch (8 bits of the [`crate::tag`]).
pub const MAX_INTERFACES_PER_NETNS: u32 = 256;
/// Network namespaces one session may be attached to.
pub const MAX_NETNS: u32 = 64;
/// Pages of the parking lot for each CPU. One of the first belongs to one copy of a parking program on one CPU, which
/// the kernel lets one task at a time into, so nobody ever shares it. 38 programs fit one function.
pub const PARKING_PLACES_PER_CPU: u32 = OWN_PLACES_PER_CPU + COMMON_PLACES_PER_CPU;
/// Those of copies that one task at a time is in.
pub const OWN_PLACES_PER_CPU: u32 = 64;
/// Those of programs that any number of tasks is in at once: each takes one that is free.
pub const COMMON_PLACES_PER_CPU: u32 = 64;
/// Pages of the largest parking lot: 1024 CPUs. The loader makes it as large as the machine.
pub const PARKING_SLOTS: u32 = PARKING_PLACES_PER_CPU * 1024;
/// The programs stop injecting when the controller's heartbeat is older than this, in nanoseconds.
pub const HEARTBEAT_TIMEOUT_NS: u64 = 5_000_000_000;
/// How often the controller beats, in nanoseconds.
pub const HEARTBEAT_INTERVAL_NS: u64 = 500_000_000;
/// Sectors of 512 bytes that the `until-written` of one session may cover, all its faults together: 2 GiB.
pub const MAX_BAD_SECTORS: u64 = 1 << 22;
/// Room of the map that remembers which of them were written: 64 in an entry, up to two more entries for a range that
/// begins or ends within one, for both rule sets.
pub const WRITTEN_WORDS: usize = BANKS * (MAX_BAD_SECTORS as usize / 64 + 2 * MAX_RULES);
/// Patterns of file rules in one session, one for each file system that a `file GLOB` may mean.
pub const MAX_GLOBS: usize = 64;
/// Bytes of a path within its file system that patterns are matched with; a longer one matches none.
pub const MAX_PATH_BYTES: usize = 4096;
/// Bytes of a path that an event tells.
pub const EVENT_PATH_BYTES: usize = 256;
/// Longest delay of one block I/O, in nanoseconds: a task parked for longer looks hung to the kernel.
pub const MAX_PARK_NS: u64 = 60_000_000_000;
/// Longest delay of one packet, in nanoseconds. fq's horizon is 32 bits of microseconds (`TCA_FQ_HORIZON`).
pub const MAX_PACKET_DELAY_NS: u64 = 3_600_000_000_000;
