//! `rate`, `duplicate`, `reorder`, and losses that come in bursts, counted at the far end.

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    delay::{lane_lost_nothing, wait_for_listener},
    pair::{Pair, endpoint, untouched},
};
use crate::{
    driver::{Injection, victim},
    net_lab::{NetLab, PEER_V4, PEER_V6},
    process::{Ended, Process},
    stats::binomial,
    victim::report::{Counted, Sent},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "duplicate::arrives_twice", on: Lane::tests_packets_in_detail, run: duplicate },
    Test { name: "duplicate::on_loopback", on: Lane::tests_packets_in_detail, run: duplicate_on_loopback },
    Test { name: "duplicate::and_delay", on: Lane::tests_packet_delay, run: duplicate_and_delay },
    Test { name: "reorder::lets_others_pass", on: Lane::tests_packet_delay, run: reorder },
    Test { name: "rate::is_that_of_a_link", on: Lane::tests_packet_delay, run: rate_of_a_link },
    Test { name: "rate::is_filled_by_tcp", on: Lane::tests_packet_delay, run: rate_filled_by_tcp },
    Test { name: "rate::drops_beyond_its_queue", on: Lane::tests_packet_delay, run: rate_queue },
    Test { name: "gilbert::changes_states_as_asked", on: Lane::tests_packets_in_detail, run: gilbert },
    Test { name: "burst::losses_follow_losses", on: Lane::tests_packets_in_detail, run: burst },
];

const MS: u64 = 1_000_000;
/// Bytes of a datagram of ours on Ethernet: payload, UDP, IPv4, Ethernet.
const fn on_wire(payload: u64) -> u64 {
    payload + 8 + 20 + 14
}

fn duplicate(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 400;
    let lab = NetLab::new("dup")?;
    for (address, port) in [(PEER_V4, 9000), (PEER_V6, 9002)] {
        let (pair, bystander) =
            (Pair::new(&lab, address, port, DATAGRAMS)?, Pair::new(&lab, address, port + 1, DATAGRAMS)?);
        let pid = pair.sender.pid();
        let injection = Injection::start(&["--pid", &pid, "--net", "duplicate every 4 out udp"])?;
        let (sent, counted) = pair.run()?;
        let (by_sent, by) = bystander.run()?;
        let report = injection.wait()?;
        ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "{sent:?}");
        ensure!(counted.distinct == DATAGRAMS, "{} different ones arrived", counted.distinct);
        ensure!(counted.received == DATAGRAMS * 5 / 4, "{} arrived", counted.received);
        ensure!(report.rule(0, "injected")? == DATAGRAMS / 4, "{}", report.json);
        untouched(address, &by_sent, &by, DATAGRAMS)?;
    }
    // What comes in, by the receiver's own count.
    let (program, on) = (victim()?, endpoint(crate::net_lab::TARGET_V4, 9100));
    let counter = Process::start_until(lab.in_target(&program).args(["udp-count", &on]), "ready")?;
    let injection = Injection::start(&["--pid", &counter.pid(), "--net", "duplicate in udp first 50"])?;
    let sent: Sent =
        Process::start(lab.in_peer(&program).args(["udp-send", &on, "--count", "200"]))?.report()?;
    let counted: Counted = counter.report()?;
    let report = injection.wait()?;
    ensure!(sent.sent == 200 && counted.distinct == 200, "{} different ones arrived", counted.distinct);
    ensure!(counted.received == 250, "{} arrived: {}", counted.received, report.json);
    Ok(())
}

fn duplicate_on_loopback(_: Lane) -> anyhow::Result<()> {
    let program = victim()?;
    for (on, direction) in [("127.0.0.1:19010", "out"), ("[::1]:19011", "out"), ("127.0.0.1:19012", "in")] {
        let local = |arguments: &[&str]| {
            Process::start_until(std::process::Command::new(&program).args(arguments), "ready")
        };
        let counter = local(&["udp-count", on])?;
        let mut sender = local(&["udp-send", on, "--wait", "--count", "200"])?;
        let target = if direction == "out" { sender.pid() } else { counter.pid() };
        let spec = format!("duplicate {direction} udp nth 7");
        let injection = Injection::start(&["--pid", &target, "--net", &spec])?;
        sender.release()?;
        let sent: Sent = sender.report()?;
        let counted: Counted = counter.report()?;
        injection.wait()?;
        ensure!(sent.sent == 200 && counted.distinct == 200, "{spec} {on}: {} arrived", counted.distinct);
        ensure!(counted.received == 201, "{spec} {on}: {} arrived", counted.received);
    }
    Ok(())
}

