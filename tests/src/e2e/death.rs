//! The end of the controller, however it comes: victims get well, and nothing is left.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Lane, Test,
    disk::{reader, wait_until_parked},
    pair::{Pair, untouched},
};
use crate::{
    cgroup_lab,
    disk_lab::BARE,
    driver::{Injection, fault},
    net_lab::{NetLab, PEER_V4},
    process::{Process, descendants, proc_file},
    residue::Picture,
    victim::report::Timed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "death::sigkill_while_arming",
        on: Lane::tests_packets_in_detail,
        run: sigkill_while_arming,
    },
    Test {
        name: "death::sigkill_under_traffic",
        on: Lane::tests_packets_in_detail,
        run: sigkill_under_traffic,
    },
    Test { name: "death::sigkill_frees_parked_tasks", on: Lane::has_block, run: sigkill_frees_parked_tasks },
    Test { name: "death::sigkill_of_run", on: Lane::tests_packets_in_detail, run: sigkill_of_run },
    Test { name: "death::sigstop_heals", on: Lane::tests_packets_in_detail, run: sigstop_heals },
    Test {
        name: "death::sigkill_while_stopped",
        on: Lane::tests_packets_in_detail,
        run: sigkill_while_stopped,
    },
    Test {
        name: "death::signals_heal_and_report",
        on: Lane::tests_packets_in_detail,
        run: signals_heal_and_report,
    },
    Test { name: "death::of_a_helper", on: Lane::tests_packets_in_detail, run: death_of_a_helper },
];

/// Datagrams that show whether traffic is normal: all arrive.
const FEW: u64 = 200;
const MS: u64 = 1_000_000;

/// Everything this lane can do at once: lossy, cut into segments, late, and its disk stuck.
fn everything(lane: Lane) -> Vec<&'static str> {
    let mut options = vec!["--net", "drop out udp"];
    // Either of them takes the cutter's devices.
    options.extend(["--net", if lane.has_vlan() { "corrupt 1% tcp" } else { "duplicate 1% tcp" }]);
    if lane.has_packet_delay() {
        options.extend(["--net", "delay 200ms in"]);
    }
    if lane.has_block() {
        options.extend(["--disk", "delay 60s on /dev/vdb"]);
    }
    options
}

/// Different instants in every run: whoever fails prints which.
pub(super) fn instants(rounds: usize, within_ms: u64) -> impl Iterator<Item = u64> {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new();
    (0..rounds).map(move |round| random.hash_one(round) % (within_ms + 1))
}

fn sigkill_while_arming(lane: Lane) -> anyhow::Result<()> {
    // Arming takes tens of milliseconds natively and about ten times as long on an emulated machine.
    let (rounds, within) = if lane == Lane::Native { (20, 300) } else { (5, 2000) };
    let lab = NetLab::new("kill")?;
    for after in instants(rounds, within) {
        let pair = Pair::new(&lab, PEER_V4, 9000, FEW)?;
        let before = Picture::take()?;
        let pid = pair.sender.pid();
        let controller =
            Process::start(&mut fault(&[&["inject", "--pid", &pid], &everything(lane)[..]].concat()))?;
        std::thread::sleep(Duration::from_millis(after));
        controller.signal(Signal::SIGKILL)?;
        let ended = controller.ended()?;
        before.must_return().with_context(|| format!("killed after {after} ms: {}", ended.stderr))?;
        let (sent, counted) = pair.run()?;
        untouched(&format!("killed after {after} ms"), &sent, &counted, FEW)?;
    }
    Ok(())
}

fn sigkill_under_traffic(lane: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("traffic")?;
    let rounds = if lane == Lane::Native { 5 } else { 2 };
    for after in instants(rounds, 500) {
        let busy = Pair::with(&lab, PEER_V4, 9000, 1500, &["--pause-us", "1000"])?;
        let later = Pair::new(&lab, PEER_V4, 9001, FEW)?;
        let before = Picture::take()?;
        let pids = [busy.sender.pid(), later.sender.pid()];
        let mut arguments = vec!["--pid", &pids[0], "--pid", &pids[1], "--net", "drop 50% out udp"];
        if lane.has_packet_delay() {
            arguments.extend(["--net", "delay 300ms out udp"]);
        }
        let injection = Injection::start(&arguments)?;
        let Pair { mut sender, counter } = busy;
        sender.release()?;
        std::thread::sleep(Duration::from_millis(after));
        injection.sigkill()?;
        before.must_return().with_context(|| format!("killed after {after} ms of traffic"))?;
        let (sent, counted) = later.run()?;
        untouched(&format!("killed after {after} ms of traffic"), &sent, &counted, FEW)?;
        let late = counted.delays_ns.iter().filter(|delay| **delay >= 300 * MS).count();
        ensure!(late == 0, "{late} datagrams were delayed by a session that was killed");
        let sent: crate::victim::report::Sent = sender.report()?;
        ensure!(sent.errors.is_empty(), "the sender noticed: {sent:?}");
        drop(counter);
    }
    Ok(())
}

