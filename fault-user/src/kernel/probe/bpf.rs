//! The system calls of the probes. Each failure says what was tried and what the kernel answered.

use std::{
    ffi::CStr,
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_type, bpf_prog_info, bpf_prog_type};
use nix::errno::Errno;

use super::insn::Insn;

/// Something the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was tried: a system call and its object.
    pub step: String,
    /// What the kernel answered.
    pub errno: Errno,
    /// What the verifier had to say, reduced to the line that matters; empty when it was not asked.
    pub log: String,
}

impl Failure {
    /// A failure without a verifier log.
    pub fn new(step: impl Into<String>, errno: Errno) -> Self {
        Self { step: step.into(), errno, log: String::new() }
    }

    /// From the standard library's error.
    pub fn io(step: impl Into<String>, error: &io::Error) -> Self {
        Self::new(step, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:?})", self.step, self.errno.desc(), self.errno)?;
        if self.log.is_empty() { Ok(()) } else { write!(f, "; verifier: {}", self.log) }
    }
}

/// What a probe's step gives.
pub type Attempt<T> = Result<T, Failure>;

/// The verifier's log of a program of ten instructions is a page; of a long one only the end would matter.
const LOG_SIZE: usize = 64 * 1024;

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> Result<i64, Errno> {
    // SAFETY: `attr` is a whole, initialised union of the size given; every pointer in it was set by a caller
    // in this file from something that outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as u32, core::ptr::from_mut(attr), size_of::<bpf_attr>())
    };
    Errno::result(result)
}

fn fd(command: bpf_cmd, attr: &mut bpf_attr) -> Result<OwnedFd, Errno> {
    let raw = bpf(command, attr)?;
    // SAFETY: the commands this is used for return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

fn attr() -> bpf_attr {
    // SAFETY: a union of integers; all zero is what the kernel wants for fields that are not used.
    unsafe { core::mem::zeroed() }
}

/// A map; `btf` is a BTF object whose type 1 is the key's and the value's type, for maps that insist on one.
pub struct MapSpec<'a> {
    pub kind: bpf_map_type,
    pub key_size: u32,
    pub value_size: u32,
    pub entries: u32,
    pub flags: u32,
    pub btf: Option<BorrowedFd<'a>>,
}

/// `BPF_MAP_CREATE`.
pub fn create_map(spec: &MapSpec<'_>) -> Attempt<OwnedFd> {
    let mut attr = attr();
    // SAFETY: every field of the union is plain integers, and the union is zeroed.
    let map = unsafe { &mut attr.__bindgen_anon_1 };
    map.map_type = spec.kind as u32;
    map.key_size = spec.key_size;
    map.value_size = spec.value_size;
    map.max_entries = spec.entries;
    map.map_flags = spec.flags;
    name(&mut map.map_name);
    if let Some(btf) = spec.btf {
        map.btf_fd = btf.as_raw_fd() as u32;
        map.btf_key_type_id = 1;
        map.btf_value_type_id = 1;
    }
    fd(bpf_cmd::BPF_MAP_CREATE, &mut attr)
        .map_err(|errno| Failure::new(format!("creating a map ({:?})", spec.kind), errno))
}

/// What every program and map of the probes is called, should anybody look while they are there.
fn name(field: &mut [core::ffi::c_char; 16]) {
    for (to, from) in field.iter_mut().zip(b"fault_probe\0") {
        *to = *from as core::ffi::c_char;
    }
}

/// `BPF_BTF_LOAD` of one type, `int` of four bytes: what storage maps want for key and value.
pub fn load_int_btf() -> Attempt<OwnedFd> {
    let words: [u32; 10] = [
        0x0001_eb9f,  // magic, version
        24,           // header length
        0,            // types begin
        16,           // types' length
        16,           // strings begin
        5,            // strings' length
        1,            // name: "int"
        1 << 24,      // kind: integer
        4,            // bytes
        1 << 24 | 32, // signed, 32 bits
    ];
    let mut blob: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    blob.extend_from_slice(b"\0int\0");
    let mut attr = attr();
    // SAFETY: as in `create_map`.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = blob.as_ptr() as u64;
    load.btf_size = blob.len() as u32;
    fd(bpf_cmd::BPF_BTF_LOAD, &mut attr).map_err(|errno| Failure::new("loading type information", errno))
}

