//! Finds the controllers of this machine, in whatever network namespace, and asks them.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::MetadataExt as _,
            net::{SocketAddr, UnixStream},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};

use super::{
    BeaconError, PREFIX,
    message::{Answer, Controller, Request},
};
use crate::net::netns::NetnsHandle;

/// How long an answer may take: one that is stopped never gives one.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where a controller listens.
#[derive(Clone, Debug, Default)]
pub struct Address {
    name: String,
    /// The namespace; none is our own.
    netns: Option<NetnsHandle>,
}

/// A controller that answered.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where.
    pub address: Address,
    /// What it said. Its `pid` is the number it has where we are.
    pub controller: Controller,
}

/// All controllers of this machine.
#[derive(Clone, Debug, Default)]
pub struct Everyone {
    /// By number.
    pub found: Vec<Found>,
    /// The numbers of those that did not answer: stopped, or too busy.
    pub silent: Vec<u32>,
}

/// Asks everyone for a snapshot, all at once: whoever does not answer holds up nobody else.
#[must_use]
pub fn look() -> Everyone {
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = addresses()
            .into_iter()
            .map(|address| scope.spawn(move || (ask(&address, Request::Snapshot), address)))
            .collect();
        // One that panicked has said so.
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut everyone = Everyone::default();
    for (answer, address) in answers {
        match answer {
            Ok((pid, Answer::Snapshot(controller))) => {
                // One that has healed all of its sessions has nothing to say; a service may be idle for days.
                if !controller.sessions.is_empty() {
                    everyone.found.push(Found { address, controller: Controller { pid, ..controller } });
                }
            }
            Ok((pid, Answer::Done | Answer::Refused { .. })) => everyone.silent.push(pid),
            Err(Failure::Silent(pid)) => everyone.silent.push(pid),
            // It has ended since, or is not one of ours.
            Err(Failure::Gone(_) | Failure::Stranger) => {}
        }
    }
    everyone.found.sort_by_key(|found| found.controller.pid);
    everyone.silent.sort_unstable();
    everyone
}

/// Pauses, resumes or heals a session of the controller at `address`.
///
/// # Errors
/// When it cannot be asked, or refuses.
pub fn tell(found: &Found, request: Request) -> Result<(), BeaconError> {
    let pid = found.controller.pid;
    let failed = |source| Err(BeaconError::Ask { pid, source });
    match ask(&found.address, request) {
        Ok((_, Answer::Done)) => Ok(()),
        Ok((_, Answer::Refused { why })) => Err(BeaconError::Refused { pid, why }),
        Ok((_, Answer::Snapshot(_))) => failed(io::ErrorKind::InvalidData.into()),
        Err(Failure::Silent(_)) => failed(io::ErrorKind::TimedOut.into()),
        Err(Failure::Gone(error)) => failed(error),
        Err(Failure::Stranger) => failed(io::ErrorKind::PermissionDenied.into()),
    }
}

/// Why there is no answer.
enum Failure {
    /// It listens and does not answer.
    Silent(u32),
    /// Nobody listens.
    Gone(io::Error),
    /// Neither root nor we: anybody may take such a name, and say anything.
    Stranger,
}

/// The answer, and the number of the process that gave it.
fn ask(address: &Address, request: Request) -> Result<(u32, Answer), Failure> {
    let name = SocketAddr::from_abstract_name(&address.name).map_err(Failure::Gone)?;
    let connect = || UnixStream::connect_addr(&name);
    let stream = match &address.netns {
        None => connect(),
        // A socket stays in the namespace it was made in.
        Some(netns) => netns.run_in(|| Ok(connect())).unwrap_or_else(|error| Err(io::Error::other(error))),
    }
    .map_err(Failure::Gone)?;
    // Of whoever called listen(2), as seen from our PID namespace.
    let credentials = getsockopt(&stream, PeerCredentials).map_err(|error| Failure::Gone(error.into()))?;
    if credentials.uid() != 0 && credentials.uid() != geteuid().as_raw() {
        return Err(Failure::Stranger);
    }
    let pid = credentials.pid().unsigned_abs();
    exchange(&stream, request).map(|answer| (pid, answer)).map_err(|error| match error.kind() {
        // A connection that was let go unanswered: the process is ending.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            Failure::Gone(error)
        }
        _ => Failure::Silent(pid),
    })
}

fn exchange(mut stream: &UnixStream, request: Request) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&answer)?)
}

/// Everybody who listens on a name of ours. A namespace that none of its processes shows us is not looked into: a controller
/// lives in the one it listens in, if it did not leave it.
fn addresses() -> Vec<Address> {
    let netns_of = |path: &Path| fs::metadata(path).ok().map(|status| status.ino());
    let here = netns_of(Path::new("/proc/thread-self/ns/net"));
    let mut seen = BTreeSet::from_iter(here);
    let mut all: Vec<Address> = names(Path::new("/proc/thread-self/net/unix"))
        .into_iter()
        .map(|name| Address { name, netns: None })
        .collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    for process in processes.filter(|path| is_process(path)) {
        let namespace: PathBuf = process.join("ns/net");
        if !netns_of(&namespace).is_some_and(|inode| seen.insert(inode)) {
            continue;
        }
        let names = names(&process.join("net/unix"));
        if names.is_empty() {
            continue;
        }
        // It may have ended since, and with it whoever listens.
        let Ok(handle) = NetnsHandle::open(&namespace) else { continue };
        all.extend(names.into_iter().map(|name| Address { name, netns: Some(handle.clone()) }));
    }
    all
}

fn is_process(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str())
        .is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
}

/// The names of ours in a file like `/proc/net/unix`.
fn names(file: &Path) -> Vec<String> {
    // Not text: a name may hold any bytes.
    let bytes = fs::read(file).unwrap_or_default();
    listeners(&String::from_utf8_lossy(&bytes))
}

/// `Num: RefCount Protocol Flags Type St Inode Path`; a name in the abstract namespace begins with `@`.
fn listeners(table: &str) -> Vec<String> {
    /// `__SO_ACCEPTCON`: it listens.
    const LISTENS: &str = "00010000";
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let name = fields.get(7)?.strip_prefix('@')?;
        (fields[3] == LISTENS && name.starts_with(PREFIX)).then(|| name.to_owned())
    };
    table.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_among_all_sockets() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path
ffff8d1c0a5e0000: 00000002 00000000 00010000 0001 01 41230 @fault/4711
ffff8d1c0a5e0001: 00000003 00000000 00000000 0001 03 41231 @fault/4711
ffff8d1c0a5e0002: 00000002 00000000 00010000 0001 01 41232 /run/fault/fault.sock
ffff8d1c0a5e0003: 00000003 00000000 00000000 0001 03 41233
ffff8d1c0a5e0004: 00000002 00000000 00010000 0001 01 41234 @other/7
ffff8d1c0a5e0005: 00000002 00000000 00010000 0001 01 41235 @fault/12-1
";
        assert_eq!(listeners(table), ["fault/4711", "fault/12-1"]);
    }
}
