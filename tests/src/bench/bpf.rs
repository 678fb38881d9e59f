//! The calls of bpf(2) that measure programs, made without the tool.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, bail};
use aya_obj::generated::{
    BPF_F_BEFORE, bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_map_info, bpf_prog_info,
    bpf_prog_type,
};
use fault_user::kernel::btf::Btf;

fn bpf(what: &str, command: bpf_cmd, attr: &mut bpf_attr) -> anyhow::Result<i64> {
    // SAFETY: `attr` is a whole, initialised union; whatever it points to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()).context(what.to_owned()) } else { Ok(result) }
}

fn empty() -> bpf_attr {
    // SAFETY: every member of the union is made of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn owned(fd: i64) -> OwnedFd {
    // SAFETY: the calls below return a new descriptor.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// While it lives the kernel measures every run of every program (`BPF_ENABLE_STATS`, Linux 5.8).
pub(super) struct Statistics(#[expect(dead_code, reason = "closing it ends the measuring")] OwnedFd);

impl Statistics {
    pub(super) fn on() -> anyhow::Result<Self> {
        // BPF_STATS_RUN_TIME is 0.
        bpf("BPF_ENABLE_STATS", bpf_cmd::BPF_ENABLE_STATS, &mut empty()).map(|fd| Self(owned(fd)))
    }
}

/// Runs of a program so far, and the time they took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    pub(super) count: u64,
    pub(super) time_ns: u64,
}

impl Runs {
    /// Nanoseconds each of the runs took that are here and not in `before`.
    pub(super) fn since(self, before: Self) -> anyhow::Result<(u64, f64)> {
        let (count, time) = (self.count - before.count, self.time_ns - before.time_ns);
        if count == 0 {
            bail!("the program did not run at all");
        }
        Ok((count, time as f64 / count as f64))
    }
}

/// A map in the kernel, read without the tool.
pub(super) struct Map {
    fd: OwnedFd,
    value_size: usize,
}

impl Map {
    /// The map called `name` that process `pid` holds.
    pub(super) fn held_by(pid: u32, name: &str) -> anyhow::Result<Self> {
        for id in ids_held_by(pid, "map_id:")? {
            let mut attr = empty();
            attr.__bindgen_anon_6.__bindgen_anon_1.map_id = id;
            let fd = owned(bpf("opening a map", bpf_cmd::BPF_MAP_GET_FD_BY_ID, &mut attr)?);
            // SAFETY: made of integers, for which zero is a value.
            let mut info: bpf_map_info = unsafe { std::mem::zeroed() };
            describe("describing a map", &fd, &mut info)?;
            if text(&info.name)? == name {
                return Ok(Self { fd, value_size: info.value_size as usize });
            }
        }
        bail!("process {pid} holds no map {name}")
    }

    /// The entry of an array, as numbers.
    pub(super) fn entry(&self, index: u32) -> anyhow::Result<Vec<u64>> {
        let mut value = vec![0u64; self.value_size.div_ceil(8)];
        let mut attr = empty();
        // SAFETY: the member that BPF_MAP_LOOKUP_ELEM reads; all zero so far.
        let lookup = unsafe { &mut attr.__bindgen_anon_2 };
        lookup.map_fd = self.fd.as_raw_fd().cast_unsigned();
        lookup.key = (&raw const index) as u64;
        lookup.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
        bpf("reading a map", bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr)?;
        Ok(value)
    }
}

/// The numbers that `field` has in what process `pid` says of its descriptors.
fn ids_held_by(pid: u32, field: &str) -> anyhow::Result<HashSet<u32>> {
    let mut ids = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        ids.extend(text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// Asks the kernel about what is behind `fd`.
fn describe<T>(what: &str, fd: &OwnedFd, info: &mut T) -> anyhow::Result<()> {
    let mut attr = empty();
    // SAFETY: the member that this command reads; all zero so far.
    let query = unsafe { &mut attr.info };
    query.bpf_fd = fd.as_raw_fd().cast_unsigned();
    query.info_len = size_of::<T>() as u32;
    query.info = (&raw mut *info) as u64;
    bpf(what, bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

fn text(name: &[std::ffi::c_char]) -> anyhow::Result<String> {
    let bytes = name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8(bytes)?)
}

/// Names of the programs that are attached by links, of whoever, as the kernel keeps them: 15 bytes at most.
pub(crate) fn attached() -> anyhow::Result<HashSet<String>> {
    let mut names = HashSet::new();
    let mut id = 0;
    loop {
        let mut attr = empty();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        // The kernel answers ENOENT after the last one; whatever else it may be, the next call meets it too.
        if bpf("listing links", bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut attr).is_err() {
            return Ok(names);
        }
        // SAFETY: the member that this command fills in.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        let mut attr = empty();
        attr.__bindgen_anon_6.__bindgen_anon_1.link_id = id;
        // It may be gone again.
        let Ok(link) = bpf("opening a link", bpf_cmd::BPF_LINK_GET_FD_BY_ID, &mut attr).map(owned) else {
            continue;
        };
        // SAFETY: made of integers, for which zero is a value.
        let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
        describe("describing a link", &link, &mut info)?;
        let mut attr = empty();
        attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = info.prog_id;
        let program = bpf("opening a program", bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr).map(owned)?;
        names.insert(Program(program).describe()?.name);
    }
}

/// A program in the kernel.
pub(super) struct Program(OwnedFd);

/// What is known of it.
pub(super) struct Described {
    pub(super) name: String,
    pub(super) runs: Runs,
}

/// Where among the programs of a hook one is attached.
#[derive(Clone, Copy)]
pub(super) enum Order {
    First,
    Last,
}

impl Program {
    /// A classifier that lets everything pass.
    pub(super) fn reference() -> anyhow::Result<Self> {
        // r0 = -1 (TCX_NEXT); exit.
        Self::classifier("the reference program", &[0xffff_ffff_0000_00b7, 0x95])
    }

    /// A classifier that lets everything pass, and has waited until the headers of the packet are in the cache of its CPU.
    pub(super) fn reader() -> anyhow::Result<Self> {
        Self::classifier(
            "the reading program",
            &[
                0x0000_0000_004c_1261, // r2 = data
                0x0000_0000_0050_1361, // r3 = data_end
                0x0000_0000_0000_24bf, // r4 = r2
                0x0000_0026_0000_0407, // r4 += 38, of Ethernet, IPv4 and the ports
                0x0000_0000_0005_342d, // if r4 > r3, on to the end
                0x0000_0000_0000_2071, // r0 = the first byte
                0x0000_0000_0025_2171, // r1 = the last byte, which may lie in another line
                0x0000_0000_0000_100f, // r0 += r1
                0x0000_0000_fff8_0a7b, // on the stack: r0
                0x0000_0000_fff8_0adb, // add to it, locked: waits for the loads
                0xffff_ffff_0000_00b7, // r0 = -1 (TCX_NEXT)
                0x95,                  // exit
            ],
        )
    }

    fn classifier(what: &str, code: &[u64]) -> anyhow::Result<Self> {
        let mut attr = empty();
        // SAFETY: the member that BPF_PROG_LOAD reads; all zero so far.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
        load.insns = code.as_ptr() as u64;
        load.insn_cnt = code.len() as u32;
        load.license = c"GPL".as_ptr() as u64;
        bpf(&format!("loading {what}"), bpf_cmd::BPF_PROG_LOAD, &mut attr).map(|fd| Self(owned(fd)))
    }

    /// A fmod_ret program that lets everything pass, in front of this function of the kernel until what is returned is dropped.
    pub(super) fn before(function: &str) -> anyhow::Result<OwnedFd> {
        // r0 = 0; exit.
        let code: [u64; 2] = [0xb7, 0x95];
        let mut attr = empty();
        // SAFETY: the member that BPF_PROG_LOAD reads; all zero so far.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
        load.expected_attach_type = bpf_attach_type::BPF_MODIFY_RETURN as u32;
        load.attach_btf_id = Btf::vmlinux()?.function_id(function)?;
        load.insns = code.as_ptr() as u64;
        load.insn_cnt = code.len() as u32;
        load.license = c"GPL".as_ptr() as u64;
        let program = bpf("loading the empty program", bpf_cmd::BPF_PROG_LOAD, &mut attr).map(owned)?;
        let mut attr = empty();
        attr.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
        bpf("attaching the empty program", bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr).map(owned)
    }

    /// The program called `name` that process `pid` holds.
    pub(super) fn held_by(pid: i32, name: &str) -> anyhow::Result<Self> {
        // Links name their program, too.
        for id in ids_held_by(pid.cast_unsigned(), "prog_id:")? {
            let mut attr = empty();
            attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
            let program = Self(owned(bpf("opening a program", bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr)?));
            if program.describe()?.name == name {
                return Ok(program);
            }
        }
        bail!("process {pid} holds no program {name}")
    }

    /// Asks the kernel about it.
    pub(super) fn describe(&self) -> anyhow::Result<Described> {
        // SAFETY: made of integers, for which zero is a value.
        let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
        describe("describing a program", &self.0, &mut info)?;
        Ok(Described {
            name: text(&info.name)?,
            runs: Runs { count: info.run_cnt, time_ns: info.run_time_ns },
        })
    }

    /// Runs so far.
    pub(super) fn runs(&self) -> anyhow::Result<Runs> {
        self.describe().map(|described| described.runs)
    }

    /// Attaches it to an interface of the current network namespace.
    pub(super) fn attach(&self, ifindex: u32, way: bpf_attach_type, order: Order) -> anyhow::Result<OwnedFd> {
        let mut attr = empty();
        // SAFETY: the member that BPF_LINK_CREATE reads; all zero so far.
        let link = unsafe { &mut attr.link_create };
        link.__bindgen_anon_1.prog_fd = self.0.as_raw_fd().cast_unsigned();
        link.__bindgen_anon_2.target_ifindex = ifindex;
        link.attach_type = way as u32;
        link.flags = match order {
            Order::First => BPF_F_BEFORE,
            Order::Last => 0,
        };
        bpf("attaching a program to an interface", bpf_cmd::BPF_LINK_CREATE, &mut attr).map(owned)
    }

    /// Nanoseconds one run on `packet` (with its Ethernet header) takes: the mean of `repeat` runs in a row
    /// (`BPF_PROG_TEST_RUN`). The packet has a socket that belongs to nobody, and the loopback device of the
    /// current network namespace. What the program returned last comes with it.
    pub(super) fn test_run(&self, packet: &[u8], repeat: u32) -> anyhow::Result<(f64, i32)> {
        let mut attr = empty();
        attr.test.prog_fd = self.0.as_raw_fd().cast_unsigned();
        attr.test.data_in = packet.as_ptr() as u64;
        attr.test.data_size_in = packet.len() as u32;
        attr.test.repeat = repeat;
        bpf("running a program", bpf_cmd::BPF_PROG_TEST_RUN, &mut attr)?;
        // SAFETY: the member this command fills in.
        let test = unsafe { attr.test };
        Ok((f64::from(test.duration), test.retval.cast_signed()))
    }
}
