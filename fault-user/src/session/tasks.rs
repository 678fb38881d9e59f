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
    who::{JOINED_BY_NAME, JOINED_BY_NUMBER, Name, TASK_WORDS, task_bit},
};

use super::error::SessionError;
use crate::{
    kernel::{
        control::Mapped,
        load::{LoadError, Loaded, find},
        plain::Plain,
    },
    target::{
        Target, TargetError,
        cgroup::{Cgroup, CgroupError},
        pid,
    },
};

/// Attaches `task_fork` and `task_exit`: descendants join the target, the dead leave it. When names are aimed at, also
/// `task_rename`: namesakes join it.
pub(super) fn follow_processes(loaded: &mut Loaded, names: &[Name]) -> Result<(), SessionError> {
    let ebpf = &mut loaded.ebpf;
    let map = ebpf.map_mut("NAMES").ok_or(SessionError::NoMap("NAMES"))?;
    let mut map: HashMap<_, Plain<Name>, u32> = HashMap::try_from(map).map_err(SessionError::map("NAMES"))?;
    for name in names {
        map.insert(Plain(*name), 1, 0).map_err(SessionError::map("NAMES"))?;
    }
    loaded.control.names.store(names.len() as u32);
    let always = [("task_fork", "sched_process_fork"), ("task_exit", "sched_process_exit")];
    let rename = (!names.is_empty()).then_some(("task_rename", "task_rename"));
    for (program, tracepoint) in always.into_iter().chain(rename) {
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

/// How a process came to be in `TASKS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// It was named by its number, or descends from a member.
    ByNumber,
    /// It bears a name aimed at.
    ByName,
}

impl From<u32> for Joined {
    fn from(value: u32) -> Self {
        if value == JOINED_BY_NAME { Self::ByName } else { Self::ByNumber }
    }
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
        if let Some(gone) = target.cgroups.iter().find(|cgroup| !cgroup.exists()) {
            return Err(TargetError::from(CgroupError::Removed(gone.path.clone())).into());
        }
        Self::aim(loaded, target);
        let bits = find(&loaded.ebpf, "TASK_BITS")?;
        let bits =
            Mapped::new("TASK_BITS", bits.fd().as_fd(), TASK_WORDS as usize).map_err(LoadError::from)?;
        let mut tasks = Self { known: BTreeSet::new(), bits };
        // A child of a process not yet known is not followed by the fork program; the next round finds it.
        loop {
            let snapshot = target.snapshot()?;
            let numbers = tasks.add(loaded, &snapshot.tasks, JOINED_BY_NUMBER)?;
            if !tasks.add(loaded, &snapshot.named, JOINED_BY_NAME)? && !numbers {
                break;
            }
        }
        // Who ended before the exit program could see it under its number, must not leave the number to an heir. Whoever
        // is alive now is seen by that program.
        tasks.remove(loaded, &target.ended())?;
        Ok(tasks)
    }

    /// Tells the kernel the cgroups of `target`.
    pub(super) fn aim(loaded: &Loaded, target: &Target) {
        let cgroups: Vec<_> = target.present_cgroups().map(Cgroup::target).collect();
        loaded.control.set_cgroups(&cgroups);
    }

    /// Adds processes that belong to the target although nothing in `/proc` says so.
    pub(super) fn adopt(&mut self, loaded: &mut Loaded, tasks: &BTreeSet<u32>) -> Result<(), SessionError> {
        self.add(loaded, tasks, JOINED_BY_NUMBER).map(|_| ())
    }

    /// Takes out processes that do not belong to it any more.
    pub(super) fn remove(&mut self, loaded: &mut Loaded, tasks: &BTreeSet<u32>) -> Result<(), SessionError> {
        let map = loaded.ebpf.map_mut("TASKS").ok_or(SessionError::NoMap("TASKS"))?;
        let mut map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(SessionError::map("TASKS"))?;
        for tgid in tasks {
            let (word, bit) = task_bit(*tgid);
            self.bits[word as usize].clear_bits(bit);
            SessionError::removed("TASKS", map.remove(tgid))?;
            self.known.remove(tgid);
        }
        Ok(())
    }

    /// The processes of the target now, as far as they belong to it by number or name, and how they joined.
    pub(super) fn list(ebpf: &Ebpf) -> Result<Vec<(u32, Joined)>, SessionError> {
        let map = ebpf.map("TASKS").ok_or(SessionError::NoMap("TASKS"))?;
        let map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(SessionError::map("TASKS"))?;
        // Who leaves in the middle may end the walk early; the next one is complete.
        let found = map.iter().filter_map(Result::ok);
        Ok(found.map(|(tgid, how)| (tgid, Joined::from(how))).collect())
    }

    /// Adds what is new; whether there was anything.
    fn add(&mut self, loaded: &mut Loaded, tasks: &BTreeSet<u32>, joined: u32) -> Result<bool, SessionError> {
        let new: Vec<u32> = tasks.difference(&self.known).copied().collect();
        let map = loaded.ebpf.map_mut("TASKS").ok_or(SessionError::NoMap("TASKS"))?;
        let mut map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(SessionError::map("TASKS"))?;
        for &tgid in &new {
            map.insert(tgid, joined, 0).map_err(SessionError::map("TASKS"))?;
            let (word, bit) = task_bit(tgid);
            self.bits[word as usize].set_bits(bit);
        }
        self.known.extend(&new);
        Ok(!new.is_empty())
    }

    /// Whether any process of a `--pid` target is still alive.
    ///
    /// The exit program keeps the map true, with descendants the fork program too. Should the kernel ever fail to ask it, or
    /// refuse to take an entry out (since Linux 6.15 the lock of a bucket may time out: kernel/bpf/rqspinlock.c), the dead
    /// would keep a session alive for ever: so whoever is found first has to be alive indeed.
    pub(super) fn any_left(&mut self, loaded: &mut Loaded) -> Result<bool, SessionError> {
        loop {
            let map = loaded.ebpf.map("TASKS").ok_or(SessionError::NoMap("TASKS"))?;
            let map: HashMap<_, u32, u32> = HashMap::try_from(map).map_err(SessionError::map("TASKS"))?;
            match map.keys().next().transpose().map_err(SessionError::map("TASKS"))? {
                None => return Ok(false),
                Some(tgid) if pid::is_gone(tgid) => self.remove(loaded, &BTreeSet::from([tgid]))?,
                Some(_) => return Ok(true),
            }
        }
    }
}
