//! Connections: reset, hung, cut off in the middle, hit in part; requests lost and replies lost.

use std::process::Command;

use anyhow::ensure;

use super::{
    Lane, Test,
    calls::{curls, statuses, web},
    pair::endpoint,
};
use crate::{
    driver::{Injection, Report, victim},
    net_lab::{NetLab, PEER_V4, PEER_V4_OTHER, PEER_V6, TARGET_V4, TARGET_V6},
    process::{Ended, Process},
    stats::binomial,
    victim::report::{Streamed, Timed},
};

/// On a busy machine TCP asks again, whoever was told.
pub const TIMED: &[Test] =
    &[Test { name: "reset::both_ends_learn", on: Lane::tests_packets, run: reset_both }];

/// The other tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "reset::one_end_learns", on: Lane::tests_packets_in_detail, run: reset_one },
    Test { name: "reset::on_loopback", on: Lane::tests_packets_in_detail, run: reset_loopback },
    Test { name: "reset::spares_handshakes", on: Lane::tests_packets_in_detail, run: reset_handshake },
    Test {
        name: "connections::request_lost_reply_lost",
        on: Lane::tests_packets_in_detail,
        run: lost_messages,
    },
    Test { name: "connections::hang_after_the_handshake", on: Lane::tests_packets, run: hang },
    Test { name: "connections::end_after_so_many_bytes", on: Lane::tests_packets_in_detail, run: after },
    Test { name: "connections::one_of_many", on: Lane::tests_packets_in_detail, run: one_of_many },
    Test { name: "connections::a_share_of_many", on: Lane::tests_packets_in_detail, run: share },
    Test { name: "connections::kinds_of_segments", on: Lane::tests_packets_in_detail, run: segments },
    Test { name: "except::spares_what_it_names", on: Lane::tests_packets_in_detail, run: except },
    Test { name: "from::is_what_comes_from_there", on: Lane::tests_packets_in_detail, run: from },
    Test { name: "calls::bind_fails", on: Lane::tests_packets_in_detail, run: bind },
];

/// Two ends of a connection that exists.
struct Ends {
    send: Process,
    take: Process,
}

impl Ends {
    /// From the target to its peer.
    fn new(lab: &NetLab, address: &str, port: u16, bytes: &str) -> anyhow::Result<Self> {
        let (program, to) = (victim()?, endpoint(address, port));
        let take = lab.in_peer(&program);
        Self::of(take, lab.in_target(&program), &to, bytes)
    }

    fn of(mut take: Command, mut send: Command, to: &str, bytes: &str) -> anyhow::Result<Self> {
        take.args(["stream-take", to, "--timeout-ms", "4000"]);
        let take = Process::start_until(&mut take, "ready")?;
        send.args(["stream-send", to, "--wait", "--timeout-ms", "4000", "--bytes", bytes, "--piece", "2000"]);
        Ok(Self { send: Process::start_until(&mut send, "connected")?, take })
    }

    fn run(mut self) -> anyhow::Result<(Streamed, Streamed)> {
        self.send.release()?;
        Ok((self.send.report()?, self.take.report()?))
    }
}

/// What a program sees whose connection was reset.
fn was_reset(who: &str, seen: &Streamed, report: &Report) -> anyhow::Result<()> {
    let error = seen.error.as_deref().unwrap_or("no error");
    // Whoever writes on after that is told EPIPE.
    ensure!(matches!(error, "ECONNRESET" | "EPIPE"), "{who}: {error}: {seen:?}: {}", report.json);
    Ok(())
}

/// All of it arrived.
fn whole(who: &str, (sent, taken): &(Streamed, Streamed), bytes: u64) -> anyhow::Result<()> {
    let fine = sent.error.is_none() && taken.error.is_none() && taken.bytes == bytes && taken.wrong == 0;
    ensure!(fine, "{who}: {sent:?} {taken:?}");
    Ok(())
}

fn reset_both(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("reset")?;
    for (address, port) in [(PEER_V4, 9500), (PEER_V6, 9502)] {
        let ends = Ends::new(&lab, address, port, "200000")?;
        let bystander = Ends::new(&lab, address, port + 1, "200000")?;
        let injection = Injection::start(&["--pid", &ends.send.pid(), "--net", "reset data nth 20"])?;
        let (sent, taken) = ends.run()?;
        let by = bystander.run()?;
        let report = injection.wait()?;
        was_reset("sender", &sent, &report)?;
        was_reset("taker", &taken, &report)?;
        ensure!(taken.bytes >= 19 * 1000 && taken.bytes < 200_000, "{taken:?}");
        // At once: nobody had to ask again.
        ensure!(sent.sent_again == 0, "{sent:?}");
        ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
        whole("bystander", &by, 200_000)?;
    }
    Ok(())
}

