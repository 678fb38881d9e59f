//! Who is hit: descendants present and future, nested cgroups, sockets old and new, several faults, several sessions.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    echoes::{arrivals_at, until},
    pair::{Pair, counter, endpoint, untouched},
};
use crate::{
    cgroup_lab::CgroupLab,
    driver::{Injection, victim},
    net_lab::{NetLab, PEER_V4, TARGET_IFACE, TARGET_V4, Tap, sh},
    process::{Process, proc_file},
    stats::binomial,
    victim::report::{Counted, Sent, Timed},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "targets::descendants_present_and_future",
        on: Lane::tests_packets_in_detail,
        run: descendants,
    },
    Test {
        name: "targets::only_spares_descendants",
        on: Lane::tests_packets_in_detail,
        run: only_spares_descendants,
    },
    Test { name: "targets::nested_cgroups", on: Lane::tests_packets_in_detail, run: nested_cgroups },
    Test { name: "targets::several_namespaces", on: Lane::tests_packets_in_detail, run: several_namespaces },
    Test {
        name: "targets::follows_into_another_namespace",
        on: Lane::tests_packets_in_detail,
        run: follows_elsewhere,
    },
    Test {
        name: "targets::controller_in_another_namespace",
        on: Lane::tests_packets_in_detail,
        run: controller_elsewhere,
    },
    Test {
        name: "targets::connection_opened_before",
        on: Lane::tests_packets_in_detail,
        run: connection_opened_before,
    },
    Test {
        name: "targets::accepted_by_an_old_listener",
        on: Lane::tests_packets_in_detail,
        run: accepted_by_an_old_listener,
    },
    Test { name: "targets::several_faults", on: Lane::tests_packets_in_detail, run: several_faults },
    Test {
        name: "targets::two_sessions_compose",
        on: Lane::tests_packets_in_detail,
        run: two_sessions_compose,
    },
    Test {
        name: "targets::for_ends_the_session",
        on: Lane::tests_packets_in_detail,
        run: for_ends_the_session,
    },
    Test {
        name: "targets::deadline_holds_inside_the_kernel",
        on: Lane::tests_packets_in_detail,
        run: deadline_in_kernel,
    },
    Test {
        name: "targets::ends_with_the_cgroup",
        on: Lane::tests_packets_in_detail,
        run: ends_with_the_cgroup,
    },
    Test {
        name: "targets::ends_with_the_target",
        on: Lane::tests_packets_in_detail,
        run: ends_with_the_target,
    },
];

/// Few: every datagram of a target is lost, none of a bystander.
const FEW: u64 = 200;

/// A shell that sends [`FEW`] datagrams to `present` from a child that exists already, then to `future` from one
/// that does not. It waits for a line first.
fn family(lab: &NetLab, present: u16, future: u16) -> anyhow::Result<Process> {
    let send = |port| anyhow::Ok(format!("{} udp-send {PEER_V4}:{port} --count {FEW}", victim()?));
    // A background child of a shell has no stdin of its own.
    let script = format!(
        "exec 3<&0; (echo ready >&2; read x; {}) <&3 & wait; {}; true",
        send(present)?,
        send(future)?
    );
    Process::start_until(lab.in_target("sh").args(["-c", &script]), "ready")
}

fn descendants(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("desc")?;
    let counters = [9000, 9001, 9002, 9003].map(|port| counter(&lab, PEER_V4, port));
    let (mut target, mut bystander) = (family(&lab, 9000, 9001)?, family(&lab, 9002, 9003)?);
    let injection = Injection::start(&["--pid", &target.pid(), "--net", "drop out udp"])?;
    target.release()?;
    bystander.release()?;
    target.text()?;
    bystander.text()?;
    let report = injection.wait()?;
    for (counter, arrive) in counters.into_iter().zip([0, 0, FEW, FEW]) {
        let counted: Counted = counter?.report()?;
        ensure!(counted.received == arrive, "{} of {arrive}: {}", counted.received, report.json);
    }
    ensure!(report.rule(0, "injected")? == 2 * FEW, "{}", report.json);
    Ok(())
}

