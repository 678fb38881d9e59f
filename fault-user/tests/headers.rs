//! Packets out of the ordinary, and processes out of the ordinary: whose they are and what their headers say.
//!
//! Two network namespaces joined by a veth. Each test runs this very program again as COMMAND under `fault run`
//! in the one; what arrives in the other is the observer. Needs root and tc hooks.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    env,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    process::{self, Command, ExitCode, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use fault_user::net::netns::NetnsHandle;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Where the far end listens.
const PORT: u16 = 9999;
/// Datagrams of one run.
const COUNT: usize = 20;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    if let (Some(role), Some(peer)) = (arguments.next().as_deref().and_then(role), arguments.next()) {
        role(peer.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let tests = vec![
        Trial::test("plain_datagrams_are_all_lost_and_nobody_elses", plain),
        Trial::test("a_packet_that_crosses_two_interfaces_is_decided_once", stacked),
        Trial::test("ports_lie_behind_ip_options", options),
        Trial::test("ports_lie_behind_extension_headers", extensions),
        Trial::test("the_first_fragment_decides", fragments),
        Trial::test("icmp_errors_belong_to_the_socket_they_are_about", icmp_errors),
        Trial::test("a_process_outlives_its_leader", leaderless),
        Trial::test("a_grandchild_of_a_dead_child_belongs_to_the_target", orphan),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// What this program does when it is COMMAND.
fn role(name: &str) -> Option<fn(SocketAddr)> {
    Some(match name {
        "send" => |peer| send(&bound(peer), peer, 100),
        "send-with-options" => with_options,
        "send-big" => |peer| send(&bound(peer), peer, 4000),
        "send-and-listen" => errors_seen,
        "send-without-leader" => without_leader,
        "send-as-orphan" => as_orphan,
        _ => return None,
    })
}

fn bound(peer: SocketAddr) -> UdpSocket {
    UdpSocket::bind(if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap()
}

fn send(socket: &UdpSocket, peer: SocketAddr, size: usize) {
    for _ in 0..COUNT {
        socket.send_to(&vec![0; size], peer).unwrap();
    }
}

/// IPv4: the NOP option, four times. IPv6: a hop-by-hop header, and a destination options header behind it.
fn with_options(peer: SocketAddr) {
    let socket = bound(peer);
    let (level, options): (i32, &[(i32, &[u8])]) = if peer.is_ipv4() {
        (libc::IPPROTO_IP, &[(libc::IP_OPTIONS, &[1; 4])])
    } else {
        // Next header, length 0 (8 bytes), PadN of 6.
        let padding: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
        (libc::IPPROTO_IPV6, &[(libc::IPV6_HOPOPTS, padding), (libc::IPV6_DSTOPTS, padding)])
    };
    for (name, value) in options {
        // SAFETY: `value` is as long as it says.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), level, *name, value.as_ptr().cast(), value.len() as u32)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
    send(&socket, peer, 100);
}

/// Prints how many sends and receives failed because the peer said that nobody listens.
fn errors_seen(peer: SocketAddr) {
    let socket = bound(peer);
    socket.connect(peer).unwrap();
    let mut refused = 0;
    for _ in 0..COUNT {
        refused += usize::from(socket.send(b"anybody?").is_err());
        thread::sleep(Duration::from_millis(5));
    }
    print!("{refused}");
}

/// The main thread ends long before the one that makes the socket and sends.
fn without_leader(peer: SocketAddr) {
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        send(&bound(peer), peer, 100);
        process::exit(0);
    });
    // SAFETY: ends this thread only; nothing on its stack is used by the other one.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// The child ends; its child sends.
fn as_orphan(peer: SocketAddr) {
    let line = format!("(sleep 0.2; {} send {peer}) & exit 0", env::current_exe().unwrap().display());
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    thread::sleep(Duration::from_millis(800));
}

/// Two namespaces, `10.0.0.1`/`fd00::1` here and `10.0.0.2`/`fd00::2` there.
struct Lab {
    here: String,
    there: String,
}

impl Lab {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("fault-headers-{}-{number}{end}", process::id());
        let lab = Self { here: name("a"), there: name("b") };
        let Self { here, there } = &lab;
        shell(&format!(
            "ip netns add {here}; ip netns add {there}
             ip link add v0 netns {here} type veth peer name v0 netns {there}
             for end in '{here} 1' '{there} 2'; do set -- $end
                 ip -n $1 link set lo up; ip -n $1 link set v0 up
                 ip -n $1 addr add 10.0.0.$2/24 dev v0; ip -n $1 addr add fd00::$2/64 dev v0 nodad
             done"
        ));
        lab
    }

    fn enter(&self, name: &str) -> NetnsHandle {
        NetnsHandle::open(format!("/run/netns/{name}").as_ref()).unwrap()
    }

    /// A socket at the far end that counts what arrives.
    fn far_end(&self) -> UdpSocket {
        let socket = self
            .enter(&self.there)
            .run_in(|| {
                let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).unwrap();
                socket.set_only_v6(false).unwrap();
                socket.bind(&SocketAddr::from(([0u16; 8], PORT)).into()).unwrap();
                Ok(socket)
            })
            .unwrap();
        SockRef::from(&socket).set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket.into()
    }

    /// `fault run FAULT -- this-program ROLE PEER` here: its output and how often the fault matched and hit.
    fn run(&self, fault: &str, role: &str, peer: &str) -> (Output, u64, u64) {
        let report = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fault"));
        command
            .args(["run", "--quiet", "--net", fault, "--json"])
            .arg(report.path())
            .arg("--")
            .arg(env::current_exe().unwrap())
            .args([role, peer]);
        let output = self.enter(&self.here).run_in(|| Ok(command.output().unwrap())).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap();
        assert_eq!(report["counters"]["unparsable"], 0, "{report}");
        let rule = &report["rules"][0];
        (output, rule["matched"].as_u64().unwrap(), rule["injected"].as_u64().unwrap())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.here]).status();
        let _ = Command::new("ip").args(["netns", "del", &self.there]).status();
    }
}

