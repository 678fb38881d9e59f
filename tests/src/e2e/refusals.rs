//! Bad input and honest refusals; what arms nothing; what the tool says about itself.

use std::{collections::BTreeMap, fs, os::unix::process::ExitStatusExt as _, process::Command};

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test, everywhere,
    pair::{Pair, untouched},
};
use crate::{
    cgroup_lab::CgroupLab,
    driver::{Injection, fault, refused, refused_by},
    net_lab::{NetLab, PEER_V4, TARGET_V4},
    process::{Ended, Process},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "refusals::unknown_things", on: everywhere, run: unknown_things },
    Test { name: "refusals::wrong_specs_point_at_the_word", on: everywhere, run: wrong_specs },
    Test { name: "refusals::incomplete_command_lines", on: everywhere, run: incomplete_command_lines },
    Test { name: "refusals::without_privilege", on: everywhere, run: without_privilege },
    Test { name: "refusals::dry_run_arms_nothing", on: everywhere, run: dry_run_arms_nothing },
    Test { name: "reports::json_on_stdout", on: everywhere, run: json_on_stdout },
    Test { name: "reports::one_event_per_injection", on: everywhere, run: one_event_per_injection },
    Test { name: "reports::one_event_per_failed_read", on: Lane::has_block, run: one_event_per_failed_read },
    Test { name: "doctor::tells_the_truth", on: everywhere, run: doctor_tells_the_truth },
    Test { name: "sweep::finds_nothing", on: everywhere, run: sweep_finds_nothing },
];

/// A process to aim at.
fn somebody() -> anyhow::Result<Process> {
    Process::start(Command::new("cat").arg("-"))
}

/// Names `culprit` in one sentence, or points at it in the spec; and status 2.
fn usage(arguments: &[&str], culprit: &str) -> anyhow::Result<()> {
    let said = refused(arguments, 2)?;
    ensure!(said.contains(culprit), "{arguments:?}: nothing about {culprit}: {said}");
    let pointed = said.lines().any(|line| line.contains('^'));
    ensure!(pointed || said.trim().lines().count() == 1, "{arguments:?}: not one sentence: {said}");
    Ok(())
}

fn unknown_things(_: Lane) -> anyhow::Result<()> {
    let target = somebody()?;
    let pid = target.pid();
    let drop = "drop 5%";
    let gone = {
        let process = Process::start(&mut Command::new("true"))?;
        let pid = process.pid();
        process.ended()?;
        pid
    };
    usage(&["inject", "--pid", &gone, "--net", drop], &gone)?;
    usage(&["inject", "--pid", &pid, "--pid", &gone, "--net", drop], &gone)?;
    usage(&["inject", "--cgroup", "/no/such/cgroup", "--net", drop], "/no/such/cgroup")?;
    usage(&["inject", "--cgroup", "/tmp", "--net", drop], "/tmp")?;
    // Tricks with paths, each to a cgroup that exists.
    let cgroup = CgroupLab::new("named")?;
    let upwards = format!("{}/../e2e-named", cgroup.path());
    usage(&["inject", "--cgroup", &upwards, "--net", drop], "`..`")?;
    usage(&["inject", "--cgroup", "x/../e2e-named", "--net", drop], "`..`")?;
    usage(&["inject", "--cgroup", "../../../../etc", "--net", drop], "`..`")?;
    let directory = tempfile::tempdir()?;
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(cgroup.path(), &link)?;
    usage(&["inject", "--cgroup", &link.to_string_lossy(), "--net", drop], "symbolic link")?;
    usage(
        &["inject", "--cgroup", &format!("{}/cgroup.procs", cgroup.path()), "--net", drop],
        "not a cgroup",
    )?;
    let slash = format!("{}/", cgroup.path());
    let fine = Ended::of(&mut fault(&["inject", "--cgroup", &slash, "--net", drop, "--dry-run"]))?;
    ensure!(fine.status.success(), "{fine:?}");
    usage(&["inject", "--container", "a/b", "--net", drop], "a/b")?;
    usage(&["inject", "--container", "no-such-container", "--net", drop], "no-such-container")?;
    usage(&["inject", "--unit", "../x", "--net", drop], "../x")?;
    let aim = ["inject", "--pid", &pid];
    usage(&[&aim[..], &["--net", "drop iface eth77"]].concat(), "eth77")?;
    usage(&[&aim[..], &["--net", "drop to no-such-host.invalid"]].concat(), "no-such-host.invalid")?;
    usage(&[&aim[..], &["--disk", "error on /dev/no-such-disk"]].concat(), "/dev/no-such-disk")?;
    // A directory without a disk behind it.
    usage(&[&aim[..], &["--disk", "error on /proc"]].concat(), "/proc")?;
    usage(&[&aim[..], &["--disk", "error on /dev/shm"]].concat(), "in memory")?;
    if fs::read_to_string("/proc/2/comm").is_ok_and(|comm| comm.trim() == "kthreadd") {
        usage(&["inject", "--pid", "2", "--net", drop], "kernel thread")?;
    }
    Ok(())
}

