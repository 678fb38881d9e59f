//! `--container`: of Docker and Podman, restarted and made anew in the middle of a session, and of runtimes without an engine.

use anyhow::ensure;

use super::{
    Lane, Test,
    echoes::{arrivals, arrivals_at, until, until_none_arrive, until_some_arrive},
};
use crate::{
    container_lab::{Bundle, Engine, Kind, must_be_there, pinging, plug},
    driver::{Injection, refused},
    net_lab::{NetLab, PEER_V4, PEER_V4_OTHER},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "containers::podman", on: in_a_vm, run: podman },
    Test { name: "containers::docker", on: in_a_vm, run: docker },
    Test { name: "containers::of_runtimes_alone", on: in_a_vm, run: runtimes },
];

/// Engines use the machine as they please.
fn in_a_vm(lane: Lane) -> bool {
    lane.tests_packets() && lane != Lane::Native
}

/// Of the victim and of the bystander, and what tells their cables apart.
const VICTIM: (&str, u32) = ("e2e-web", 1);
const BYSTANDER: (&str, u32) = ("e2e-db", 2);

fn podman(_: Lane) -> anyhow::Result<()> {
    must_be_there(&["podman", "conmon", "crun"])?;
    engine(Kind::Podman)
}

fn docker(_: Lane) -> anyhow::Result<()> {
    must_be_there(&["dockerd", "docker", "containerd", "runc"])?;
    engine(Kind::Docker)
}

fn address(number: u32) -> String {
    format!("10.88.{number}.1")
}

/// A container that asks the peer for echoes.
fn start(engine: &Engine, lab: &NetLab, (name, number): (&str, u32)) -> anyhow::Result<String> {
    let id = engine.run(name, &pinging(&address(number)))?;
    plug(lab, &engine.pid(name)?, number)?;
    Ok(id)
}

fn engine(kind: Kind) -> anyhow::Result<()> {
    let lab = NetLab::new("ct")?;
    let engine = Engine::new(kind)?;
    let sends = |(_, number): (&str, u32)| Ok(arrivals_at(&lab.peer, "any", &address(number))? > 0);
    let is_cut = |what: &str| until(|| Ok(!sends(VICTIM)?), || format!("{what}: it still sends"));
    start(&engine, &lab, BYSTANDER)?;
    let id = start(&engine, &lab, VICTIM)?;
    until(|| Ok(sends(VICTIM)? && sends(BYSTANDER)?), || "the containers send nothing".to_owned())?;
    let drop = ["--net", "drop out icmp"];

    let wrong = |name: &str, expected: &str| -> anyhow::Result<()> {
        let said = refused(&[&["inject", "--container", name][..], &drop].concat(), 2)?;
        ensure!(said.contains(expected) && said.trim().lines().count() == 1, "{name}: {said}");
        Ok(())
    };
    wrong("e2e-wep", "did you mean \"e2e-web\"?")?;
    wrong("e2e-web/x", "pod/namespace/container")?;

    // By the beginning of its id, without anything that follows it.
    let injection = Injection::start(&[&["--container", &id[..12]][..], &drop].concat())?;
    is_cut("by its id")?;
    injection.heal()?;
    until(|| sends(VICTIM), || "it is still hit".to_owned())?;

    let injection = Injection::start(&[&["--container", VICTIM.0][..], &drop].concat())?;
    is_cut("by its name")?;
    // The same container with a new cgroup and a new network namespace.
    engine.call(&["restart", "-t", "0", VICTIM.0])?;
    plug(&lab, &engine.pid(VICTIM.0)?, VICTIM.1)?;
    is_cut("restarted")?;
    // Another container of the same name.
    engine.call(&["rm", "-f", VICTIM.0])?;
    let other = start(&engine, &lab, VICTIM)?;
    ensure!(other != id, "the engine made the same container again");
    is_cut("made anew")?;
    ensure!(sends(BYSTANDER)?, "the bystander was hit");
    let report = injection.heal()?;
    ensure!(report.status.success() && report.rule(0, "injected")? > 0, "{}", report.json);
    until(|| sends(VICTIM), || "it is still hit".to_owned())?;

    engine.call(&["stop", "-t", "0", VICTIM.0])?;
    wrong(VICTIM.0, "does not run")
}

fn runtimes(_: Lane) -> anyhow::Result<()> {
    must_be_there(&["crun", "runc"])?;
    let lab = NetLab::new("oci")?;
    let drop = ["--net", "drop out icmp"];
    for runtime in ["crun", "runc"] {
        let victim = Bundle::run(runtime, "e2eaa", &lab, &pinging(PEER_V4))?;
        let _bystander = Bundle::run(runtime, "e2eab", &lab, &pinging(PEER_V4_OTHER))?;
        until_some_arrive(&lab, PEER_V4)?;
        // These ids are digits of hexadecimal numbers.
        let said = refused(&[&["inject", "--container", "e2ea"][..], &drop].concat(), 2)?;
        ensure!(
            said.contains("e2eaa") && said.contains("e2eab") && said.trim().lines().count() == 1,
            "{said}"
        );
        let injection = Injection::start(&[&["--container", "e2eaa"][..], &drop].concat())?;
        until_none_arrive(&lab, PEER_V4)?;
        ensure!(arrivals(&lab, PEER_V4_OTHER)? > 0, "the bystander was hit");
        std::mem::drop(victim);
        let _victim = Bundle::run(runtime, "e2eaa", &lab, &pinging(PEER_V4))?;
        until_none_arrive(&lab, PEER_V4)?;
        let report = injection.heal()?;
        ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
        until_some_arrive(&lab, PEER_V4)?;
    }
    Ok(())
}
