//! `fault play` as a program: its status, what it refuses, what it prints, how it ends.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    pair::{Pair, untouched},
    play::{file, path},
};
use crate::{
    driver::{Injection, Report, fault, refused, refused_by},
    net_lab::{NetLab, PEER_V4},
    process::{Ended, Process},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "play::status_is_the_commands",
        on: Lane::tests_the_controller,
        run: status_is_the_commands,
    },
    Test { name: "play::expectations_decide", on: Lane::tests_the_controller, run: expectations_decide },
    Test { name: "play::wrong_files_are_pointed_at", on: Lane::tests_the_controller, run: wrong_files },
    Test { name: "play::dry_run_arms_nothing", on: Lane::tests_the_controller, run: dry_run_arms_nothing },
    Test { name: "play::events_have_the_scenarios_numbers", on: Lane::tests_the_controller, run: events },
    Test { name: "play::ends_as_inject_does", on: Lane::tests_the_controller, run: ends_as_inject_does },
    Test {
        name: "play::sigkill_leaves_nothing",
        on: Lane::tests_the_controller,
        run: sigkill_leaves_nothing,
    },
    Test {
        name: "play::what_a_late_phase_needs_is_needed_at_once",
        on: Lane::refuses_block,
        run: late_phases_are_refused_at_once,
    },
];

/// Rests, and a fault that hits nothing.
const QUIET: &str = "[[phase]]\nfor = '200ms'\nfaults = [{ net = 'drop 0%' }]\n";

fn play(file: &tempfile::NamedTempFile, arguments: &[&str]) -> Command {
    fault(&[&["play", "--quiet", &path(file)], arguments].concat())
}

fn status_is_the_commands(_: Lane) -> anyhow::Result<()> {
    let scenario = file(QUIET)?;
    for (command, status) in [
        (&["--", "true"][..], 0),
        (&["--", "sh", "-c", "exit 7"], 7),
        (&["--", "sh", "-c", "sleep 0.6; exit 3"], 3),
        (&["--", "/no/such/program"], 127),
    ] {
        let ended = Ended::of(&mut play(&scenario, command))?;
        ensure!(ended.status.code() == Some(status), "{command:?}: {ended:?}");
    }
    Ok(())
}

fn expectations_decide(_: Lane) -> anyhow::Result<()> {
    let json = tempfile::NamedTempFile::new()?;
    let report = json.path().to_string_lossy().into_owned();
    let run = |text: &str| -> anyhow::Result<(Option<i32>, serde_json::Value, String)> {
        let scenario = file(text)?;
        let mut command = fault(&[
            "play",
            &path(&scenario),
            "--json",
            &report,
            "--",
            "ping",
            "-q",
            "-c",
            "3",
            "-i",
            "0.05",
            "127.0.0.1",
        ]);
        let ended = Ended::of(&mut command)?;
        let json = serde_json::from_str(&std::fs::read_to_string(&report)?)?;
        Ok((ended.status.code(), json, ended.stderr))
    };
    let phase = |expect: &str| {
        format!("[[phase]]\nfor = '5s'\nfaults = [{{ net = 'drop nth 1 out icmp', expect = {expect} }}]\n")
    };
    let (status, json, said) = run(&phase("['injected == 1', 'matched >= 3']"))?;
    ensure!(status == Some(0), "{said}");
    ensure!(json["scenario"]["expectations"][1]["met"] == true, "{json}");
    let (status, json, said) = run(&phase("'injected > 1'"))?;
    ensure!(status == Some(1) && said.contains("not met: fault 0, `injected > 1`: injected is 1"), "{said}");
    ensure!(json["scenario"]["expectations"][0]["met"] == false, "{json}");
    for (probe, met) in [
        ("run = 'exit 3'\nstatus = 3", true),
        ("run = 'exit 3'", false),
        ("run = ['echo', 'a', 'b']\nstdout = 'a b'", true),
        ("run = ['echo', 'a', 'b']\nstdout = 'a'", false),
        ("run = ['echo', 'a', 'b']\nstdout-has = 'b'", true),
        ("run = ['echo', 'a', 'b']\nstdout-has = 'c'", false),
        ("run = ['sleep', '60']\nwithin = '100ms'", false),
        ("run = ['/no/such/program']", false),
        ("run = 'true'\nat = '10ms'", true),
        ("run = 'true'\nat = '4s'", false),
    ] {
        let (status, json, said) = run(&format!("{QUIET}[[phase]]\nfor = '5s'\n[[expect]]\n{probe}\n"))?;
        let found = &json["scenario"]["expectations"][0]["met"];
        ensure!(status == Some(i32::from(!met)) && (found == true) == met, "{probe}: {found}: {said}");
    }
    Ok(())
}

fn wrong_files(_: Lane) -> anyhow::Result<()> {
    let witness = tempfile::TempDir::new()?;
    let ran = witness.path().join("ran").to_string_lossy().into_owned();
    for (text, place) in [
        ("[[phase]]\nfor = '1s'\nfaults = [{ net = 'drop 5% otu' }]\n", ":3:28"),
        ("[[phase]]\nfor = '1s'\nfaults = [{ disk = 'error on /no/such/device' }]\n", ":3:30"),
        ("[[phase]]\nfro = '1s'\n", ":2:1"),
        ("[[phase]\n", ":1:9"),
        (
            "[targets.db]\ncgroup = '/no/such/cgroup'\n[[phase]]\nfaults = [{ net = 'drop', target = 'db' }]\n",
            ":1:10",
        ),
    ] {
        let scenario = file(text)?;
        let said = refused(&["play", &path(&scenario), "--", "touch", &ran], 2)?;
        ensure!(said.contains(&format!("{}{place}", path(&scenario))), "{text}: not at {place}: {said}");
        ensure!(!Path::new(&ran).exists(), "{text}: COMMAND ran");
    }
    refused(&["play", "/no/such/scenario.toml", "--", "true"], 2)?;
    let scenario = file(QUIET)?;
    refused(&["play", &path(&scenario)], 2)?;
    Ok(())
}

