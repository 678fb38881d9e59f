//! What block faults stand on: hooks on `should_fail_bio`, and what a parked task sleeps with.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::PathBuf,
};

use aya_obj::generated::{bpf_attach_type, bpf_map_type, bpf_prog_type};
use nix::errno::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use super::{
    bpf::{self, Attempt, Failure, MapSpec, ProgramSpec},
    insn::{self, Insn, helper},
};
use crate::kernel::btf::{Btf, BtfError};

/// The function every bio passes on its way to a device.
pub const HOOK: &str = "should_fail_bio";
/// `BPF_F_SLEEPABLE`.
const SLEEPABLE: u32 = 1 << 4;
const NO_PREALLOC: u32 = 1;

/// A program that is attached for as long as this lives.
pub struct Attached {
    _link: OwnedFd,
    _program: OwnedFd,
}

/// BTF lookups fail with the errno that loading would have given.
pub fn unknown_to_btf(error: &BtfError) -> Failure {
    Failure::new(error.to_string(), Errno::ENOENT)
}

fn load_modify_return(btf: &Btf, function: &str, insns: &[Insn], sleepable: bool) -> Attempt<OwnedFd> {
    bpf::load(&ProgramSpec {
        what: if sleepable { "a sleepable fmod_ret program" } else { "an fmod_ret program" },
        kind: bpf_prog_type::BPF_PROG_TYPE_TRACING,
        insns,
        attach_type: bpf_attach_type::BPF_MODIFY_RETURN as u32,
        attach_btf_id: btf.function_id(function).map_err(|error| unknown_to_btf(&error))?,
        flags: if sleepable { SLEEPABLE } else { 0 },
    })
}

/// Attaches a fmod_ret program to [`HOOK`].
pub fn modify_return(btf: &Btf, insns: &[Insn], sleepable: bool) -> Attempt<Attached> {
    modify_return_of(btf, HOOK, insns, sleepable)
}

/// Attaches a fmod_ret program to a kernel function.
pub fn modify_return_of(btf: &Btf, function: &str, insns: &[Insn], sleepable: bool) -> Attempt<Attached> {
    let program = load_modify_return(btf, function, insns, sleepable)?;
    let link = bpf::open_tracepoint(program.as_fd(), None, "attaching an fmod_ret program")?;
    Ok(Attached { _link: link, _program: program })
}

/// Has a program answer as a security module, and opens a file: whether it was asked.
pub fn asks_bpf(btf: &Btf) -> Attempt<bool> {
    const FUNCTION: &str = "bpf_lsm_file_open";
    let (map, name) = (counter_map()?, unique_name());
    let program = bpf::load(&ProgramSpec {
        what: "a sleepable program of a security module",
        kind: bpf_prog_type::BPF_PROG_TYPE_LSM,
        insns: &counter(&map, name, false),
        attach_type: bpf_attach_type::BPF_LSM_MAC as u32,
        attach_btf_id: btf.function_id(FUNCTION).map_err(|error| unknown_to_btf(&error))?,
        flags: SLEEPABLE,
    })?;
    let link = bpf::open_tracepoint(program.as_fd(), None, "attaching a program of a security module")?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let opened = std::thread::scope(|scope| {
        let opener = std::thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, || File::open("/proc/self/stat").map(drop))?;
        opener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    drop(link);
    opened.map_err(|error| Failure::io("opening /proc/self/stat", &error))?;
    Ok(super::count(&map)? > 0)
}

/// Attaches a kprobe program that may override the return value to [`HOOK`].
pub fn kprobe_override(insns: &[Insn]) -> Attempt<Attached> {
    let program = bpf::load(&ProgramSpec {
        what: "a kprobe program that overrides a return value",
        kind: bpf_prog_type::BPF_PROG_TYPE_KPROBE,
        insns,
        attach_type: 0,
        attach_btf_id: 0,
        flags: 0,
    })?;
    let event = open_kprobe()?;
    // _IOW('$', 8, __u32) and _IO('$', 0) of linux/perf_event.h.
    const SET_BPF: libc::c_ulong = 0x4004_2408;
    const ENABLE: libc::c_ulong = 0x2400;
    ioctl(event.as_fd(), SET_BPF, program.as_raw_fd(), "attaching the program to the kprobe")?;
    ioctl(event.as_fd(), ENABLE, 0, "enabling the kprobe")?;
    Ok(Attached { _link: event, _program: program })
}

fn ioctl(fd: BorrowedFd<'_>, request: libc::c_ulong, argument: RawFd, step: &str) -> Attempt<()> {
    // SAFETY: both requests take an integer and touch no memory of ours.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
    Errno::result(result).map(drop).map_err(|errno| Failure::new(step, errno))
}

/// The leading part of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER1`), enough for a kprobe.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
}

