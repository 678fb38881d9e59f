//! `fault play`: what changes when, to whom, and what the run says in the end.

use std::io::Write as _;

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    pair::{Pair, untouched},
};
use crate::{
    disk_lab::BARE,
    driver::{Injection, Report, fault, victim},
    net_lab::{NetLab, PEER_V4},
    process::{Ended, Process},
    stats::binomial,
    victim::report::{Counted, Sent, Timed},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "play::phases_change_in_time", on: Lane::tests_the_controller, run: phases_change_in_time },
    Test {
        name: "play::each_target_has_its_own",
        on: Lane::tests_the_controller,
        run: each_target_has_its_own,
    },
    Test { name: "play::counts_begin_anew", on: Lane::tests_the_controller, run: counts_begin_anew },
    Test { name: "play::going_on_keeps_counts", on: Lane::tests_the_controller, run: going_on_keeps_counts },
    Test { name: "play::a_ramp_of_loss", on: Lane::tests_the_controller, run: a_ramp_of_loss },
    Test { name: "play::a_ramp_of_delay", on: Lane::tests_the_controller_with_delays, run: a_ramp_of_delay },
    Test { name: "play::tcp_calls_are_refused_in_time", on: Lane::tests_the_controller, run: calls_in_time },
    Test { name: "play::disks_fail_in_time", on: Lane::tests_disks_in_detail, run: disks_fail_in_time },
    Test { name: "play::same_seed_same_faults", on: Lane::tests_the_controller, run: same_seed_same_faults },
];

const MS: u64 = 1_000_000;

/// A scenario in a file of its own.
pub(super) fn file(text: &str) -> anyhow::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

pub(super) fn path(file: &tempfile::NamedTempFile) -> String {
    file.path().to_string_lossy().into_owned()
}

/// A sender to the peer that says when it sent what, and a counter that says what arrived.
fn stamped(lab: &NetLab, port: u16, count: u64, pause_us: u64) -> anyhow::Result<Pair> {
    let to = format!("{PEER_V4}:{port}");
    let program = victim()?;
    let mut counter = lab.in_peer(&program);
    let counter = Process::start_until(counter.args(["udp-count", &to, "--numbers"]), "ready")?;
    let mut sender = lab.in_target(&program);
    sender.args(["udp-send", &to, "--wait", "--stamps", "--count", &count.to_string()]);
    sender.args(["--pause-us", &pause_us.to_string()]);
    Ok(Pair { sender: Process::start_until(&mut sender, "ready")?, counter })
}

/// Plays `scenario` to the sender of `pair`, until it has sent everything and is gone.
fn played(scenario: &tempfile::NamedTempFile, mut pair: Pair) -> anyhow::Result<(Sent, Counted, Report)> {
    let playing = Injection::play(&[&path(scenario), "--pid", &pair.sender.pid()])?;
    pair.sender.release()?;
    Ok((pair.sender.report()?, pair.counter.report()?, playing.wait()?))
}

/// Whether each of the datagrams arrived.
fn arrived(sent: &Sent, counted: &Counted) -> Vec<bool> {
    let mut arrived = vec![false; sent.stamps_ns.len()];
    for number in &counted.numbers {
        if let Some(slot) = usize::try_from(*number).ok().and_then(|number| arrived.get_mut(number)) {
            *slot = true;
        }
    }
    arrived
}

/// The moments at which arriving turns into not arriving and back, each between the two that enclose it.
fn edges(sent: &Sent, counted: &Counted) -> Vec<(u64, u64)> {
    let arrived = arrived(sent, counted);
    let stamps = &sent.stamps_ns;
    let turns = (1..arrived.len()).filter(|&place| arrived[place] != arrived[place - 1]);
    // The sender may have lost its CPU between its stamp and its system call: then the decision came later than the stamp, but
    // before the next one.
    turns.map(|place| (stamps[place - 1], *stamps.get(place + 1).unwrap_or(&u64::MAX))).collect()
}