fn dry_run_arms_nothing(_: Lane) -> anyhow::Result<()> {
    let scenario =
        file("[[phase]]\nname = 'dark'\nat = '2s'\nfor = '3s'\nfaults = [{ net = 'drop out icmp' }]\n")?;
    let mut command =
        play(&scenario, &["--dry-run", "--seed", "3", "--", "touch", "/no/such/directory/file"]);
    // Nobody needs to be root to look.
    let ended = Ended::of(&mut command)?;
    ensure!(ended.status.success(), "{ended:?}");
    for line in ["2s `dark` begins", "5s `dark` ends", "net drop out icmp", "Nothing was armed."] {
        ensure!(ended.stdout.contains(line), "no {line:?} in {}", ended.stdout);
    }
    ensure!(Ended::of(&mut command)?.stdout == ended.stdout, "two dry runs differ");
    Ok(())
}

fn events(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("play-events")?;
    let (first, second) = (Pair::new(&lab, PEER_V4, 9000, 300)?, Pair::new(&lab, PEER_V4, 9001, 300)?);
    let scenario = file(&format!(
        "[targets.a]\npid = {}\n[targets.b]\npid = {}\n[[phase]]\n\
         faults = [{{ net = 'drop every 3 out udp', target = 'b' }}, {{ net = 'drop every 5 out udp', target = 'a' }}]\n",
        first.sender.pid(),
        second.sender.pid()
    ))?;
    let events = tempfile::NamedTempFile::new()?;
    let playing = Injection::play(&[&path(&scenario), "--events", &events.path().to_string_lossy()])?;
    first.run()?;
    second.run()?;
    let report: Report = playing.wait()?;
    let text = std::fs::read_to_string(events.path())?;
    let mut by_rule = [0u64; 2];
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let id = event["rules"][0].as_u64().with_context(|| line.to_owned())?;
        let port =
            event["remote"].as_str().unwrap_or_default().ends_with(if id == 0 { "9001" } else { "9000" });
        ensure!(port, "rule {id} hit somebody else: {line}");
        by_rule[id as usize % 2] += 1;
    }
    ensure!(by_rule == [100, 60], "{by_rule:?}: {}", report.json);
    Ok(())
}

fn ends_as_inject_does(_: Lane) -> anyhow::Result<()> {
    let scenario = file(
        "[[phase]]\nfaults = [{ net = 'drop 0%', expect = 'injected == 0' }]\n[[expect]]\nat = '60s'\nrun = 'true'\n",
    )?;
    let target = Process::start(Command::new("cat").arg("-"))?;
    let playing = Injection::play(&[&path(&scenario), "--pid", &target.pid()])?;
    let report = playing.heal()?;
    ensure!(report.json["session"]["exit"]["reason"] == "interrupted", "{}", report.json);
    // What could not be judged is not said to be met.
    let expectations = &report.json["scenario"]["expectations"];
    ensure!(expectations[0]["met"] == true && expectations[1]["met"].is_null(), "{expectations}");
    ensure!(report.status.code() == Some(1), "{}: {}", report.status, report.stderr);
    let plain = file(QUIET)?;
    let playing = Injection::play(&[&path(&plain), "--pid", &target.pid()])?;
    let report = playing.wait()?;
    ensure!(
        report.json["session"]["exit"]["reason"] == "elapsed" && report.status.success(),
        "{}",
        report.json
    );
    let endless = file("[[phase]]\nfaults = [{ net = 'drop 0%' }]\n")?;
    let report = Injection::play(&[&path(&endless), "--pid", &target.pid()])?.heal()?;
    ensure!(report.status.success(), "{}: {}", report.status, report.stderr);
    let report = Injection::play(&[&path(&endless), "--pid", &target.pid(), "--for", "300ms"])?.wait()?;
    ensure!(report.json["session"]["exit"]["reason"] == "elapsed", "{}", report.json);
    Ok(())
}

fn sigkill_leaves_nothing(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 500;
    let lab = NetLab::new("play-kill")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let scenario =
        file("[[phase]]\nat = '10ms'\nfor = '20ms'\nevery = '20ms'\nfaults = [{ net = 'drop out' }]\n")?;
    let playing = Injection::play(&[&path(&scenario), "--pid", &pair.sender.pid()])?;
    std::thread::sleep(Duration::from_millis(100));
    playing.sigkill()?;
    // Links go when the kernel has taken the process apart.
    std::thread::sleep(Duration::from_millis(500));
    let (sent, counted) = pair.run()?;
    untouched("the target of a killed controller", &sent, &counted, DATAGRAMS)
}

/// The third phase needs what this kernel has not: COMMAND never starts.
fn late_phases_are_refused_at_once(_: Lane) -> anyhow::Result<()> {
    let witness = tempfile::TempDir::new()?;
    let ran = witness.path().join("ran").to_string_lossy().into_owned();
    let scenario = file(
        "[[phase]]\nfor = '1s'\nfaults = [{ net = 'drop 0%' }]\n[[phase]]\nfor = '1s'\n[[phase]]\nfor = '1s'\n\
         faults = [{ disk = 'error read' }]\n",
    )?;
    let said = refused_by(&mut fault(&["play", &path(&scenario), "--", "touch", &ran]), 69)?;
    ensure!(!Path::new(&ran).exists(), "COMMAND ran: {said}");
    Ok(())
}
