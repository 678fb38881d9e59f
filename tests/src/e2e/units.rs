//! `--unit`: services of a real systemd, of the system and of a user.

use std::{process::Command, time::Duration};

use anyhow::ensure;

use super::{
    Lane, Test,
    echoes::{arrivals, until_none_arrive, until_some_arrive},
};
use crate::{
    driver::{Injection, binary, refused, refused_by},
    net_lab::{NetLab, PEER_V4, PEER_V4_OTHER},
    systemd_lab::SystemdLab,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "units::services_of_the_system_and_of_a_user", on: Lane::has_engines, run: services },
    Test { name: "units::no_manager_is_one_sentence", on: Lane::has_engines, run: no_manager },
];

/// `fault`, where systemd answers.
fn aim(systemd: &SystemdLab) -> Command {
    let mut command = Command::new(binary());
    command.env("PATH", systemd.path());
    command
}

/// A service that asks `to` for echoes, fifty a second.
pub(super) fn pinger(lab: &NetLab, to: &str) -> String {
    format!(
        "[Unit]\nDefaultDependencies=no\n[Service]\nStandardOutput=null\nKillSignal=SIGKILL\n\
         ExecStart=nsenter --net=/run/netns/{} -- ping -q -i 0.02 {to}\n",
        lab.target
    )
}

fn services(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("unit")?;
    let manager = "[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nDelegate=yes\nSlice=user-1234.slice\n\
                   KillMode=mixed\nStandardOutput=null\nEnvironment=XDG_RUNTIME_DIR=/run/e2e HOME=/run/e2e\n\
                   ExecStartPre=mkdir -p /run/e2e\nExecStart=/lib/systemd/systemd --user --unit=e2e-user.target\n";
    let units = [
        ("e2e-victim.service", pinger(&lab, PEER_V4)),
        ("e2e-bystander.service", pinger(&lab, PEER_V4_OTHER)),
        ("e2e-idle.service", pinger(&lab, PEER_V4)),
        ("user@1234.service", manager.to_owned()),
    ];
    let systemd = SystemdLab::new(&units, &["e2e-victim.service", "e2e-bystander.service"])?;
    ensure!(arrivals(&lab, PEER_V4)? > 0, "the service sends nothing");

    let drop = ["--net", "drop out icmp"];
    let said = refused_by(aim(&systemd).args([&["inject", "--unit", "e2e-nobody"][..], &drop].concat()), 2)?;
    ensure!(said.contains("e2e-nobody.service") && said.trim().lines().count() == 1, "{said}");
    let said = refused_by(aim(&systemd).args([&["inject", "--unit", "e2e-idle"][..], &drop].concat()), 2)?;
    ensure!(said.contains("is inactive") && said.trim().lines().count() == 1, "{said}");

    let injection = Injection::start_with(aim(&systemd), &[&["--unit", "e2e-victim"][..], &drop].concat())?;
    until_none_arrive(&lab, PEER_V4)?;
    ensure!(arrivals(&lab, PEER_V4_OTHER)? > 0, "the bystander was hit");
    // A new cgroup of the same path.
    systemd.ctl("restart e2e-victim")?;
    until_none_arrive(&lab, PEER_V4)?;
    // Down for a while: the session waits.
    systemd.ctl("stop e2e-victim")?;
    std::thread::sleep(Duration::from_secs(2));
    systemd.ctl("start e2e-victim")?;
    systemd.wait_for("e2e-victim")?;
    until_none_arrive(&lab, PEER_V4)?;
    ensure!(arrivals(&lab, PEER_V4_OTHER)? > 0, "the bystander was hit");
    let report = injection.heal()?;
    ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
    ensure!(arrivals(&lab, PEER_V4)? > 0, "the service is still hit");
    systemd.ctl("stop e2e-victim")?;

    of_a_user(&lab, &systemd)
}

/// The manager of a user runs a unit of the same name as one of the system's that is down.
fn of_a_user(lab: &NetLab, systemd: &SystemdLab) -> anyhow::Result<()> {
    let directory = std::path::Path::new("/run/systemd/user");
    std::fs::create_dir_all(directory)?;
    let target = "[Unit]\nDefaultDependencies=no\nWants=e2e-victim.service\n";
    std::fs::write(directory.join("e2e-user.target"), target)?;
    std::fs::write(directory.join("e2e-victim.service"), pinger(lab, PEER_V4))?;
    systemd.ctl("start user@1234")?;
    systemd.wait_for("user@1234")?;
    until_some_arrive(lab, PEER_V4)?;
    let injection = Injection::start_with(aim(systemd), &["--unit", "e2e-victim", "--net", "drop out icmp"])?;
    until_none_arrive(lab, PEER_V4)?;
    ensure!(arrivals(lab, PEER_V4_OTHER)? > 0, "the bystander was hit");
    injection.heal()?;
    ensure!(arrivals(lab, PEER_V4)? > 0, "the user's service is still hit");
    Ok(())
}

fn no_manager(_: Lane) -> anyhow::Result<()> {
    let said = refused(&["inject", "--unit", "nginx", "--net", "drop"], 2)?;
    ensure!(said.contains("nginx.service") && said.trim().lines().count() == 1, "{said}");
    let said = refused(&["inject", "--unit", "a/b", "--net", "drop"], 2)?;
    ensure!(said.contains("a/b") && said.trim().lines().count() == 1, "{said}");
    Ok(())
}
