//! Wire truth: what is lost or doubled is one packet of the wire, however much TCP hands down at once.

use anyhow::ensure;

use super::{Lane, Test, pair::endpoint};
use crate::{
    driver::{Injection, Report, victim},
    net_lab::{NetLab, PEER_V4, PEER_V6, TARGET_IFACE, TARGET_V4, sh},
    parity::{self, Of, Repeat},
    process::Process,
    stats::binomial,
    victim::report::{Arrived, Streamed},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "wire::one_segment_is_lost", on: Lane::tests_packets_in_detail, run: lost },
    Test { name: "wire::netem_loses_many_at_once", on: has_netem, run: netem },
    Test {
        name: "wire::one_segment_is_lost_on_the_way_in",
        on: Lane::tests_packets_in_detail,
        run: lost_inwards,
    },
    Test { name: "wire::one_segment_is_doubled", on: Lane::tests_packets_in_detail, run: doubled },
];

/// Those that compare how late packets are.
pub const TIMED: &[Test] = &[
    Test { name: "parity::netem_cannot_be_told_apart", on: has_netem, run: same_fates },
    Test { name: "parity::netem_is_late_in_the_same_way", on: has_netem, run: same_delays },
    Test { name: "parity::netem_links_cannot_be_told_apart", on: has_netem, run: same_links },
    Test { name: "parity::delays_resemble_each_other_and_netems_do_not", on: has_netem, run: correlated },
];

/// Whether there is a netem to compare with.
fn has_netem(lane: Lane) -> bool {
    matches!(lane, Lane::Fault)
}

/// A stream from the target to its peer, and who looks at each packet that arrives there.
struct Stream {
    watch: Process,
    take: Process,
    send: Process,
}

impl Stream {
    const PORT: u16 = 9500;

    fn new(lab: &NetLab, address: &str, bytes: u64) -> anyhow::Result<Self> {
        let program = victim()?;
        let to = endpoint(address, Self::PORT);
        let take = Process::start_until(lab.in_peer(&program).args(["stream-take", &to]), "ready")?;
        let send = Process::start_until(
            lab.in_target(&program).args(["stream-send", &to, "--bytes", &bytes.to_string(), "--wait"]),
            "connected",
        )?;
        let port = Self::PORT.to_string();
        let watch = Process::start_until(lab.in_peer(&program).args(["segments", &port]), "ready")?;
        Ok(Self { watch, take, send })
    }

    /// Sends everything. All of it arrives in the end, and is what was sent.
    fn run(mut self, bytes: u64) -> anyhow::Result<(Arrived, Streamed)> {
        self.send.release()?;
        let sent: Streamed = self.send.report()?;
        let taken: Streamed = self.take.report()?;
        ensure!(sent.error.is_none() && sent.bytes == bytes, "{sent:?}");
        ensure!(taken.error.is_none() && taken.bytes == bytes && taken.wrong == 0, "{taken:?}");
        Ok((self.watch.report()?, sent))
    }
}

const BYTES: u64 = 12_000_000;

/// Holes in the stream longer than one segment of `mss` bytes, of how many.
fn long_holes(arrived: &Arrived, mss: u32) -> (u64, u64) {
    let long = arrived.holes.iter().filter(|hole| **hole > mss).count();
    (long as u64, arrived.holes.len() as u64)
}

/// Everything that was sent into the cutter came out of it.
fn nothing_stuck(report: &Report) -> anyhow::Result<()> {
    let counter = |name: &str| report.json["counters"][name].as_u64().unwrap_or(u64::MAX);
    ensure!(counter("cut_in") > 0, "nothing was cut: {}", report.json);
    ensure!(counter("cut_in") == counter("cut_out") && counter("uncut") == 0, "{}", report.json);
    Ok(())
}

fn lost(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("wire")?;
    // Largest payload with time stamps on Ethernet.
    for (address, mss) in [(PEER_V4, 1448), (PEER_V6, 1428)] {
        let stream = Stream::new(&lab, address, BYTES)?;
        let injection = Injection::start(&["--pid", &stream.send.pid(), "--net", "drop 1% out tcp"])?;
        let (arrived, _) = stream.run(BYTES)?;
        let report = injection.wait()?;
        ensure!(arrived.largest == mss, "{address}: {} bytes at once arrived", arrived.largest);
        let lost: u64 = arrived.holes.iter().map(|hole| u64::from(hole.div_ceil(mss))).sum();
        let first = arrived.packets - arrived.again + lost;
        binomial("segments lost the first time", lost, first, 0.01).map_err(anyhow::Error::msg)?;
        // Independent losses: after a lost segment the next one is lost as rarely as any.
        let (long, holes) = long_holes(&arrived, mss);
        binomial("holes of more than one segment", long, holes, 0.01).map_err(anyhow::Error::msg)?;
        nothing_stuck(&report)?;
        // The same stream of somebody else is handed over as it always was.
        let bystander = Stream::new(&lab, address, BYTES)?;
        let (by, _) = bystander.run(BYTES)?;
        ensure!(by.holes.is_empty() && by.largest > mss, "{address}: {} bytes at once", by.largest);
    }
    Ok(())
}

