//! What every fault stands on.

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    os::fd::{AsFd, OwnedFd},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
};

use aya_obj::generated::{bpf_map_type, bpf_prog_type};
use nix::{
    errno::Errno,
    sys::{
        mman::{MapFlags, ProtFlags, mmap, munmap},
        statvfs::{FsFlags, statvfs},
    },
    unistd::{SysconfVar, sysconf},
};

use super::{
    bpf::{self, Attempt, Failure, MapSpec, ProgramSpec},
    insn, packet,
};

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// Whether programs run as machine code.
pub fn jit() -> Attempt<()> {
    let program = packet::classifier()?;
    match bpf::machine_code_length(program.as_fd())? {
        0 => Err(Failure::new("having a program compiled to machine code", Errno::ENOTSUP)),
        _ => Ok(()),
    }
}

fn page_size() -> usize {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}

/// Creates the smallest ring buffer.
pub fn ring_buffer() -> Attempt<()> {
    bpf::create_map(&MapSpec {
        kind: bpf_map_type::BPF_MAP_TYPE_RINGBUF,
        key_size: 0,
        value_size: 0,
        entries: page_size() as u32,
        flags: 0,
        btf: None,
    })
    .map(drop)
}

/// Creates an array, maps it and writes to it.
pub fn mappable_array() -> Attempt<()> {
    let map = bpf::create_map(&MapSpec {
        kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        entries: 1,
        flags: MMAPABLE,
        btf: None,
    })?;
    let length = NonZeroUsize::new(page_size()).unwrap_or(NonZeroUsize::MIN);
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping wherever the kernel likes; it is unmapped below and nowhere else referred to.
    let memory = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, map.as_fd(), 0) }
        .map_err(|errno| Failure::new("mapping a BPF array into memory", errno))?;
    // SAFETY: the mapping is a page long and writable.
    unsafe { memory.cast::<u64>().write_volatile(7) };
    let mut element = [0u64; 1];
    let read = bpf::read_element(map.as_fd(), &mut element);
    // SAFETY: mapped above with this length, and not used after this.
    unsafe { munmap(memory, length.get()) }.map_err(|errno| Failure::new("unmapping a BPF array", errno))?;
    read?;
    if element == [7] { Ok(()) } else { Err(Failure::new("writing to a mapped BPF array", Errno::EIO)) }
}

/// Attaches to the tracepoint that says who is whose child, and detaches.
pub fn fork_tracepoint() -> Attempt<()> {
    let program = bpf::load(&ProgramSpec {
        what: "a raw tracepoint program",
        kind: bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT,
        insns: &insn::return_only(0),
        attach_type: 0,
        attach_btf_id: 0,
        flags: 0,
    })?;
    bpf::open_tracepoint(
        program.as_fd(),
        Some(c"sched_process_fork"),
        "attaching to the raw tracepoint sched_process_fork",
    )
    .map(drop)
}

/// The root of the cgroup v2 tree, if one is mounted for writing.
pub fn cgroup_root() -> Attempt<OwnedFd> {
    const TABLE: &str = "/proc/self/mountinfo";
    const STEP: &str = "looking for a mounted cgroup v2 tree";
    let mounts =
        fs::read_to_string(TABLE).map_err(|error| Failure::io(format!("reading {TABLE}"), &error))?;
    let path = mounts.lines().find_map(cgroup2_mount).ok_or_else(|| Failure::new(STEP, Errno::ENOENT))?;
    let flags = statvfs(&path).map_err(|errno| Failure::new(STEP, errno))?.flags();
    if flags.contains(FsFlags::ST_RDONLY) {
        return Err(Failure::new(
            format!("making a cgroup below {}, which is mounted read-only", path.display()),
            Errno::EROFS,
        ));
    }
    File::open(&path)
        .map(OwnedFd::from)
        .map_err(|error| Failure::io(format!("opening {}", path.display()), &error))
}

/// The mount point of a line of mountinfo, if it is a cgroup v2 tree's. See proc_pid_mountinfo(5).
fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    (file_system.split(' ').next()? == "cgroup2").then(|| unescape(mount.split(' ').nth(4)?))?
}

/// Blanks and backslashes are written in octal.
fn unescape(field: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'\\' {
            let digits = std::str::from_utf8(after.get(..3)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 8).ok()?);
            rest = &after[3..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_tree_is_told_from_the_old_ones() {
        let old = "24 23 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        let unified = "25 23 0:23 / /sys/fs/my\\040cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(old), None);
        assert_eq!(cgroup2_mount(unified), Some(PathBuf::from("/sys/fs/my cgroup")));
        assert_eq!(cgroup2_mount("garbage"), None);
    }
}