/// Four times nothing arrives for 300 ms, 700 ms apart. The times of each turn, as the victim's own stamps enclose them, must
/// be those asked for, to 5 ms.
fn phases_change_in_time(_: Lane) -> anyhow::Result<()> {
    // More than a hundredth of the time it takes to lose a CPU, so that the two stamps around an edge are close.
    const ACCURACY: u64 = 5 * MS;
    let lab = NetLab::new("phases")?;
    let mut pair = stamped(&lab, 9000, 9000, 400)?;
    let bystander = Pair::with(&lab, PEER_V4, 9001, 2000, &["--pause-us", "1000"])?;
    let scenario = file(
        "[[phase]]\nname = 'gap'\nat = '500ms'\nfor = '300ms'\nevery = '700ms'\nrepeat = 4\n\
         faults = [{ net = 'drop out udp' }]\n[[phase]]\nfor = '30s'\n",
    )?;
    let playing = Injection::play(&[&path(&scenario), "--pid", &pair.sender.pid()])?;
    pair.sender.release()?;
    let (by_sent, by_counted) = bystander.run()?;
    let sent: Sent = pair.sender.report()?;
    let counted: Counted = pair.counter.report()?;
    let report = playing.wait().context("the scenario ends with its target")?;
    untouched("bystander", &by_sent, &by_counted, 2000)?;
    ensure!(sent.errors.is_empty(), "the loss was not silent: {:?}", sent.errors);
    let edges = edges(&sent, &counted);
    ensure!(edges.len() == 8, "{} turns instead of 8: {}", edges.len(), report.json);
    let asked: Vec<u64> = (0..4).flat_map(|gap| [gap * 700 * MS, (gap * 700 + 300) * MS]).collect();
    // Against each other: nobody but the controller knows when the scenario began.
    for (i, (first, asked_first)) in edges.iter().zip(&asked).enumerate() {
        for (second, asked_second) in edges.iter().zip(&asked).skip(i + 1) {
            let asked = asked_second - asked_first;
            let (least, most) = (second.0.saturating_sub(first.1), second.1 - first.0);
            ensure!(
                least <= asked + ACCURACY && most + ACCURACY >= asked,
                "{asked} ns asked, between {least} and {most} ns seen: {edges:?}"
            );
        }
    }
    let lost = arrived(&sent, &counted).iter().filter(|arrived| !**arrived).count() as u64;
    ensure!(report.rule(0, "injected")? == lost, "{lost} lost: {}", report.json);
    ensure!(report.json["scenario"]["phases"][0]["began"] == 4, "{}", report.json);
    let late = report.json["scenario"]["phases"][0]["late_ns"].as_u64().context("late_ns")?;
    ensure!(late < ACCURACY, "a phase was {late} ns late by the controller's own clock");
    Ok(())
}

fn each_target_has_its_own(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 4000;
    let lab = NetLab::new("cast")?;
    let first = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let second = Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?;
    let bystander = Pair::new(&lab, PEER_V4, 9002, DATAGRAMS)?;
    let scenario = file(&format!(
        "[targets.first]\npid = {}\n[targets.second]\npid = [{}]\n[[phase]]\n\
         faults = [{{ net = 'drop 20% out udp', target = 'first' }}, {{ net = 'drop every 10 out udp', target = 'second' }},\n\
         {{ net = 'drop first 7 out udp port 9001', target = 'second' }}]\n",
        first.sender.pid(),
        second.sender.pid()
    ))?;
    let playing = Injection::play(&[&path(&scenario)])?;
    let (_, first) = first.run()?;
    let (_, second) = second.run()?;
    let (sent, other) = bystander.run()?;
    // Both targets are gone.
    let report = playing.wait()?;
    untouched("bystander", &sent, &other, DATAGRAMS)?;
    binomial("lost by the first", DATAGRAMS - first.received, DATAGRAMS, 0.2).map_err(anyhow::Error::msg)?;
    // Every tenth, and the first seven of the others, which are asked later.
    ensure!(
        DATAGRAMS - second.received == DATAGRAMS / 10 + 7,
        "{} arrived: {}",
        second.received,
        report.json
    );
    ensure!(report.rule(0, "injected")? == DATAGRAMS - first.received, "{}", report.json);
    ensure!(
        report.rule(1, "injected")? == DATAGRAMS / 10 && report.rule(2, "injected")? == 7,
        "{}",
        report.json
    );
    for (id, target) in [(0, "first"), (1, "second"), (2, "second")] {
        let row = &report.json["rules"][id];
        ensure!(row["id"] == id && row["target"] == target, "{row}");
    }
    Ok(())
}

/// In each of three occurrences two are lost, the second and third.
fn counts_begin_anew(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("anew")?;
    let pair = stamped(&lab, 9000, 3000, 500)?;
    let scenario = file(
        "[[phase]]\nat = '100ms'\nfor = '200ms'\nevery = '400ms'\nrepeat = 3\n\
         faults = [{ net = 'drop times 2 out udp' }, { net = 'drop nth 10 out udp', expect = 'injected == 3' }]\n\
         [[phase]]\nfor = '30s'\n",
    )?;
    let (sent, counted, report) = played(&scenario, pair)?;
    let arrived = arrived(&sent, &counted);
    let lost = arrived.iter().filter(|arrived| !**arrived).count();
    ensure!(lost == 9, "{lost} lost instead of 3 × (2 + 1): {}", report.json);
    ensure!(report.rule(0, "injected")? == 6 && report.rule(1, "injected")? == 3, "{}", report.json);
    // Nothing that was decided is missing from the account: about 200 ms of datagrams, three times.
    ensure!(report.rule(0, "matched")? > 300, "{}", report.json);
    ensure!(report.status.success(), "{}", report.stderr);
    Ok(())
}

