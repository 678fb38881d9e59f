//! `cycle ON/OFF`: what is hit lies in the ON part of every turn, by the clocks of those who suffer or watch.
//!
//! All moments are laid on one circle, the turn. How slow the machine is makes no difference to that: however late
//! somebody comes, it is hit if its moment is in ON and spared if it is in OFF.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{Lane, Test, disk::reader, pair::Pair};
use crate::{
    disk_lab::BARE,
    driver::Injection,
    net_lab::{NetLab, PEER_V4, Tap},
    process::Process,
    victim::report::Timed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "cycle::losses_come_and_go", on: Lane::tests_packets_in_detail, run: losses },
    Test { name: "cycle::errors_come_and_go", on: Lane::tests_disks_in_detail, run: errors },
    Test { name: "cycle::is_told_beforehand", on: Lane::tests_disks_in_detail, run: dry_run },
];

const MS: u64 = 1_000_000;
const ON: u64 = 600 * MS;
const OFF: u64 = 400 * MS;
const TURN: u64 = ON + OFF;
const SPEC: &str = "cycle 600ms/400ms";
/// Between the moment that a program notes and the one that the decision is made at.
const SLACK: u64 = 60 * MS;

/// The widest part of a turn in which none of these moments lies.
fn widest_gap(moments: &[u64]) -> u64 {
    let mut on_circle: Vec<u64> = moments.iter().map(|moment| moment % TURN).collect();
    on_circle.sort_unstable();
    let Some((first, last)) = on_circle.first().zip(on_circle.last()) else { return TURN };
    let across = first + TURN - last;
    on_circle.windows(2).map(|pair| pair[1] - pair[0]).fold(across, u64::max)
}

/// All of these moments lie in a part of the turn that is `long`, and not in much less of it.
fn lie_in(what: &str, moments: &[u64], long: u64) -> anyhow::Result<()> {
    let gap = widest_gap(moments);
    let free = TURN - long;
    ensure!(
        (free.saturating_sub(SLACK)..free + 3 * SLACK).contains(&gap),
        "{what}: {} moments leave {gap} ns of the turn free, not about {free}",
        moments.len()
    );
    Ok(())
}

/// The moments in tcpdump's lines, in nanoseconds of the day. A turn is a whole second, so midnight is none.
fn times(lines: &[String]) -> anyhow::Result<Vec<u64>> {
    let moment = |line: &String| -> Option<u64> {
        let mut parts = line.split_whitespace().next()?.split([':', '.']);
        let mut next = || parts.next()?.parse::<u64>().ok();
        let (hours, minutes, seconds, micros) = (next()?, next()?, next()?, next()?);
        Some(((hours * 60 + minutes) * 60 + seconds) * 1000 * MS + micros * 1000)
    };
    lines.iter().map(|line| moment(line).with_context(|| line.clone())).collect()
}

fn losses(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 800;
    let lab = NetLab::new("cyc")?;
    let slowly = ["--pause-us", "5000"];
    let pair = Pair::with(&lab, PEER_V4, 9000, DATAGRAMS, &slowly)?;
    let mut bystander = Pair::with(&lab, PEER_V4, 9001, DATAGRAMS, &slowly)?;
    let tap = |port| Tap::new(&lab.peer, "any", &format!("udp dst port {port}"));
    let (hit, spared) = (tap(9000)?, tap(9001)?);
    let spec = format!("drop out udp {SPEC}");
    let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", &spec])?;
    bystander.sender.release()?;
    let (sent, counted) = pair.run()?;
    let by = bystander.counter.report::<crate::victim::report::Counted>()?;
    let report = injection.wait()?;
    ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "{sent:?}");
    let lost = DATAGRAMS - counted.distinct;
    // In OFF nothing matches either.
    for field in ["matched", "injected"] {
        ensure!(report.rule(0, field)? == lost, "{lost} lost: {}", report.json);
    }
    let (hit, spared) = (times(&hit.stop()?)?, times(&spared.stop()?)?);
    ensure!(hit.len() as u64 == counted.received, "{} seen, {} arrived", hit.len(), counted.received);
    lie_in("arrivals", &hit, OFF)?;
    // More than one turn: ON has begun again.
    let runs = counted.missing.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    ensure!(runs >= 2, "the losses are one outage: {:?}", counted.missing);
    ensure!(by.received == DATAGRAMS, "bystander: {} arrived", by.received);
    ensure!(widest_gap(&spared) < OFF / 2, "bystander: {} ns of silence", widest_gap(&spared));
    Ok(())
}

fn errors(_: Lane) -> anyhow::Result<()> {
    let slowly = ["--count", "400", "--pause-us", "8000"];
    let (mut target, mut bystander) = (reader(BARE, &slowly)?, reader(BARE, &slowly)?);
    let spec = format!("error read on {BARE} {SPEC}");
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
    target.release()?;
    bystander.release()?;
    let (hit, spared): (Timed, Timed) = (target.report()?, bystander.report()?);
    let report = injection.wait()?;
    ensure!(spared.errors.is_empty(), "bystander: {:?}", spared.errors);
    ensure!(hit.errors.get("EIO") == Some(&(hit.failed.len() as u64)), "{:?}", hit.errors);
    lie_in("failed reads", &hit.failed_began_ns, ON)?;
    lie_in("good reads", &hit.began_ns, OFF)?;
    let runs = hit.failed.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    ensure!(runs >= 2, "the errors are one outage: {:?}", hit.failed);
    ensure!(report.rule(0, "injected")? == hit.failed.len() as u64, "{}", report.json);
    Ok(())
}

fn dry_run(_: Lane) -> anyhow::Result<()> {
    let spec = format!("error read on {BARE} 10% cycle 5s/30s");
    let mut command = Command::new(crate::driver::binary());
    command.args(["run", "--dry-run", "--disk", &spec, "--", "true"]);
    let text = Process::start(&mut command)?.text()?;
    ensure!(text.contains("for 5.00 s of every 35.0 s"), "{text}");
    Ok(())
}
