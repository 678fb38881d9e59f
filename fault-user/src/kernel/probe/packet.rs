//! What packet faults stand on: hooks, sockets, and the devices of the lane.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use aya_obj::generated::{bpf_attach_type, bpf_map_type, bpf_prog_type};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};

use super::{
    bpf::{self, Attempt, Failure, MapSpec, ProgramSpec},
    insn::{self, Insn, helper},
    netns::{LOOPBACK, Netlink},
};

/// `TC_ACT_OK`.
const PASS: i32 = 0;
const NO_PREALLOC: u32 = 1;
/// `BPF_F_CLONE`: accepted sockets inherit what their listener has.
const CLONE: u32 = 1 << 9;
/// `BPF_SK_STORAGE_GET_F_CREATE`.
const CREATE: i32 = 1;
/// `BPF_SKB_TSTAMP_DELIVERY_MONO`, in later kernels `BPF_SKB_CLOCK_MONOTONIC`.
const MONOTONIC: i32 = 1;

fn load_classifier(what: &str, insns: &[Insn]) -> Attempt<OwnedFd> {
    bpf::load(&ProgramSpec {
        what,
        kind: bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
        insns,
        attach_type: 0,
        attach_btf_id: 0,
        flags: 0,
    })
}

/// A packet program that passes everything.
pub fn classifier() -> Attempt<OwnedFd> {
    load_classifier("a packet program", &insn::return_only(PASS))
}

/// Attaches and detaches a program at both sides of the private namespace's `lo`.
pub fn tcx() -> Attempt<()> {
    // What swallows a packet silently belongs to the hook: it must load there too.
    let program = load_classifier(
        "a packet program that redirects",
        &[insn::set(1, i32::MAX), insn::set(2, 0), insn::call(helper::REDIRECT), insn::exit()],
    )?;
    for side in [bpf_attach_type::BPF_TCX_EGRESS, bpf_attach_type::BPF_TCX_INGRESS] {
        bpf::link(program.as_fd(), LOOPBACK, side as u32, "attaching a program through tcx")?;
    }
    Ok(())
}

/// Attaches a program through clsact to the private namespace's `lo`.
pub fn clsact(netlink: &Netlink) -> Attempt<()> {
    let program = classifier()?;
    netlink.add_clsact(LOOPBACK)?;
    netlink.add_filter(LOOPBACK, program.as_raw_fd())
}

/// Loads a program that sets a departure time.
pub fn departure_time() -> Attempt<()> {
    load_classifier(
        "a program that calls bpf_skb_set_tstamp",
        &[
            insn::set(2, 1),
            insn::set(3, MONOTONIC),
            insn::call(helper::SKB_SET_TSTAMP),
            insn::set(0, PASS),
            insn::exit(),
        ],
    )
    .map(drop)
}

/// Loads a program that gives connect(2) another error than EPERM.
pub fn set_retval() -> Attempt<()> {
    bpf::load(&ProgramSpec {
        what: "a program that calls bpf_set_retval",
        kind: bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        insns: &[
            insn::set(1, -libc::ECONNREFUSED),
            insn::call(helper::SET_RETVAL),
            insn::set(0, 0),
            insn::exit(),
        ],
        attach_type: bpf_attach_type::BPF_CGROUP_INET4_CONNECT as u32,
        attach_btf_id: 0,
        flags: 0,
    })
    .map(drop)
}

fn load_socket_program(what: &str, insns: &[Insn]) -> Attempt<OwnedFd> {
    bpf::load(&ProgramSpec {
        what,
        kind: bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK,
        insns,
        attach_type: bpf_attach_type::BPF_CGROUP_INET_SOCK_CREATE as u32,
        attach_btf_id: 0,
        flags: 0,
    })
}

/// Attaches a program that allows everything where the real one goes, and detaches it.
pub fn socket_hook(cgroup: BorrowedFd<'_>) -> Attempt<()> {
    let program = load_socket_program("a cgroup/sock_create program", &insn::return_only(1))?;
    bpf::link(
        program.as_fd(),
        cgroup.as_raw_fd() as u32,
        bpf_attach_type::BPF_CGROUP_INET_SOCK_CREATE as u32,
        "attaching a program to cgroup/sock_create at the root of the cgroup v2 tree",
    )
    .map(drop)
}

/// Creates socket storage that accepted sockets inherit, and loads the program that fills it.
pub fn socket_storage() -> Attempt<()> {
    let btf = bpf::load_int_btf()?;
    let storage = bpf::create_map(&MapSpec {
        kind: bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
        key_size: 4,
        value_size: 4,
        entries: 0,
        flags: NO_PREALLOC | CLONE,
        btf: Some(btf.as_fd()),
    })?;
    let mut insns = vec![insn::copy(2, 1)];
    insns.extend(insn::map(1, storage.as_raw_fd()));
    insns.extend([insn::set(3, 0), insn::set(4, CREATE), insn::call(helper::SK_STORAGE_GET)]);
    insns.extend(insn::return_only(1));
    load_socket_program("a cgroup/sock_create program that uses socket storage", &insns).map(drop)
}

/// Takes a descriptor out of another process: a child of ours that does nothing.
pub fn pidfd_getfd() -> Attempt<()> {
    // SAFETY: the child calls nothing but `pause` and `_exit`, which are safe after a fork in a process with
    // several threads.
    match unsafe { fork() }.map_err(|errno| Failure::new("forking", errno))? {
        ForkResult::Child => {
            // SAFETY: plain system calls; if the parent dies first, so does the child.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
                libc::_exit(0)
            }
        }
        ForkResult::Parent { child } => {
            let attempt = take_descriptor(child);
            // The child is ours and has not been waited for: neither can fail.
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
            attempt
        }
    }
}

fn take_descriptor(process: Pid) -> Attempt<()> {
    let open = |result: libc::c_long, step: &str| -> Attempt<OwnedFd> {
        let raw = Errno::result(result).map_err(|errno| Failure::new(step, errno))?;
        // SAFETY: both calls return a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
    };
    // SAFETY: integers only.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    let pidfd = open(pidfd, "pidfd_open of a child of ours")?;
    // Any descriptor will do: the namespace's, opened before the fork, would too, but 0 may be closed.
    for number in 0..3 {
        // SAFETY: integers only.
        let taken = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
        match open(taken, "pidfd_getfd from a child of ours") {
            Err(Failure { errno: Errno::EBADF, .. }) => {}
            other => return other.map(drop),
        }
    }
    // All three closed; that the kernel looked for them at all means that it would have given them.
    Ok(())
}