fn reset_one(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("reset1")?;
    // Towards the peer: it is told, and tells the target when that sends on.
    let ends = Ends::new(&lab, PEER_V4, 9500, "200000")?;
    let injection = Injection::start(&["--pid", &ends.send.pid(), "--net", "reset out data nth 20"])?;
    let (sent, taken) = ends.run()?;
    let report = injection.wait()?;
    was_reset("peer", &taken, &report)?;
    was_reset("target, later", &sent, &report)?;
    // Towards the program, which receives; by its own packets and by those of its peer.
    for (address, port, spec) in
        [(TARGET_V4, 9501, "reset in data nth 20"), (TARGET_V6, 9502, "reset data nth 20")]
    {
        let (program, to) = (victim()?, endpoint(address, port));
        let ends = Ends::of(lab.in_target(&program), lab.in_peer(&program), &to, "200000")?;
        let injection = Injection::start(&["--pid", &ends.take.pid(), "--net", spec])?;
        let (sent, taken) = ends.run()?;
        let report = injection.wait()?;
        was_reset("program", &taken, &report)?;
        was_reset("its peer, later", &sent, &report)?;
        ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    }
    Ok(())
}

fn reset_loopback(_: Lane) -> anyhow::Result<()> {
    for (to, spec) in [
        ("127.0.0.1:19500", "reset data nth 20"),
        ("[::1]:19501", "reset data nth 20"),
        ("127.0.0.1:19502", "reset out data nth 20"),
        ("127.0.0.1:19503", "reset in ack nth 20"),
    ] {
        let program = victim()?;
        let ends = Ends::of(Command::new(&program), Command::new(&program), to, "200000")?;
        let injection = Injection::start(&["--pid", &ends.send.pid(), "--net", spec])?;
        let (sent, taken) = ends.run()?;
        let report = injection.wait()?;
        was_reset(spec, &sent, &report)?;
        // Nobody tells the peer of a target that was told alone, and sends no more.
        if !spec.contains(" in ") {
            was_reset(spec, &taken, &report)?;
        }
        ensure!(report.rule(0, "injected")? == 1, "{spec}: {}", report.json);
    }
    Ok(())
}

fn reset_handshake(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("resetsyn")?;
    let (program, on) = (victim()?, endpoint(TARGET_V4, 7000));
    // The server is the target: each connection is accepted, and ends when the request comes.
    let server = Process::start_until(lab.in_target(&program).args(["tcp-echo", &on]), "ready")?;
    let injection = Injection::start(&["--pid", &server.pid(), "--net", "reset", "--for", "60s"])?;
    let client = Process::start(lab.in_peer(&program).args([
        "tcp-ping",
        &on,
        "--reconnect",
        "--count",
        "5",
        "--timeout-ms",
        "5000",
    ]))?;
    let timed: Timed = client.report()?;
    let report = injection.heal()?;
    ensure!(timed.errors.get("ECONNRESET") == Some(&5), "{timed:?}: {}", report.json);
    Ok(())
}

fn lost_messages(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("lostmsg")?;
    let (server, log) = logged_web(&lab)?;
    // curl(1): 28 is "timed out".
    for (spec, path, worked) in
        [("drop data out port 8080", "request", false), ("drop data in port 8080", "reply", true)]
    {
        let url = [format!("http://{PEER_V4}:8080/{path}")];
        let mut curl = curls(lab.in_target("sh"), &url, 3)?;
        // Keeps the session alive beyond curl, whose kernel goes on sending what it left behind.
        let witness = Process::start(Command::new("sleep").arg("600"))?;
        let pids = [curl.pid(), witness.pid()];
        let injection = Injection::start(&["--pid", &pids[0], "--pid", &pids[1], "--net", spec])?;
        let mut bystander =
            curls(lab.in_target("sh"), &[format!("http://{PEER_V4}:8080/bystander-{path}")], 20)?;
        bystander.release()?;
        ensure!(statuses(&bystander.text()?) == "0", "{spec}: the bystander waited, too");
        curl.release()?;
        let text = curl.text()?;
        let done = std::fs::read_to_string(log.path())?.contains(&format!("GET /{path} "));
        let report = injection.heal()?;
        ensure!(statuses(&text) == "28", "{spec}: {text}: {}", report.json);
        ensure!(done == worked, "{spec}: the server did {} the work", if done { "" } else { "not" });
    }
    drop(server);
    Ok(())
}

/// A web server at the peer that writes down what it was asked.
fn logged_web(lab: &NetLab) -> anyhow::Result<(Process, tempfile::NamedTempFile)> {
    let log = tempfile::NamedTempFile::new()?;
    let server = web(lab, Some(log.path()))?;
    Ok((server, log))
}

