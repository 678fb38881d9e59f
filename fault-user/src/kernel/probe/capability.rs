//! What a kernel can or cannot do, and which fault needs what.

use std::fmt;

/// One thing the kernel must do for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// Loading BPF programs, making namespaces.
    Permission,
    /// The kernel's own type information.
    Btf,
    /// BPF compiled to machine code.
    Jit,
    /// The channel of `--events`.
    RingBuffer,
    /// Control block and counters shared with the controller.
    MappableArray,
    /// Following the target's descendants.
    ForkTracepoint,
    /// A cgroup v2 tree.
    Cgroup2,
    /// Seeing sockets as they are created.
    SocketHook,
    /// Remembering whose socket it is.
    SocketStorage,
    /// Reaching the sockets a process already has.
    PidfdGetfd,
    /// The packet hook of Linux 6.6 and later.
    Tcx,
    /// The packet hook before that.
    Clsact,
    /// Giving a packet the time it is to leave.
    DepartureTime,
    /// Giving a system call another result.
    SetRetval,
    /// The far end of lane and cutter, which lives as long as a descriptor.
    Tap,
    /// The entry of the lane, and of the cutter.
    Macvlan,
    /// The entry of the cutter where checksums must be in the packet.
    Vlan,
    /// The queue that holds packets until their time.
    Fq,
    /// Changing what `should_fail_bio` returns.
    FmodRet,
    /// The same from a program that may sleep.
    FmodRetSleepable,
    /// The same through a kprobe.
    KprobeOverride,
    /// Remembering what a thread is to suffer.
    TaskStorage,
    /// Finding the parking lot's helper from within the kernel.
    TaskFromPid,
    /// Sleeping on the helper's memory.
    CopyFromUserTask,
    /// The file system behind that memory, mounted nowhere.
    DetachedFuse,
    /// Whether `should_fail_bio` is called at all.
    HookCalled,
    /// Changing what a hook of security modules returns.
    SecurityHook,
    /// Changing what a system call returns.
    SyscallHook,
    /// Being asked as a security module.
    SecurityModule,
}

