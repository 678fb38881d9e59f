//! How deep a cgroup lies below the *real* root of the hierarchy.
//!
//! `bpf_get_current_ancestor_cgroup_id(level)` counts from the real root, whatever cgroup namespace the
//! controller is in, and nothing in `/proc` or `/sys` tells a namespaced process how deep its own root is.
//! So the kernel is asked the very question the programs will ask: a tiny program tries every level
//! until one answers with our own cgroup.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::CgroupError;
use super::mount;

/// `PROC_CGROUP_INIT_INO`, linux/proc_ns.h: the inode number of the first cgroup namespace.
const INITIAL_NAMESPACE: u64 = 0xEFFF_FFFB;
/// Deepest level asked for. `cgroup.max.depth` is unlimited by default; real trees are less than ten deep.
const DEEPEST: i16 = 64;

/// Level of the root of our cgroup namespace: 0 unless we are in a container.
pub(super) fn of_namespace_root() -> Result<u32, CgroupError> {
    use std::os::unix::fs::MetadataExt;
    // Without cgroup namespaces (Linux < 4.6, CONFIG_CGROUPS off) there is only the real root.
    let Ok(namespace) = fs::metadata("/proc/self/ns/cgroup") else { return Ok(0) };
    if namespace.ino() == INITIAL_NAMESPACE {
        return Ok(0);
    }
    let own = mount::path_of_process("self")?;
    let level = ask_kernel().map_err(CgroupError::Level)?;
    u32::try_from(level - mount::depth(&own)).map_err(|_| CgroupError::OutsideMount { path: own })
}

/// Level of the cgroup the calling process is in.
///
/// Needs `BPF_PROG_TEST_RUN` for raw tracepoints: Linux 5.10 (1b4d60ec162f).
fn ask_kernel() -> io::Result<i32> {
    match run(&load(&program())?)? {
        0 => Err(io::Error::other(format!("this process is more than {DEEPEST} levels deep"))),
        answer => Ok(answer as i32 - 1),
    }
}

/// One eBPF instruction, `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    /// Destination in the low, source in the high half.
    registers: u8,
    off: i16,
    imm: i32,
}

/// `for level in 0..DEEPEST { if ancestor(level) == own { return level + 1 } } return 0`, unrolled.
fn program() -> Vec<Insn> {
    const MOV_IMM: u8 = 0xb7;
    const MOV: u8 = 0xbf;
    const JUMP_NOT_EQUAL: u8 = 0x5d;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    /// `BPF_FUNC_get_current_cgroup_id`, Linux 4.18.
    const OWN: i32 = 80;
    /// `BPF_FUNC_get_current_ancestor_cgroup_id`, Linux 5.6 for tracing programs.
    const ANCESTOR: i32 = 123;
    let insn = |code, registers, off, imm| Insn { code, registers, off, imm };
    // r6 = own
    let mut program = vec![insn(CALL, 0, 0, OWN), insn(MOV, 6, 0, 0)];
    for level in 0..DEEPEST {
        program.extend([
            insn(MOV_IMM, 1, 0, i32::from(level)),
            insn(CALL, 0, 0, ANCESTOR),
            // if r0 != r6 skip the two that return
            insn(JUMP_NOT_EQUAL, 6 << 4, 2, 0),
            insn(MOV_IMM, 0, 0, i32::from(level) + 1),
            insn(EXIT, 0, 0, 0),
        ]);
    }
    program.extend([insn(MOV_IMM, 0, 0, 0), insn(EXIT, 0, 0, 0)]);
    program
}

/// `BPF_PROG_LOAD` part of `union bpf_attr`, as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// `BPF_PROG_TEST_RUN` part of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

fn load(program: &[Insn]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
    let license = c"Dual MIT/GPL";
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_RAW_TRACEPOINT,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        prog_name: *b"fault_level\0\0\0\0\0",
        ..LoadAttr::default()
    };
    // SAFETY: `attr` is a prefix of `union bpf_attr` of the stated size; the pointers in it outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw mut attr, size_of::<LoadAttr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn run(program: &OwnedFd) -> io::Result<u32> {
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    let mut attr = TestAttr { prog_fd: program.as_raw_fd() as u32, ..TestAttr::default() };
    // SAFETY: as in `load`; the kernel writes only `retval` and `duration` into `attr`.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<TestAttr>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(attr.retval) }
}