/// Another phase that begins and ends beside it takes nothing away from a fault that goes on.
fn going_on_keeps_counts(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 2000;
    let lab = NetLab::new("going")?;
    let pair = stamped(&lab, 9000, DATAGRAMS, 500)?;
    let scenario = file(
        "[[phase]]\nname = 'on'\nfaults = [{ net = 'drop every 7 out udp' }]\n\
         [[phase]]\nat = '50ms'\nfor = '20ms'\nevery = '40ms'\n\
         faults = [{ net = 'drop in icmp' }]\n",
    )?;
    let (sent, counted, report) = played(&scenario, pair)?;
    let lost: Vec<usize> =
        (0..).zip(arrived(&sent, &counted)).filter(|(_, arrived)| !arrived).map(|(place, _)| place).collect();
    let every_seventh: Vec<usize> = (6..DATAGRAMS as usize).step_by(7).collect();
    ensure!(
        lost == every_seventh,
        "{} lost, not every 7th: {:?} {}",
        lost.len(),
        &lost[..lost.len().min(9)],
        report.json
    );
    Ok(())
}

/// From nothing to everything: in each quarter of the ramp the share that its middle asks for.
fn a_ramp_of_loss(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("ramp")?;
    let pair = stamped(&lab, 9000, 8000, 400)?;
    let scenario = file(
        "[[phase]]\nfor = '3s'\n\
         faults = [{ net = 'drop 0% out udp', ramp-to = 'drop 100% out udp', over = '2s' }]\n\
         [[phase]]\nfor = '30s'\n",
    )?;
    // The sender runs before: the beginning of the ramp is found by its end, which nobody can miss.
    let (sent, counted, report) = played(&scenario, pair)?;
    let arrived = arrived(&sent, &counted);
    // Everything is lost from 2 s to 3 s, then nothing.
    let last_lost = arrived.iter().rposition(|arrived| !arrived).context("nothing was lost")?;
    let end = sent.stamps_ns[last_lost];
    let from = |ms: u64| end.saturating_sub(3000 * MS) + ms * MS;
    for quarter in 0..4u64 {
        let inside = |stamp: &u64| (from(quarter * 500)..from(quarter * 500 + 500)).contains(stamp);
        let all: Vec<bool> = sent
            .stamps_ns
            .iter()
            .zip(&arrived)
            .filter(|(stamp, _)| inside(stamp))
            .map(|(_, arrived)| *arrived)
            .collect();
        let lost = all.iter().filter(|arrived| !**arrived).count() as f64;
        let share = lost / all.len().max(1) as f64;
        let middle = (quarter as f64 + 0.5) / 4.0;
        // The start of the sender costs the first quarter some of its datagrams; 200 and more tell eighths apart.
        ensure!(
            all.len() > 200 && (share - middle).abs() < 0.1,
            "quarter {quarter}: {share} of {} lost",
            all.len()
        );
    }
    let tail = sent.stamps_ns.iter().zip(&arrived).filter(|(stamp, _)| (from(2010)..end).contains(stamp));
    let through = tail.filter(|(_, arrived)| **arrived).count();
    ensure!(through == 0, "{through} came through after the ramp had arrived: {}", report.json);
    Ok(())
}

fn a_ramp_of_delay(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("ramp-delay")?;
    let pair = stamped(&lab, 9000, 500, 10_000)?;
    let scenario = file(
        "[[phase]]\nfor = '4s'\n\
         faults = [{ net = 'delay 0ms out udp', ramp-to = 'delay 400ms out udp', expect = ['mean-delay > 100ms'] }]\n",
    )?;
    let (_, counted, report) = played(&scenario, pair)?;
    ensure!(counted.distinct == 500, "{} of 500 arrived: {}", counted.distinct, report.json);
    let mut by_number: Vec<(u64, u64)> =
        counted.numbers.iter().copied().zip(counted.delays_ns.iter().copied()).collect();
    by_number.sort_unstable();
    let delays: Vec<u64> = by_number.into_iter().map(|(_, delay)| delay).collect();
    let peak = delays.iter().max().copied().unwrap_or_default();
    ensure!((300 * MS..).contains(&peak), "the latest was {peak} ns late");
    // It rises: each of the first tenths is later than the one before.
    let top = delays.iter().position(|delay| *delay == peak).unwrap_or_default();
    let tenths: Vec<u64> =
        (0..8).map(|tenth| crate::stats::median(&delays[tenth * top / 8..(tenth + 1) * top / 8])).collect();
    ensure!(tenths.is_sorted_by(|a, b| a < b), "it does not rise: {tenths:?}");
    ensure!(report.status.success(), "{}", report.stderr);
    Ok(())
}

