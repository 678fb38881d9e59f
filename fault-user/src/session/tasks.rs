//! Who suffers, told to the kernel: processes, cgroups, and the programs that follow them through fork, exit
//! and socket(2).
//!
//! Order matters, because the target does not stand still: first the programs that see *new* processes and
//! sockets, then a snapshot of those that exist. Whatever happens between the two is seen by both.

use std::{collections::BTreeSet, fs::File, os::fd::AsFd as _, path::Path};

use aya::{
    Ebpf,
    maps::HashMap,
    programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, ProgramError, RawTracePoint, SockOps},
};

use fault_common::{
    shared::SharedU64,
    who::{TASK_WORDS, task_bit},
};

use super::error::SessionError;
use crate::{
    kernel::{
        control::Mapped,
        load::{LoadError, Loaded, find},
    },
    target::{Target, TargetError, cgroup::Cgroup},
};

/// Attaches `task_fork` and `task_exit`: descendants join the target, the dead leave it.
pub(super) fn follow_processes(ebpf: &mut Ebpf) -> Result<(), SessionError> {
    for (program, tracepoint) in [("task_fork", "sched_process_fork"), ("task_exit", "sched_process_exit")] {
        let probe: &mut RawTracePoint = program_mut(ebpf, program)?;
        probe.load().map_err(SessionError::program(program))?;
        probe.attach(tracepoint).map_err(SessionError::program(program))?;
    }
    Ok(())
}

/// Attaches the programs that make sockets of the target known the moment they are made or bound.
///
/// At the root of the v2 hierarchy, whatever the target is: a process named by `--pid` may live anywhere.
pub(super) fn follow_sockets(ebpf: &mut Ebpf) -> Result<(), SessionError> {
    let directory = root_of_cgroups()?;
    for program in ["sock_create", "sock_bind4", "sock_bind6"] {
        let hook: &mut CgroupSock = program_mut(ebpf, program)?;
        hook.load().map_err(SessionError::program(program))?;
        // A link always shares the cgroup with others; flags are for the older attachment without link, and
        // refused here (kernel/bpf/cgroup.c, cgroup_bpf_link_attach).
        hook.attach(&directory, CgroupAttachMode::Single).map_err(SessionError::program(program))?;
    }
    Ok(())
}

/// Attaches the program that makes the subflows of the target's MPTCP sockets known, at the same place. Whether there is such a
/// thing: MPTCP is an option of the kernel (Linux 5.6), and only since 5.19 can be asked whose subflow a socket is.
pub(super) fn follow_subflows(ebpf: &mut Ebpf) -> Result<bool, SessionError> {
    const PROGRAM: &str = "net_subflow";
    if !Path::new("/proc/sys/net/mptcp").is_dir() {
        return Ok(false);
    }
    let hook: &mut SockOps = program_mut(ebpf, PROGRAM)?;
    match hook.load() {
        Ok(()) => {}
        // What the verifier says of a helper it does not know.
        Err(ProgramError::LoadError { io_error, .. }) if io_error.raw_os_error() == Some(libc::EINVAL) => {
            return Ok(false);
        }
        Err(error) => return Err(SessionError::program(PROGRAM)(error)),
    }
    hook.attach(root_of_cgroups()?, CgroupAttachMode::Single).map_err(SessionError::program(PROGRAM))?;
    Ok(true)
}

/// Attaches the programs that fail calls of connect(2) and sendmsg(2), at the same place.
pub(super) fn follow_calls(ebpf: &mut Ebpf, binds: bool) -> Result<(), SessionError> {
    let directory = root_of_cgroups()?;
    let calls = ["call_connect4", "call_connect6", "call_sendmsg4", "call_sendmsg6"];
    let binds: &[_] = if binds { &["call_bind4", "call_bind6"] } else { &[] };
    for program in calls.iter().chain(binds) {
        let hook: &mut CgroupSockAddr = program_mut(ebpf, program)?;
        hook.load().map_err(SessionError::program(program))?;
        hook.attach(&directory, CgroupAttachMode::Single).map_err(SessionError::program(program))?;
    }
    Ok(())
}

fn root_of_cgroups() -> Result<File, SessionError> {
    let root = Cgroup::root().map_err(TargetError::from)?;
    File::open(&root.path)
        .map_err(|source| SessionError::Open { path: root.path.display().to_string(), source })
}

/// The program `name` of the object, as the type it is.
fn program_mut<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, SessionError>
where
    &'a mut T: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(SessionError::NoProgram(name))?
        .try_into()
        .map_err(SessionError::program(name))
}

/// Processes of the target, as the kernel programs know them.
pub(super) struct Tasks {
    known: BTreeSet<u32>,
    /// The mapped `TASK_BITS`.
    bits: Mapped<SharedU64>,
}

impl Tasks {
    /// Tells the kernel the cgroups of `target`, and its processes until no unknown one turns up.
    pub(super) fn enter(loaded: &mut Loaded, target: &Target) -> Result<Self, SessionError> {
        let cgroups: Vec<_> = target.cgroups.iter().map(Cgroup::target).collect();
        loaded.control.set_cgroups(&cgroups);
        let bits = find(&loaded.ebpf, "TASK_BITS")?;
        let bits =
            Mapped::new("TASK_BITS", bits.fd().as_fd(), TASK_WORDS as usize).map_err(LoadError::from)?;
        let mut tasks = Self { known: BTreeSet::new(), bits };
        // A child of a process not yet known is not followed by the fork program; the next round finds it.
        while tasks.add(loaded, &target.snapshot()?.tasks)? {}
        Ok(tasks)
    }

    /// Adds what is new; whether there was anything.
    fn add(&mut self, loaded: &mut Loaded, tasks: &BTreeSet<u32>) -> Result<bool, SessionError> {
        let new: Vec<u32> = tasks.difference(&self.known).copied().collect();
        let map = loaded.ebpf.map_mut("TASKS").ok_or(SessionError::NoMap("TASKS"))?;
        let mut map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(SessionError::map("TASKS"))?;
        for &tgid in &new {
            let (word, bit) = task_bit(tgid);
            self.bits[word as usize].set_bits(bit);
            map.insert(tgid, 1, 0).map_err(SessionError::map("TASKS"))?;
        }
        self.known.extend(&new);
        Ok(!new.is_empty())
    }

    /// Whether any process of a `--pid` target is still alive.
    ///
    /// The exit program keeps the map true, with descendants the fork program too.
    pub(super) fn any_left(ebpf: &Ebpf) -> Result<bool, SessionError> {
        let map = ebpf.map("TASKS").ok_or(SessionError::NoMap("TASKS"))?;
        let map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(SessionError::map("TASKS"))?;
        Ok(map.keys().next().is_some())
    }
}