fn shell(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Datagrams that have arrived.
fn arrived(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 8192];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
}

fn plain() -> Result<(), Failed> {
    let lab = Lab::new();
    let far = lab.far_end();
    for peer in ["10.0.0.2:9999", "[fd00::2]:9999"] {
        let (_, matched, injected) = lab.run("drop out udp port 9999", "send", peer);
        assert_eq!((matched, injected, arrived(&far)), (COUNT as u64, COUNT as u64, 0), "{peer}");
        // The neighbour: the same program, beside a session that aims at another.
        let neighbour = thread::spawn({
            let netns = lab.enter(&lab.here);
            move || {
                thread::sleep(Duration::from_millis(400));
                let peer = peer.parse().unwrap();
                let work = || {
                    send(&bound(peer), peer, 100);
                    Ok(())
                };
                netns.run_in(work).unwrap();
            }
        });
        let (_, matched, _) = lab.run("drop out udp port 9999", "send-as-orphan", peer);
        neighbour.join().unwrap();
        assert_eq!((matched, arrived(&far)), (COUNT as u64, COUNT), "{peer}");
    }
    Ok(())
}

fn stacked() -> Result<(), Failed> {
    let lab = Lab::new();
    let far = lab.far_end();
    for (name, number) in [(&lab.here, 1), (&lab.there, 2)] {
        shell(&format!(
            "ip -n {name} link add link v0 name v1 type macvlan mode bridge
             ip -n {name} link set v1 up; ip -n {name} addr add 10.0.5.{number}/24 dev v1"
        ));
    }
    // Both v1 and v0 are watched, and every packet crosses both.
    let (_, matched, injected) = lab.run("drop 0% out udp", "send", "10.0.5.2:9999");
    assert_eq!((matched, injected, arrived(&far)), (COUNT as u64, 0, COUNT));
    // A fault that names the lower one meets them there.
    let (_, matched, injected) = lab.run("drop nth 3 out udp iface v0", "send", "10.0.5.2:9999");
    assert_eq!((matched, injected, arrived(&far)), (COUNT as u64, 1, COUNT - 1));
    Ok(())
}

fn options() -> Result<(), Failed> {
    let lab = Lab::new();
    let far = lab.far_end();
    let (_, matched, injected) =
        lab.run("drop every 2 out udp port 9999", "send-with-options", "10.0.0.2:9999");
    assert_eq!((matched, injected, arrived(&far)), (COUNT as u64, COUNT as u64 / 2, COUNT / 2));
    Ok(())
}

fn extensions() -> Result<(), Failed> {
    let lab = Lab::new();
    let far = lab.far_end();
    let (_, matched, injected) =
        lab.run("drop every 2 out udp port 9999", "send-with-options", "[fd00::2]:9999");
    assert_eq!((matched, injected, arrived(&far)), (COUNT as u64, COUNT as u64 / 2, COUNT / 2));
    Ok(())
}

fn fragments() -> Result<(), Failed> {
    let lab = Lab::new();
    let far = lab.far_end();
    for peer in ["10.0.0.2:9999", "[fd00::2]:9999"] {
        // 4000 bytes are three fragments; only the first has ports.
        let (_, matched, _) = lab.run("drop every 2 out udp port 9999", "send-big", peer);
        assert_eq!((matched, arrived(&far)), (COUNT as u64, COUNT / 2), "{peer}");
        let (_, matched, _) = lab.run("drop 0% out udp", "send-big", peer);
        assert_eq!((matched, arrived(&far)), (3 * COUNT as u64, COUNT), "{peer}: all are UDP");
    }
    Ok(())
}

fn icmp_errors() -> Result<(), Failed> {
    let lab = Lab::new();
    let refused = |fault, peer| {
        let (output, _, injected) = lab.run(fault, "send-and-listen", peer);
        (String::from_utf8(output.stdout).unwrap().parse::<usize>().unwrap(), injected)
    };
    // The kernel sends few such errors to one address, otherwise.
    shell(&format!(
        "ip netns exec {} sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0",
        lab.there
    ));
    for peer in ["10.0.0.2:7", "[fd00::2]:7"] {
        assert!(refused("drop 0% in icmp", peer).0 > 0, "{peer}: nobody listens, and that is said");
        let (heard, injected) = refused("drop in icmp", peer);
        assert_eq!(heard, 0, "{peer}");
        assert!(injected > 0, "{peer}");
    }
    Ok(())
}

fn leaderless() -> Result<(), Failed> {
    let lab = Lab::new();
    let far = lab.far_end();
    let (_, matched, _) = lab.run("drop out udp", "send-without-leader", "10.0.0.2:9999");
    assert_eq!((matched, arrived(&far)), (COUNT as u64, 0));
    Ok(())
}

fn orphan() -> Result<(), Failed> {
    let lab = Lab::new();
    let far = lab.far_end();
    let (_, matched, _) = lab.run("drop out udp", "send-as-orphan", "10.0.0.2:9999");
    assert_eq!((matched, arrived(&far)), (COUNT as u64, 0));
    Ok(())
}