/// A program to load.
pub struct ProgramSpec<'a> {
    /// For the failure: what it is, as a reader of the report should see it.
    pub what: &'a str,
    pub kind: bpf_prog_type,
    pub insns: &'a [Insn],
    /// `enum bpf_attach_type`, 0 where there is no choice.
    pub attach_type: u32,
    /// Function or tracepoint to be attached to, by BTF id; 0 for none.
    pub attach_btf_id: u32,
    pub flags: u32,
}

/// `BPF_PROG_LOAD`.
pub fn load(spec: &ProgramSpec<'_>) -> Attempt<OwnedFd> {
    let mut log = vec![0u8; LOG_SIZE];
    let mut attr = attr();
    // SAFETY: as in `create_map`.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = spec.kind as u32;
    program.insn_cnt = spec.insns.len() as u32;
    program.insns = spec.insns.as_ptr() as u64;
    program.license = c"Dual MIT/GPL".as_ptr() as u64;
    program.log_level = 1;
    program.log_size = log.len() as u32;
    program.log_buf = log.as_mut_ptr() as u64;
    program.prog_flags = spec.flags;
    program.expected_attach_type = spec.attach_type;
    program.attach_btf_id = spec.attach_btf_id;
    name(&mut program.prog_name);
    fd(bpf_cmd::BPF_PROG_LOAD, &mut attr).map_err(|errno| Failure {
        step: format!("loading {}", spec.what),
        errno,
        log: telling_line(&log),
    })
}

/// The last line of a verifier log that is no statistics: the complaint.
fn telling_line(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    String::from_utf8_lossy(&log[..end])
        .lines()
        .map(str::trim)
        .rfind(|line| {
            !line.is_empty() && !line.starts_with("processed ") && !line.starts_with("verification time")
        })
        .unwrap_or_default()
        .to_owned()
}

/// `BPF_LINK_CREATE` on an interface (`target` is its index) or a directory of the cgroup tree (a descriptor).
pub fn link(program: BorrowedFd<'_>, target: u32, attach_type: u32, step: &str) -> Attempt<OwnedFd> {
    let mut attr = attr();
    // SAFETY: as in `create_map`.
    let create = unsafe { &mut attr.link_create };
    create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    create.__bindgen_anon_2.target_fd = target;
    create.attach_type = attach_type;
    fd(bpf_cmd::BPF_LINK_CREATE, &mut attr).map_err(|errno| Failure::new(step, errno))
}

/// `BPF_RAW_TRACEPOINT_OPEN`: a raw tracepoint by name, or (no name) wherever the program was loaded for.
pub fn open_tracepoint(program: BorrowedFd<'_>, name: Option<&CStr>, step: &str) -> Attempt<OwnedFd> {
    let mut attr = attr();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    attr.raw_tracepoint.name = name.map_or(0, |name| name.as_ptr() as u64);
    fd(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr).map_err(|errno| Failure::new(step, errno))
}

/// `BPF_PROG_TEST_RUN` of a program without context; gives what it returned.
pub fn test_run(program: BorrowedFd<'_>, step: &str) -> Attempt<u32> {
    let mut attr = attr();
    attr.test.prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).map_err(|errno| Failure::new(step, errno))?;
    // SAFETY: the kernel filled in this member of the union.
    Ok(unsafe { attr.test.retval })
}

/// Element 0 of an array map of `u64`s.
pub fn read_element(map: BorrowedFd<'_>, value: &mut [u64]) -> Attempt<()> {
    let key = 0u32;
    let mut attr = attr();
    // SAFETY: as in `create_map`.
    let element = unsafe { &mut attr.__bindgen_anon_2 };
    element.map_fd = map.as_raw_fd() as u32;
    element.key = core::ptr::from_ref(&key) as u64;
    element.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr)
        .map(drop)
        .map_err(|errno| Failure::new("reading a map", errno))
}

/// Length of the machine code of a program in bytes: 0 when it is interpreted.
pub fn machine_code_length(program: BorrowedFd<'_>) -> Attempt<u32> {
    // SAFETY: plain integers; zero asks the kernel for no more than the fixed part.
    let mut info: bpf_prog_info = unsafe { core::mem::zeroed() };
    let mut attr = attr();
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = core::ptr::from_mut(&mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)
        .map_err(|errno| Failure::new("asking about a program", errno))?;
    Ok(info.jited_prog_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_complaint_is_found_in_a_log() {
        let log =
            b"func#0 @0\nshould_fail_bio() is not modifiable\nprocessed 0 insns (limit 1000000)\n\0\0junk";
        assert_eq!(telling_line(log), "should_fail_bio() is not modifiable");
        assert_eq!(telling_line(b"\0"), "");
    }
}
