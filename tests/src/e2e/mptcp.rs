//! Programs that speak MPTCP: their packets belong to sockets of the kernel's own, and are theirs all the same.

use anyhow::ensure;

use super::{Lane, Test};
use crate::{
    driver::Injection,
    net_lab::{NetLab, PEER_V4, PEER_V4_OTHER, TARGET_V4, sh},
    process::Process,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "mptcp::client_is_hit", on: Lane::speaks_mptcp, run: client },
    Test { name: "mptcp::client_that_was_connected_is_hit", on: Lane::speaks_mptcp, run: connected },
    Test { name: "mptcp::server_that_listened_is_hit", on: Lane::speaks_mptcp, run: listened },
    Test { name: "mptcp::later_subflows_are_hit", on: Lane::speaks_mptcp, run: later },
];

/// `IPPROTO_MPTCP` and `IPPROTO_TCP`, as Python's socket() takes them.
const MPTCP: &str = "262";
const TCP: &str = "6";

/// Answers each line of each connection with `reply`.
const SERVER: &str = "
import socket, sys, threading
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[1]))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('0.0.0.0', int(sys.argv[2]))); listener.listen()
print('ready', file=sys.stderr, flush=True)
def serve(connection):
    for line in connection.makefile():
        connection.sendall(b'reply\\n')
threading.Thread(target=sys.stdin.read, daemon=True).start()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
";

/// Asks once and says whether the answer came within a second and a half, and whether it came at all. `early`: connects, and asks
/// a first time, before it is released.
const CLIENT: &str = "
import socket, sys
own = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[1]))
def ask(patience):
    own.settimeout(patience)
    try:
        return 'reply' if own.recv(6) == b'reply\\n' else 'end'
    except TimeoutError:
        return 'silence'
def connect():
    own.connect((sys.argv[2], int(sys.argv[3])))
if sys.argv[4] == 'early':
    connect(); own.sendall(b'first\\n')
    assert ask(20) == 'reply'
print('ready', file=sys.stderr, flush=True)
sys.stdin.readline()
if sys.argv[4] != 'early':
    connect()
own.sendall(b'line\\n')
first = ask(1.5)
print(first, ask(30) if first == 'silence' else '')
";

/// How long the sessions of these tests last: longer than a client is patient.
const SESSION: [&str; 2] = ["--for", "3s"];

fn server(lab: &NetLab, in_target: bool, port: &str) -> anyhow::Result<Process> {
    let mut command = if in_target { lab.in_target("python3") } else { lab.in_peer("python3") };
    Process::start_until(command.args(["-c", SERVER, MPTCP, port]), "ready")
}

/// A client at the other end, or at the target's.
fn asking(lab: &NetLab, in_target: bool, protocol: &str, port: &str, when: &str) -> anyhow::Result<Process> {
    let (mut command, to) =
        if in_target { (lab.in_target("python3"), PEER_V4) } else { (lab.in_peer("python3"), TARGET_V4) };
    Process::start_until(command.args(["-c", CLIENT, protocol, to, port, when]), "ready")
}

/// `pid` loses all data it sends while `hit` asks, and `bystander` beside it gets its answer at once.
fn silenced(pid: &str, mut hit: Vec<Process>, mut bystander: Process) -> anyhow::Result<()> {
    let injection = Injection::start(&[&["--pid", pid, "--net", "drop out data"], &SESSION[..]].concat())?;
    for client in hit.iter_mut().chain([&mut bystander]) {
        client.release()?;
    }
    let bystander = bystander.text()?;
    let hit: Vec<_> = hit.into_iter().map(Process::text).collect::<Result<_, _>>()?;
    let report = injection.wait()?;
    ensure!(bystander.trim() == "reply", "the bystander saw {bystander}");
    for said in hit {
        ensure!(said.trim() == "silence reply", "the target saw {said}: {}", report.json);
    }
    Ok(())
}

fn client(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("mptcp")?;
    let _server = server(&lab, false, "9400")?;
    let client = asking(&lab, true, MPTCP, "9400", "late")?;
    let bystander = asking(&lab, true, MPTCP, "9400", "late")?;
    silenced(&client.pid(), vec![client], bystander)
}

/// Lets connections from the target to the peer have a second subflow, to its other address.
fn two_ways(lab: &NetLab) -> anyhow::Result<()> {
    sh(&format!("ip -n {} mptcp limits set subflow 2 add_addr_accepted 2", lab.target))?;
    sh(&format!("ip -n {} mptcp limits set subflow 2 add_addr_accepted 2", lab.peer))?;
    sh(&format!("ip -n {} mptcp endpoint add {PEER_V4_OTHER} dev vp0 signal", lab.peer)).map(drop)
}

/// Second subflows of the target's namespace so far.
fn joined(lab: &NetLab) -> anyhow::Result<u64> {
    let text = sh(&format!("ip netns exec {} nstat -a -s -z MPTcpExtMPJoinSynAckRx", lab.target))?;
    let line = text.lines().find(|line| line.starts_with("MPTcpExtMPJoinSynAckRx"));
    Ok(line.and_then(|line| line.split_whitespace().nth(1)).map_or(Ok(0), str::parse)?)
}

fn connected(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("mptcp")?;
    two_ways(&lab)?;
    let _server = server(&lab, false, "9400")?;
    let client = asking(&lab, true, MPTCP, "9400", "early")?;
    let bystander = asking(&lab, true, MPTCP, "9400", "early")?;
    let ways = joined(&lab)?;
    ensure!(ways == 2, "{ways} second subflows");
    silenced(&client.pid(), vec![client], bystander)
}

fn listened(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("mptcp")?;
    let hit = server(&lab, true, "9400")?;
    let _spared = server(&lab, true, "9401")?;
    let clients = vec![
        asking(&lab, false, MPTCP, "9400", "late")?,
        asking(&lab, false, MPTCP, "9400", "early")?,
        // What it accepts from those who do not speak MPTCP is a plain socket.
        asking(&lab, false, TCP, "9400", "late")?,
        asking(&lab, false, TCP, "9400", "early")?,
    ];
    let bystander = asking(&lab, false, MPTCP, "9401", "late")?;
    silenced(&hit.pid(), clients, bystander)
}

fn later(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("mptcp")?;
    two_ways(&lab)?;
    let _server = server(&lab, false, "9400")?;
    let mut client = asking(&lab, true, MPTCP, "9400", "late")?;
    let pid = client.pid();
    // The second subflow is made by the kernel, after the first has carried something, while nothing of the target's runs. That
    // it cannot be made is seen by both ends: the server's reply is the sign that the first did carry something.
    let spec = format!("drop out to {PEER_V4_OTHER}");
    let injection = Injection::start(&["--pid", &pid, "--net", &spec])?;
    client.release()?;
    let said = client.text()?;
    let (ways, report) = (joined(&lab)?, injection.heal()?);
    ensure!(said.trim() == "reply", "{said}: {}", report.json);
    ensure!(ways == 0 && report.rule(0, "injected")? > 0, "{ways} second subflows: {}", report.json);
    Ok(())
}
