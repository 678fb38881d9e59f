//! Where packets are met: stacked interfaces, interfaces without Ethernet, interfaces that come and go; and whose they are
//! when sockets are shared.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{Lane, Test, pair::endpoint};
use crate::{
    driver::{Injection, Report, fault, victim},
    net_lab::{NetLab, PEER_V4, TARGET_IFACE, TARGET_V4, sh},
    process::{Ended, Process},
    victim::report::{Counted, Sent},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "places::vlan_and_its_parent", on: in_vm, run: vlan },
    Test { name: "places::bridge_and_its_port", on: in_vm, run: bridge },
    Test { name: "places::bond_and_its_port", on: in_vm, run: bond },
    Test { name: "places::point_to_point", on: Lane::tests_packets_in_detail, run: point_to_point },
    Test { name: "places::wireguard", on: in_vm, run: wireguard },
    Test { name: "places::interfaces_that_come_and_go", on: Lane::tests_packets_in_detail, run: come_and_go },
    Test { name: "sockets::reuseport_tells_owners_apart", on: Lane::tests_packets_in_detail, run: reuseport },
    Test { name: "sockets::passed_on_it_stays_the_targets", on: Lane::tests_packets_in_detail, run: passed },
    Test { name: "sockets::one_socket_many_peers", on: Lane::tests_packets_in_detail, run: many_peers },
    Test { name: "sockets::time_stamps_stay_sane", on: Lane::tests_jitter, run: time_stamps },
    Test { name: "sockets::mptcp_and_tls_live_on", on: in_vm, run: mptcp_and_tls },
];

/// The kernels whose configuration we know.
fn in_vm(lane: Lane) -> bool {
    lane.tests_devices_in_detail()
}

/// Addresses of a second network between the same namespaces, on an interface of its own.
const HERE: &str = "10.78.0.1";
const THERE: &str = "10.78.0.2";

/// Runs several ip(8) lines in a namespace.
fn ip(namespace: &str, lines: &[&str]) -> anyhow::Result<()> {
    for line in lines {
        sh(&format!("ip -n {namespace} {line}"))?;
    }
    Ok(())
}

/// `count` pings of the target to `to` under `specs`: ping's output, and the report.
fn ping(lab: &NetLab, to: &str, count: u32, specs: &[&str]) -> anyhow::Result<(String, Report)> {
    let script = format!("read x; exec ping -c {count} -i 0.2 -W 2 {to}");
    let mut ping = Process::start(lab.in_target("sh").args(["-c", &script]))?;
    let pid = ping.pid();
    let mut arguments = vec!["--pid", &pid];
    arguments.extend(specs.iter().flat_map(|spec| ["--net", spec]));
    let injection = Injection::start(&arguments)?;
    ping.release()?;
    let Ended { stdout, .. } = ping.ended()?;
    Ok((stdout, injection.wait()?))
}

/// The fastest round trip, milliseconds.
fn fastest(ping: &str) -> anyhow::Result<f64> {
    let line = ping.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
    Ok(line.and_then(|line| line.split('/').next()).with_context(|| ping.to_owned())?.parse()?)
}

/// A packet that crosses two interfaces, one on top of the other, is decided about once.
fn stacked(lab: &NetLab, to: &str, upper: &str) -> anyhow::Result<()> {
    let (text, report) = ping(lab, to, 4, &["drop out icmp nth 2"])?;
    ensure!(text.contains("3 received") && !text.contains("icmp_seq=2 "), "{text}: {}", report.json);
    ensure!(report.rule(0, "matched")? == 4, "not once each: {}", report.json);
    let (text, report) = ping(lab, to, 4, &["delay 60ms out icmp", "drop in icmp nth 3"])?;
    let rtt = fastest(&text)?;
    ensure!((60.0..120.0).contains(&rtt), "{rtt} ms for one delay of 60: {}", report.json);
    ensure!(text.contains("3 received"), "{text}: {}", report.json);
    // Both may be named.
    for iface in [upper, TARGET_IFACE] {
        let (text, report) = ping(lab, to, 3, &[&format!("drop out icmp iface {iface}")])?;
        ensure!(text.contains("0 received"), "{iface}: {text}: {}", report.json);
        ensure!(report.rule(0, "injected")? == 3, "{iface}: {}", report.json);
    }
    Ok(())
}