fn only_spares_descendants(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("only")?;
    let counters = [9000, 9001, 9002].map(|port| counter(&lab, PEER_V4, port));
    let mut parent = family(&lab, 9000, 9001)?;
    let arguments = ["udp-send", "10.77.0.2:9002", "--wait", "--count", "200"];
    let mut itself = Process::start_until(lab.in_target(&victim()?).args(arguments), "ready")?;
    let pids = [parent.pid(), itself.pid()];
    let injection =
        Injection::start(&["--pid", &pids[0], "--pid", &pids[1], "--only", "--net", "drop out udp"])?;
    parent.release()?;
    itself.release()?;
    parent.text()?;
    itself.text()?;
    injection.wait()?;
    for (counter, arrive) in counters.into_iter().zip([FEW, FEW, 0]) {
        let counted: Counted = counter?.report()?;
        ensure!(counted.received == arrive, "{} instead of {arrive}", counted.received);
    }
    Ok(())
}

fn nested_cgroups(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("cgroup")?;
    let target = CgroupLab::new("target")?;
    let (inner, sibling) = (target.child("inner")?, CgroupLab::new("target-not")?);
    let deeper = inner.child("deeper")?;
    let counters = [9000, 9001, 9002, 9003].map(|port| counter(&lab, PEER_V4, port));
    let program = victim()?;
    let send = |cgroup: &CgroupLab, port| {
        let mut command = cgroup.command("ip");
        command.args(["netns", "exec", &lab.target, &program, "udp-send", &endpoint(PEER_V4, port)]);
        command.args(["--wait", "--count", &FEW.to_string()]);
        command
    };
    let mut senders = vec![
        // Deep inside; moved inside with its socket open; outside; inside, but started later.
        Process::start_until(&mut send(&deeper, 9000), "ready")?,
        Process::start_until(&mut send(&sibling, 9001), "ready")?,
        Process::start_until(&mut send(&sibling, 9002), "ready")?,
    ];
    inner.adopt(&senders[1].pid())?;
    let injection = Injection::start(&["--cgroup", &target.path(), "--net", "drop out udp"])?;
    senders.push(Process::start(&mut send(&inner, 9003))?);
    for mut sender in senders {
        sender.release()?;
        let sent: Sent = sender.report()?;
        ensure!(sent.sent == FEW && sent.errors.is_empty(), "the loss was not silent: {sent:?}");
    }
    injection.heal()?;
    let mut arrived = Vec::new();
    for counter in counters {
        arrived.push(counter?.report::<Counted>()?.received);
    }
    ensure!(arrived == [0, 0, FEW, 0], "arrived: {arrived:?}");
    Ok(())
}

