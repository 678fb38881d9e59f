//! `delay` of packets: as late as asked, nothing lost, nobody else late, no qdisc of anybody's touched.
//!
//! How late a packet is at least is exact: it must not arrive before its time. How late it is at most depends on the
//! machine; [`SLACK_NS`] is what the median may add to that of a bystander on the same path at the same time.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    pair::{Pair, endpoint},
};
use crate::{
    driver::{Injection, refused, victim},
    net_lab::{NetLab, PEER_V4, PEER_V6, TARGET_IFACE, sh},
    process::Process,
    stats::median,
    victim::report::{Counted, Sent, Timed},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "delay::ping_over_ethernet", on: Lane::tests_packet_delay, run: ping_over_ethernet },
    Test { name: "delay::ping_over_loopback", on: Lane::tests_packet_delay, run: ping_over_loopback },
    Test { name: "delay::tcp_round_trip", on: Lane::tests_packet_delay, run: tcp_round_trip },
    Test { name: "delay::one_way_and_nothing_lost", on: Lane::tests_packet_delay, run: one_way },
    Test {
        name: "delay::bulk_tcp_is_counted_segment_by_segment",
        on: Lane::tests_packet_delay,
        run: bulk_tcp,
    },
    Test { name: "delay::iperf3_udp", on: Lane::tests_packet_delay, run: iperf3_udp },
    Test { name: "delay::qdiscs_survive", on: Lane::tests_packet_delay, run: qdiscs_survive },
    Test { name: "delay::delay_and_loss", on: Lane::tests_packet_delay, run: delay_and_loss },
    Test { name: "delay::two_sessions_add_up", on: Lane::tests_packet_delay, run: two_sessions_add_up },
    Test { name: "delay::refused_without_fq", on: |lane| !lane.has_packet_delay(), run: refused_without_fq },
];

/// The delay that most tests ask for, in milliseconds.
const D_MS: u64 = 100;
const MS: u64 = 1_000_000;
/// See the head of this file.
const SLACK_NS: u64 = 15 * MS;

/// The samples are at least `asked` and in the middle not much more than that beyond the bystander's.
fn late(what: &str, samples: &[u64], asked: u64, bystander: &[u64]) -> anyhow::Result<()> {
    let first = samples.iter().min().with_context(|| format!("{what}: no sample"))?;
    let early = samples.iter().filter(|sample| **sample < asked).count();
    ensure!(early == 0, "{what}: {early} of {} came too early, one after {first} ns", samples.len());
    let limit = asked + median(bystander) + SLACK_NS;
    let middle = median(samples);
    ensure!(middle <= limit, "{what}: median {middle} ns over {limit} ns");
    ensure!(!bystander.is_empty(), "{what}: the bystander has no sample");
    // Side by side: whatever the machine's speed, the bystander is not the one who is late.
    let other = median(bystander);
    ensure!(other < asked / 2, "{what}: the bystander was late, too: {other} ns");
    Ok(())
}

/// Round-trip times ping(8) printed, in nanoseconds. It cuts to three or four digits: one in the last is added.
fn round_trips(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .filter_map(|word| word.strip_prefix("time="))
        .filter_map(|number| {
            Some((number.parse::<f64>().ok()?, number.split_once('.').map_or(0, |(_, d)| d.len())))
        })
        .map(|(ms, digits)| ((ms + 10f64.powi(-(digits as i32))) * MS as f64) as u64)
        .collect()
}

fn pings(mut command: impl FnMut() -> Command, address: &str) -> anyhow::Result<()> {
    let shell = |command: &mut Command| {
        // A shell is the target; ping is its future descendant.
        let script = format!("read x; exec 2>&1; ping -c 6 -i 0.2 -W 5 {address}; true");
        Process::start(command.args(["-c", &script]))
    };
    for (direction, times) in [("out", 1), ("in", 1), ("", 2)] {
        let (mut victim, mut bystander) = (shell(&mut command())?, shell(&mut command())?);
        let spec = format!("delay {D_MS}ms {direction} icmp");
        let injection = Injection::start(&["--pid", &victim.pid(), "--net", &spec])?;
        victim.release()?;
        bystander.release()?;
        let (text, other) = (victim.text()?, bystander.text()?);
        let report = injection.wait()?;
        let (samples, other) = (round_trips(&text), round_trips(&other));
        let what = format!("{spec} {address}");
        ensure!(samples.len() == 6 && other.len() == 6, "{what}: lost: {text} {other:?}");
        ensure!(report.rule(0, "injected")? == 6 * times, "{what}: {text}: {}", report.json);
        late(&what, &samples, times * D_MS * MS, &other).with_context(|| text.clone())?;
        ensure!(report.rule(0, "delay_ns")? == 6 * times * D_MS * MS, "{what}: {}", report.json);
    }
    Ok(())
}

