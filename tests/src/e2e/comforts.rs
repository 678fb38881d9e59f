//! What people get beside faults: explanations, completions, manual pages, a page with plots.

use std::{io::Write as _, process::Command};

use anyhow::{Context as _, ensure};

use super::{Lane, Test, everywhere, pair};
use crate::{
    driver::{binary, fault, refused, victim},
    net_lab::{NetLab, PEER_V4},
    process::{Ended, Process},
    victim::report::{Counted, Sent},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "explain::agrees_with_doctor", on: everywhere, run: explain_agrees_with_doctor },
    Test { name: "explain::wrong_specs_are_pointed_at", on: everywhere, run: explain_points },
    Test { name: "completions::shells_take_them", on: Lane::tests_the_controller, run: shells_take_them },
    Test { name: "man::pages_are_read", on: Lane::tests_the_controller, run: pages_are_read },
    Test { name: "comforts::a_page_for_browsers", on: Lane::tests_the_controller, run: page },
];

fn stdout(arguments: &[&str]) -> anyhow::Result<String> {
    let ended = Ended::of(&mut fault(arguments))?;
    ensure!(ended.status.success(), "{arguments:?}: {ended:?}");
    Ok(ended.stdout)
}

fn explain_agrees_with_doctor(_: Lane) -> anyhow::Result<()> {
    let doctor: serde_json::Value = serde_json::from_str(&stdout(&["doctor", "--json"])?)?;
    for (spec, layer, needed) in [
        ("drop 5% out to 10.0.0.1:5432", "net", &["packet_drop"][..]),
        ("delay 30ms in", "net", &["packet_drop", "packet_delay"]),
        ("refuse port 443", "net", &["calls"]),
        ("corrupt", "net", &["packet_drop", "packet_corruption"]),
        ("error 1% read", "disk", &["disk_error"]),
        ("hang 3s then error", "disk", &["disk_error", "disk_delay"]),
    ] {
        let explained: serde_json::Value = serde_json::from_str(&stdout(&["explain", "--json", spec])?)?;
        let one = &explained[0];
        ensure!(one["layer"] == layer && explained[1].is_null(), "{spec}: {explained}");
        let needs = one["needs"].as_array().context("needs")?;
        let names: Vec<&str> = needs.iter().filter_map(|need| need["feature"].as_str()).collect();
        ensure!(names == needed, "{spec}: {names:?}");
        for need in needs {
            let name = need["feature"].as_str().unwrap_or_default();
            ensure!(need["ok"] == doctor["features"][name]["ok"], "{spec}: {need}");
        }
    }
    // Both layers have this one.
    let both = stdout(&["explain", "delay 30ms"])?;
    ensure!(both.contains("--net 'delay 30ms'") && both.contains("--disk 'delay 30ms'"), "{both}");
    let one = stdout(&["explain", "delay 30ms", "--layer", "disk"])?;
    ensure!(!one.contains("--net") && one.contains("on no CPU"), "{one}");
    Ok(())
}

fn explain_points(_: Lane) -> anyhow::Result<()> {
    for (spec, word) in [("drop 5% otu", "out"), ("error redd", "read")] {
        let said = refused(&["explain", spec], 2)?;
        ensure!(said.contains('^') && said.contains(&format!("did you mean `{word}`?")), "{spec}: {said}");
    }
    Ok(())
}

fn shells_take_them(_: Lane) -> anyhow::Result<()> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&["completions", shell])?;
        ensure!(script.contains("inject") && script.contains("play"), "{shell}: {script}");
    }
    // bash itself, asked what it would offer.
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(stdout(&["completions", "bash"])?.as_bytes())?;
    let script = format!(
        "source {}; COMP_WORDS=(fault pl); COMP_CWORD=1; _fault fault pl fault; echo \"${{COMPREPLY[@]}}\"",
        file.path().display()
    );
    let ended = Ended::of(Command::new("bash").args(["--norc", "-c", &script]))?;
    ensure!(ended.stdout.trim() == "play", "{ended:?}");
    refused(&["completions", "tcsh"], 2)?;
    Ok(())
}

fn pages_are_read(_: Lane) -> anyhow::Result<()> {
    let page = stdout(&["man"])?;
    ensure!(page.contains(".TH fault 1") && page.contains("fault\\-play(1)"), "{page}");
    let directory = tempfile::TempDir::new()?;
    stdout(&["man", &directory.path().to_string_lossy()])?;
    for name in ["fault.1", "fault-run.1", "fault-inject.1", "fault-play.1", "fault-doctor.1"] {
        let text = std::fs::read_to_string(directory.path().join(name)).context(name)?;
        ensure!(text.contains(".SH SYNOPSIS"), "{name}: {text}");
    }
    refused(&["man", "/no/such/directory"], 2)?;
    Ok(())
}

fn page(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("page")?;
    let counter = pair::counter(&lab, PEER_V4, 9000)?;
    let file = tempfile::NamedTempFile::new()?;
    let mut command = lab.in_target(&binary().to_string_lossy());
    command.args(["run", "--report"]).arg(file.path()).args(["--net", "drop 40% out udp", "--"]);
    command.args([
        &victim()?,
        "udp-send",
        &format!("{PEER_V4}:9000"),
        "--count",
        "400",
        "--pause-us",
        "3000",
    ]);
    let sent: Sent = Process::start(&mut command)?.report()?;
    let counted: Counted = counter.report()?;
    let lost = sent.sent - counted.received;
    let page = std::fs::read_to_string(file.path())?;
    // The table says what sender and receiver saw, and the bars have to come from somewhere.
    for cell in [format!(r#"<td class="n">{}</td>"#, sent.sent), format!(r#"<td class="n">{lost}</td>"#)] {
        ensure!(page.contains(&cell), "no {cell} on {page}");
    }
    ensure!(page.matches(r#"<rect class="hit" x="#).count() >= 3, "no bars on {page}");
    // Where it cannot be written, nothing is armed.
    let said = refused(&["run", "--report", "/no/such/page.html", "--net", "drop", "--", "true"], 2)?;
    ensure!(said.contains("/no/such/page.html"), "{said}");
    Ok(())
}
