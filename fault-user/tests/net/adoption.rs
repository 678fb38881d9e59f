//! Sockets that were open before the session.

use std::{
    io::{BufRead, BufReader},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    process::{Child, Command, Stdio},
};

use fault_common::{
    shared::SharedU64,
    who::{Connection, PORT_WORDS, SocketState, Stream, port_bit},
};
use fault_user::{
    kernel::{control::Mapped, load},
    net::sockets::Adopter,
    target::cgroup::Cgroup,
};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;

/// Opens one socket of every kind, prints `name descriptor port` of each, then waits for its input to end.
const SCRIPT: &str = r#"
import os, socket, sys
s = {}
s["listener"] = socket.socket(socket.AF_INET, socket.SOCK_STREAM); s["listener"].bind(("127.0.0.1", 0)); s["listener"].listen()
s["client"] = socket.create_connection(s["listener"].getsockname())
s["accepted"] = s["listener"].accept()[0]
s["udp6"] = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s["udp6"].bind(("::", 0))
s["unbound"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s["unix"], s["peer"] = socket.socketpair()
s["again"] = s["udp6"].dup()
for name, one in s.items():
    internet = one.family in (socket.AF_INET, socket.AF_INET6)
    print(name, one.fileno(), one.getsockname()[1] if internet else 0)
print("ready", 0, 0, flush=True)
sys.stdin.read()
"#;

struct Victim {
    child: Child,
    sockets: Vec<(String, i32, u16)>,
}

impl Victim {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let sockets = lines
            .map(|line| {
                let line = line.unwrap();
                let [name, fd, port] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
                (name.to_owned(), fd.parse().unwrap(), port.parse().unwrap())
            })
            .take_while(|(name, ..)| name != "ready")
            .collect();
        Self { child, sockets }
    }

    fn port(&self, name: &str) -> u16 {
        self.sockets.iter().find(|socket| socket.0 == name).unwrap().2
    }

    /// What the storage map has for the socket of this name.
    fn state(&self, name: &str, map: BorrowedFd<'_>) -> Option<SocketState> {
        let number = self.sockets.iter().find(|socket| socket.0 == name).unwrap().1;
        // SAFETY: system calls without memory; the results are checked.
        let socket = unsafe {
            let process = libc::syscall(libc::SYS_pidfd_open, self.child.id(), 0);
            assert!(process >= 0);
            let process = OwnedFd::from_raw_fd(process as i32);
            let socket = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0);
            assert!(socket >= 0);
            OwnedFd::from_raw_fd(socket as i32)
        };
        let (key, mut value) = (socket.as_raw_fd(), [0u64; size_of::<SocketState>() / 8]);
        let attributes = [map.as_raw_fd() as u64, &raw const key as u64, value.as_mut_ptr() as u64, 0];
        // SAFETY: key and value have the sizes of the map.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_ELEM, attributes.as_ptr(), size_of_val(&attributes))
        };
        // SAFETY: a `SocketState` is plain numbers, and the kernel filled the value.
        (result == 0).then(|| unsafe { value.as_ptr().cast::<SocketState>().read() })
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn every_open_internet_socket_becomes_a_member_once() {
    assert!(nix::unistd::geteuid().is_root(), "adopting sockets needs root");
    let loaded = load::load(&[], load::Sizes::default()).unwrap();
    let map = load::find(&loaded.ebpf, "SOCKETS").unwrap().fd().as_fd();
    let ports = load::find(&loaded.ebpf, "LOCAL_PORTS").unwrap().fd().as_fd();
    let ports: Mapped<SharedU64> = Mapped::new("LOCAL_PORTS", ports, PORT_WORDS as usize).unwrap();
    let template = SocketState {
        member: 0,
        tgid: 0,
        cgroup: 0,
        listening: 0,
        _pad: 0,
        cookie: 0,
        departure_ns: [0; 2],
        streams: [Stream::new(0); 2],
        connection: Connection::new(0),
    };

    let (victim, bystander) = (Victim::start(), Victim::start());
    let mut adopter = Adopter::new(map, &ports, template);
    let adoption = adopter.adopt([victim.child.id(), 4_194_305]).unwrap();
    assert_eq!((adoption.adopted, adoption.known), (5, 0), "{adoption:?}");
    assert!(adoption.failures.is_empty(), "{adoption:?}");
    for name in ["listener", "client", "accepted", "udp6", "unbound", "again"] {
        let state = victim.state(name, map).unwrap_or_else(|| panic!("{name} is not a member"));
        assert_eq!((state.member, state.tgid), (1, victim.child.id()), "{name}");
        // The victim lives where this test lives.
        assert_eq!(state.cgroup, Cgroup::own().unwrap().id, "{name}");
        assert!(bystander.state(name, map).is_none(), "{name} of the bystander");
    }
    assert!(victim.state("unix", map).is_none());

    let is_marked = |is_udp, port| {
        let (word, bit) = port_bit(is_udp, port);
        ports[word as usize].load() & bit != 0
    };
    for (name, is_udp) in [("listener", false), ("client", false), ("accepted", false), ("udp6", true)] {
        assert!(is_marked(is_udp, victim.port(name)), "{name}");
    }
    let bits: u32 = ports.iter().map(|word| word.load().count_ones()).sum();
    assert_eq!(bits, 3, "listener and accepted share a port; the unbound one has none");

    let again = adopter.adopt([victim.child.id()]).unwrap();
    assert_eq!((again.adopted, again.known), (0, 0), "seen before");
    let other = Adopter::new(map, &ports, template).adopt([victim.child.id()]).unwrap();
    assert_eq!((other.adopted, other.known), (0, 5), "members keep their state");
}
