//! `fault run`: COMMAND is itself, only unluckier.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    pair::{counter, endpoint},
};
use crate::{
    cgroup_lab,
    driver::{fault, refused_by, victim},
    net_lab::{NetLab, PEER_V4},
    process::Ended,
    stats::binomial,
    victim::report::{Counted, Sent},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "run::exit_status_is_the_commands",
        on: Lane::tests_packets_in_detail,
        run: exit_status_is_the_commands,
    },
    Test {
        name: "run::standard_streams_are_the_commands",
        on: Lane::tests_packets_in_detail,
        run: streams_are_the_commands,
    },
    Test { name: "run::cgroup_of_its_own", on: Lane::tests_packets_in_detail, run: cgroup_of_its_own },
    Test {
        name: "run::background_children_move_home",
        on: Lane::tests_packets_in_detail,
        run: background_children_move_home,
    },
    Test { name: "run::the_command_is_hit", on: Lane::tests_packets_in_detail, run: the_command_is_hit },
    Test { name: "run::no_fault_no_command", on: Lane::tests_packets_in_detail, run: no_fault_no_command },
    Test {
        name: "run::signals_reach_the_command",
        on: Lane::tests_packets_in_detail,
        run: signals_reach_the_command,
    },
];

/// A fault that hits nothing.
const NOTHING: &[&str] = &["run", "--quiet", "--net", "drop 0%", "--"];

fn run(command: &[&str]) -> Command {
    fault(&[NOTHING, command].concat())
}

fn exit_status_is_the_commands(_: Lane) -> anyhow::Result<()> {
    for (command, status) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
        (&["/no/such/program"], 127),
        (&["no-such-program-on-path"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let ended = Ended::of(&mut run(command))?;
        ensure!(ended.status.code() == Some(status), "{command:?}: {} not {status}: {ended:?}", ended.status);
    }
    Ok(())
}

fn streams_are_the_commands(_: Lane) -> anyhow::Result<()> {
    // More than a pipe holds.
    let input: String = (0..40_000).map(|number| format!("{number}\n")).collect();
    let ended = Ended::with_input(&mut run(&["cat"]), input.as_bytes())?;
    ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    ensure!(ended.stdout == input, "{} of {} bytes came through", ended.stdout.len(), input.len());
    let ended = Ended::of(&mut run(&["sh", "-c", "echo to-stderr >&2"]))?;
    ensure!(ended.stdout.is_empty() && ended.stderr.contains("to-stderr"), "{ended:?}");
    // Not quiet: the summary must stay out of stdout, too.
    let ended = Ended::of(&mut fault(&["run", "--net", "drop 0%", "--", "echo", "hello"]))?;
    ensure!(ended.stdout == "hello\n", "{ended:?}");
    Ok(())
}

fn cgroup_of_its_own(_: Lane) -> anyhow::Result<()> {
    let ended = Ended::of(&mut run(&["cat", "/proc/self/cgroup"]))?;
    let inside = ended.stdout.lines().find_map(|line| line.strip_prefix("0::")).context("no v2 cgroup")?;
    let ours = cgroup_lab::of(std::process::id())?;
    ensure!(inside != ours, "COMMAND ran in our own cgroup {ours}");
    let directory = cgroup_lab::root()?.join(inside.trim_start_matches('/'));
    ensure!(!directory.exists(), "{} is left behind", directory.display());
    Ok(())
}

fn background_children_move_home(_: Lane) -> anyhow::Result<()> {
    let ended = Ended::of(&mut run(&["sh", "-c", "sleep 60 >/dev/null 2>&1 </dev/null & echo $!"]))?;
    let child: i32 = ended.stdout.trim().parse().with_context(|| format!("{ended:?}"))?;
    let cgroup = cgroup_lab::of(child.unsigned_abs());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL)
        .context("the background child did not live on")?;
    ensure!(cgroup? == cgroup_lab::of(std::process::id())?, "the background child is not at home");
    ensure!(ended.status.success(), "{ended:?}");
    Ok(())
}

fn the_command_is_hit(_: Lane) -> anyhow::Result<()> {
    // 5 000 datagrams: 10 % is told from 12 %.
    const DATAGRAMS: u64 = 5000;
    let lab = NetLab::new("run")?;
    let program = victim()?;
    let count = DATAGRAMS.to_string();
    let hit = counter(&lab, PEER_V4, 9000)?;
    let spared = counter(&lab, PEER_V4, 9001)?;
    let json = tempfile::NamedTempFile::new()?;
    let path = json.path().to_string_lossy().into_owned();
    let mut command = lab.in_target(&crate::driver::binary().to_string_lossy());
    command.args(["run", "--json", &path, "--net", "drop 10% out udp", "--"]);
    command.args([&program, "udp-send", &endpoint(PEER_V4, 9000), "--count", &count]);
    let ended = Ended::of(&mut command)?;
    let sent: Sent = serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    let to = endpoint(PEER_V4, 9001);
    let bystander = Ended::of(lab.in_target(&program).args(["udp-send", &to, "--count", &count]))?;
    ensure!(bystander.status.success(), "{bystander:?}");
    let (hit, spared): (Counted, Counted) = (hit.report()?, spared.report()?);
    ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "the loss was not silent: {sent:?}");
    let lost = DATAGRAMS - hit.received;
    binomial("datagrams lost", lost, DATAGRAMS, 0.1).map_err(anyhow::Error::msg)?;
    ensure!(spared.received == DATAGRAMS, "bystander: {}", spared.received);
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(json.path())?)?;
    ensure!(report["rules"][0]["injected"] == lost, "{report}");
    ensure!(report["session"]["seed"].is_u64(), "no seed: {report}");
    Ok(())
}

fn no_fault_no_command(_: Lane) -> anyhow::Result<()> {
    // A fault that cannot be armed stops everything before COMMAND starts.
    let witness = tempfile::TempDir::new()?;
    let file = witness.path().join("ran").to_string_lossy().into_owned();
    for (specs, status) in [
        (&["--net", "drop iface no-such-interface"][..], 2),
        (&["--net", "drop 5%", "--net", "dropp 5%"], 2),
        (&["--net", "drop 5%", "--disk", "error on /no/such/device"], 2),
    ] {
        let arguments = [&["run"], specs, &["--", "touch", &file]].concat();
        refused_by(&mut fault(&arguments), status)?;
        ensure!(!fs::exists(&file)?, "{specs:?}: COMMAND ran");
    }
    Ok(())
}

fn signals_reach_the_command(_: Lane) -> anyhow::Result<()> {
    use nix::sys::signal::Signal;
    // SIGTERM to the controller is SIGTERM to COMMAND, which decides what its end looks like.
    let script = "trap 'exit 42' TERM; echo ready >&2; while :; do sleep 0.1; done";
    let process = crate::process::Process::start_until(&mut run(&["sh", "-c", script]), "ready")?;
    process.signal(Signal::SIGTERM)?;
    let ended = process.ended()?;
    ensure!(ended.status.code() == Some(42), "{ended:?}");
    Ok(())
}