impl Capability {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 29] = [
        Self::Permission,
        Self::Btf,
        Self::Jit,
        Self::RingBuffer,
        Self::MappableArray,
        Self::ForkTracepoint,
        Self::Cgroup2,
        Self::SocketHook,
        Self::SocketStorage,
        Self::PidfdGetfd,
        Self::Tcx,
        Self::Clsact,
        Self::DepartureTime,
        Self::SetRetval,
        Self::Tap,
        Self::Macvlan,
        Self::Vlan,
        Self::Fq,
        Self::FmodRet,
        Self::FmodRetSleepable,
        Self::KprobeOverride,
        Self::TaskStorage,
        Self::TaskFromPid,
        Self::CopyFromUserTask,
        Self::DetachedFuse,
        Self::HookCalled,
        Self::SecurityHook,
        Self::SyscallHook,
        Self::SecurityModule,
    ];

    /// Its name in the report, in JSON and in docs/kernels.md. Never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Btf => "btf",
            Self::Jit => "jit",
            Self::RingBuffer => "ring_buffer",
            Self::MappableArray => "mappable_array",
            Self::ForkTracepoint => "fork_tracepoint",
            Self::Cgroup2 => "cgroup2",
            Self::SocketHook => "socket_hook",
            Self::SocketStorage => "socket_storage",
            Self::PidfdGetfd => "pidfd_getfd",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::DepartureTime => "departure_time",
            Self::SetRetval => "set_retval",
            Self::Tap => "tap",
            Self::Macvlan => "macvlan",
            Self::Vlan => "vlan",
            Self::Fq => "fq",
            Self::FmodRet => "fmod_ret",
            Self::FmodRetSleepable => "fmod_ret_sleepable",
            Self::KprobeOverride => "kprobe_override",
            Self::TaskStorage => "task_storage",
            Self::TaskFromPid => "task_from_pid",
            Self::CopyFromUserTask => "copy_from_user_task",
            Self::DetachedFuse => "detached_fuse",
            Self::HookCalled => "hook_called",
            Self::SecurityHook => "security_hook",
            Self::SyscallHook => "syscall_hook",
            Self::SecurityModule => "security_module",
        }
    }

    /// What it is, for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Permission => "load BPF programs and make network namespaces",
            Self::Btf => "the kernel's type information",
            Self::Jit => "BPF compiled to machine code",
            Self::RingBuffer => "BPF ring buffer",
            Self::MappableArray => "BPF array mapped into the controller",
            Self::ForkTracepoint => "raw tracepoint sched_process_fork",
            Self::Cgroup2 => "cgroup v2 tree",
            Self::SocketHook => "BPF on cgroup/sock_create",
            Self::SocketStorage => "BPF socket storage",
            Self::PidfdGetfd => "reach another process's sockets (pidfd_getfd)",
            Self::Tcx => "packet hook tcx",
            Self::Clsact => "packet hook clsact (used where tcx is missing)",
            Self::DepartureTime => "BPF sets a packet's departure time",
            Self::SetRetval => "BPF on cgroup/connect4 chooses the error",
            Self::Tap => "tap devices",
            Self::Macvlan => "macvlan devices",
            Self::Vlan => "VLAN devices",
            Self::Fq => "fq queueing discipline",
            Self::FmodRet => "fmod_ret on should_fail_bio",
            Self::FmodRetSleepable => "sleepable fmod_ret on should_fail_bio",
            Self::KprobeOverride => "kprobe override of should_fail_bio",
            Self::TaskStorage => "BPF task storage",
            Self::TaskFromPid => "BPF finds a task by PID (bpf_task_from_pid)",
            Self::CopyFromUserTask => "BPF reads another task's memory (bpf_copy_from_user_task)",
            Self::DetachedFuse => "FUSE file system mounted nowhere",
            Self::HookCalled => "a real read passes should_fail_bio",
            Self::SecurityHook => "fmod_ret on security_file_open",
            Self::SyscallHook => "fmod_ret on the system call fsync",
            Self::SecurityModule => "a real open asks BPF as a security module (LSM)",
        }
    }

    /// The features that cannot do without it, or without it and its alternatives.
    pub fn needed_for(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |feature| feature.needs().any(|group| group.contains(&self)))
    }
}

/// What a user can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// `--net 'drop …'`
    PacketDrop,
    /// `--net 'delay …'`
    PacketDelay,
    /// `--net 'drop 1%'`: of the packets of the wire, and not of what TCP hands down at once.
    PacketSegments,
    /// `--net 'corrupt …'`
    PacketCorruption,
    /// `--net 'refuse …'`
    Calls,
    /// `--disk 'error …'`
    DiskError,
    /// `--disk 'delay …'`, `--disk 'hang …'`, `--disk 'rate …'`, `--disk 'iops …'`
    DiskDelay,
    /// `--file 'error …'`, but for `fsync`.
    FileError,
    /// `--file 'error … fsync'`
    FileSync,
    /// `--file 'delay … open'`, `--file 'delay … mmap'`
    FileOpenDelay,
    /// `--file 'delay … fsync'`
    FileSyncDelay,
}

/// Any one of these will do; the first is preferred.
type AnyOf = &'static [Capability];

const EVERY: &[AnyOf] = &[
    &[Capability::Permission],
    &[Capability::Btf],
    &[Capability::RingBuffer],
    &[Capability::MappableArray],
    &[Capability::ForkTracepoint],
];
const PACKETS: &[AnyOf] = &[
    &[Capability::Cgroup2],
    &[Capability::SocketHook],
    &[Capability::SocketStorage],
    &[Capability::PidfdGetfd],
    &[Capability::Tcx, Capability::Clsact],
];
const LANE: &[AnyOf] =
    &[&[Capability::DepartureTime], &[Capability::Tap], &[Capability::Macvlan], &[Capability::Fq]];
const CUTTER: &[AnyOf] = &[&[Capability::Tap], &[Capability::Macvlan]];
const CHECKSUMS: &[AnyOf] = &[&[Capability::Tap], &[Capability::Vlan]];
const CALLS: &[AnyOf] = &[
    &[Capability::Cgroup2],
    &[Capability::SocketHook],
    &[Capability::SocketStorage],
    &[Capability::PidfdGetfd],
    &[Capability::SetRetval],
];
const DISK_ERROR: &[AnyOf] =
    &[&[Capability::FmodRet, Capability::KprobeOverride], &[Capability::Jit], &[Capability::TaskStorage]];