fn hang(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("hang")?;
    let _server = web(&lab, None)?;
    let script =
        format!("read x; curl -s -m 3 -o /dev/null -w '%{{time_connect}} ' http://{PEER_V4}:8080/; echo $?");
    let mut curl = Process::start(lab.in_target("sh").args(["-c", &script]))?;
    let injection = Injection::start(&["--pid", &curl.pid(), "--net", "hang"])?;
    curl.release()?;
    let text = curl.text()?;
    let report = injection.wait()?;
    let (connected, status) = text.trim().split_once(' ').unwrap_or_default();
    ensure!(status == "28" && connected.parse::<f64>()? > 0.0, "{text}: {}", report.json);
    Ok(())
}

fn after(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("after")?;
    // Connected before and after the session began, by the one who connects and by the one who accepts.
    let ends = Ends::new(&lab, PEER_V4, 9500, "300000")?;
    let injection = Injection::start(&["--pid", &ends.send.pid(), "--net", "drop out after 100kB"])?;
    let (_, taken) = ends.run()?;
    let report = injection.heal()?;
    let near = |bytes: u64| bytes <= 100_000 && bytes > 100_000 - 1448;
    ensure!(near(taken.bytes) && taken.error.is_some(), "{taken:?}: {}", report.json);

    // Not one byte less: what ends there is whole.
    let (program, to) = (victim()?, endpoint(PEER_V4, 9501));
    let take = Process::start_until(lab.in_peer(&program).args(["stream-take", &to]), "ready")?;
    let mut send = Process::start_until(
        lab.in_target(&program).args(["stream-send", &to, "--bytes", "100000", "--wait-first"]),
        "ready",
    )?;
    let spec = "drop data out after 100000B";
    let injection = Injection::start(&["--pid", &send.pid(), "--net", spec])?;
    send.release()?;
    let both = (send.report()?, take.report()?);
    let report = injection.wait()?;
    whole(spec, &both, 100_000)?;
    ensure!(report.rule(0, "matched")? == 0, "{}", report.json);

    // What comes in, for one who accepts while the session lives.
    let to = endpoint(TARGET_V4, 9502);
    let take = Process::start_until(
        lab.in_target(&program).args(["stream-take", &to, "--timeout-ms", "4000"]),
        "ready",
    )?;
    let injection = Injection::start(&["--pid", &take.pid(), "--net", "drop in after 100kB"])?;
    let send = Process::start(lab.in_peer(&program).args([
        "stream-send",
        &to,
        "--bytes",
        "300000",
        "--timeout-ms",
        "4000",
    ]))?;
    let taken: Streamed = take.report()?;
    let _: Streamed = send.report()?;
    let report = injection.wait()?;
    ensure!(near(taken.bytes) && taken.error.is_some(), "{taken:?}: {}", report.json);
    Ok(())
}

fn one_of_many(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("oneof")?;
    let _server = web(&lab, None)?;
    let urls = vec![format!("http://{PEER_V4}:8080/"); 4];
    for (spec, expected) in [
        ("hang connection 2", "0 28 0 0"),
        ("drop out connection 3", "0 0 28 0"),
        ("refuse connection 1", "7 0 0 0"),
        ("hang connection 1 to 10.77.0.3", "0 0 0 0"),
    ] {
        let mut shell = curls(lab.in_target("sh"), &urls, 2)?;
        let injection = Injection::start(&["--pid", &shell.pid(), "--net", spec])?;
        shell.release()?;
        let text = shell.text()?;
        let report = injection.wait()?;
        ensure!(statuses(&text) == expected, "{spec}: {text}: {}", report.json);
    }
    Ok(())
}

fn share(_: Lane) -> anyhow::Result<()> {
    const CONNECTIONS: u64 = 400;
    let lab = NetLab::new("share")?;
    let (program, on) = (victim()?, endpoint(PEER_V4, 7000));
    let _server = Process::start_until(lab.in_peer(&program).args(["tcp-echo", &on]), "ready")?;
    let script = format!("read x; exec {program} tcp-ping {on} --reconnect --count {CONNECTIONS}");
    let mut client = Process::start(lab.in_target("sh").args(["-c", &script]))?;
    let spec = "reset connections 30%";
    let injection = Injection::start(&["--pid", &client.pid(), "--net", spec])?;
    client.release()?;
    let timed: Timed = client.report()?;
    let report = injection.wait()?;
    let failed: u64 = timed.errors.values().sum();
    binomial("connections that were reset", failed, CONNECTIONS, 0.3).map_err(anyhow::Error::msg)?;
    ensure!(timed.latencies_ns.len() as u64 + failed == CONNECTIONS, "{timed:?}");
    ensure!(report.rule(0, "injected")? >= failed, "{}", report.json);
    Ok(())
}

