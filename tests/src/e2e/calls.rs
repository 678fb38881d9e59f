//! `refuse`, `unreachable`, `fail`: calls that fail before anything is sent, as real programs and real system calls see
//! them.

use std::{path::Path, process::Command};

use anyhow::ensure;

use super::{
    Lane, Test,
    pair::{Pair, endpoint, untouched},
};
use crate::{
    driver::{Injection, victim},
    net_lab::{NetLab, PEER_V4, PEER_V4_OTHER, PEER_V6, Tap},
    process::Process,
    stats::binomial,
    victim::report::{Counted, Sent, Timed},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "calls::curl_is_refused", on: Lane::tests_packets_in_detail, run: curl_is_refused },
    Test { name: "calls::udp_is_unreachable", on: Lane::tests_packets, run: udp_is_unreachable },
    Test { name: "calls::every_errno_arrives", on: Lane::tests_packets_in_detail, run: every_errno },
    Test { name: "calls::connections_that_exist_live_on", on: Lane::tests_packets, run: existing },
];

/// A web server for one page at the peer, on two addresses. It writes down what it was asked in `log`.
pub(super) fn web(lab: &NetLab, log: Option<&Path>) -> anyhow::Result<Process> {
    let log = log.unwrap_or(Path::new("/dev/null"));
    let serve = format!(
        "import http.server as h, sys; sys.stderr = open('{}', 'a', buffering=1); \
         h.test(h.SimpleHTTPRequestHandler, h.ThreadingHTTPServer, port=8080)",
        log.display()
    );
    let server = Process::start(lab.in_peer("python3").args(["-c", &serve]))?;
    let up = format!(
        "for i in $(seq 100); do curl -s -o /dev/null http://{PEER_V4}:8080/ && exit 0; sleep 0.1; done; exit 1"
    );
    Process::start(lab.in_target("sh").args(["-c", &up]))?.text()?;
    Ok(server)
}

/// A shell that, once released, prints curl's exit status for each of `urls`, which may take so many seconds each.
pub(super) fn curls(mut shell: Command, urls: &[String], patience: u32) -> anyhow::Result<Process> {
    let script = format!(
        "read x; for url in {}; do curl -s -g -m {patience} -o /dev/null $url; echo $?; done",
        urls.join(" ")
    );
    Process::start(shell.args(["-c", &script]))
}