fn vlan(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("vlan")?;
    for (namespace, parent, address) in [(&lab.target, TARGET_IFACE, HERE), (&lab.peer, "vp0", THERE)] {
        ip(
            namespace,
            &[
                &format!("link add link {parent} name tagged type vlan id 7"),
                &format!("addr add {address}/24 dev tagged"),
                "link set tagged up",
            ],
        )?;
    }
    stacked(&lab, THERE, "tagged")
}

fn bridge(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("bridge")?;
    ip(
        &lab.target,
        &[
            "link add br0 type bridge forward_delay 0",
            &format!("link set {TARGET_IFACE} master br0"),
            &format!("addr add {HERE}/24 dev br0"),
            "link set br0 up",
        ],
    )?;
    ip(&lab.peer, &[&format!("addr add {THERE}/24 dev vp0")])?;
    // A port of a bridge forwards from the moment it has learnt.
    sh(&format!("ip netns exec {} ping -c 1 -W 10 {THERE}", lab.target))?;
    stacked(&lab, THERE, "br0")
}

fn bond(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("bond")?;
    ip(
        &lab.target,
        &[
            "link add bond0 type bond mode active-backup miimon 100",
            &format!("link set {TARGET_IFACE} down"),
            &format!("link set {TARGET_IFACE} master bond0"),
            &format!("addr add {HERE}/24 dev bond0"),
            "link set bond0 up",
        ],
    )?;
    ip(&lab.peer, &[&format!("addr add {THERE}/24 dev vp0")])?;
    sh(&format!("ip netns exec {} ping -c 1 -W 10 {THERE}", lab.target))?;
    stacked(&lab, THERE, "bond0")
}

/// The far end of a tun device: counts datagrams until its input ends.
const TUN: &str = "
import fcntl, os, select, struct, sys
tun = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack('16sH', b'p2p0', 0x1001))
os.system('ip addr add 10.79.0.1 peer 10.79.0.2 dev p2p0 && ip link set p2p0 up')
print('ready', file=sys.stderr, flush=True)
count = 0
while True:
    readable = select.select([tun, sys.stdin], [], [], 1)[0]
    if tun in readable:
        packet = os.read(tun, 65536)
        count += packet[0] >> 4 == 4 and packet[9] == 17
    elif sys.stdin in readable:
        break
print(count)
";

fn point_to_point(lane: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("p2p")?;
    let far = Process::start_until(lab.in_target("python3").args(["-c", TUN]), "ready")?;
    let program = victim()?;
    let send = |spec: &str| -> anyhow::Result<(Sent, Report)> {
        let mut sender = Process::start_until(
            lab.in_target(&program).args(["udp-send", "10.79.0.2:9000", "--wait", "--count", "100"]),
            "ready",
        )?;
        let injection = Injection::start(&["--pid", &sender.pid(), "--net", spec])?;
        sender.release()?;
        Ok((sender.report()?, injection.wait()?))
    };
    let (sent, report) = send("drop every 4 out udp iface p2p0")?;
    ensure!(sent.sent == 100 && report.rule(0, "injected")? == 25, "{sent:?}: {}", report.json);
    let mut expected = 75;
    if lane.has_packet_delay() {
        // They pass at once, and the report says so.
        let (_, report) = send("delay 10ms out udp")?;
        ensure!(report.json["counters"]["lane_refused"] == 100, "{}", report.json);
        ensure!(report.stderr.contains("not delayed"), "{}", report.stderr);
        expected += 100;
        // Asked for by name, it is refused.
        let sleeper = Process::start(lab.in_target("cat").args(["-"]))?;
        let spec = "delay 10ms iface p2p0";
        let ended = Ended::of(&mut fault(&["inject", "--pid", &sleeper.pid(), "--net", spec]))?;
        ensure!(ended.status.code() == Some(69), "{ended:?}");
        ensure!(ended.stderr.contains("'p2p0' cannot be delayed"), "{ended:?}");
    }
    let counted: u64 = far.text()?.trim().parse()?;
    ensure!(counted == expected, "{counted} datagrams came out of the tunnel, not {expected}");
    Ok(())
}