/// Two reads of each of 32 threads; the time from now until the process has ended.
fn ends_within(target: Process, limit: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    let timed: Timed = target.report()?;
    let took = start.elapsed();
    ensure!(timed.errors.is_empty() && timed.latencies_ns.len() == 64, "{:?}", timed.errors);
    ensure!(took <= limit, "the victim needed {took:?}, {limit:?} are allowed");
    Ok(())
}

const CROWD: &[&str] = &["--threads", "32", "--count", "2"];

fn sigkill_frees_parked_tasks(_: Lane) -> anyhow::Result<()> {
    let before = Picture::take()?;
    for _ in 0..2 {
        let mut target = reader(BARE, CROWD)?;
        let spec = format!("delay 30s read on {BARE}");
        let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
        target.release()?;
        wait_until_parked(&target.pid(), 32)?;
        injection.sigkill()?;
        // A second until everything is normal; the second reads of all threads and the end of the process on top.
        ends_within(target, Duration::from_millis(1000 + 500))?;
        before.must_return()?;
    }
    Ok(())
}

fn sigkill_of_run(lane: Lane) -> anyhow::Result<()> {
    let before = Picture::take()?;
    for after in
        instants(if lane == Lane::Native { 10 } else { 3 }, if lane == Lane::Native { 200 } else { 1500 })
    {
        let mut arguments = vec!["run", "--net", "drop 50%"];
        arguments.extend(["--", "sh", "-c", "echo $$; exec sleep 313"]);
        let controller = Process::start(&mut fault(&arguments))?;
        std::thread::sleep(Duration::from_millis(after));
        // Stopped first: it must not fork between the look and the kill.
        controller.signal(Signal::SIGSTOP)?;
        let family = descendants(controller.pid().parse()?);
        controller.signal(Signal::SIGKILL)?;
        let result = before.must_return().with_context(|| format!("killed after {after} ms"));
        // Helpers are gone by now: who can still be killed is COMMAND, whatever it is called at this instant. It holds
        // the pipes of the controller. Before its exec it ends by itself, perhaps between these lines.
        let homes: Vec<_> = family
            .into_iter()
            .filter(|pid| lives(*pid))
            .filter_map(|pid| {
                let home = cgroup_lab::of(pid);
                kill(Pid::from_raw(pid as i32), Signal::SIGKILL).ok().and(home.ok())
            })
            .collect();
        let ended = controller.ended()?;
        result?;
        ensure!(homes.len() <= 1, "{} processes outlive the controller", homes.len());
        ensure!(ended.stdout.is_empty() || homes.len() == 1, "COMMAND ran and died with the controller");
        let ours = cgroup_lab::of(std::process::id())?;
        ensure!(homes.iter().all(|home| *home == ours), "COMMAND is in {homes:?}");
    }
    Ok(())
}

/// Whether a process exists and is no zombie.
fn lives(pid: u32) -> bool {
    proc_file(pid, "stat")
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

fn sigstop_heals(lane: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("stop")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, FEW)?;
    let mut parked = if lane.has_block() { Some(reader(BARE, CROWD)?) } else { None };
    let mut pids = vec![pair.sender.pid()];
    pids.extend(parked.as_ref().map(Process::pid));
    let mut arguments: Vec<&str> = pids.iter().flat_map(|pid| ["--pid", pid]).collect();
    arguments.extend(everything(lane));
    let injection = Injection::start(&arguments)?;
    if let Some(parked) = &mut parked {
        parked.release()?;
        wait_until_parked(&parked.pid(), 32)?;
    }
    injection.signal(Signal::SIGSTOP)?;
    let stopped = Instant::now();
    if let Some(parked) = parked {
        ends_within(parked, Duration::from_secs(6))?;
    }
    std::thread::sleep(Duration::from_secs(6).saturating_sub(stopped.elapsed()));
    let (sent, counted) = pair.run()?;
    let state = proc_file(injection.pid().as_raw().unsigned_abs(), "stat")?;
    ensure!(state.contains(") T "), "the controller was not stopped: {state}");
    untouched("while the controller is stopped", &sent, &counted, FEW)?;
    injection.signal(Signal::SIGTERM)?;
    injection.signal(Signal::SIGCONT)?;
    injection.wait().map(drop)
}

