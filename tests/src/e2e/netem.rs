//! What netem(8) has beyond loss and delay: marks, four states, gaps, slots, cells, and packets that are spared by chance.

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    delay::lane_lost_nothing,
    pair::{Pair, endpoint, untouched},
    verbs::{after, losses},
};
use crate::{
    driver::{Injection, victim},
    net_lab::{NetLab, PEER_V4, PEER_V6, sh},
    process::Process,
    stats::binomial,
    victim::report::Streamed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "ecn::tcp_is_marked_and_loses_nothing", on: Lane::tests_packets_in_detail, run: marked },
    Test { name: "ecn::what_cannot_be_marked_is_lost", on: Lane::tests_packets_in_detail, run: not_marked },
    Test { name: "markov::leaves_states_as_asked", on: Lane::tests_packets_in_detail, run: markov },
    Test { name: "gap::hits_keep_their_distance", on: Lane::tests_packets_in_detail, run: gap },
    Test { name: "except::spares_by_chance", on: Lane::tests_packets_in_detail, run: spared },
    Test { name: "slot::packets_leave_in_groups", on: Lane::tests_packet_delay, run: slots },
    Test { name: "slot::ping_waits_for_its_slot", on: Lane::tests_packet_delay, run: ping },
    Test { name: "rate::cells_are_filled_up", on: Lane::tests_packet_delay, run: cells },
];

const MS: u64 = 1_000_000;