fn duplicate_and_delay(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 300;
    let lab = NetLab::new("dupdelay")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let pid = pair.sender.pid();
    let specs = ["--net", "delay 50ms out udp", "--net", "duplicate every 3 out udp"];
    let injection = Injection::start(&[&["--pid", &pid][..], &specs].concat())?;
    let (_, counted) = pair.run()?;
    let report = injection.wait()?;
    ensure!(counted.distinct == DATAGRAMS && counted.received == DATAGRAMS * 4 / 3, "{}", report.json);
    let early = counted.delays_ns.iter().filter(|delay| **delay < 50 * MS).count();
    ensure!(early == 0, "{early} arrived too early: a copy did not wait");
    lane_lost_nothing(&report, DATAGRAMS * 4 / 3)
}

fn reorder(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 200;
    let lab = NetLab::new("reorder")?;
    let pair = Pair::with(&lab, PEER_V4, 9000, DATAGRAMS, &["--pause-us", "2000"])?;
    let bystander = Pair::with(&lab, PEER_V4, 9001, DATAGRAMS, &["--pause-us", "2000"])?;
    let pid = pair.sender.pid();
    let injection =
        Injection::start(&["--pid", &pid, "--net", "reorder every 20 by 40ms out udp first 180"])?;
    let (_, counted) = pair.run()?;
    let (by_sent, by) = bystander.run()?;
    let report = injection.wait()?;
    ensure!(counted.received == DATAGRAMS && counted.distinct == DATAGRAMS, "{}", report.json);
    // Each of the nine arrives after some that were sent later, and nobody else does.
    ensure!(counted.reordered == 9, "{} were overtaken: {}", counted.reordered, report.json);
    let held = counted.delays_ns.iter().filter(|delay| **delay >= 40 * MS).count();
    ensure!(held >= 9, "{held} were held back");
    untouched("bystander", &by_sent, &by, DATAGRAMS)?;
    ensure!(by.reordered == 0, "the bystander's were reordered");
    lane_lost_nothing(&report, 9)
}

/// A sender of `count` datagrams of `size` bytes to `port`, and its counter.
fn sized(lab: &NetLab, port: u16, count: u64, size: u64) -> anyhow::Result<Pair> {
    let size = size.to_string();
    Pair::with(lab, PEER_V4, port, count, &["--size", &size, "--linger-ms", "3000"])
}

/// The time from the first arrival to the last lies where `bytes` behind each other at `rate` (bytes per second) put it.
fn link_time(what: &str, counted: &Counted, bytes: u64, rate: u64) -> anyhow::Result<()> {
    let ideal = bytes * 1_000_000_000 / rate;
    let span = counted.span_ns;
    // The first one may have been late by itself, by as much as the emulated machine wakes late.
    ensure!(span + 20 * MS >= ideal, "{what}: {span} ns is faster than the link, {ideal} ns");
    ensure!(span <= ideal + ideal / 20 + 50 * MS, "{what}: {span} ns, the link takes {ideal} ns");
    Ok(())
}