fn wait_for_connections(namespace: &str, which: &str, count: usize) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while sh(&format!("ip netns exec {namespace} ss -H -t -n {which}"))?.lines().count() != count {
        ensure!(std::time::Instant::now() < deadline, "connections stay open");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn several_namespaces(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("many")?;
    let target = CgroupLab::new("many")?;
    let program = victim()?;
    let count = FEW.to_string();
    let mut arrived = Vec::new();
    let (there, back) = (endpoint(PEER_V4, 9000), endpoint(TARGET_V4, 9000));
    let counters = [
        counter(&lab, PEER_V4, 9000)?,
        Process::start_until(lab.in_target(&program).args(["udp-count", &back]), "ready")?,
    ];
    let injection = {
        let mut senders = Vec::new();
        for (namespace, to) in [(&lab.target, &there), (&lab.peer, &back)] {
            let mut command = target.command("ip");
            command.args(["netns", "exec", namespace, &program, "udp-send", to, "--wait", "--count", &count]);
            senders.push(Process::start_until(&mut command, "ready")?);
        }
        let injection = Injection::start(&["--cgroup", &target.path(), "--net", "drop out udp"])?;
        for mut sender in senders {
            sender.release()?;
            sender.text()?;
        }
        injection
    };
    for counter in counters {
        arrived.push(counter.report::<Counted>()?.received);
    }
    let report = injection.heal()?;
    ensure!(arrived == [0, 0], "arrived: {arrived:?}");
    ensure!(report.rule(0, "injected")? == 2 * FEW, "{}", report.json);
    Ok(())
}

fn controller_elsewhere(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("ctl")?;
    let (target, bystander) = (Pair::new(&lab, PEER_V4, 9000, FEW)?, Pair::new(&lab, PEER_V4, 9001, FEW)?);
    let controller = lab.in_peer(&crate::driver::binary().to_string_lossy());
    let injection =
        Injection::start_with(controller, &["--pid", &target.sender.pid(), "--net", "drop every 2 out"])?;
    let (sent, counted) = target.run()?;
    let (bystander_sent, bystander_counted) = bystander.run()?;
    injection.wait()?;
    ensure!(sent.sent == FEW && counted.received == FEW / 2, "{sent:?}, {} arrived", counted.received);
    untouched("bystander", &bystander_sent, &bystander_counted, FEW)
}

fn ends_with_the_cgroup(_: Lane) -> anyhow::Result<()> {
    let cgroup = CgroupLab::new("gone")?;
    let path = cgroup.path();
    let injection = Injection::start(&["--cgroup", &path, "--net", "drop out"])?;
    drop(cgroup);
    // Another one of the same path: it was not named.
    let heir = CgroupLab::new("gone")?;
    ensure!(heir.path() == path, "{path}");
    let report = injection.wait()?;
    ensure!(report.status.success(), "{}", report.stderr);
    Ok(())
}

fn follows_elsewhere(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("else")?;
    let ping = format!(
        "echo ready >&2; read x; exec nsenter --net=/run/netns/{} -- ping -q -i 0.02 {TARGET_V4}",
        lab.peer
    );
    let mut target = Process::start_until(lab.in_target("sh").args(["-c", &ping]), "ready")?;
    let mut bystander = lab.in_peer("ping");
    let _bystander = Process::start(bystander.args(["-q", "-i", "0.02", "10.77.0.9"]))?;
    sh(&format!("ip -n {} addr add 10.77.0.9/24 dev {TARGET_IFACE}", lab.target))?;
    let injection = Injection::start(&["--pid", &target.pid(), "--net", "drop out icmp"])?;
    target.release()?;
    let arrivals = |to: &str| arrivals_at(&lab.target, TARGET_IFACE, to);
    // Its first requests are sent before it is found there; so wait until it sends at all, and is found.
    until(|| Ok(proc_file(target.pid().parse()?, "comm")? == "ping"), || "no ping".to_owned())?;
    until(|| Ok(arrivals(TARGET_V4)? == 0), || "the target is not found again".to_owned())?;
    ensure!(arrivals("10.77.0.9")? > 0, "the bystander was hit");
    let report = injection.heal()?;
    ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
    ensure!(arrivals(TARGET_V4)? > 0, "the target is still hit");
    target.signal(nix::sys::signal::Signal::SIGKILL)
}

fn tcp_pair(lab: &NetLab, port: u16, client: &[&str]) -> anyhow::Result<(Process, Process)> {
    let (program, on) = (victim()?, endpoint(PEER_V4, port));
    let server = Process::start_until(lab.in_peer(&program).args(["tcp-echo", &on]), "ready")?;
    let client =
        Process::start_until(lab.in_target(&program).args(["tcp-ping", &on]).args(client), "connected")?;
    Ok((server, client))
}

fn connection_opened_before(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("conn")?;
    let (_server, mut client) = tcp_pair(&lab, 7000, &["--wait", "--count", "5"])?;
    let (_other, mut bystander) = tcp_pair(&lab, 7001, &["--wait", "--count", "5"])?;
    let injection = Injection::start(&["--pid", &client.pid(), "--net", "drop nth 1 out tcp"])?;
    client.release()?;
    bystander.release()?;
    let (timed, other): (Timed, Timed) = (client.report()?, bystander.report()?);
    let report = injection.wait()?;
    ensure!(timed.errors.is_empty() && other.errors.is_empty(), "{timed:?} {other:?}");
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    // TCP noticed by its own clock: no retransmission time-out is shorter than 200 ms (TCP_RTO_MIN).
    ensure!(timed.latencies_ns[0] >= 200_000_000, "the first request was not lost: {timed:?}");
    Ok(())
}

fn accepted_by_an_old_listener(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("accept")?;
    let program = victim()?;
    let serve = |port: &str| {
        Process::start_until(
            lab.in_target(&program).args(["tcp-echo", &format!("{TARGET_V4}:{port}")]),
            "ready",
        )
    };
    let (server, _bystander) = (serve("7000")?, serve("7001")?);
    let ask = |port: &str, arguments: &[&str]| {
        let mut command = lab.in_peer(&program);
        command.args(["tcp-ping", &format!("{TARGET_V4}:{port}")]).args(arguments);
        command
    };
    // One connection is accepted before, ten are accepted later, by forked children that come later as well.
    let mut old = Process::start_until(&mut ask("7000", &["--wait", "--count", "10"]), "connected")?;
    let tap = Tap::new(&lab.peer, "vp0", "tcp and src port 7000 and tcp[tcpflags] & tcp-rst == 0")?;
    let spec = "drop every 4 out tcp local-port 7000";
    let injection = Injection::start(&["--pid", &server.pid(), "--net", spec])?;
    old.release()?;
    let answered: Timed = old.report()?;
    let after_old = injection_evidence(&answered, 10)?;
    let new: Timed = Process::start(&mut ask("7000", &["--reconnect", "--count", "10"]))?.report()?;
    let after_new = injection_evidence(&new, 10)?;
    let other: Timed = Process::start(&mut ask("7001", &["--reconnect", "--count", "10"]))?.report()?;
    ensure!(other.errors.is_empty() && other.latencies_ns.len() == 10, "bystander: {other:?}");
    // Until the forked children have closed their connections, or what is sent last is counted on one side only. What
    // the kernel says without a socket (RST) belongs to nobody and is not counted.
    wait_for_connections(&lab.target, "sport = :7000", 0)?;
    let report = injection.heal()?;
    let arrived = tap.stop()?.len() as u64;
    let (matched, injected) = (report.rule(0, "matched")?, report.rule(0, "injected")?);
    // Exact: were packets of accepted sockets missed by the filter, more would arrive than were matched and spared.
    ensure!(injected == matched / 4, "{}", report.json);
    ensure!(arrived == matched - injected, "{arrived} arrived at the peer: {}", report.json);
    // A connection is at least three packets of the server: 10 exchanges, then 10 connections.
    ensure!(matched >= 10 + 30, "{}", report.json);
    ensure!(after_old + after_new > 0, "nobody waited for a retransmission: {answered:?} {new:?}");
    drop(server);
    Ok(())
}

/// All requests were answered; how many needed a retransmission.
fn injection_evidence(timed: &Timed, count: usize) -> anyhow::Result<usize> {
    ensure!(timed.errors.is_empty() && timed.latencies_ns.len() == count, "{timed:?}");
    Ok(timed.latencies_ns.iter().filter(|latency| **latency >= 200_000_000).count())
}

fn several_faults(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("several")?;
    let (pair, bystander) = (Pair::new(&lab, PEER_V4, 9000, 600)?, Pair::new(&lab, PEER_V4, 9001, 600)?);
    let specs = ["drop out udp every 2", "drop in icmp", "drop out port 9000 every 3"];
    let pid = pair.sender.pid();
    let mut arguments = vec!["--pid", &pid];
    arguments.extend(specs.iter().flat_map(|spec| ["--net", spec]));
    let injection = Injection::start(&arguments)?;
    let (sent, counted) = pair.run()?;
    let (other_sent, other) = bystander.run()?;
    let report = injection.wait()?;
    ensure!(sent.sent == 600, "{sent:?}");
    // Drop wins: what the first fault takes the third never sees, and of the 300 that are left it takes each third.
    for (field, expected) in [("matched", [600, 0, 300]), ("injected", [300, 0, 100])] {
        for (id, expected) in expected.into_iter().enumerate() {
            ensure!(report.rule(id, field)? == expected, "rule {id} {field}: {}", report.json);
        }
    }
    for (id, spec) in specs.iter().enumerate() {
        ensure!(report.json["rules"][id]["spec"] == *spec, "{}", report.json);
    }
    ensure!(counted.received == 200, "{} arrived", counted.received);
    untouched("bystander", &other_sent, &other, 600)
}

fn two_sessions_compose(_: Lane) -> anyhow::Result<()> {
    // 10 000 datagrams: 44 % is told from 30 % and from 20 %.
    const DATAGRAMS: u64 = 10_000;
    let lab = NetLab::new("two")?;
    let (both, one) =
        (Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?, Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?);
    let bystander = Pair::new(&lab, PEER_V4, 9002, DATAGRAMS)?;
    let pids = [both.sender.pid(), one.sender.pid()];
    let start =
        |spec, seed| Injection::start(&["--pid", &pids[0], "--pid", &pids[1], "--net", spec, "--seed", seed]);
    // The same seed must not make their losses the same.
    let (first, second) = (start("drop 30% out udp", "5")?, start("drop 20% out udp", "5")?);
    let (sent, counted) = both.run()?;
    let (other_sent, other) = bystander.run()?;
    let first = first.heal()?;
    let (_, alone) = one.run()?;
    let second = second.heal()?;
    ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "{sent:?}");
    untouched("bystander", &other_sent, &other, DATAGRAMS)?;
    let lost = DATAGRAMS - counted.received;
    binomial("lost to both", lost, DATAGRAMS, 1.0 - 0.7 * 0.8).map_err(anyhow::Error::msg)?;
    let lost_alone = DATAGRAMS - alone.received;
    binomial("lost to the other", lost_alone, DATAGRAMS, 0.2).map_err(anyhow::Error::msg)?;
    let injected = (first.rule(0, "injected")?, second.rule(0, "injected")?);
    ensure!(injected.0 + injected.1 == lost + lost_alone, "{injected:?}, {lost} and {lost_alone} lost");
    Ok(())
}