/// A counter of the kernel in a namespace, by nstat(8).
fn nstat(namespace: &str, name: &str) -> anyhow::Result<u64> {
    let text = sh(&format!("ip netns exec {namespace} nstat -asz {name}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| text.clone())?;
    let number = line.split_whitespace().next().with_context(|| text.clone())?;
    number.parse().with_context(|| text.clone())
}

fn marked(_: Lane) -> anyhow::Result<()> {
    const BYTES: u64 = 3_000_000;
    let lab = NetLab::new("ecn")?;
    for namespace in [&lab.target, &lab.peer] {
        sh(&format!("ip netns exec {namespace} sysctl -qw net.ipv4.tcp_ecn=1"))?;
    }
    for (address, port, arrived) in [(PEER_V4, 9000, "IpExtInCEPkts"), (PEER_V6, 9010, "Ip6InCEPkts")] {
        let program = victim()?;
        let stream = |port| -> anyhow::Result<_> {
            let (on, bytes) = (endpoint(address, port), BYTES.to_string());
            let take = Process::start_until(lab.in_peer(&program).args(["stream-take", &on]), "ready")?;
            let mut send = lab.in_target(&program);
            send.args(["stream-send", &on, "--bytes", &bytes, "--wait-first"]);
            Ok((take, Process::start_until(&mut send, "ready")?))
        };
        let (take, mut send) = stream(port)?;
        let before = nstat(&lab.peer, arrived)?;
        let spec = "drop 5% ecn out tcp data";
        let injection = Injection::start(&["--pid", &send.pid(), "--net", spec])?;
        send.release()?;
        let (sent, taken): (Streamed, Streamed) = (send.report()?, take.report()?);
        let report = injection.wait()?;
        let marks = nstat(&lab.peer, arrived)? - before;
        ensure!(sent.error.is_none() && taken.bytes == BYTES && taken.wrong == 0, "{sent:?} {taken:?}");
        // The far end saw as many marks as the report says, nothing was lost, and nothing sent again.
        let (matched, injected) = (report.rule(0, "matched")?, report.rule(0, "injected")?);
        ensure!(injected == report.rule(0, "marked")? && marks == injected, "{marks} marks: {}", report.json);
        ensure!(sent.sent_again == 0, "{} segments were sent again", sent.sent_again);
        ensure!(matched >= BYTES / 1448, "{matched} packets only: {}", report.json);
        binomial("marked", injected, matched, 0.05).map_err(anyhow::Error::msg)?;
        ensure!(report.stderr.contains(&format!("{injected} of them marked, 0 lost")), "{}", report.stderr);
        // The same of somebody else, who is not marked.
        let before = nstat(&lab.peer, arrived)?;
        let (take, mut send) = stream(port + 1)?;
        send.release()?;
        let (sent, taken): (Streamed, Streamed) = (send.report()?, take.report()?);
        ensure!(sent.error.is_none() && taken.bytes == BYTES, "{sent:?} {taken:?}");
        ensure!(nstat(&lab.peer, arrived)? == before, "the bystander's packets were marked");
    }
    Ok(())
}

fn not_marked(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 2000;
    let lab = NetLab::new("noecn")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let bystander = Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?;
    let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", "drop 10% ecn out udp"])?;
    let (sent, counted) = pair.run()?;
    let (by_sent, by) = bystander.run()?;
    let report = injection.wait()?;
    ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "the sender noticed: {sent:?}");
    let lost = DATAGRAMS - counted.received;
    ensure!(report.rule(0, "injected")? == lost && report.rule(0, "marked")? == 0, "{}", report.json);
    binomial("lost", lost, DATAGRAMS, 0.1).map_err(anyhow::Error::msg)?;
    untouched("bystander", &by_sent, &by, DATAGRAMS)
}

fn markov(_: Lane) -> anyhow::Result<()> {
    // Without pauses and losses that stay alone, losses show the state: 4000 datagrams, a tenth of them lost.
    const DATAGRAMS: u64 = 4000;
    let lab = NetLab::new("markov")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let bystander = Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?;
    let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", "drop markov 4% 40% out udp"])?;
    let (_, counted) = pair.run()?;
    let (by_sent, by) = bystander.run()?;
    let report = injection.wait()?;
    ensure!(report.rule(0, "injected")? == DATAGRAMS - counted.received, "{}", report.json);
    let lost = losses(&counted, DATAGRAMS)?;
    for (first, what, chance) in [(false, "a burst began", 0.04), (true, "a burst went on", 0.6)] {
        let (trials, hits) = after(&lost, first);
        ensure!(trials > 200, "{what}: {trials} only");
        binomial(what, hits, trials, chance).map_err(anyhow::Error::msg)?;
    }
    untouched("bystander", &by_sent, &by, DATAGRAMS)
}

fn gap(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 2000;
    let lab = NetLab::new("gap")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let bystander = Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?;
    let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", "drop 50% gap 10 out udp"])?;
    let (_, counted) = pair.run()?;
    let (by_sent, by) = bystander.run()?;
    let report = injection.wait()?;
    ensure!(report.rule(0, "injected")? == DATAGRAMS - counted.received, "{}", report.json);
    let missing = &counted.missing;
    ensure!(missing.first().is_some_and(|first| *first >= 9), "the first nine pass: {missing:?}");
    ensure!(missing.windows(2).all(|pair| pair[1] - pair[0] >= 10), "too near: {missing:?}");
    // From the tenth after a loss on, each is lost with a chance of a half: so half of all losses are ten after the one before.
    let pairs = missing.len() as u64 - 1;
    let next = missing.windows(2).filter(|pair| pair[1] - pair[0] == 10).count() as u64;
    ensure!(pairs > 100, "{pairs} losses only");
    binomial("lost as soon as possible", next, pairs, 0.5).map_err(anyhow::Error::msg)?;
    untouched("bystander", &by_sent, &by, DATAGRAMS)
}

fn spared(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 2000;
    let lab = NetLab::new("spared")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let pid = pair.sender.pid();
    let options = ["--pid", &pid, "--net", "drop out udp", "--except", "30% out udp"];
    let injection = Injection::start(&options)?;
    let (sent, counted) = pair.run()?;
    let report = injection.wait()?;
    ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "the sender noticed: {sent:?}");
    binomial("spared", counted.received, DATAGRAMS, 0.3).map_err(anyhow::Error::msg)?;
    let except = &report.json["except"][0];
    ensure!(except["matched"] == DATAGRAMS && except["spared"] == counted.received, "{}", report.json);
    // What was spared no fault has looked at.
    let lost = DATAGRAMS - counted.received;
    ensure!(report.rule(0, "matched")? == lost && report.rule(0, "injected")? == lost, "{}", report.json);
    let line = format!("except `30% out udp`: {} operations spared", counted.received);
    ensure!(report.stderr.contains(&line), "{}", report.stderr);
    Ok(())
}