fn wireguard(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("wg")?;
    // Curve25519 keys by openssl(1): the last 32 bytes of the DER forms (RFC 8410).
    let script = "
set -e
cd $(mktemp -d)
for side in t p; do
    openssl genpkey -algorithm X25519 -outform DER -out $side.der
    tail -c 32 $side.der | base64 > $side.key
    openssl pkey -inform DER -in $side.der -pubout -outform DER | tail -c 32 | base64 > $side.pub
done
up() {
    ip -n $1 link add wg0 type wireguard
    ip netns exec $1 wg set wg0 listen-port 51820 private-key $2.key peer $(cat $3.pub) \
        allowed-ips 0.0.0.0/0 endpoint $4:51820
    ip -n $1 addr add $5/24 dev wg0
    ip -n $1 link set wg0 up
}
";
    let up = format!(
        "{script}up {t} t p {PEER_V4} {HERE}\nup {p} p t {TARGET_V4} {THERE}\nrm -r \"$PWD\"",
        t = lab.target,
        p = lab.peer
    );
    let ended = Ended::of(Command::new("sh").args(["-c", &up]))?;
    ensure!(ended.status.success(), "{ended:?}");
    sh(&format!("ip netns exec {} ping -c 1 -W 10 {THERE}", lab.target))?;
    // What is inside is the target's; what carries it is the kernel's own.
    let (text, report) = ping(&lab, THERE, 4, &["drop out icmp nth 2"])?;
    ensure!(text.contains("3 received") && !text.contains("icmp_seq=2 "), "{text}: {}", report.json);
    ensure!(report.rule(0, "matched")? == 4, "{}", report.json);
    let sleeper = Process::start(lab.in_target("cat").args(["-"]))?;
    let spec = "delay 10ms iface wg0";
    let ended = Ended::of(&mut fault(&["inject", "--pid", &sleeper.pid(), "--net", spec]))?;
    ensure!(ended.status.code() == Some(69) && ended.stderr.contains("'wg0' cannot be delayed"), "{ended:?}");
    Ok(())
}

fn come_and_go(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("comego")?;
    let (program, to) = (victim()?, endpoint(THERE, 9000));
    let obey = "while read line; do eval \"$line\"; done";
    let mut target = Process::start(lab.in_target("sh").args(["-c", obey]))?;
    let injection = Injection::start(&["--pid", &target.pid(), "--net", "drop out udp to 10.78.0.0/24"])?;
    // It appears while the session lives, goes, and comes again.
    for _ in 0..2 {
        sh(&format!(
            "ip -n {t} link add late0 type veth peer name late1 netns {p}",
            t = lab.target,
            p = lab.peer
        ))?;
        ip(&lab.target, &[&format!("addr add {HERE}/24 dev late0"), "link set late0 up"])?;
        ip(&lab.peer, &[&format!("addr add {THERE}/24 dev late1"), "link set late1 up"])?;
        sh(&format!("ip netns exec {} ping -c 1 -W 10 {THERE}", lab.target))?;
        // The session learns of it from the kernel, in its own time.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let counter = Process::start_until(lab.in_peer(&program).args(["udp-count", &to]), "ready")?;
        target.say(&format!("{program} udp-send {to} --count 50"))?;
        let counted: Counted = counter.report()?;
        ensure!(counted.received == 0, "{} arrived over an interface that came later", counted.received);
        ip(&lab.target, &["link del late0"])?;
    }
    target.text()?;
    let report = injection.wait()?;
    ensure!(report.rule(0, "injected")? == 100, "{}", report.json);
    Ok(())
}