fn segments(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("kinds")?;
    let (program, on) = (victim()?, endpoint(PEER_V4, 7000));
    let _server = Process::start_until(lab.in_peer(&program).args(["tcp-echo", &on]), "ready")?;
    // The first SYN is lost: sent again after a second (RFC 6298). The next connection is not late.
    let script = format!("read x; exec {program} tcp-ping {on} --reconnect --count 2");
    let mut client = Process::start(lab.in_target("sh").args(["-c", &script]))?;
    let injection = Injection::start(&["--pid", &client.pid(), "--net", "drop syn nth 1 out"])?;
    client.release()?;
    let timed: Timed = client.report()?;
    let report = injection.wait()?;
    ensure!(
        timed.latencies_ns.len() == 2
            && timed.latencies_ns[0] >= 1_000_000_000
            && timed.latencies_ns[1] < 1_000_000_000,
        "{timed:?}: {}",
        report.json
    );
    ensure!(report.rule(0, "matched")? == 3, "three SYNs were sent: {}", report.json);
    // Half-closed: everything but the end arrives.
    let ends = Ends::new(&lab, PEER_V4, 9500, "50000")?;
    let injection = Injection::start(&["--pid", &ends.send.pid(), "--net", "drop fin out"])?;
    let (_, taken) = ends.run()?;
    let report = injection.heal()?;
    // The last data travel with the FIN or before it.
    ensure!(taken.error.as_deref() == Some("EAGAIN") && taken.bytes >= 48_000, "{taken:?}: {}", report.json);
    Ok(())
}

fn except(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("except")?;
    let _server = web(&lab, None)?;
    let urls = [format!("http://{PEER_V4}:8080/"), format!("http://{PEER_V4_OTHER}:8080/")];
    for (fault, exceptions, expected) in [
        ("drop", &["to 10.77.0.3"][..], "28 0"),
        ("drop", &["tcp port 8080"], "0 0"),
        ("drop", &["to 10.77.0.3", "to 10.77.0.2 udp"], "28 0"),
        ("refuse", &["to 10.77.0.2"], "0 7"),
        ("drop data", &["in"], "28 28"),
    ] {
        let mut shell = curls(lab.in_target("sh"), &urls, 2)?;
        let pid = shell.pid();
        let mut arguments = vec!["--pid", &pid, "--net", fault];
        arguments.extend(exceptions.iter().flat_map(|exception| ["--except", exception]));
        let injection = Injection::start(&arguments)?;
        shell.release()?;
        let text = shell.text()?;
        let report = injection.wait()?;
        ensure!(statuses(&text) == expected, "{fault} except {exceptions:?}: {text}: {}", report.json);
    }
    Ok(())
}

fn from(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("from")?;
    let ping = |to: &str, spec: &str| -> anyhow::Result<String> {
        let script = format!("read x; exec ping -c 3 -i 0.2 -W 1 {to}");
        let mut ping = Process::start(lab.in_target("sh").args(["-c", &script]))?;
        let injection = Injection::start(&["--pid", &ping.pid(), "--net", spec])?;
        ping.release()?;
        let Ended { stdout, .. } = ping.ended()?;
        let report = injection.wait()?;
        Ok(format!("{stdout} {}", report.rule(0, "injected")?))
    };
    let text = ping(PEER_V4, "drop from 10.77.0.2")?;
    ensure!(text.contains("3 packets transmitted, 0 received") && text.ends_with(" 3"), "{text}");
    let text = ping(PEER_V4_OTHER, "drop from 10.77.0.2")?;
    ensure!(text.contains("3 received") && text.ends_with(" 0"), "{text}");
    Ok(())
}

fn bind(_: Lane) -> anyhow::Result<()> {
    let script = "
import errno, socket, sys
sys.stdin.readline()
for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):
    for port in (19081, 19082):
        try:
            socket.socket(family).bind((address, port)); print('bound')
        except OSError as error:
            print(errno.errorcode[error.errno])
";
    let start = || Process::start(Command::new("python3").args(["-c", script]));
    let (mut program, mut bystander) = (start()?, start()?);
    let spec = "fail EADDRINUSE bind local-port 19081";
    let injection = Injection::start(&["--pid", &program.pid(), "--net", spec])?;
    program.release()?;
    let text = program.text()?;
    bystander.release()?;
    let by = bystander.text()?;
    let report = injection.wait()?;
    ensure!(statuses(&text) == "EADDRINUSE bound EADDRINUSE bound", "{text}: {}", report.json);
    ensure!(statuses(&by) == "bound bound bound bound", "bystander: {by}");
    Ok(())
}