fn netem(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("wirenetem")?;
    let target = &lab.target;
    sh(&format!("tc -n {target} qdisc add dev {TARGET_IFACE} root netem loss 10% limit 100000"))?;
    let (arrived, _) = Stream::new(&lab, PEER_V4, BYTES)?.run(BYTES)?;
    let (long, holes) = long_holes(&arrived, 1448);
    ensure!(holes > 10, "{holes} holes only");
    // As many as independent losses leave would be one in ten. How many more depends on how large the sender's super-packets
    // are, and they shrink with its window.
    ensure!(
        binomial("holes of more than one segment", long, holes, 0.1).is_err() && long * 10 > holes,
        "{long} of {holes} holes are longer than a segment: netem has learnt to tell them apart"
    );
    Ok(())
}

fn same_fates(_: Lane) -> anyhow::Result<()> {
    same_as_netem(Of::Fates)
}

fn same_delays(_: Lane) -> anyhow::Result<()> {
    same_as_netem(Of::Delays)
}

fn same_links(_: Lane) -> anyhow::Result<()> {
    same_as_netem(Of::Links)
}

fn same_as_netem(of: Of) -> anyhow::Result<()> {
    let verdicts = parity::compare(of, 1200, Repeat::OnceIfDifferent)?;
    let differ: Vec<_> = verdicts
        .iter()
        .filter_map(|verdict| Some(format!("{}: {}", verdict.fault, verdict.differs.as_ref()?)))
        .collect();
    ensure!(differ.is_empty(), "{}", differ.join("; "));
    Ok(())
}

fn correlated(_: Lane) -> anyhow::Result<()> {
    // Where it is on purpose that they can. Of 1200 pairs that do not depend on each other the rank correlation is within 0.1
    // of none at 99.9 %; those that do stray a little further.
    let (asked, netem, fault) = parity::correlations(1200)?;
    ensure!(netem.abs() < 0.12, "netem's delays resemble each other by {netem:.2}: it has learnt to do that");
    ensure!((fault - asked).abs() < 0.12, "delays resemble each other by {fault:.2}, not {asked}");
    Ok(())
}

fn lost_inwards(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("wirein")?;
    let program = victim()?;
    let on = endpoint(TARGET_V4, Stream::PORT);
    let take = Process::start_until(lab.in_target(&program).args(["stream-take", &on]), "ready")?;
    let injection = Injection::start(&["--pid", &take.pid(), "--net", "drop 1% in tcp"])?;
    let bytes = BYTES.to_string();
    let send = Process::start(lab.in_peer(&program).args(["stream-send", &on, "--bytes", &bytes]))?;
    let sent: Streamed = send.report()?;
    let taken: Streamed = take.report()?;
    let report = injection.wait()?;
    ensure!(sent.error.is_none() && taken.bytes == BYTES && taken.wrong == 0, "{sent:?} {taken:?}");
    nothing_stuck(&report)?;
    let (matched, injected) = (report.rule(0, "matched")?, report.rule(0, "injected")?);
    ensure!(matched >= BYTES / 1448, "{matched} packets only: {}", report.json);
    binomial("lost", injected, matched, 0.01).map_err(anyhow::Error::msg)?;
    // What the sender's kernel sent again: once what was lost, and hardly more.
    let again = sent.sent_again;
    ensure!(again >= injected / 2 && again <= injected * 3 / 2 + 20, "{again} sent again, {injected} lost");
    Ok(())
}

fn doubled(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("wiredup")?;
    let stream = Stream::new(&lab, PEER_V4, BYTES)?;
    let injection = Injection::start(&["--pid", &stream.send.pid(), "--net", "duplicate 2% out tcp"])?;
    let (arrived, sent) = stream.run(BYTES)?;
    let report = injection.wait()?;
    ensure!(arrived.largest == 1448 && arrived.holes.is_empty(), "{} holes", arrived.holes.len());
    let copies = arrived.again.saturating_sub(sent.sent_again);
    binomial("copies", copies, arrived.packets - arrived.again, 0.02).map_err(anyhow::Error::msg)?;
    nothing_stuck(&report)
}