/// Words of `text`, with one space between them.
pub(super) fn statuses(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn curl_is_refused(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("refuse")?;
    let _server = web(&lab, None)?;
    let url = |host: &str| format!("http://{host}:8080/");
    // curl(1): 7 is "failed to connect".
    for (spec, urls, expected) in [
        ("refuse tcp port 8080".to_owned(), vec![url(PEER_V4), url(PEER_V4)], "7 7"),
        (format!("refuse to {PEER_V4}"), vec![url(PEER_V4), url(PEER_V4_OTHER)], "7 0"),
        ("refuse nth 2 tcp".to_owned(), vec![url(PEER_V4); 3], "0 7 0"),
        ("unreachable port 8081-9000".to_owned(), vec![url(PEER_V4)], "0"),
        ("unreachable udp".to_owned(), vec![url(PEER_V4)], "0"),
        ("fail ENETUNREACH".to_owned(), vec![url(PEER_V4)], "7"),
    ] {
        let (mut shell, mut bystander) =
            (curls(lab.in_target("sh"), &urls, 20)?, curls(lab.in_target("sh"), &urls, 20)?);
        let injection = Injection::start(&["--pid", &shell.pid(), "--net", &spec])?;
        let tap = Tap::new(&lab.peer, "vp0", "tcp[tcpflags] & tcp-syn != 0 and src host 10.77.0.1")?;
        shell.release()?;
        let text = shell.text()?;
        let syns = tap.stop()?;
        bystander.release()?;
        let other = bystander.text()?;
        let report = injection.wait()?;
        ensure!(statuses(&text) == expected, "{spec}: {text}");
        ensure!(other.split_whitespace().all(|status| status == "0"), "{spec}: bystander: {other}");
        let failed = expected.split(' ').filter(|status| *status == "7").count();
        ensure!(report.rule(0, "injected")? == failed as u64, "{spec}: {}", report.json);
        // Nothing of a call that failed was ever on the wire.
        ensure!(syns.len() == urls.len() - failed, "{spec}: {syns:#?}");
    }
    Ok(())
}

fn udp_is_unreachable(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 1000;
    let lab = NetLab::new("unreach")?;
    for (address, port) in [(PEER_V4, 9000), (PEER_V6, 9002)] {
        let (pair, bystander) =
            (Pair::new(&lab, address, port, DATAGRAMS)?, Pair::new(&lab, address, port + 1, DATAGRAMS)?);
        let pid = pair.sender.pid();
        let injection = Injection::start(&["--pid", &pid, "--net", "unreachable 20% udp"])?;
        let (sent, counted) = pair.run()?;
        let (by_sent, by) = bystander.run()?;
        let report = injection.wait()?;
        let failed = sent.errors.get("EHOSTUNREACH").copied().unwrap_or(0);
        binomial("calls that failed", failed, DATAGRAMS, 0.2).map_err(anyhow::Error::msg)?;
        ensure!(sent.errors.len() == 1 && sent.sent + failed == DATAGRAMS, "{sent:?}");
        ensure!(counted.received == sent.sent, "{} of {} arrived", counted.received, sent.sent);
        ensure!(report.rule(0, "matched")? == DATAGRAMS, "{}", report.json);
        ensure!(report.rule(0, "injected")? == failed, "{}", report.json);
        untouched(address, &by_sent, &by, DATAGRAMS)?;
    }
    Ok(())
}

fn every_errno(_: Lane) -> anyhow::Result<()> {
    let program = victim()?;
    let on = endpoint("127.0.0.1", 19020);
    let mut specs = Vec::new();
    let names = ["EACCES", "EADDRNOTAVAIL", "ENETDOWN", "ENOBUFS", "EPERM", "ETIMEDOUT", "EPIPE"];
    for (number, name) in (1..).zip(names) {
        specs.extend(["--net".to_owned(), format!("fail {name} nth {number}")]);
    }
    let mut sender = Process::start_until(
        Command::new(&program).args(["udp-send", &on, "--wait", "--count", "100"]),
        "ready",
    )?;
    let pid = sender.pid();
    let mut arguments = vec!["--pid", &pid];
    arguments.extend(specs.iter().map(String::as_str));
    let injection = Injection::start(&arguments)?;
    sender.release()?;
    let sent: Sent = sender.report()?;
    injection.wait()?;
    // A call that failed never reaches the rules behind: the second one fails the second call it sees, and so on.
    for name in names {
        ensure!(sent.errors.get(name) == Some(&1), "{name}: {sent:?}");
    }
    ensure!(sent.sent == 100 - names.len() as u64, "{sent:?}");
    Ok(())
}

fn existing(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("existing")?;
    let (program, on) = (victim()?, endpoint(PEER_V4, 7000));
    let _server = Process::start_until(lab.in_peer(&program).args(["tcp-echo", &on]), "ready")?;
    let mut client = Process::start_until(
        lab.in_target(&program).args(["tcp-ping", &on, "--wait", "--count", "8"]),
        "connected",
    )?;
    let udp = endpoint(PEER_V4, 9000);
    let counter = Process::start_until(lab.in_peer(&program).args(["udp-count", &udp]), "ready")?;
    let mut connected = Process::start_until(
        lab.in_target(&program).args(["udp-send", &udp, "--wait", "--connect", "--count", "50"]),
        "ready",
    )?;
    let pids = [client.pid(), connected.pid()];
    let injection = Injection::start(&["--pid", &pids[0], "--pid", &pids[1], "--net", "refuse"])?;
    client.release()?;
    connected.release()?;
    let timed: Timed = client.report()?;
    let sent: Sent = connected.report()?;
    let counted: Counted = counter.report()?;
    let report = injection.wait()?;
    ensure!(timed.errors.is_empty() && timed.latencies_ns.len() == 8, "{timed:?}");
    ensure!(sent.sent == 50 && counted.received == 50, "{sent:?}");
    ensure!(report.rule(0, "matched")? == 0, "{}", report.json);
    Ok(())
}