fn open_kprobe() -> Attempt<OwnedFd> {
    const TYPE: &str = "/sys/bus/event_source/devices/kprobe/type";
    let kind = fs::read_to_string(TYPE).map_err(|error| Failure::io(format!("reading {TYPE}"), &error))?;
    let kind = kind.trim().parse().map_err(|_| Failure::new(format!("reading {TYPE}"), Errno::EINVAL))?;
    let name = std::ffi::CString::new(HOOK).map_err(|_| Failure::new("naming the kprobe", Errno::EINVAL))?;
    let attr = PerfEventAttr {
        kind,
        size: size_of::<PerfEventAttr>() as u32,
        config1: name.as_ptr() as u64,
        ..PerfEventAttr::default()
    };
    // SAFETY: `attr` and `name` outlive the call; any task (-1) on CPU 0, no group, close on exec. A kprobe
    // fires on every CPU whatever CPU its event is opened on.
    let raw = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            core::ptr::from_ref(&attr),
            -1,
            0,
            -1,
            1 << 3, // PERF_FLAG_FD_CLOEXEC
        )
    };
    let raw = Errno::result(raw)
        .map_err(|errno| Failure::new(format!("opening a kprobe on {HOOK} (perf_event_open)"), errno))?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// Loads a program that calls `bpf_task_from_pid`, where `sleepable_hook` says the real place is available,
/// else in a place every kernel with tracing has.
pub fn task_from_pid(btf: &Btf, sleepable_hook: bool) -> Attempt<()> {
    let id = |name| btf.function_id(name).map_err(|error| unknown_to_btf(&error));
    let insns = [
        insn::set(1, 1),
        insn::call_kernel(id("bpf_task_from_pid")?),
        insn::skip_if_is(0, 0, 2),
        insn::copy(1, 0),
        insn::call_kernel(id("bpf_task_release")?),
        insn::set(0, 0),
        insn::exit(),
    ];
    if sleepable_hook {
        return load_modify_return(btf, HOOK, &insns, true).map(drop);
    }
    let tracepoint =
        btf.typedef_id("btf_trace_sched_process_fork").map_err(|error| unknown_to_btf(&error))?;
    bpf::load(&ProgramSpec {
        what: "a program that calls bpf_task_from_pid",
        kind: bpf_prog_type::BPF_PROG_TYPE_TRACING,
        insns: &insns,
        attach_type: bpf_attach_type::BPF_TRACE_RAW_TP as u32,
        attach_btf_id: tracepoint,
        flags: 0,
    })
    .map(drop)
}

/// Has a program copy a byte of ours through `bpf_copy_from_user_task`: what parking a task is made of.
pub fn copy_from_user_task() -> Attempt<()> {
    static BYTE: u8 = 1;
    let [high, low] = insn::set64(3, core::ptr::from_ref(&BYTE) as u64);
    let insns = [
        insn::call(helper::GET_CURRENT_TASK_BTF),
        insn::copy(4, 0),
        insn::store64(10, -8, 0),
        insn::copy(1, 10),
        insn::add(1, -8),
        insn::set(2, 1),
        high,
        low,
        insn::set(5, 0),
        insn::call(helper::COPY_FROM_USER_TASK),
        insn::exit(),
    ];
    let program = bpf::load(&ProgramSpec {
        what: "a program that calls bpf_copy_from_user_task",
        kind: bpf_prog_type::BPF_PROG_TYPE_SYSCALL,
        insns: &insns,
        attach_type: 0,
        attach_btf_id: 0,
        flags: SLEEPABLE,
    })?;
    const STEP: &str = "running bpf_copy_from_user_task on our own memory";
    match bpf::test_run(program.as_fd(), STEP)? as i32 {
        0 => Ok(()),
        code => Err(Failure::new(STEP, Errno::from_raw(-code))),
    }
}

/// Creates task storage.
pub fn task_storage() -> Attempt<()> {
    let btf = bpf::load_int_btf()?;
    bpf::create_map(&MapSpec {
        kind: bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE,
        key_size: 4,
        value_size: 4,
        entries: 0,
        flags: NO_PREALLOC,
        btf: Some(btf.as_fd()),
    })
    .map(drop)
}