fn ping_over_ethernet(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("dping")?;
    pings(|| lab.in_target("sh"), PEER_V4)?;
    pings(|| lab.in_target("sh"), PEER_V6)
}

fn ping_over_loopback(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("dlo")?;
    pings(|| lab.in_target("sh"), "127.0.0.1")?;
    pings(|| lab.in_target("sh"), "::1")
}

fn tcp_round_trip(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("dtcp")?;
    let program = victim()?;
    for (address, port, loopback) in
        [(PEER_V4, 7000, false), (PEER_V6, 7001, false), ("127.0.0.1", 7002, true), ("::1", 7003, true)]
    {
        let on = endpoint(address, port);
        let mut server = if loopback { lab.in_target(&program) } else { lab.in_peer(&program) };
        let _server = Process::start_until(server.args(["tcp-echo", &on]), "ready")?;
        let ask = ["tcp-ping", &on, "--wait", "--count", "8"];
        let connect = || Process::start_until(lab.in_target(&program).args(ask), "connected");
        let (mut client, mut bystander) = (connect()?, connect()?);
        let injection = Injection::start(&["--pid", &client.pid(), "--net", "delay 60ms tcp"])?;
        client.release()?;
        bystander.release()?;
        let (timed, other): (Timed, Timed) = (client.report()?, bystander.report()?);
        injection.wait()?;
        ensure!(timed.errors.is_empty() && other.errors.is_empty(), "{on}: {timed:?} {other:?}");
        late(&on, &timed.latencies_ns, 120 * MS, &other.latencies_ns)?;
    }
    Ok(())
}

fn one_way(_: Lane) -> anyhow::Result<()> {
    // In bursts of 50, each of which is in the lane as a whole at some time: 5 000 at once with 100 ms.
    const DATAGRAMS: u64 = 5000;
    let lab = NetLab::new("dway")?;
    for (address, port) in [(PEER_V4, 9000), (PEER_V6, 9002)] {
        let pair = Pair::new(&lab, address, port, DATAGRAMS)?;
        let bystander = Pair::new(&lab, address, port + 1, DATAGRAMS)?;
        let injection =
            Injection::start(&["--pid", &pair.sender.pid(), "--net", &format!("delay {D_MS}ms out udp")])?;
        let Pair { mut sender, counter } = pair;
        sender.release()?;
        let (other_sent, other) = bystander.run()?;
        let sent: Sent = sender.report()?;
        let counted: Counted = counter.report()?;
        let report = injection.wait()?;
        ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "the delay was noticed: {sent:?}");
        ensure!(
            counted.received == DATAGRAMS,
            "{} of {DATAGRAMS} arrived: {}",
            counted.received,
            report.json
        );
        ensure!(counted.distinct == DATAGRAMS, "{} of {DATAGRAMS} are different", counted.distinct);
        ensure!(counted.reordered == 0, "{} reordered", counted.reordered);
        ensure!(other_sent.sent == DATAGRAMS && other.received == DATAGRAMS, "bystander: {}", other.received);
        late(address, &counted.delays_ns, D_MS * MS, &other.delays_ns)?;
        lane_lost_nothing(&report, DATAGRAMS)?;
    }
    Ok(())
}

/// The report's own account of the lane, which must agree with what was counted outside.
pub(super) fn lane_lost_nothing(report: &crate::driver::Report, packets: u64) -> anyhow::Result<()> {
    for (name, expected) in
        [("lane_in", packets), ("lane_out", packets), ("lane_stray", 0), ("lane_refused", 0)]
    {
        ensure!(report.counter(name)? == expected, "{name} is not {expected}: {}", report.json);
    }
    Ok(())
}

/// A line of numbers of /proc/net/snmp or /proc/net/netstat in a namespace.
fn snmp(namespace: &str, file: &str, protocol: &str, name: &str) -> anyhow::Result<u64> {
    let text = sh(&format!("ip netns exec {namespace} cat /proc/net/{file}"))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let at = names.split_whitespace().position(|word| word == name).with_context(|| name.to_owned())?;
    Ok(values.split_whitespace().nth(at).context("value")?.parse()?)
}