fn wrong_specs(_: Lane) -> anyhow::Result<()> {
    for (option, spec, word, advice) in [
        ("--net", "drop 5% otu", "otu", "`out`"),
        ("--net", "dorp 5%", "dorp", "`drop`"),
        ("--net", "drop 500%", "500%", "%"),
        ("--net", "delay 100", "100", "ms"),
        ("--net", "drop to 10.0.0.1:99999", "99999", ""),
        ("--disk", "eror read", "eror", "`error`"),
        ("--disk", "error reed", "reed", "`read`"),
        ("--disk", "delay 2h", "2h", "`1m`"),
        ("--disk", "error sectors 8..4", "8..4", ""),
    ] {
        let said = refused(&["run", option, spec, "--", "true"], 2)?;
        let mut lines = said.lines().skip_while(|line| !line.contains(spec));
        let line = lines.next().with_context(|| format!("{spec}: the line is not shown: {said}"))?;
        let marks = lines.next().context("a line below")?;
        let start = line.find(spec).context("the spec")? + spec.find(word).context("the word")?;
        // What is wrong may be a part of what is marked (a port behind its address), or the other way round.
        let first = marks.find('^').with_context(|| format!("{spec}: nothing points at the word: {said}"))?;
        let last = marks.rfind('^').unwrap_or(first);
        ensure!(first < start + word.len() && start <= last, "{spec}: points elsewhere: {said}");
        ensure!(said.contains(advice), "{spec}: no {advice:?} in {said}");
    }
    Ok(())
}

fn incomplete_command_lines(_: Lane) -> anyhow::Result<()> {
    let target = somebody()?;
    let pid = target.pid();
    for arguments in [
        &[][..],
        &["inject", "--pid", &pid],
        &["inject", "--net", "drop 5%"],
        &["run", "--", "true"],
        &["run", "--net", "drop 5%"],
        &["run", "--net", "drop 5%", "--for", "soon", "--", "true"],
        &["run", "--net", "drop 5%", "--seed", "x", "--", "true"],
        &["run", "--net", "drop 5%", "--block-backend", "magic", "--", "true"],
        &["inject", "--pid", "0", "--net", "drop 5%"],
        &["inject", "--pid", "-1", "--net", "drop 5%"],
        &["infect", "--pid", &pid, "--net", "drop 5%"],
    ] {
        refused(arguments, 2)?;
    }
    let help = Ended::of(&mut fault(&["--help"]))?;
    ensure!(help.status.success() && help.stdout.contains("inject"), "{help:?}");
    Ok(())
}

fn without_privilege(_: Lane) -> anyhow::Result<()> {
    let target = somebody()?;
    let pid = target.pid();
    for arguments in [
        &["inject", "--pid", &pid, "--net", "drop 5%"][..],
        &["run", "--net", "drop 5%", "--", "true"],
        &["run", "--disk", "error read", "--", "true"],
    ] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(crate::driver::binary()).args(arguments);
        let said = refused_by(&mut command, 77)?;
        ensure!(said.contains("root") || said.contains("CAP_"), "it does not say what is missing: {said}");
    }
    // Wrong is wrong, whoever asks.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(crate::driver::binary());
    refused_by(command.args(["run", "--net", "dorp 5%", "--", "true"]), 2).map(drop)
}

