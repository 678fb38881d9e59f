//! `fault doctor`: exactly the answers each kernel is known for.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{Lane, Test};
use crate::driver::binary;

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "doctor::knows_this_kernel", on: not_native, run: knows_this_kernel },
    Test { name: "doctor::features_follow_from_capabilities", on: everywhere, run: features_follow },
    Test { name: "doctor::text_and_json_agree", on: everywhere, run: text_and_json_agree },
    Test { name: "doctor::without_privileges_it_says_so", on: everywhere, run: without_privileges },
];

/// Everything a user may ask for.
const FEATURES: [&str; 11] = [
    "packet_drop",
    "packet_delay",
    "packet_segments",
    "packet_corruption",
    "calls",
    "disk_error",
    "disk_delay",
    "file_error",
    "file_fsync",
    "file_open_delay",
    "file_fsync_delay",
];

fn everywhere(_: Lane) -> bool {
    true
}

fn not_native(lane: Lane) -> bool {
    lane != Lane::Native
}

fn json(command: &mut Command) -> anyhow::Result<(Option<i32>, Value)> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .with_context(|| format!("{text:?} {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code(), report))
}

fn doctor() -> anyhow::Result<Value> {
    let (status, report) = json(Command::new(binary()).args(["doctor", "--json"]))?;
    ensure!(status == Some(0), "exit status {status:?}");
    Ok(report)
}

/// Names of the capabilities whose `ok` is `answer`.
fn answered(report: &Value, answer: &Value) -> anyhow::Result<Vec<String>> {
    let lines = report["capabilities"].as_array().context("a list of capabilities")?;
    Ok(lines
        .iter()
        .filter(|line| line["ok"] == *answer)
        .filter_map(|line| line["name"].as_str().map(str::to_owned))
        .collect())
}

fn knows_this_kernel(lane: Lane) -> anyhow::Result<()> {
    // Where these are modules, udev would have made the devices; here nobody has.
    for (device, module) in [("/dev/fuse", "fuse"), ("/dev/net/tun", "tun")] {
        if !std::path::Path::new(device).exists() {
            ensure!(Command::new("modprobe").arg(module).status()?.success(), "modprobe {module}");
        }
    }
    let (no, untried): (&[&str], &[&str]) = match lane {
        Lane::Native | Lane::Fault => (&[], &[]),
        Lane::FmodOnly => (&["kprobe_override"], &[]),
        Lane::Debian612 => {
            (&["fmod_ret", "fmod_ret_sleepable", "kprobe_override", "syscall_hook"], &["hook_called"])
        }
        Lane::Debian61 => (
            &["tcx", "fmod_ret", "fmod_ret_sleepable", "kprobe_override", "task_from_pid", "syscall_hook"],
            &["hook_called"],
        ),
    };
    let report = doctor()?;
    ensure!(answered(&report, &Value::Bool(false))? == no, "{report:#}");
    ensure!(answered(&report, &Value::Null)? == untried, "{report:#}");
    for feature in FEATURES {
        let works = match feature {
            "disk_error" | "disk_delay" | "file_fsync" | "file_fsync_delay" => lane.has_block(),
            "file_open_delay" => lane != Lane::Debian61,
            _ => true,
        };
        ensure!(report["features"][feature]["ok"] == works, "{feature}: {report:#}");
    }
    Ok(())
}

fn features_follow(_: Lane) -> anyhow::Result<()> {
    let report = doctor()?;
    let features = report["features"].as_object().context("features")?;
    ensure!(features.len() == FEATURES.len(), "{report:#}");
    for (name, feature) in features {
        if feature["ok"] == true {
            ensure!(feature["missing"].is_null() && feature["why"].is_null(), "{name}: {feature:#}");
            continue;
        }
        // What is missing was found to be missing, with the same reason.
        let lines = report["capabilities"].as_array().context("capabilities")?;
        let line = lines.iter().find(|line| line["name"] == feature["missing"]).context("its capability")?;
        ensure!(line["ok"] == false && line["why"] == feature["why"], "{name}: {feature:#} {line:#}");
        ensure!(line["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{line:#}");
    }
    Ok(())
}

fn text_and_json_agree(_: Lane) -> anyhow::Result<()> {
    let report = doctor()?;
    let output = Command::new(binary()).arg("doctor").output()?;
    ensure!(output.status.success(), "{:?}", output.status);
    let text = String::from_utf8(output.stdout)?;
    for (name, feature) in report["features"].as_object().context("features")? {
        let name = name.replace('_', " ");
        let line = text.lines().find(|line| line.starts_with(&name)).context("a line per feature")?;
        let answer = line[name.len()..].split_whitespace().next();
        ensure!(answer == Some(if feature["ok"] == true { "yes" } else { "no" }), "{line}");
    }
    Ok(())
}

fn without_privileges(_: Lane) -> anyhow::Result<()> {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(binary()).args(["doctor", "--json"]);
    let (status, report) = json(&mut command)?;
    ensure!(status == Some(77), "exit status {status:?}");
    ensure!(answered(&report, &Value::Bool(false))? == ["permission"], "{report:#}");
    let drop = &report["features"]["packet_drop"];
    ensure!(drop["ok"] == false && drop["missing"] == "permission", "{drop:#}");
    ensure!(drop["why"].as_str().is_some_and(|why| why.contains("CAP_BPF")), "{drop:#}");
    Ok(())
}
