//! Every map of the session. All are owned by file descriptors of the controller and die with it.

use core::ffi::c_void;

use crate::net::scene::Scene;
use aya_ebpf::{
    bindings::bpf_map_type::{BPF_MAP_TYPE_SK_STORAGE, BPF_MAP_TYPE_TASK_STORAGE},
    bindings::{BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use fault_common::{
    control::Control,
    counters::{COUNTERS as COUNTER_COUNT, RuleCounters},
    decide::delay::Table,
    glob::Glob,
    limits::{
        BANKS, MAX_GLOBS, MAX_INTERFACES_PER_NETNS, MAX_NAMES, MAX_NETNS, MAX_RULES, PARKING_SLOTS,
        WRITTEN_WORDS,
    },
    rule::{Rule, block::WrittenKey},
    shared::SharedU64,
    who::{
        AioKey, AioQueue, EchoKey, EchoState, FileState, Interface, LaneExit, Name, PORT_WORDS, ParkingPlace,
        PeerAddress, PeerRules, SocketState, TASK_WORDS, TaskState,
    },
};

/// Storage that lives and dies with a kernel object (socket, task).
///
/// aya-ebpf 0.2 has it only for `sock_addr` contexts and not at all for tasks.
#[repr(C)]
pub struct LocalStorage<T, const TYPE: usize, const FLAGS: usize> {
    r#type: *const [i32; TYPE],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: the fields are placeholders for the loader and are never read.
unsafe impl<T, const TYPE: usize, const FLAGS: usize> Sync for LocalStorage<T, TYPE, FLAGS> {}

impl<T, const TYPE: usize, const FLAGS: usize> LocalStorage<T, TYPE, FLAGS> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The map, for the storage helpers.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

const RULE_SLOTS: usize = MAX_RULES * BANKS;

/// The control block, mapped into the controller.
#[btf_map]
pub static CONTROL: Array<Control, 1, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Two rule sets side by side: index `bank * MAX_RULES + slot`. Mapped into the controller, which turns single numbers of a
/// rule in force, one store each.
#[btf_map]
pub static RULES: Array<Rule, RULE_SLOTS, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Index as in [`RULES`].
#[btf_map]
pub static RULE_COUNTERS: Array<RuleCounters, RULE_SLOTS, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Distributions of delays that rules have of their own. Index as in [`RULES`]; one entry where no rule has one.
#[btf_map]
pub static TABLES: Array<Table, RULE_SLOTS> = Array::new();
/// The packet that a CPU looks at.
#[btf_map]
pub static SCENES: PerCpuArray<Scene, 1> = PerCpuArray::new();
/// Indexed by `fault_common::counters::Counter`.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { COUNTER_COUNT as usize }> = PerCpuArray::new();
/// Processes of the target: thread group id → how it joined.
#[btf_map]
pub static TASKS: HashMap<u32, u32, 65536> = HashMap::new();
/// Which numbers are in [`TASKS`]: to ask costs one load instead of a hash. Mapped into the controller, which sets and clears
/// bits as well.
#[btf_map]
pub static TASK_BITS: Array<SharedU64, { TASK_WORDS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Names aimed at → 1.
#[btf_map]
pub static NAMES: HashMap<Name, u32, { MAX_NAMES }> = HashMap::new();
/// Sockets of the target. Accepted sockets inherit the entry of the listener.
#[btf_map]
pub static SOCKETS: LocalStorage<
    SocketState,
    { BPF_MAP_TYPE_SK_STORAGE as usize },
    { (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize },
> = LocalStorage::new();
/// Threads of the target that do block I/O.
#[btf_map]
pub static TASK_STATES: LocalStorage<
    TaskState,
    { BPF_MAP_TYPE_TASK_STORAGE as usize },
    { BPF_F_NO_PREALLOC as usize },
> = LocalStorage::new();
/// Local ports of target sockets: a bystander's incoming packet is told by one look-up. Mapped into the
/// controller, so that its bits (adopted sockets) and ours (new ones) are set in one word at the same time.
#[btf_map]
pub static LOCAL_PORTS: Array<SharedU64, { PORT_WORDS as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Which rules name this peer (`to`).
#[btf_map]
pub static PEERS: LpmTrie<PeerAddress, PeerRules, 131072> = LpmTrie::new();
/// Interfaces we are attached to, by `interface_key`.
#[btf_map]
pub static INTERFACES: HashMap<u64, Interface, 4096> = HashMap::new();
/// Where a packet leaves the lane to, by `exit_key`.
#[btf_map]
pub static LANE_EXITS: Array<LaneExit, { (MAX_NETNS * MAX_INTERFACES_PER_NETNS) as usize }> = Array::new();
/// ICMP echo requests of the target.
#[btf_map]
pub static ECHOES: LruHashMap<EchoKey, EchoState, 4096> = LruHashMap::new();
/// What an entry of [`ECHOES`] is made from.
#[btf_map]
pub static BLANK_ECHO: PerCpuArray<EchoState, 1> = PerCpuArray::new();
/// Pages of the parking lot, mapped into the controller.
#[btf_map]
pub static PARKING: Array<ParkingPlace, { PARKING_SLOTS as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();
/// Delayed operations of libaio contexts. Who finds no room waits at submission instead.
#[btf_map]
pub static AIO_QUEUES: HashMap<AioKey, AioQueue, 4096, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
/// Sectors that were written, of rules that ask (`until-written`). There is room for all that may be asked for.
#[btf_map]
pub static WRITTEN: HashMap<WrittenKey, SharedU64, WRITTEN_WORDS, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();
/// Threads of the target that operate on files.
#[btf_map]
pub static FILE_STATES: LocalStorage<
    FileState,
    { BPF_MAP_TYPE_TASK_STORAGE as usize },
    { BPF_F_NO_PREALLOC as usize },
> = LocalStorage::new();
/// Threads that do block I/O of the target, of rules that name files. Not [`FILE_STATES`]: block I/O may begin while a thread is in
/// the middle of an operation on a file.
#[btf_map]
pub static BIO_FILES: LocalStorage<
    FileState,
    { BPF_MAP_TYPE_TASK_STORAGE as usize },
    { BPF_F_NO_PREALLOC as usize },
> = LocalStorage::new();
/// Patterns of rules that name files: index `bank * MAX_GLOBS + number`.
#[btf_map]
pub static GLOBS: Array<Glob, { BANKS * MAX_GLOBS }> = Array::new();
/// An empty queue to copy from: it is larger than a program's stack.
#[btf_map]
pub static AIO_BLANK: Array<AioQueue, 1> = Array::new();
/// Tells the controller that there is something new in [`Control::asked`].
#[btf_map]
pub static BELL: RingBuf<u64, 4096> = RingBuf::new();
/// Injections, for `--events`.
#[btf_map]
pub static EVENTS: RingBuf<u8, { 1 << 22 }> = RingBuf::new();