fn slots(_: Lane) -> anyhow::Result<()> {
    // Eight come in 40 ms, and a slot takes ten.
    const DATAGRAMS: u64 = 400;
    let lab = NetLab::new("slots")?;
    let arguments = ["--pause-us", "5000", "--stamps"];
    let pair = Pair::with(&lab, PEER_V4, 9000, DATAGRAMS, &arguments)?;
    let bystander = Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?;
    let pid = pair.sender.pid();
    let injection = Injection::start(&["--pid", &pid, "--net", "slot 40ms packets 10 out udp"])?;
    let (sent, counted) = pair.run()?;
    let (by_sent, by) = bystander.run()?;
    let report = injection.wait()?;
    ensure!(counted.received == DATAGRAMS && counted.reordered == 0, "{}", report.json);
    // Nothing is lost and nothing overtaken, so delays are in the order of sending.
    let arrivals: Vec<u64> =
        sent.stamps_ns.iter().zip(&counted.delays_ns).map(|(sent, delay)| sent + delay).collect();
    let groups: Vec<&[u64]> = arrivals.chunk_by(|a, b| b - a < 10 * MS).collect();
    // Whoever finds no slot ahead opens one: never less than 40 ms from one group to the next, but for how late the emulated
    // machine wakes.
    let near = groups.windows(2).filter(|pair| pair[1][0] - pair[0][0] < 35 * MS).count();
    ensure!(near == 0, "{near} of {} groups come too early", groups.len());
    ensure!(groups.iter().all(|group| group.len() <= 10), "a slot took more than ten");
    ensure!((20..=60).contains(&groups.len()), "{} groups: {}", groups.len(), report.json);
    let mean = report.json["rules"][0]["mean_delay_ns"].as_u64().context("mean delay")?;
    ensure!((10 * MS..=45 * MS).contains(&mean), "{}", report.json);
    untouched("bystander", &by_sent, &by, DATAGRAMS)?;
    lane_lost_nothing(&report, DATAGRAMS)
}

fn ping(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("slotping")?;
    let times = |command: &mut std::process::Command| -> anyhow::Result<Vec<f64>> {
        let text = Process::start(command)?.text()?;
        let times =
            text.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse().ok());
        Ok(times.collect())
    };
    // One every 100 ms finds no slot ahead: it waits for all of 30 ms, and so does the answer for its own.
    let arguments = ["-c", "20", "-i", "0.1", PEER_V4];
    let program = crate::driver::binary();
    let mut command = lab.in_target(&program.to_string_lossy());
    command.args(["run", "--net", "slot 30ms icmp", "--", "ping"]).args(arguments);
    let late = times(&mut command)?;
    ensure!(late.len() == 20, "{late:?}");
    ensure!(late.iter().all(|ms| *ms >= 60.0), "earlier than two slots: {late:?}");
    let mut sorted = late.clone();
    sorted.sort_by(f64::total_cmp);
    ensure!(sorted[10] < 70.0, "half of them later than two slots: {late:?}");
    let bystander = times(lab.in_target("ping").args(arguments))?;
    ensure!(bystander.len() == 20 && bystander.iter().all(|ms| *ms < 30.0), "{bystander:?}");
    Ok(())
}

fn cells(_: Lane) -> anyhow::Result<()> {
    // 106 bytes on Ethernet and 8 more are three cells of 53: 159 bytes, and half as many again as on a plain link.
    const DATAGRAMS: u64 = 500;
    let lab = NetLab::new("cells")?;
    let pair = Pair::with(&lab, PEER_V4, 9000, DATAGRAMS, &["--size", "64", "--linger-ms", "3000"])?;
    let bystander = Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?;
    let spec = "rate 800kbit overhead 8B cell 48B cell-overhead 5B out udp";
    let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", spec])?;
    let (_, counted) = pair.run()?;
    let (by_sent, by) = bystander.run()?;
    let report = injection.wait()?;
    ensure!(counted.received == DATAGRAMS && counted.reordered == 0, "{}", report.json);
    // 100 000 bytes a second; the first one takes its time as well, before it arrives.
    let ideal = (DATAGRAMS - 1) * 159 * 10_000;
    let span = counted.span_ns;
    ensure!(span + 20 * MS >= ideal, "{span} ns is faster than the link, {ideal} ns");
    ensure!(span <= ideal + ideal / 20 + 50 * MS, "{span} ns, the link takes {ideal} ns");
    untouched("bystander", &by_sent, &by, DATAGRAMS)?;
    lane_lost_nothing(&report, DATAGRAMS)
}