fn rate_of_a_link(_: Lane) -> anyhow::Result<()> {
    // 1 Mbit/s, 80 datagrams of 1042 bytes on the wire: 0.67 s, within the link's queue.
    const RATE: u64 = 125_000;
    const DATAGRAMS: u64 = 80;
    let lab = NetLab::new("rate")?;
    let wire = on_wire(1000);
    let pairs = [sized(&lab, 9000, DATAGRAMS / 2, 1000)?, sized(&lab, 9001, DATAGRAMS / 2, 1000)?];
    let bystander = Pair::new(&lab, PEER_V4, 9002, DATAGRAMS)?;
    let pids = pairs.each_ref().map(|pair| pair.sender.pid());
    let target = ["--pid", &pids[0], "--pid", &pids[1]];
    // The target shares the link: two senders at the same time take as long as one that sends twice as much.
    let injection = Injection::start(&[&target[..], &["--net", "rate 1mbit out udp"]].concat())?;
    let counted = both(pairs)?;
    let (by_sent, by) = bystander.run()?;
    let report = injection.wait()?;
    let last =
        counted.iter().map(|counted| counted.delays_ns.last().copied().unwrap_or(0)).max().unwrap_or(0);
    let ideal = DATAGRAMS * wire * 1_000_000_000 / RATE;
    ensure!(counted.iter().all(|counted| counted.received == DATAGRAMS / 2), "{}", report.json);
    ensure!(last + 100 * MS >= ideal, "the last one came after {last} ns, the link takes {ideal} ns");
    untouched("bystander", &by_sent, &by, DATAGRAMS)?;
    ensure!(by.delays_ns.iter().all(|delay| *delay < ideal / 2), "the bystander waited, too");
    lane_lost_nothing(&report, DATAGRAMS)?;

    // A link of its own for each of them: each takes half of that.
    let pairs = [sized(&lab, 9003, DATAGRAMS, 1000)?, sized(&lab, 9004, DATAGRAMS, 1000)?];
    let pids = pairs.each_ref().map(|pair| pair.sender.pid());
    let target = ["--pid", &pids[0], "--pid", &pids[1]];
    let spec = ["--net", "rate 1mbit per-connection out udp"];
    let injection = Injection::start(&[&target[..], &spec].concat())?;
    let counted = both(pairs)?;
    let report = injection.wait()?;
    for counted in counted {
        ensure!(counted.received == DATAGRAMS && counted.reordered == 0, "{}", report.json);
        link_time("per connection", &counted, (DATAGRAMS - 1) * wire, RATE)?;
    }
    Ok(())
}

/// Runs both at the same time.
fn both(mut pairs: [Pair; 2]) -> anyhow::Result<[Counted; 2]> {
    for pair in &mut pairs {
        pair.sender.release()?;
    }
    let [a, b] = pairs.map(|Pair { sender, counter }| -> anyhow::Result<Counted> {
        let sent: Sent = sender.report()?;
        ensure!(sent.errors.is_empty(), "{sent:?}");
        counter.report()
    });
    Ok([a?, b?])
}

fn rate_filled_by_tcp(_: Lane) -> anyhow::Result<()> {
    // 12 s of writing and what is in the queue then: slow start, the losses that end it, and half a second in which the queue may run
    // empty when those are sent again, included.
    const RATE: f64 = 10e6;
    let lab = NetLab::new("ratetcp")?;
    let server = Process::start(lab.in_peer("iperf3").args(["-s", "-1", "-J"]))?;
    wait_for_listener(&lab.peer, 5201)?;
    let script = format!("read x; exec iperf3 -c {PEER_V4} -t 12 -J");
    let mut client = Process::start(lab.in_target("sh").args(["-c", &script]))?;
    let injection = Injection::start(&["--pid", &client.pid(), "--net", "rate 10mbit out tcp"])?;
    client.release()?;
    let _: serde_json::Value = client.report()?;
    let Ended { stdout, .. } = server.ended()?;
    let report = injection.wait()?;
    let json: serde_json::Value = serde_json::from_str(&stdout).context("the server's report")?;
    // From first to last, not second by second: what comes behind a loss reaches the receiver when that was sent again, up to a queue's
    // time later, and then all at once.
    let received =
        json["end"]["sum_received"]["bits_per_second"].as_f64().context("what the server received")?;
    // Payload of a full segment with time stamps, of its 1514 bytes on the wire.
    let ideal = RATE * 1448.0 / 1514.0;
    ensure!(
        received >= 0.95 * ideal && received <= 1.02 * ideal,
        "{received:.0} bit/s of {ideal:.0}: {}",
        report.json
    );
    Ok(())
}