fn bulk_tcp(_: Lane) -> anyhow::Result<()> {
    // 20 MB in super-packets through 20 ms: the window is some hundred segments, all of which are in the lane.
    let lab = NetLab::new("dbulk")?;
    let server = Process::start(lab.in_peer("iperf3").args(["-s", "-1"]))?;
    wait_for_listener(&lab.peer, 5201)?;
    let script = format!("read x; exec iperf3 -c {PEER_V4} -n 20M -J");
    let mut client = Process::start(lab.in_target("sh").args(["-c", &script]))?;
    let injection = Injection::start(&["--pid", &client.pid(), "--net", "delay 20ms tcp"])?;
    // Both count segments, whatever they are packed into: TCP what it sends (repeated ones included), IP what arrives.
    let out = |namespace: &str| snmp(namespace, "snmp", "Tcp", "OutSegs");
    let arrived = |namespace: &str| -> anyhow::Result<u64> {
        ["InNoECTPkts", "InECT0Pkts", "InECT1Pkts", "InCEPkts"]
            .iter()
            .map(|name| snmp(namespace, "netstat", "IpExt", name))
            .sum()
    };
    let ways = [(&lab.target, &lab.peer), (&lab.peer, &lab.target)];
    let before = ways.map(|(from, to)| (out(from), arrived(to)));
    client.release()?;
    let json: serde_json::Value = client.report()?;
    drop(server.ended()?);
    let report = injection.wait()?;
    let sum = &json["end"]["sum_sent"];
    ensure!(sum["bytes"].as_u64() >= Some(20 << 20), "{sum}");
    for ((from, to), (out_before, arrived_before)) in ways.into_iter().zip(before) {
        let (sent, got) = (out(from)? - out_before?, arrived(to)? - arrived_before?);
        ensure!(sent == got, "{sent} segments left {from}, {got} arrived: {}", report.json);
        ensure!(sent > 0, "nothing left {from}");
    }
    let (entered, left) = (report.counter("lane_in")?, report.counter("lane_out")?);
    ensure!(entered == left && entered > 0, "{entered} into the lane, {left} out: {}", report.json);
    Ok(())
}