fn for_ends_the_session(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("for")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, FEW)?;
    let pid = pair.sender.pid();
    let injection = Injection::start(&["--pid", &pid, "--net", "drop out", "--for", "500ms"])?;
    let report = injection.wait()?;
    ensure!(report.status.success(), "{}: {}", report.status, report.stderr);
    let (sent, counted) = pair.run()?;
    untouched("after the session", &sent, &counted, FEW)
}

fn deadline_in_kernel(_: Lane) -> anyhow::Result<()> {
    use nix::sys::signal::Signal;
    let lab = NetLab::new("deadline")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, FEW)?;
    let pid = pair.sender.pid();
    let injection = Injection::start(&["--pid", &pid, "--net", "drop out", "--for", "1s"])?;
    injection.signal(Signal::SIGSTOP)?;
    std::thread::sleep(Duration::from_millis(1100));
    // Nobody is awake to heal, and the heartbeat is not stale for a long time yet.
    let result = pair.run();
    injection.signal(Signal::SIGCONT)?;
    let (sent, counted) = result?;
    untouched("after the deadline", &sent, &counted, FEW)?;
    injection.wait().map(drop)
}

fn ends_with_the_target(_: Lane) -> anyhow::Result<()> {
    let waiting = || Process::start(std::process::Command::new("sh").args(["-c", "read x"]));
    let (mut first, mut last) = (waiting()?, waiting()?);
    let pids = [first.pid(), last.pid()];
    let injection = Injection::start(&["--pid", &pids[0], "--pid", &pids[1], "--net", "drop 0%"])?;
    first.release()?;
    let _ = first.ended()?;
    last.release()?;
    let report = injection.wait().context("the session does not end with its target")?;
    let _ = last.ended()?;
    ensure!(report.status.success(), "{}: {}", report.status, report.stderr);
    ensure!(report.json["session"]["exit"]["reason"] == "target_gone", "{}", report.json);
    Ok(())
}