fn rate_queue(_: Lane) -> anyhow::Result<()> {
    // 64 KiB/s: the queue holds 96 896 bytes, 93 datagrams of 1042 bytes, and the one that is being sent.
    const DATAGRAMS: u64 = 300;
    let lab = NetLab::new("ratequeue")?;
    let pair = sized(&lab, 9000, DATAGRAMS, 1000)?;
    let pid = pair.sender.pid();
    let injection = Injection::start(&["--pid", &pid, "--net", "rate 64KiB/s out udp"])?;
    let (sent, counted) = pair.run()?;
    let report = injection.wait()?;
    ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "the sender noticed: {sent:?}");
    // Some were sent while it still sent.
    ensure!((93..200).contains(&counted.received), "{} arrived: {}", counted.received, report.json);
    ensure!(report.rule(0, "overflowed")? == DATAGRAMS - counted.received, "{}", report.json);
    ensure!(counted.reordered == 0, "{} reordered", counted.reordered);
    lane_lost_nothing(&report, counted.received)
}

/// Which of `count` datagrams were lost.
pub(super) fn losses(counted: &Counted, count: u64) -> anyhow::Result<Vec<bool>> {
    ensure!(counted.missing.len() < 1000, "too many for the list of those that are missing");
    let mut lost = vec![false; usize::try_from(count)?];
    for number in &counted.missing {
        lost[usize::try_from(*number)?] = true;
    }
    // Behind the last one that arrived nothing is known to be missing.
    lost.truncate(usize::try_from(counted.received)? + counted.missing.len());
    Ok(lost)
}

/// Of the pairs of neighbours whose first was lost (`first`), how many and how often the second was lost.
pub(super) fn after(lost: &[bool], first: bool) -> (u64, u64) {
    lost.windows(2)
        .filter(|pair| pair[0] == first)
        .fold((0, 0), |(trials, hits), pair| (trials + 1, hits + u64::from(pair[1])))
}

fn gilbert(_: Lane) -> anyhow::Result<()> {
    // 4000 datagrams, a fifth of them in the bad state: some 160 changes each way.
    const DATAGRAMS: u64 = 4000;
    let lab = NetLab::new("gilbert")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let bystander = Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?;
    let pid = pair.sender.pid();
    let injection = Injection::start(&["--pid", &pid, "--net", "drop gilbert 4% 25% out udp"])?;
    let (_, counted) = pair.run()?;
    let (by_sent, by) = bystander.run()?;
    let report = injection.wait()?;
    let lost = losses(&counted, DATAGRAMS)?;
    ensure!(report.rule(0, "injected")? == DATAGRAMS - counted.received, "{}", report.json);
    // Losses show the state: after one that arrived the next is lost with P, after a lost one with 1 - R.
    let (good, turned_bad) = after(&lost, false);
    binomial("turned bad", turned_bad, good, 0.04).map_err(anyhow::Error::msg)?;
    let (bad, stayed_bad) = after(&lost, true);
    binomial("stayed bad", stayed_bad, bad, 0.75).map_err(anyhow::Error::msg)?;
    untouched("bystander", &by_sent, &by, DATAGRAMS)
}

fn burst(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 4000;
    let lab = NetLab::new("burst")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let pid = pair.sender.pid();
    let injection = Injection::start(&["--pid", &pid, "--net", "drop 20% burst 50% out udp"])?;
    let (_, counted) = pair.run()?;
    injection.wait()?;
    let lost = losses(&counted, DATAGRAMS)?;
    let (trials, hits) = after(&lost, true);
    ensure!(trials > 100, "{trials} losses only");
    // Were they independent, one after a loss would be as rare as any.
    let share = (DATAGRAMS - counted.received) as f64 / DATAGRAMS as f64;
    ensure!(
        binomial("lost after a loss", hits, trials, share).is_err()
            && hits as f64 > 1.5 * share * trials as f64,
        "{hits} of {trials} losses were followed by another, {share} of all were lost"
    );
    Ok(())
}