/// Creates a FUSE file system that is mounted nowhere, and lets it go.
pub fn detached_fuse() -> Attempt<()> {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|error| Failure::io("opening /dev/fuse", &error))?;
    let failed = |step: &str| {
        let step = step.to_owned();
        move |error: rustix::io::Errno| Failure::new(step, Errno::from_raw(error.raw_os_error()))
    };
    let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen(\"fuse\")"))?;
    let fd = device.as_raw_fd().to_string();
    for (key, value) in [("fd", fd.as_str()), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")] {
        fsconfig_set_string(context.as_fd(), key, value)
            .map_err(failed("configuring a FUSE file system (fsconfig)"))?;
    }
    fsconfig_create(context.as_fd()).map_err(failed("creating a FUSE file system (fsconfig)"))?;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .map_err(failed("mounting a FUSE file system nowhere (fsmount)"))?;
    // The device first: that aborts the connection, and nobody is left to wait for an answer.
    drop(device);
    drop(mount);
    Ok(())
}

/// A counting program for [`HOOK`]: element 0 of `map` counts the bios of tasks whose name is `name`, and as
/// long as element 1 is not 0 (it always is) their return value is overridden when `overriding`.
pub fn counter(map: &OwnedFd, name: [u8; 8], overriding: bool) -> Vec<Insn> {
    let body = |to_end: i16| {
        let mut insns = vec![
            insn::copy(6, 1),
            insn::store64(10, -16, 0),
            insn::store64(10, -8, 0),
            insn::copy(1, 10),
            insn::add(1, -16),
            insn::set(2, 16),
            insn::call(helper::GET_CURRENT_COMM),
            insn::load64(1, 10, -16),
        ];
        insns.extend(insn::set64(2, u64::from_ne_bytes(name)));
        insns.push(insn::skip_if_differ(1, 2, to_end));
        insns.extend(insn::map_value(7, map.as_raw_fd()));
        insns.extend([insn::set(1, 1), insn::atomic_add64(7, 0, 1)]);
        insns
    };
    let counting = 4;
    let mut insns;
    if overriding {
        let ending = [
            insn::load64(1, 7, 8),
            insn::skip_if_is(1, 0, 3),
            insn::copy(1, 6),
            insn::set(2, -libc::EIO),
            insn::call(helper::OVERRIDE_RETURN),
        ];
        insns = body(counting + ending.len() as i16);
        insns.extend(ending);
    } else {
        insns = body(counting);
    }
    insns.extend(insn::return_only(0));
    insns
}

/// The array [`counter`] counts in.
pub fn counter_map() -> Attempt<OwnedFd> {
    bpf::create_map(&MapSpec {
        kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 16,
        entries: 1,
        flags: 0,
        btf: None,
    })
}

/// A name no other task is likely to have, for [`counter`].
pub fn unique_name() -> [u8; 8] {
    let mut name = *b"fp------";
    let digits = format!("{:06x}", std::process::id() & 0xff_ffff);
    name[2..].copy_from_slice(digits.as_bytes());
    name
}

/// How one read from a block device went.
pub enum DeviceRead {
    /// Read from this device, past the page cache.
    Done(PathBuf),
    /// No device could be read; why the last one could not.
    NoDevice(Option<io::Error>),
}

/// Reads 4 KiB from the first block device that can be read, past the page cache, on a thread called `name`.
pub fn read_a_device(name: [u8; 8]) -> DeviceRead {
    let name = String::from_utf8_lossy(&name).into_owned();
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name(name).spawn_scoped(scope, || {
            let mut last = None;
            for device in devices() {
                match read_past_cache(&device) {
                    Ok(()) => return DeviceRead::Done(device),
                    Err(error) => last = Some(error),
                }
            }
            DeviceRead::NoDevice(last)
        });
        match reader {
            Ok(reader) => reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => DeviceRead::NoDevice(Some(error)),
        }
    })
}

/// Block devices with something on them: mounted ones first, for they are known to answer.
fn devices() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let mut devices: Vec<(bool, PathBuf)> = fs::read_dir("/sys/class/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let attribute = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let node = PathBuf::from("/dev").join(entry.file_name());
            let is_there = fs::metadata(&node).is_ok_and(|node| node.file_type().is_block_device());
            let has_media = attribute("size").trim().parse::<u64>().is_ok_and(|sectors| sectors >= 8);
            let may_spin_up = attribute("removable").trim() == "1";
            let number = attribute("dev");
            (is_there && has_media && !may_spin_up).then(|| (!mounted.contains(&number.trim()), node))
        })
        .collect();
    devices.sort();
    devices.into_iter().map(|(_, node)| node).collect()
}

fn read_past_cache(device: &PathBuf) -> io::Result<()> {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let mut page = Box::new(Page([0; 4096]));
    File::options().read(true).custom_flags(libc::O_DIRECT).open(device)?.read_exact(&mut page.0)
}
