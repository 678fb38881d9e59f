//! Adoption: making the sockets that were open before the session members of the target.
//!
//! Sockets made later are marked where they are made (cgroup/sock_create), accepted ones inherit from their
//! listener. Attach those hooks *before* adopting, then nothing falls in between. What cannot be adopted are
//! connections that a listener has already queued and nobody has accepted yet: they have no descriptor.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use fault_common::{
    shared::SharedU64,
    who::{SocketState, port_bit},
};
use socket2::{Domain, Protocol, SockRef};

mod subflows;

use super::{
    bpf,
    error::{NetError, Result},
};
use crate::target::cgroup::{self, Mounts};

/// What became of the sockets of some processes.
#[derive(Debug, Default)]
pub struct Adoption {
    /// Internet sockets that are members now and were not before.
    pub adopted: usize,
    /// Internet sockets that were members already.
    pub known: usize,
    /// Single sockets and processes that could not be adopted. (One that is merely gone is not listed.)
    pub failures: Vec<NetError>,
}

/// Adopts sockets into the storage map of one session. Remembers which it has seen.
#[derive(Debug)]
pub struct Adopter<'a> {
    sockets: BorrowedFd<'a>,
    ports: &'a [SharedU64],
    template: SocketState,
    seen: HashSet<u64>,
}

impl<'a> Adopter<'a> {
    /// Will store `template` (with the process and its cgroup filled in) in the map behind `sockets`, which must be a socket
    /// storage of [`SocketState`], and mark local ports in `ports`, the mapped `LOCAL_PORTS`.
    #[must_use]
    pub fn new(sockets: BorrowedFd<'a>, ports: &'a [SharedU64], template: SocketState) -> Self {
        Self { sockets, ports, template, seen: HashSet::new() }
    }

    /// Adopts the internet sockets of these processes (thread group ids; threads share descriptors). Cheap for
    /// sockets seen before, so it can be repeated for processes that joined a cgroup later.
    ///
    /// # Errors
    /// When the privilege is missing altogether (`pidfd_getfd` needs ptrace access, the map CAP_BPF), or the
    /// kernel has no `pidfd_getfd` (Linux 5.6). Anything about a single socket is in [`Adoption::failures`].
    pub fn adopt(&mut self, pids: impl IntoIterator<Item = u32>) -> Result<Adoption> {
        let mut adoption = Adoption::default();
        // Without a v2 hierarchy nobody can ask for cgroups, and 0 says "unknown" to whoever shows events.
        let mounts = Mounts::read().ok();
        for pid in pids {
            let cgroup = mounts.as_ref().and_then(|mounts| cgroup::id_of_process(mounts, pid)).unwrap_or(0);
            let state = SocketState { member: 1, tgid: pid, cgroup, ..self.template };
            match self.adopt_process(&state, &mut adoption) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error @ (NetError::Denied { .. } | NetError::Missing { .. })) => return Err(error),
                Err(error) => adoption.failures.push(error),
            }
        }
        Ok(adoption)
    }

    fn adopt_process(&mut self, state: &SocketState, adoption: &mut Adoption) -> Result<()> {
        let pid = state.tgid;
        let directory = format!("/proc/{pid}/fd");
        let entries = fs::read_dir(&directory)
            .map_err(|error| NetError::os("list the descriptors of", format!("process {pid}"), error))?;
        let mut process = None;
        for entry in entries.flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let Some(inode) = fs::read_link(entry.path()).ok().and_then(|link| socket_inode(link.to_str()?))
            else {
                continue;
            };
            if self.seen.contains(&inode) {
                continue;
            }
            let process = match &process {
                Some(process) => process,
                None => process.insert(open_process(pid)?),
            };
            match self.adopt_socket(process.as_fd(), state, number) {
                Ok(outcome) => {
                    match outcome {
                        Outcome::Adopted => adoption.adopted += 1,
                        Outcome::Known => adoption.known += 1,
                        Outcome::NotInternet => {}
                    }
                    self.seen.insert(inode);
                }
                Err(error) if is_gone(&error) => {}
                Err(error @ (NetError::Denied { .. } | NetError::Missing { .. })) => return Err(error),
                Err(error) => adoption.failures.push(error),
            }
        }
        Ok(())
    }

    fn adopt_socket(&self, process: BorrowedFd<'_>, state: &SocketState, number: i32) -> Result<Outcome> {
        let object = || format!("descriptor {number} of process {}", state.tgid);
        let socket = take(process, number).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSYS) => NetError::Missing {
                what: "way to adopt open sockets",
                module: "pidfd_getfd",
                config: "Linux 5.6",
                remedy: "use a later kernel".to_owned(),
                source: error,
            },
            _ => NetError::os("take", object(), error),
        })?;
        let domain = SockRef::from(&socket)
            .domain()
            .map_err(|error| NetError::os("ask the family of", object(), error))?;
        if domain != Domain::IPV4 && domain != Domain::IPV6 {
            return Ok(Outcome::NotInternet);
        }
        // Tells this socket from those it will accept, which start as a copy; without it they are taken for the same.
        let state = SocketState { cookie: SockRef::from(&socket).cookie().unwrap_or(0), ..*state };
        let outcome = match bpf::update(self.sockets, &socket.as_raw_fd(), &state, bpf::BPF_NOEXIST) {
            Ok(()) => Outcome::Adopted,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Outcome::Known,
            Err(error) => return Err(NetError::os("mark", object(), error)),
        };
        // After the mark: a packet that finds the bit set must find the socket.
        for (is_udp, port) in local_ports(&socket) {
            let (word, bit) = port_bit(is_udp, port);
            if let Some(word) = self.ports.get(word as usize) {
                word.set_bits(bit);
            }
        }
        Ok(outcome)
    }
}

/// What became of one socket.
enum Outcome {
    Adopted,
    Known,
    NotInternet,
}

/// `socket:[12345]` → 12345.
fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn open_process(pid: u32) -> Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(NetError::os("open", format!("process {pid}"), io::Error::last_os_error()));
    }
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A descriptor of ours for the socket behind descriptor `number` of `process`.
fn take(process: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The local ports of a TCP or UDP socket, and whether they are of UDP: one if it has one, of an MPTCP socket also those of its
/// subflows.
fn local_ports(socket: &OwnedFd) -> Vec<(bool, u16)> {
    let about = SockRef::from(socket);
    let protocol = match about.protocol() {
        Ok(Some(protocol)) => protocol,
        Ok(None) | Err(_) => return Vec::new(),
    };
    let of_subflows = if protocol == Protocol::MPTCP {
        // A kernel that cannot say so does not tell subflows apart either.
        subflows::local_ports(socket.as_fd()).unwrap_or_default()
    } else if protocol == Protocol::TCP || protocol == Protocol::UDP {
        Vec::new()
    } else {
        return Vec::new();
    };
    let own = about.local_addr().ok().and_then(|address| Some(address.as_socket()?.port()));
    let ports = own.filter(|port| *port != 0).into_iter().chain(of_subflows);
    ports.map(|port| (protocol == Protocol::UDP, port)).collect()
}

/// The process or the descriptor went away while we looked: nothing left to adopt.
fn is_gone(error: &NetError) -> bool {
    matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH | libc::EBADF))
}

#[cfg(test)]
mod tests {
    use super::socket_inode;

    #[test]
    fn only_sockets_are_sockets() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        for other in ["pipe:[4711]", "/tmp/socket:[4711]", "anon_inode:[eventpoll]", "socket:[]"] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }
}
