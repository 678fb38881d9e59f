//! `--host`: everybody, but for what keeps the machine within reach. Only in machines of our own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    echoes::{arrivals, until},
    pair::{Pair, counter, untouched},
};
use crate::{
    driver::{Injection, fault, refused},
    net_lab::{NetLab, PEER_V4, TARGET_V4, TARGET_V6, sh},
    process::{Ended, Process},
    victim::report::Counted,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "host::wants_to_be_meant", on: Lane::tests_packets, run: wants_to_be_meant },
    Test { name: "host::ssh_survives_the_loss_of_everything", on: in_a_vm, run: ssh_survives },
];

/// It hits everybody.
fn in_a_vm(lane: Lane) -> bool {
    lane.tests_packets() && !matches!(lane, Lane::Native | Lane::Fault)
}

/// Datagrams of each sender.
const FEW: u64 = 100;

fn wants_to_be_meant(_: Lane) -> anyhow::Result<()> {
    for target in [&["--host"][..], &["--cgroup", "/"]] {
        let said = refused(&[&["inject"][..], target, &["--net", "drop"]].concat(), 2)?;
        ensure!(said.contains("--yes") && said.trim().lines().count() == 1, "{said}");
    }
    // Where the session came in, and where sshd(8) would say so.
    let mut command = fault(&["inject", "--host", "--net", "drop", "--dry-run"]);
    let shown = Ended::of(command.env("SSH_CONNECTION", "192.0.2.7 51234 192.0.2.1 2222"))?;
    ensure!(shown.status.success(), "{shown:?}");
    for spared in ["tcp local-port 2222", "tcp local-port 22", "udp port 67-68", "udp local-port 546-547"] {
        ensure!(shown.stdout.contains(&format!("except     {spared}\n")), "{spared}: {}", shown.stdout);
    }
    Ok(())
}

/// A server in the target's namespace, and a key to it.
struct Ssh {
    directory: tempfile::TempDir,
    _server: Process,
}

impl Ssh {
    fn new(lab: &NetLab) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| format!("{}/{name}", directory.path().display());
        for key in ["host", "key"] {
            Process::start(Command::new("ssh-keygen").args([
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-f",
                &path(key),
            ]))?
            .text()?;
        }
        fs::set_permissions(path("key.pub"), fs::Permissions::from_mode(0o600))?;
        let config = format!(
            "Port 22\nHostKey {}\nAuthorizedKeysFile {}\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n\
             PidFile none\nUseDNS no\n",
            path("host"),
            path("key.pub")
        );
        fs::write(path("config"), config)?;
        fs::create_dir_all("/run/sshd")?;
        let mut command = lab.in_target("/usr/sbin/sshd");
        let server = Process::start_until(
            command.args(["-D", "-e", "-f", &path("config")]),
            "Server listening on ::",
        )?;
        Ok(Self { directory, _server: server })
    }

    /// `ssh ADDRESS COMMAND` at the peer.
    fn client(&self, lab: &NetLab, address: &str, command: &str) -> Command {
        let mut client = lab.in_peer("ssh");
        client.args(["-F", "none", "-T", "-i"]).arg(self.directory.path().join("key"));
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            "ConnectTimeout=30",
        ] {
            client.args(["-o", option]);
        }
        client.arg(format!("root@{address}")).arg(command);
        client
    }
}

fn ssh_survives(_: Lane) -> anyhow::Result<()> {
    ensure!(Path::new("/usr/sbin/sshd").exists(), "the package openssh-server is missing");
    let lab = NetLab::new("host")?;
    let ssh = Ssh::new(&lab)?;
    // Before: somebody is logged in.
    let mut session = Process::start_until(
        &mut ssh.client(&lab, TARGET_V4, "echo ready >&2; read line; echo \"heard $line\""),
        "ready",
    )?;
    let lost = Pair::new(&lab, PEER_V4, 9000, FEW)?;
    let mut pinger = lab.in_target("ping");
    let _pinger = Process::start(pinger.args(["-q", "-i", "0.02", PEER_V4]))?;
    until(|| Ok(arrivals(&lab, PEER_V4)? > 0), || "no echo request arrives".to_owned())?;
    let dhcp = counter(&lab, PEER_V4, 67)?;

    let injection = Injection::start(&["--host", "--yes", "--net", "drop"])?;
    // Everybody: another program of another namespace, too.
    let (sent, counted) = lost.run()?;
    ensure!(sent.sent == FEW && counted.received == 0, "{} of {FEW} arrive", counted.received);
    ensure!(arrivals(&lab, PEER_V4)? == 0, "echo requests arrive");
    let mut web = lab.in_peer("curl");
    let web = Ended::of(web.args(["-s", "-m", "3", &format!("http://{TARGET_V4}/")]))?;
    ensure!(web.status.code() == Some(28), "curl did not time out: {web:?}");
    // The neighbours are forgotten, so SSH needs ARP and neighbour discovery.
    for (namespace, iface) in [(&lab.target, "vt0"), (&lab.peer, "vp0")] {
        sh(&format!("ip -n {namespace} neigh flush dev {iface}"))?;
    }
    session.say("you")?;
    ensure!(session.text()? == "heard you\n", "the session is cut");
    for address in [TARGET_V4, TARGET_V6] {
        let ended = Ended::of(ssh.client(&lab, address, "echo in").stdin(Stdio::null()))?;
        ensure!(ended.stdout == "in\n", "nobody can log in at {address} any more: {ended:?}");
    }
    lease(&lab)?;
    let counted: Counted = dhcp.report()?;
    ensure!(counted.received == FEW, "DHCP: {} of {FEW} arrive", counted.received);
    let report = injection.heal()?;
    let spared = report.json["except"].as_array().context("the report says what was spared")?;
    ensure!(spared.iter().any(|one| one["matched"].as_u64() > Some(0)), "{}", report.json);

    let after = Pair::new(&lab, PEER_V4, 9001, FEW)?;
    let (sent, counted) = after.run()?;
    untouched("afterwards", &sent, &counted, FEW)
}

/// What a DHCP client sends when it wants its lease renewed, as far as a packet filter can tell.
fn lease(lab: &NetLab) -> anyhow::Result<()> {
    const CLIENT: &str = "import socket, struct, time\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.bind(('', 68))\n\
        for n in range(100):\n\
        \x20   s.sendto(struct.pack('<QQ', n, time.monotonic_ns()), ('10.77.0.2', 67))\n\
        \x20   time.sleep(0.001)\n";
    Process::start(lab.in_target("python3").args(["-c", CLIENT]))?.text()?;
    Ok(())
}