const DISK_FMOD: &[AnyOf] = &[&[Capability::FmodRet], &[Capability::Jit], &[Capability::TaskStorage]];
/// Programs that may wait.
const SLEEPABLE: &[AnyOf] = &[&[Capability::FmodRetSleepable]];
const MODULE: &[AnyOf] = &[&[Capability::SecurityModule]];
/// What they wait with.
const PARKING: &[AnyOf] =
    &[&[Capability::TaskFromPid], &[Capability::CopyFromUserTask], &[Capability::DetachedFuse]];
const FILES: &[AnyOf] = &[&[Capability::SecurityHook], &[Capability::Jit], &[Capability::TaskStorage]];
const SYNC: &[AnyOf] = &[&[Capability::SyscallHook], &[Capability::Jit], &[Capability::TaskStorage]];
/// Last: it can only be tried when the rest is there.
const SELF_TEST: &[AnyOf] = &[&[Capability::HookCalled]];

impl Feature {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::PacketDrop,
        Self::PacketDelay,
        Self::PacketSegments,
        Self::PacketCorruption,
        Self::Calls,
        Self::DiskError,
        Self::DiskDelay,
        Self::FileError,
        Self::FileSync,
        Self::FileOpenDelay,
        Self::FileSyncDelay,
    ];

    /// Its name in JSON. Never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PacketDrop => "packet_drop",
            Self::PacketDelay => "packet_delay",
            Self::PacketSegments => "packet_segments",
            Self::PacketCorruption => "packet_corruption",
            Self::Calls => "calls",
            Self::DiskError => "disk_error",
            Self::DiskDelay => "disk_delay",
            Self::FileError => "file_error",
            Self::FileSync => "file_fsync",
            Self::FileOpenDelay => "file_open_delay",
            Self::FileSyncDelay => "file_fsync_delay",
        }
    }

    /// What must all be there, each in one of several forms; the most basic first.
    pub fn needs(self) -> impl Iterator<Item = AnyOf> {
        let parts: &[&[AnyOf]] = match self {
            Self::PacketDrop => &[EVERY, PACKETS],
            Self::PacketDelay => &[EVERY, PACKETS, LANE],
            Self::PacketSegments => &[EVERY, PACKETS, CUTTER],
            Self::PacketCorruption => &[EVERY, PACKETS, CHECKSUMS],
            Self::Calls => &[EVERY, CALLS],
            Self::DiskError => &[EVERY, DISK_ERROR, SELF_TEST],
            Self::DiskDelay => &[EVERY, DISK_FMOD, SLEEPABLE, PARKING, SELF_TEST],
            Self::FileError => &[EVERY, FILES],
            Self::FileSync => &[EVERY, SYNC],
            Self::FileOpenDelay => &[EVERY, FILES, MODULE, PARKING],
            Self::FileSyncDelay => &[EVERY, SYNC, SLEEPABLE, PARKING],
        };
        parts.iter().copied().flatten().copied()
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PacketDrop => "packet drop",
            Self::PacketDelay => "packet delay",
            Self::PacketSegments => "packet segments",
            Self::PacketCorruption => "packet corruption",
            Self::Calls => "calls",
            Self::DiskError => "disk error",
            Self::DiskDelay => "disk delay",
            Self::FileError => "file error",
            Self::FileSync => "file fsync",
            Self::FileOpenDelay => "file open delay",
            Self::FileSyncDelay => "file fsync delay",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_is_listed_once_and_needed_for_something() {
        let names: std::collections::HashSet<_> = Capability::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Capability::ALL.len());
        for capability in Capability::ALL {
            assert!(capability.needed_for().count() > 0, "{}", capability.name());
        }
    }

    #[test]
    fn permission_comes_first_and_the_self_test_last() {
        for feature in Feature::ALL {
            assert_eq!(feature.needs().next(), Some([Capability::Permission].as_slice()));
        }
        assert_eq!(Feature::DiskDelay.needs().last(), Some([Capability::HookCalled].as_slice()));
    }
}