/// Two sockets share a port; the kernel spreads senders over them. One line for each datagram that came.
const REUSEPORT: &str = "
import select, socket, sys
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
own.bind(('10.77.0.1', 9200))
print('ready', file=sys.stderr, flush=True)
count = 0
while True:
    readable = select.select([own, sys.stdin], [], [], 1)[0]
    if own in readable:
        own.recv(100); count += 1
    elif sys.stdin in readable:
        break
print(count)
";

fn reuseport(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("reuseport")?;
    let start = || Process::start_until(lab.in_target("python3").args(["-c", REUSEPORT]), "ready");
    let (target, bystander) = (start()?, start()?);
    let injection = Injection::start(&["--pid", &target.pid(), "--net", "drop in udp"])?;
    // Two hundred senders.
    let send = "
import socket
for number in range(200):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.77.0.1', 9200))
";
    Process::start(lab.in_peer("python3").args(["-c", send]))?.text()?;
    let (got, others): (u64, u64) = (target.text()?.trim().parse()?, bystander.text()?.trim().parse()?);
    let report = injection.wait()?;
    let lost = report.rule(0, "injected")?;
    ensure!(got == 0 && others > 20 && lost > 20, "{got}, {others}: {}", report.json);
    ensure!(lost + others == 200, "{lost} lost and {others} for the bystander: {}", report.json);
    Ok(())
}

fn passed(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("passed")?;
    let to = endpoint(PEER_V4, 9000);
    let counter = Process::start_until(lab.in_peer(&victim()?).args(["udp-count", &to]), "ready")?;
    // The parent is nobody's target; it is sent the target's socket and uses it, and its own.
    let script = "
import os, socket, sys
here, there = socket.socketpair()
if not (child := os.fork()):
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    there.send(b'x')
    there.recv(1)
    socket.send_fds(there, [b'x'], [own.fileno()])
    there.recv(1)
    os._exit(0)
here.recv(1)
print('ready', file=sys.stderr, flush=True)
sys.stdin.readline()
here.send(b'x')
_, [given], _, _ = socket.recv_fds(here, 1, 1)
given, own = socket.socket(fileno=given), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(100):
    for sender in (given, own):
        sender.sendto(number.to_bytes(8, 'little') + bytes(8), ('10.77.0.2', 9000))
here.send(b'x')
os.wait()
";
    let mut parent = Process::start_until(lab.in_target("python3").args(["-c", script]), "ready")?;
    let children = crate::process::descendants(parent.pid().parse()?);
    let [child] = children[..] else { anyhow::bail!("children: {children:?}") };
    let child = child.to_string();
    let injection = Injection::start(&["--pid", &child, "--net", "drop out udp"])?;
    parent.release()?;
    parent.text()?;
    let counted: Counted = counter.report()?;
    let report = injection.wait()?;
    ensure!(counted.received == 100, "{} arrived: {}", counted.received, report.json);
    ensure!(report.rule(0, "injected")? == 100, "{}", report.json);
    Ok(())
}

fn many_peers(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("peers")?;
    let program = victim()?;
    let counter = |address: &str| {
        Process::start_until(lab.in_peer(&program).args(["udp-count", &endpoint(address, 9000)]), "ready")
    };
    let (hit, spared) = (counter("10.77.0.2")?, counter("10.77.0.3")?);
    let script = "
import socket, sys
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print('ready', file=sys.stderr, flush=True)
sys.stdin.readline()
for number in range(100):
    for host in ('10.77.0.2', '10.77.0.3'):
        own.sendto(number.to_bytes(8, 'little') + bytes(8), (host, 9000))
";
    let mut sender = Process::start_until(lab.in_target("python3").args(["-c", script]), "ready")?;
    let injection = Injection::start(&["--pid", &sender.pid(), "--net", "drop out to 10.77.0.2:9000"])?;
    sender.release()?;
    sender.text()?;
    let (hit, spared): (Counted, Counted) = (hit.report()?, spared.report()?);
    let report = injection.wait()?;
    ensure!((hit.received, spared.received) == (0, 100), "{}", report.json);
    Ok(())
}

