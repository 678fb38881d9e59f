//! `--container`: those of systemd-nspawn.

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    echoes::{arrivals, until_none_arrive, until_some_arrive},
};
use crate::{
    container_lab::{must_be_there, pinging, root_file_system},
    driver::{Injection, refused},
    net_lab::{NetLab, PEER_V4, PEER_V4_OTHER},
    systemd_lab::{SHARED, SystemdLab},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[Test { name: "machines::of_nspawn", on: Lane::has_engines, run: of_nspawn }];

/// Machines, and whom they ask for echoes.
const MACHINES: [(&str, &str); 2] = [("e2evictim", PEER_V4), ("e2ebystander", PEER_V4_OTHER)];

/// Something to wait for: the containers start when they have files.
const READY: &str = "[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=sleep 600\n";

fn unit(name: &str) -> String {
    format!("systemd-nspawn@{name}.service")
}

/// A unit that starts the container as `machinectl start` does it, in the target's network namespace. There is no bus in the
/// test's machine, so nobody is told.
fn container(lab: &NetLab, name: &str, to: &str) -> String {
    format!(
        "[Unit]\nDefaultDependencies=no\n[Service]\nEnvironment=SYSTEMD_LOG_TARGET=console\nStandardOutput=null\nStandardError=file:{SHARED}/{name}.err\nDelegate=yes\nKillMode=mixed\n\
         ExecStart=/usr/bin/systemd-nspawn --quiet --machine={name} --directory={SHARED}/{name} --as-pid2 \
         --keep-unit --register=no --network-namespace-path=/run/netns/{} /bin/sh -c '{}'\n",
        lab.target,
        pinging(to)
    )
}

fn of_nspawn(_: Lane) -> anyhow::Result<()> {
    must_be_there(&["systemd-nspawn"])?;
    let lab = NetLab::new("nspawn")?;
    let (victim, bystander) = (unit("e2evictim"), unit("e2ebystander"));
    let units = MACHINES.map(|(name, to)| (unit(name), container(&lab, name, to)));
    let mut units: Vec<_> = units.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    units.push(("e2e-ready.service", READY.to_owned()));
    let systemd = SystemdLab::new(&units, &["e2e-ready.service"])?;
    for (name, _) in MACHINES {
        root_file_system(&std::path::Path::new(SHARED).join(name)).context("the container's files")?;
    }
    systemd.ctl(&format!("start {victim} {bystander}"))?;
    until_some_arrive(&lab, PEER_V4_OTHER).with_context(|| state(&systemd, &bystander))?;
    until_some_arrive(&lab, PEER_V4).with_context(|| state(&systemd, &victim))?;

    let drop = ["--net", "drop out icmp"];
    let injection = Injection::start(&[&["--container", "e2evictim"][..], &drop].concat())?;
    until_none_arrive(&lab, PEER_V4)?;
    ensure!(arrivals(&lab, PEER_V4_OTHER)? > 0, "the bystander was hit");
    // Another container of the same name.
    systemd.ctl(&format!("restart {victim}"))?;
    until_none_arrive(&lab, PEER_V4).context("restarted")?;
    ensure!(arrivals(&lab, PEER_V4_OTHER)? > 0, "restarted: the bystander was hit");
    let report = injection.heal()?;
    ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
    until_some_arrive(&lab, PEER_V4).context("it is still hit")?;

    systemd.ctl(&format!("stop {victim}"))?;
    let said = refused(&[&["inject", "--container", "e2evictim"][..], &drop].concat(), 2)?;
    ensure!(said.contains("e2evictim") && said.trim().lines().count() == 1, "{said}");
    Ok(())
}

/// What is the matter with a unit, for messages.
fn state(systemd: &SystemdLab, unit: &str) -> String {
    let name = unit.trim_start_matches("systemd-nspawn@").trim_end_matches(".service");
    let said = std::fs::read_to_string(format!("{SHARED}/{name}.err")).unwrap_or_default();
    systemd.ctl(&format!("show {unit} --property=ActiveState,Result,ExecMainStatus")).unwrap_or_default()
        + &said
}
