//! The calls of bpf(2) that aya 0.14 has no words for.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_link_info, bpf_link_type, bpf_prog_type,
};

/// `BPF_F_SLEEPABLE` (Linux 5.10).
const SLEEPABLE: u32 = 1 << 4;
/// `BPF_F_BEFORE` (Linux 6.6): without a relative program, before all others.
const BEFORE: u32 = 1 << 3;
/// Longest program name the kernel keeps, without the final zero.
const NAME_LEN: usize = 15;
/// Room for the verifier's words. Its last lines say what is wrong; 16 MiB is what it may need at most.
const LOG_LEN: usize = 4 << 20;
/// Lines of the verifier's log that an error repeats.
const LOG_LINES: usize = 12;

/// What a program is loaded as.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramType {
    pub kind: bpf_prog_type,
    pub attach: Option<bpf_attach_type>,
    /// BTF id of the kernel function, for programs that attach to one.
    pub function: u32,
    pub sleepable: bool,
}

/// Which function begins where, and what BTF says of it: callbacks (`bpf_loop`) need it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FunctionInfo<'a> {
    pub btf: BorrowedFd<'a>,
    pub record_size: usize,
    pub count: usize,
    pub records: &'a [u8],
}

/// The kernel refused a program.
#[derive(Debug)]
pub(super) struct Refusal {
    pub error: io::Error,
    /// The last lines of what the verifier said; empty when it was not even asked.
    pub log: String,
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole, initialised union; whatever it points to outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn empty() -> bpf_attr {
    // SAFETY: every member of the union is made of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

fn fd_from(result: i64) -> OwnedFd {
    // SAFETY: the calls below return a new descriptor (with close-on-exec, as bpf(2) always does).
    unsafe { OwnedFd::from_raw_fd(result as i32) }
}

/// `BPF_PROG_LOAD`. The verifier is asked for its log only after a refusal: writing it costs more than
/// verifying.
pub(super) fn load(
    name: &str,
    program: ProgramType,
    instructions: &[bpf_insn],
    functions: Option<FunctionInfo<'_>>,
    license: &CStr,
) -> Result<OwnedFd, Refusal> {
    let mut attr = empty();
    // SAFETY: the member that BPF_PROG_LOAD reads; all zero so far.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = program.kind as u32;
    load.expected_attach_type = program.attach.map_or(0, |attach| attach as u32);
    load.attach_btf_id = program.function;
    load.prog_flags = if program.sleepable { SLEEPABLE } else { 0 };
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = instructions.len() as u32;
    load.license = license.as_ptr() as u64;
    if let Some(functions) = functions {
        load.prog_btf_fd = functions.btf.as_raw_fd().cast_unsigned();
        load.func_info = functions.records.as_ptr() as u64;
        load.func_info_cnt = functions.count as u32;
        load.func_info_rec_size = functions.record_size as u32;
    }
    let name = CString::new(&name.as_bytes()[..name.len().min(NAME_LEN)]).unwrap_or_default();
    for (to, from) in load.prog_name.iter_mut().zip(name.as_bytes()) {
        *to = from.cast_signed();
    }
    match bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => return Ok(fd_from(fd)),
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && error.raw_os_error() == Some(libc::EPERM) =>
        {
            return Err(Refusal { error, log: String::new() });
        }
        Err(_) => {}
    }
    let mut log = vec![0u8; LOG_LEN];
    // SAFETY: as above.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = LOG_LEN as u32;
    load.log_level = 1;
    match bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) {
        Ok(fd) => Ok(fd_from(fd)),
        Err(error) => Err(Refusal { error, log: last_lines(&log) }),
    }
}

fn last_lines(log: &[u8]) -> String {
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("processed ")).collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// `BPF_BTF_LOAD` (Linux 4.18).
pub(super) fn load_btf(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = empty();
    // SAFETY: the member that BPF_BTF_LOAD reads; all zero so far.
    let load = unsafe { &mut attr.__bindgen_anon_7 };
    load.btf = types.as_ptr() as u64;
    load.btf_size = types.len() as u32;
    bpf(bpf_cmd::BPF_BTF_LOAD, &mut attr).map(fd_from)
}

/// `BPF_RAW_TRACEPOINT_OPEN` without a name: attaches a tracing program to the function it was loaded for.
pub(super) fn attach_tracing(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = empty();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr).map(fd_from)
}

/// `BPF_LINK_CREATE` on an interface of the current network namespace (tcx, Linux 6.6), before all others.
pub(super) fn attach_tcx(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach: bpf_attach_type,
) -> io::Result<OwnedFd> {
    let mut attr = empty();
    // SAFETY: the member that BPF_LINK_CREATE reads; all zero so far.
    let link = unsafe { &mut attr.link_create };
    link.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    link.__bindgen_anon_2.target_ifindex = ifindex;
    link.attach_type = attach as u32;
    link.flags = BEFORE;
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr).map(fd_from)
}

/// Links of everybody that make programs modify the return value of the kernel function with this BTF id: their
/// ids. (`BPF_LINK_GET_NEXT_ID`, Linux 5.8.)
pub(super) fn links_modifying(function: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut id = 0;
    loop {
        let mut attr = empty();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        match bpf(bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut attr) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(error) => return Err(error),
        }
        // SAFETY: the member that this command fills in.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        let mut attr = empty();
        attr.__bindgen_anon_6.__bindgen_anon_1.link_id = id;
        // The link may be gone again: not ours to wonder about.
        let Ok(link) = bpf(bpf_cmd::BPF_LINK_GET_FD_BY_ID, &mut attr).map(fd_from) else { continue };
        if modifies(&link, function)? {
            found.push(id);
        }
    }
}

fn modifies(link: &OwnedFd, function: u32) -> io::Result<bool> {
    // SAFETY: every member of the union is made of integers, for which zero is a value.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    let mut attr = empty();
    // SAFETY: the member that this command reads; all zero so far.
    let query = unsafe { &mut attr.info };
    query.bpf_fd = link.as_raw_fd().cast_unsigned();
    query.info_len = size_of::<bpf_link_info>() as u32;
    query.info = (&raw mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_TRACING as u32 {
        return Ok(false);
    }
    // SAFETY: the member that the kernel fills for this type of link.
    let tracing = unsafe { info.__bindgen_anon_1.tracing };
    let modifies = [bpf_attach_type::BPF_MODIFY_RETURN, bpf_attach_type::BPF_LSM_MAC];
    Ok(modifies.iter().any(|attach| tracing.attach_type == *attach as u32)
        && tracing.target_btf_id == function)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_the_end_of_the_log() {
        let mut log: Vec<u8> = (0..40).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        log.extend(b"processed 12 insns (limit 1000000)\n\0garbage");
        let shown = last_lines(&log);
        assert_eq!(shown.lines().count(), LOG_LINES);
        assert_eq!(shown.lines().last(), Some("line 39"));
        assert_eq!(last_lines(b"\0"), "");
    }
}