fn time_stamps(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("stamps")?;
    // Of each datagram: sent, stamped by the kernel, received; one clock. SO_TIMESTAMPNS is 35.
    let script = "
import socket, struct, sys, time
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.setsockopt(socket.SOL_SOCKET, 35, 1)
own.bind(('10.77.0.1', 9300))
own.settimeout(20)
print('ready', file=sys.stderr, flush=True)
early = late = 0
for _ in range(50):
    data, ancillary, _, _ = own.recvmsg(100, 100)
    now = time.time_ns()
    seconds, nanoseconds = struct.unpack('qq', ancillary[0][2])
    stamp = seconds * 1_000_000_000 + nanoseconds
    sent = int.from_bytes(data, 'little')
    early += stamp < sent + 80_000_000
    late += stamp > now
print(early, late)
";
    let receiver = Process::start_until(lab.in_target("python3").args(["-c", script]), "ready")?;
    let injection = Injection::start(&["--pid", &receiver.pid(), "--net", "delay 80ms in udp"])?;
    let send = "
import socket, time
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(50):
    own.sendto(time.time_ns().to_bytes(8, 'little'), ('10.77.0.1', 9300))
    time.sleep(0.005)
";
    Process::start(lab.in_peer("python3").args(["-c", send]))?.text()?;
    let text = receiver.text()?;
    let report = injection.wait()?;
    ensure!(text.trim() == "0 0", "early and late stamps: {text}: {}", report.json);
    Ok(())
}

fn mptcp_and_tls(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("mptcp")?;
    // 262 is IPPROTO_MPTCP.
    let specs = ["--net", "drop 2% tcp", "--net", "delay 5ms jitter 2ms out tcp"];
    for (protocol, port) in [("262", 9400), ("0", 9401)] {
        let serve = format!(
            "
import socket, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {protocol})
listener.bind(('{PEER_V4}', {port})); listener.listen()
print('ready', file=sys.stderr, flush=True)
connection, _ = listener.accept()
total = 0
while data := connection.recv(65536):
    total += len(data)
print(total)
"
        );
        let Ok(server) = Process::start_until(lab.in_peer("python3").args(["-c", &serve]), "ready") else {
            // A kernel without it.
            ensure!(protocol == "262", "a TCP server");
            continue;
        };
        let send = format!(
            "
import socket, sys
sys.stdin.readline()
own = socket.socket(socket.AF_INET, socket.SOCK_STREAM, {protocol})
own.connect(('{PEER_V4}', {port}))
own.sendall(bytes(2_000_000))
own.close()
"
        );
        let mut client = Process::start(lab.in_target("python3").args(["-c", &send]))?;
        let pid = client.pid();
        let injection = Injection::start(&[&["--pid", &pid][..], &specs].concat())?;
        client.release()?;
        client.text()?;
        let total: u64 = server.text()?.trim().parse()?;
        let report = injection.wait()?;
        ensure!(total == 2_000_000, "{total} bytes: {}", report.json);
        ensure!(report.rule(0, "injected")? > 0 && report.rule(1, "injected")? > 100, "{}", report.json);
    }

    let keys = tempfile::tempdir()?;
    let (key, certificate) = (keys.path().join("key"), keys.path().join("certificate"));
    let mut make = Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=fault",
        "-keyout",
    ]);
    ensure!(Ended::of(make.arg(&key).arg("-out").arg(&certificate))?.status.success(), "openssl req");
    let mut serve = lab.in_peer("openssl");
    serve.args(["s_server", "-accept", "9443", "-www", "-quiet", "-key"]).arg(&key);
    let server = Process::start(serve.arg("-cert").arg(&certificate))?;
    super::delay::wait_for_listener(&lab.peer, 9443)?;
    let script = format!("read x; exec curl -s -k -m 30 https://{PEER_V4}:9443/");
    let mut client = Process::start(lab.in_target("sh").args(["-c", &script]))?;
    let pid = client.pid();
    let injection = Injection::start(&[&["--pid", &pid][..], &specs].concat())?;
    client.release()?;
    let page = client.text()?;
    injection.wait()?;
    ensure!(page.contains("TLSv1."), "{page}");
    drop(server);
    Ok(())
}