fn sigkill_while_stopped(lane: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("stopkill")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, FEW)?;
    let before = Picture::take()?;
    let injection = Injection::start(&[&["--pid", &pair.sender.pid()], &everything(lane)[..]].concat())?;
    injection.signal(Signal::SIGSTOP)?;
    injection.sigkill()?;
    before.must_return()?;
    let (sent, counted) = pair.run()?;
    untouched("after the controller was killed", &sent, &counted, FEW)
}

fn signals_heal_and_report(lane: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("signals")?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (hit, later) = (Pair::new(&lab, PEER_V4, 9000, FEW)?, Pair::new(&lab, PEER_V4, 9001, FEW)?);
        let mut parked = if lane.has_block() { Some(reader(BARE, CROWD)?) } else { None };
        let before = Picture::take()?;
        let mut pids = vec![hit.sender.pid(), later.sender.pid()];
        pids.extend(parked.as_ref().map(Process::pid));
        let mut arguments: Vec<&str> = pids.iter().flat_map(|pid| ["--pid", pid]).collect();
        arguments.extend(everything(lane));
        let injection = Injection::start(&arguments)?;
        let (mut sender, counter) = (hit.sender, hit.counter);
        sender.release()?;
        let sent: crate::victim::report::Sent = sender.report()?;
        drop(counter);
        if let Some(parked) = &mut parked {
            parked.release()?;
            wait_until_parked(&parked.pid(), 32)?;
        }
        injection.signal(signal)?;
        if let Some(parked) = parked {
            ends_within(parked, Duration::from_millis(1000 + 500)).with_context(|| signal.to_string())?;
        }
        let report = injection.wait().with_context(|| format!("{signal}: no report"))?;
        ensure!(report.status.success(), "{signal}: {}: {}", report.status, report.stderr);
        ensure!(report.rule(0, "injected")? == sent.sent, "{signal}: {}", report.json);
        let reason = &report.json["session"]["exit"];
        ensure!(reason["signal"] == signal.as_str(), "{signal}: {reason}");
        before.must_return().with_context(|| signal.to_string())?;
        let (sent, counted) = later.run()?;
        untouched(signal.as_str(), &sent, &counted, FEW)?;
    }
    Ok(())
}

fn death_of_a_helper(lane: Lane) -> anyhow::Result<()> {
    // Each helper of the controller once, whatever they are; a session without helpers has nothing to test.
    let mut helper = 0;
    loop {
        let pair = (!lane.has_block()).then(|| Process::start(Command::new("cat").arg("-"))).transpose()?;
        let (mut parked, mut later) = if lane.has_block() {
            (Some(reader(BARE, &["--threads", "8", "--count", "1"])?), Some(reader(BARE, &["--count", "4"])?))
        } else {
            (None, None)
        };
        let pids: Vec<String> = [&pair, &parked, &later].into_iter().flatten().map(Process::pid).collect();
        let mut arguments: Vec<&str> = pids.iter().flat_map(|pid| ["--pid", pid]).collect();
        arguments.extend(["--net", "drop 0%"]);
        if lane.has_block() {
            arguments.extend(["--disk", "delay 2s read on /dev/vdb"]);
        }
        let injection = Injection::start(&arguments)?;
        let helpers = descendants(injection.pid().as_raw().unsigned_abs());
        let Some(&pid) = helpers.get(helper) else { return injection.heal().map(drop) };
        let name = proc_file(pid, "comm")?;
        if let Some(parked) = &mut parked {
            parked.release()?;
            wait_until_parked(&parked.pid(), 8)?;
        }
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).with_context(|| name.clone())?;
        // Nobody is stuck: the watchdog of this harness ends the test otherwise.
        let mut early = 0;
        if let (Some(parked), Some(later)) = (parked, &mut later) {
            let timed: Timed = parked.report()?;
            ensure!(timed.errors.is_empty() && timed.latencies_ns.len() == 8, "{name}: {timed:?}");
            later.release()?;
        }
        if let Some(later) = later {
            let timed: Timed = later.report()?;
            ensure!(timed.errors.is_empty() && timed.latencies_ns.len() == 4, "{name}: {timed:?}");
            early = timed.latencies_ns.iter().filter(|latency| **latency < 2000 * MS).count();
        }
        // With `cat` as the target the session goes on until it is told; with readers it ends with them.
        drop(pair);
        let report = injection.wait().with_context(|| format!("after the death of {name}"))?;
        let honest = early == 0 || !report.status.success() || report.counter("park_failed")? >= early as u64;
        ensure!(honest, "{name}: {early} reads were not delayed, and the report is silent: {}", report.json);
        helper += 1;
    }
}
