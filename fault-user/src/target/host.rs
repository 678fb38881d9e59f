//! `--host`: everybody on this machine, and the lifelines that are spared so that somebody can still end it.
//!
//! Spared are SSH, DHCP and neighbour discovery. ARP needs no sparing: it is no IP, and no program looks at it.

use std::{collections::BTreeSet, fs, path::Path};

use procfs::{
    ProcError,
    net::TcpState,
    process::{FDTarget, Process, all_processes},
};

use super::cgroup::{Cgroup, CgroupError};
use crate::{exit::Class, spec::Exception};

/// The port of SSH.
const SSH: u16 = 22;
/// What servers of SSH are called that are started once and listen.
const SERVERS: [&str; 2] = ["sshd", "dropbear"];
/// Where sshd(8) says which connection a session came by: `client address, client port, server address, server port`.
const CONNECTION: &str = "SSH_CONNECTION";
/// DHCP for IPv4 and IPv6: servers and clients have ports of their own.
const DHCP: [&str; 4] =
    ["udp port 67-68", "udp local-port 67-68", "udp port 546-547", "udp local-port 546-547"];

/// The whole machine cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Not asked for.
    #[error(
        "{0} is every process of this machine, in all containers and network namespaces: say --yes as well (SSH, DHCP, ARP and neighbour discovery are spared)"
    )]
    Unconfirmed(&'static str),
    /// From in here only a part of the machine can be seen.
    #[error(
        "--host needs the host's cgroup namespace: run fault on the host or with `docker run --cgroupns=host`"
    )]
    ForeignNamespace,
    /// No hierarchy.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl HostError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unconfirmed(_) => Class::Usage,
            Self::ForeignNamespace => Class::Unsupported,
            Self::Cgroup(error) => error.class(),
        }
    }
}

/// The cgroup that everybody lives in: the real root of the hierarchy.
///
/// # Errors
/// When we cannot see that.
pub fn everybody() -> Result<Cgroup, HostError> {
    let root = Cgroup::root()?;
    if is_everybody(&root) { Ok(root) } else { Err(HostError::ForeignNamespace) }
}

/// Whether everybody lives in this cgroup.
#[must_use]
pub const fn is_everybody(cgroup: &Cgroup) -> bool {
    cgroup.level == 0
}

/// What net faults must spare so that the machine can still be reached. Found out now: call it when the session begins.
#[must_use]
pub fn lifelines() -> Vec<Exception> {
    let ports: BTreeSet<u16> = [SSH].into_iter().chain(own_connection()).chain(listening_servers()).collect();
    let ours = ports.into_iter().map(|port| format!("tcp local-port {port}"));
    // Who came here to go on from here.
    let theirs = format!("tcp port {SSH}");
    let texts = ours.chain([theirs]).chain(DHCP.into_iter().map(str::to_owned));
    // Words of our own making: they parse, and a test says so.
    texts.filter_map(|text| crate::spec::parse_exception(&text).ok()).collect()
}

/// Our port of the SSH connection this process was started through. sudo(8) takes the variable away, so those above us
/// are asked as well.
fn own_connection() -> Option<u16> {
    if let Some(port) = std::env::var(CONNECTION).ok().as_deref().and_then(server_port) {
        return Some(port);
    }
    let mut pid = std::os::unix::process::parent_id();
    // A line of ancestors has an end; this is for one that is rewritten while we walk it.
    for _ in 0..64 {
        let environment = fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).ok()?;
        let entry = environment
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok())
            .find_map(|entry| entry.strip_prefix(CONNECTION)?.strip_prefix('='));
        if let Some(port) = entry.and_then(server_port) {
            return Some(port);
        }
        pid = u32::try_from(parent(i32::try_from(pid).ok()?)?).ok().filter(|pid| *pid > 0)?;
    }
    None
}

fn server_port(connection: &str) -> Option<u16> {
    connection.split_whitespace().nth(3)?.parse().ok()
}

fn parent(pid: i32) -> Option<i32> {
    Some(Process::new(pid).ok()?.stat().ok()?.ppid)
}

/// Ports that servers of SSH listen on. Not those of their sessions, which listen for whom they forward.
fn listening_servers() -> BTreeSet<u16> {
    let name = |pid: i32| Some(Process::new(pid).ok()?.stat().ok()?.comm);
    let is_server = |comm: &str| SERVERS.contains(&comm);
    let servers = all_processes().into_iter().flatten().flatten().filter(|process| {
        process.stat().is_ok_and(|stat| {
            is_server(&stat.comm) && !name(stat.ppid).is_some_and(|parent| is_server(&parent))
        })
    });
    // One that ends meanwhile listens no more.
    servers.filter_map(|server| listening(&server).ok()).flatten().collect()
}

fn listening(server: &Process) -> Result<Vec<u16>, ProcError> {
    let mut sockets = BTreeSet::new();
    for descriptor in server.fd()?.flatten() {
        if let FDTarget::Socket(inode) = descriptor.target {
            sockets.insert(inode);
        }
    }
    // Its own view: it may live in another network namespace.
    let all = server.tcp()?.into_iter().chain(server.tcp6().unwrap_or_default());
    Ok(all
        .filter(|entry| entry.state == TcpState::Listen && sockets.contains(&entry.inode))
        .map(|entry| entry.local_address.port())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifelines_are_filters() {
        let texts: Vec<String> = lifelines().iter().map(ToString::to_string).collect();
        for wanted in ["tcp local-port 22", "tcp port 22"].into_iter().chain(DHCP) {
            assert!(texts.iter().any(|text| text == wanted), "{wanted} is not in {texts:?}");
        }
    }

    #[test]
    fn the_port_of_a_session() {
        assert_eq!(server_port("192.0.2.7 51234 192.0.2.1 2222"), Some(2222));
        assert_eq!(server_port("2001:db8::7 51234 2001:db8::1 22"), Some(22));
        assert_eq!(server_port(""), None);
        assert_eq!(server_port("192.0.2.7 51234 192.0.2.1 99999"), None);
    }

    #[test]
    fn a_server_is_asked_where_it_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = listening(&Process::myself().unwrap()).unwrap();
        assert!(ports.contains(&port), "{port} is not in {ports:?}");
        drop(listener);
        assert!(!listening(&Process::myself().unwrap()).unwrap().contains(&port));
    }
}