/// curl asks ten times a second; for a second it is refused at once.
fn calls_in_time(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("calls")?;
    let program = victim()?;
    let address = format!("{PEER_V4}:7000");
    let _echo = Process::start_until(lab.in_peer(&program).args(["tcp-echo", &address]), "ready")?;
    let scenario = file(
        "[[phase]]\nname = 'up'\nfor = '1s'\n[[phase]]\nname = 'refused'\nfor = '1s'\n\
         faults = [{ net = 'refuse tcp port 7000', expect = 'injected > 0' }]\n[[phase]]\nname = 'up again'\nfor = '1s'\n",
    )?;
    let script = format!(
        "for i in $(seq 28); do if (exec 3<>/dev/tcp/{PEER_V4}/7000) 2>/dev/null; then echo up; else echo down; fi; sleep 0.1; done"
    );
    let mut command = lab.in_target(&crate::driver::binary().to_string_lossy());
    command.args(["play", &path(&scenario), "--", "bash", "-c", &script]);
    let ended = Ended::of(&mut command)?;
    ensure!(ended.status.success(), "{ended:?}");
    let mut seen: Vec<&str> = ended.stdout.lines().collect();
    let down = seen.iter().filter(|line| **line == "down").count();
    seen.dedup();
    ensure!(seen == ["up", "down", "up"], "{:?}: {}", seen, ended.stderr);
    // On an emulated machine each round takes longer.
    ensure!((2..=11).contains(&down), "{down} refused");
    Ok(())
}

/// One reader lives through all phases. Each of its reads is timed by itself, so that a busy machine can make the reader
/// slow without making a read late; the phases are told apart by half a second.
fn disks_fail_in_time(_: Lane) -> anyhow::Result<()> {
    const LATE: u64 = 500 * MS;
    let scenario = file(&format!(
        "[[phase]]\nfor = '2s'\n[[phase]]\nfor = '2s'\nfaults = [{{ disk = 'error read on {BARE}', expect = 'injected > 0' }}]\n\
         [[phase]]\nfor = '4s'\nfaults = [{{ disk = 'delay 500ms read on {BARE}', expect = 'mean-delay == 500ms' }}]\n"
    ))?;
    let (victim, scenario) = (victim()?, path(&scenario));
    let reads = ["pread", BARE, "--size", "512", "--count", "200", "--pause-us", "50000"];
    let command = [&["play", &scenario, "--", &victim][..], &reads].concat();
    let ended = Ended::of(&mut fault(&command))?;
    ensure!(ended.status.success(), "{ended:?}");
    let timed: Timed = serde_json::from_str(&ended.stdout).context("the reader's report")?;
    let told = || format!("{timed:?}\n{}", ended.stderr);
    ensure!(timed.errors.keys().eq(["EIO"]), "{}", told());
    let (Some(first), Some(last)) = (timed.failed.first(), timed.failed.last()) else {
        anyhow::bail!("nothing failed: {}", told())
    };
    // Those that failed are those of one phase: one after the other, with nothing else between them.
    ensure!(last - first + 1 == timed.failed.len() as u64 && *first > 0, "{}", told());
    let after = timed.latencies_ns.get(*first as usize..).context("reads after the errors")?;
    let late = |latency: &&u64| **latency >= LATE;
    let slow = after.iter().skip_while(|latency| !late(latency)).take_while(late).count();
    ensure!(slow >= 3, "{slow} late reads, one after the other: {}", told());
    // After the last phase all is well again.
    ensure!(after.last().is_some_and(|latency| *latency < LATE), "{}", told());
    Ok(())
}

fn same_seed_same_faults(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("seed")?;
    let scenario = file("seed = 11\n[[phase]]\nfaults = [{ net = 'drop 30% out udp' }]\n")?;
    let mut runs = Vec::new();
    for seed in [&[][..], &[], &["--seed", "12"]] {
        let pair = Pair::new(&lab, PEER_V4, 9000, 500)?;
        let playing =
            Injection::play(&[&[&path(&scenario)[..], "--pid", &pair.sender.pid()], seed].concat())?;
        let (_, counted) = pair.run()?;
        let report = playing.wait()?;
        runs.push((counted.missing, report.json["session"]["seed"].as_u64()));
    }
    ensure!(runs[0] == runs[1] && runs[0].1 == Some(11), "{runs:?}");
    ensure!(runs[0].0 != runs[2].0 && runs[2].1 == Some(12), "{runs:?}");
    Ok(())
}
