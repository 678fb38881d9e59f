//! `packaging/fault.service`, as it ships, under a real systemd.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    Lane, Test,
    echoes::{arrivals, until, until_none_arrive, until_some_arrive},
    units::pinger,
};
use crate::{
    driver::binary,
    net_lab::{NetLab, PEER_V4, sh},
    process::Ended,
    residue::Picture,
    systemd_lab::SystemdLab,
};

/// The tests of this file.
pub const TESTS: &[Test] =
    // On the older one what a killed service leaves is the keeper's business.
    &[Test { name: "service_unit::from_start_to_crash", on: Lane::is_debian, run: from_start_to_crash }];

/// As it ships.
const UNIT: &str = include_str!("../../../packaging/fault.service");
/// The test's systemd has none of what other units want to come after.
const DROP_IN: &str = "[Unit]\nDefaultDependencies=no\n";
/// Where the unit looks for the program.
const INSTALLED: &str = "/usr/local/bin/fault";

/// The program where the unit wants it, as long as this lives.
struct Installed;

impl Installed {
    fn new() -> anyhow::Result<Self> {
        symlink(binary(), INSTALLED).context(INSTALLED)?;
        Ok(Self)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(INSTALLED) {
            eprintln!("{INSTALLED}: {error}");
        }
    }
}

/// The service's socket, in the file system that systemd sees.
fn socket(systemd: &SystemdLab) -> PathBuf {
    systemd.root().join("run/fault/fault.sock")
}

/// One request, answered at the first try.
fn ask(systemd: &SystemdLab, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "60", "--fail-with-body", "--unix-socket"]).arg(socket(systemd));
    command.arg(format!("http://fault{path}"));
    if let Some(body) = body {
        command.args(["--json", &body.to_string()]);
    }
    let ended = Ended::of(&mut command)?;
    ensure!(ended.status.success(), "{path}: {}{}", ended.stderr, ended.stdout);
    Ok(serde_json::from_str(&ended.stdout)?)
}

/// Late packets, for which most is put into the system, and lost ones, which can be seen at once.
fn cut(systemd: &SystemdLab) -> anyhow::Result<()> {
    let faults = ["drop out icmp", "delay 20ms out udp"];
    let view = ask(systemd, "/v1/sessions", Some(&json!({"unit": ["e2e-victim"], "net": faults})))?;
    ensure!(view["state"] == "active", "{view}");
    Ok(())
}

/// A property of the service.
fn property(systemd: &SystemdLab, name: &str) -> anyhow::Result<String> {
    Ok(systemd.ctl(&format!("show --value --property={name} fault.service"))?.trim().to_owned())
}

/// The qdiscs of the target's namespace.
fn qdiscs(lab: &NetLab) -> anyhow::Result<String> {
    sh(&format!("tc -n {} qdisc show", lab.target))
}

fn from_start_to_crash(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("svc")?;
    let _installed = Installed::new()?;
    let units = [
        ("e2e-victim.service", pinger(&lab, PEER_V4)),
        ("fault.service", UNIT.to_owned()),
        ("fault.service.d/e2e.conf", DROP_IN.to_owned()),
    ];
    let systemd = SystemdLab::new(&units, &["e2e-victim.service"])?;
    until_some_arrive(&lab, PEER_V4)?;
    let (before, qdiscs_before) = (Picture::take()?, qdiscs(&lab)?);

    // `systemctl start` waits for the notification: there is somebody to ask at once.
    systemd.ctl("start fault.service")?;
    ensure!(property(&systemd, "ActiveState")? == "active", "not active");
    cut(&systemd)?;
    until_none_arrive(&lab, PEER_V4)?;

    systemd.ctl("stop fault.service")?;
    ensure!(arrivals(&lab, PEER_V4)? > 0, "the target is still hit");
    ensure!(property(&systemd, "Result")? == "success", "{}", systemd.ctl("show fault.service")?);
    ensure!(!socket(&systemd).exists() && !socket(&systemd).parent().is_some_and(Path::exists), "/run/fault");
    ensure!(qdiscs(&lab)? == qdiscs_before, "{}", qdiscs(&lab)?);
    before.must_return().context("stopped")?;

    systemd.ctl("start fault.service")?;
    let first = property(&systemd, "MainPID")?;
    cut(&systemd)?;
    until_none_arrive(&lab, PEER_V4)?;
    systemd.ctl("kill --kill-whom=main --signal=KILL fault.service")?;
    let is_another = || {
        Ok(property(&systemd, "NRestarts")? == "1"
            && property(&systemd, "ActiveState")? == "active"
            && property(&systemd, "MainPID")? != first)
    };
    until(is_another, || format!("not restarted: {:?}", systemd.ctl("show fault.service")))?;
    ensure!(arrivals(&lab, PEER_V4)? > 0, "the target is still hit");
    let sessions = ask(&systemd, "/v1/sessions", None)?;
    ensure!(sessions == json!({"sessions": []}), "{sessions}");
    // The new service is idle: what is not its own is the dead one's.
    until(|| Ok(qdiscs(&lab)? == qdiscs_before), || format!("left: {:?}", qdiscs(&lab)))?;
    systemd.ctl("stop fault.service")?;
    before.must_return().context("crashed")
}