fn dry_run_arms_nothing(_: Lane) -> anyhow::Result<()> {
    let trace = tempfile::NamedTempFile::new()?;
    let witness = tempfile::TempDir::new()?;
    let file = witness.path().join("ran").to_string_lossy().into_owned();
    let target = somebody()?;
    let pid = target.pid();
    for arguments in [
        &["inject", "--pid", &pid, "--net", "drop 5% out", "--dry-run", "--seed", "1"][..],
        &["run", "--net", "drop 5% out", "--net", "drop nth 3 in", "--dry-run", "--", "touch", &file],
    ] {
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=bpf,mkdir,mkdirat,mount,fsmount", "-o"]).arg(trace.path());
        command.arg(crate::driver::binary()).args(arguments);
        let ended = Ended::of(&mut command)?;
        ensure!(ended.status.success(), "{arguments:?}: {ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        ensure!(said.contains("drop 5% out"), "no plan: {ended:?}");
        ensure!(!said.contains("fault: active"), "{ended:?}");
        let calls = fs::read_to_string(trace.path())?;
        for call in ["BPF_LINK_CREATE", "BPF_PROG_ATTACH", "BPF_RAW_TRACEPOINT_OPEN", "mkdir", "mount("] {
            ensure!(!calls.contains(call), "{arguments:?}: {call}: {calls}");
        }
    }
    ensure!(!fs::exists(&file)?, "COMMAND ran");
    // What could not be armed is refused as if it were not a rehearsal.
    refused(&["run", "--net", "drop iface eth77 out", "--dry-run", "--", "true"], 2).map(drop)
}

fn json_on_stdout(_: Lane) -> anyhow::Result<()> {
    let mut command =
        fault(&["run", "--quiet", "--json", "-", "--seed", "7", "--net", "drop 0%", "--", "true"]);
    let ended = Ended::of(&mut command)?;
    ensure!(ended.status.success(), "{ended:?}");
    let report: serde_json::Value =
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    ensure!(report["session"]["seed"] == 7, "{report}");
    for field in ["started", "ended"] {
        ensure!(report["session"][field].is_string(), "no {field}: {report}");
    }
    ensure!(report["rules"][0]["layer"] == "net" && report["rules"][0]["id"] == 0, "{report}");
    for field in ["matched", "injected", "bytes", "delay_ns"] {
        ensure!(report["rules"][0][field].is_u64(), "no {field}: {report}");
    }
    // A pipe is no terminal: no colour. Quiet: nothing at all.
    ensure!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
    ensure!(ended.stderr.trim().is_empty(), "not quiet: {ended:?}");
    Ok(())
}

/// The lines of an `--events` file.
fn events(path: &std::path::Path) -> anyhow::Result<Vec<BTreeMap<String, serde_json::Value>>> {
    let text = fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn one_event_per_injection(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 1000;
    let lab = NetLab::new("events")?;
    let (pair, bystander) =
        (Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?, Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?);
    let file = tempfile::NamedTempFile::new()?;
    let (pid, path) = (pair.sender.pid(), file.path().to_string_lossy().into_owned());
    let injection = Injection::start(&["--pid", &pid, "--events", &path, "--net", "drop 20% out udp"])?;
    let (_, counted) = pair.run()?;
    let (sent, other) = bystander.run()?;
    let report = injection.wait()?;
    untouched("bystander", &sent, &other, DATAGRAMS)?;
    let events = events(file.path())?;
    let lost = DATAGRAMS - counted.received;
    ensure!(events.len() as u64 == lost, "{} events of {lost} losses: {}", events.len(), report.json);
    ensure!(report.rule(0, "injected")? == lost, "{}", report.json);
    let mut times = Vec::new();
    for event in &events {
        let is = |field: &str, value: serde_json::Value| event.get(field) == Some(&value);
        let text = |field: &str| event.get(field).and_then(|value| value.as_str()).unwrap_or_default();
        ensure!(
            is("rule", 0.into()) && is("layer", "net".into()) && is("action", "drop".into()),
            "{event:?}"
        );
        ensure!(is("direction", "out".into()) && is("protocol", "udp".into()), "{event:?}");
        ensure!(text("remote") == format!("{PEER_V4}:9000"), "{event:?}");
        ensure!(text("local").starts_with(TARGET_V4), "{event:?}");
        ensure!(is("pid", pid.parse::<u64>()?.into()), "{event:?}");
        ensure!(text("comm") == "fault-victim", "{event:?}");
        times.push(text("time").to_owned());
    }
    ensure!(times.iter().all(|time| time.len() > 20) && times.is_sorted(), "times: {times:?}");
    Ok(())
}

fn one_event_per_failed_read(_: Lane) -> anyhow::Result<()> {
    use crate::{disk_lab::BARE, victim::report::Timed};
    let mut target = super::disk::reader(BARE, &["--count", "40"])?;
    let file = tempfile::NamedTempFile::new()?;
    let (pid, path) = (target.pid(), file.path().to_string_lossy().into_owned());
    let spec = format!("error every 4 read on {BARE}");
    let injection = Injection::start(&["--pid", &pid, "--events", &path, "--disk", &spec])?;
    target.release()?;
    let timed: Timed = target.report()?;
    let report = injection.wait()?;
    let events = events(file.path())?;
    ensure!(timed.failed.len() == 10 && events.len() == 10, "{timed:?} {}", report.json);
    for (event, failed) in events.iter().zip(&timed.failed) {
        ensure!(event["layer"] == "disk" && event["action"] == "error", "{event:?}");
        ensure!(event["sector"] == failed * 8 && event["sectors"] == 8, "{event:?}");
        // A single direct read of a disk is one that the kernel says somebody waits for.
        ensure!(event["ops"] == serde_json::json!(["read", "sync"]), "{event:?}");
        ensure!(event["device"].as_str().is_some_and(|device| device.contains("vdb")), "{event:?}");
    }
    Ok(())
}

/// Whether a session with these faults can be armed; a refusal must be one for the kernel's sake.
fn can_arm(faults: &[&str]) -> anyhow::Result<bool> {
    let arguments = [&["run", "--quiet"], faults, &["--", "true"]].concat();
    let ended = Ended::of(&mut fault(&arguments))?;
    match ended.status.code() {
        Some(0) => Ok(true),
        Some(69) => Ok(false),
        _ => anyhow::bail!("{arguments:?}: {ended:?} (signal {:?})", ended.status.signal()),
    }
}

fn doctor_tells_the_truth(lane: Lane) -> anyhow::Result<()> {
    let text = Ended::of(&mut fault(&["doctor"]))?;
    ensure!(!text.stdout.is_empty() && !text.stdout.contains('\u{1b}'), "{text:?}");
    let ended = Ended::of(&mut fault(&["doctor", "--json"]))?;
    let json: serde_json::Value =
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    for (feature, faults, expected) in [
        ("packet_drop", ["--net", "drop 0%"], true),
        ("packet_delay", ["--net", "delay 1ms 0%"], lane.has_packet_delay()),
        ("packet_corruption", ["--net", "corrupt 0%"], lane.has_vlan()),
        ("calls", ["--net", "refuse 0%"], true),
        ("disk_error", ["--disk", "error 0% read"], !lane.refuses_block()),
        ("disk_delay", ["--disk", "delay 1ms 0% read"], lane.has_block()),
    ] {
        let answer = &json["features"][feature];
        let claimed = answer["ok"]
            .as_bool()
            .with_context(|| format!("doctor does not say whether {feature}: {json}"))?;
        ensure!(
            claimed == can_arm(&faults)?,
            "doctor says {claimed} about {feature}, arming differs: {json}"
        );
        // Of the machine's own kernel, what it says is all we know.
        ensure!(
            lane == Lane::Native || claimed == expected,
            "{feature} is {claimed} on lane {lane:?}: {json}"
        );
        for field in ["why", "remedy"] {
            ensure!(claimed || answer[field].is_string(), "{feature}: no {field}: {json}");
        }
    }
    Ok(())
}

fn sweep_finds_nothing(_: Lane) -> anyhow::Result<()> {
    for arguments in [&["sweep", "--dry-run"][..], &["sweep"]] {
        let ended = Ended::of(&mut fault(arguments))?;
        ensure!(ended.status.success(), "{ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr).to_lowercase();
        ensure!(said.contains("nothing") || said.contains("no residue"), "{ended:?}");
    }
    Ok(())
}