pub(super) fn wait_for_listener(namespace: &str, port: u16) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while sh(&format!("ip netns exec {namespace} ss -H -t -l -n sport = :{port}"))?.trim().is_empty() {
        ensure!(std::time::Instant::now() < deadline, "nobody listens on port {port}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(())
}

fn iperf3_udp(_: Lane) -> anyhow::Result<()> {
    // 50 Mbit/s with 1 400 bytes for 2 s: about 9 000 datagrams, 450 at once in the lane.
    let lab = NetLab::new("diperf")?;
    let server = Process::start(lab.in_peer("iperf3").args(["-s", "-1"]))?;
    wait_for_listener(&lab.peer, 5201)?;
    let script = format!("read x; exec iperf3 -c {PEER_V4} -u -b 50M -l 1400 -t 2 -J");
    let mut client = Process::start(lab.in_target("sh").args(["-c", &script]))?;
    let injection = Injection::start(&["--pid", &client.pid(), "--net", "delay 100ms out udp"])?;
    client.release()?;
    let json: serde_json::Value = client.report()?;
    drop(server.ended()?);
    let report = injection.wait()?;
    // Counted by IP, with the few packets of iperf3's control connection: UDP counts what was read, and the server
    // closes its socket on a full buffer.
    let (sent, received) =
        (snmp(&lab.target, "snmp", "Ip", "OutRequests")?, snmp(&lab.peer, "snmp", "Ip", "InReceives")?);
    ensure!(sent > 5000, "iperf3 sent {sent} packets only: {}", json["end"]["sum"]);
    ensure!(sent == received, "{received} of {sent} arrived: {}", report.json);
    lane_lost_nothing(&report, report.rule(0, "injected")?)
}

fn qdiscs_survive(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 500;
    let lab = NetLab::new("dqdisc")?;
    let tc = |line: &str| sh(&format!("ip netns exec {} tc {line}", lab.target));
    let dev = TARGET_IFACE;
    tc(&format!("qdisc add dev {dev} root handle 1: htb default 30"))?;
    for (class, leaf) in [("1:10", "10:"), ("1:30", "30:")] {
        tc(&format!("class add dev {dev} parent 1: classid {class} htb rate 1gbit"))?;
        tc(&format!("qdisc add dev {dev} parent {class} handle {leaf} tbf rate 1gbit burst 1mb limit 64mb"))?;
    }
    // Datagrams to port 9000 go to the first class.
    tc(&format!("filter add dev {dev} parent 1: protocol ip u32 match ip dport 9000 0xffff flowid 1:10"))?;
    let shape = || -> anyhow::Result<String> {
        Ok([
            tc(&format!("qdisc show dev {dev}"))?,
            tc(&format!("class show dev {dev}"))?,
            tc(&format!("filter show dev {dev}"))?,
        ]
        .concat())
    };
    let counted = |handle: &str| -> anyhow::Result<u64> {
        let text = tc(&format!("-s qdisc show dev {dev}"))?;
        let mut lines = text.lines().skip_while(|line| !line.contains(&format!(" {handle} ")));
        let line = lines.nth(1).with_context(|| format!("{handle} in {text}"))?;
        // "Sent 123 bytes 4 pkt (dropped 0, …"
        Ok(line.split_whitespace().nth(3).context("packets")?.parse()?)
    };
    let before = shape()?;
    let packets_before = counted("10:")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", "delay 50ms out udp"])?;
    // The hooks of kernels before 6.6 need a clsact qdisc: it stands beside the others, queues nothing, and must be
    // gone in the end.
    let during: String =
        shape()?.split_inclusive('\n').filter(|line| !line.starts_with("qdisc clsact ")).collect();
    let (sent, arrived) = pair.run()?;
    let report = injection.wait()?;
    let packets = counted("10:")? - packets_before;
    ensure!(during == before, "changed by arming: {during}");
    ensure!(shape()? == before, "changed by healing: {}", shape()?);
    ensure!(sent.sent == DATAGRAMS && arrived.received == DATAGRAMS, "{} arrived", arrived.received);
    ensure!(arrived.delays_ns.iter().all(|delay| *delay >= 50 * MS), "not delayed");
    // Late packets still are classified, shaped and counted where they always were.
    ensure!(packets == DATAGRAMS, "{packets} of {DATAGRAMS} took their class: {}", report.json);
    Ok(())
}

fn delay_and_loss(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 1000;
    let lab = NetLab::new("dloss")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let pid = pair.sender.pid();
    let specs = ["--net", "delay 50ms out udp", "--net", "drop every 4 out udp"];
    let injection = Injection::start(&[&["--pid", &pid][..], &specs].concat())?;
    let (sent, counted) = pair.run()?;
    let report = injection.wait()?;
    ensure!(sent.sent == DATAGRAMS && counted.received == 750, "{} arrived", counted.received);
    ensure!(counted.delays_ns.iter().all(|delay| *delay >= 50 * MS), "not delayed");
    // Drop wins whatever the order: what is lost is not delayed.
    ensure!(report.rule(0, "injected")? == 750 && report.rule(1, "injected")? == 250, "{}", report.json);
    lane_lost_nothing(&report, 750)
}

fn two_sessions_add_up(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 300;
    let lab = NetLab::new("dtwo")?;
    // The socket stays: whose a packet is, the second session asks after the first has held it back for a while.
    let pair = Pair::with(&lab, PEER_V4, 9000, DATAGRAMS, &["--linger-ms", "500"])?;
    let bystander = Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?;
    let pid = pair.sender.pid();
    let start = |spec| Injection::start(&["--pid", &pid, "--net", spec]);
    let (first, second) = (start("delay 60ms out udp")?, start("delay 80ms out udp")?);
    let (_, counted) = pair.run()?;
    let (_, other) = bystander.run()?;
    let reports = [first.wait()?, second.wait()?];
    ensure!(counted.received == DATAGRAMS, "{} arrived", counted.received);
    for report in &reports {
        ensure!(report.rule(0, "injected")? == DATAGRAMS, "{}", report.json);
    }
    late("two sessions", &counted.delays_ns, 140 * MS, &other.delays_ns)
}

fn refused_without_fq(_: Lane) -> anyhow::Result<()> {
    let target = Process::start(Command::new("cat").arg("-"))?;
    let said = refused(&["inject", "--pid", &target.pid(), "--net", "delay 100ms"], 69)?;
    ensure!(said.contains("fq"), "it does not say what is missing: {said}");
    // Nothing half armed: not the loss either.
    let two = ["--net", "drop 5%", "--net", "delay 100ms"];
    refused(&[&["inject", "--pid", &target.pid()][..], &two].concat(), 69)?;
    refused(&["run", "--net", "delay 100ms", "--", "true"], 69).map(drop)
}
