//! `--container`: of Docker and Podman, restarted and made anew in the middle of a session, and of runtimes without an engine.

use anyhow::ensure;

use super::{
    Lane, Test,
    echoes::{arrivals, arrivals_at, until, until_none_arrive, until_some_arrive},
};
use crate::{
    container_lab::{Bundle, Containerd, Engine, Kind, must_be_there, pinging, plug},
    driver::{Injection, refused},
    net_lab::{NetLab, PEER_V4, PEER_V4_OTHER},
};

/// The tests of this file. Engines use the machine as they please, so only machines of our own; and what they do is the same
/// on every kernel, so each is tried on one of them; runtimes alone where programs hang on clsact.
pub const TESTS: &[Test] = &[
    Test { name: "containers::podman", on: Lane::has_engines, run: podman },
    Test { name: "containers::docker", on: on_ours, run: docker },
    Test { name: "containers::of_a_pod", on: on_ours, run: pod },
    Test { name: "containers::of_runtimes_alone", on: on_oldest, run: runtimes },
];

fn on_ours(lane: Lane) -> bool {
    lane == Lane::Fault
}

fn on_oldest(lane: Lane) -> bool {
    lane == Lane::Debian61
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

/// Two containers of one pod share a network namespace; one of them is the target. Then it is started again, as a kubelet does:
/// with another id.
fn pod(_: Lane) -> anyhow::Result<()> {
    must_be_there(&["containerd", "ctr", "runc"])?;
    let lab = NetLab::new("pod")?;
    let mut containerd = Containerd::new()?;
    containerd.run(&lab, ["web-0", "prod", "sidecar"], &pinging(PEER_V4_OTHER))?;
    containerd.run(&lab, ["web-0", "prod", "app"], &pinging(PEER_V4))?;
    until_some_arrive(&lab, PEER_V4)?;
    until_some_arrive(&lab, PEER_V4_OTHER)?;
    let drop = ["--net", "drop out icmp"];
    let said = refused(&[&["inject", "--container", "web-0/prod/ap"][..], &drop].concat(), 2)?;
    ensure!(said.contains("\"web-0/prod/app\""), "{said}");
    let injection = Injection::start(&[&["--container", "web-0/prod/app"][..], &drop].concat())?;
    until_none_arrive(&lab, PEER_V4)?;
    ensure!(arrivals(&lab, PEER_V4_OTHER)? > 0, "the other container of the pod was hit");
    containerd.end()?;
    containerd.run(&lab, ["web-0", "prod", "app"], "sleep 1000")?;
    containerd.end()?;
    containerd.run(&lab, ["web-0", "prod", "app"], &pinging(PEER_V4))?;
    until_none_arrive(&lab, PEER_V4)?;
    let report = injection.heal()?;
    ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
    until_some_arrive(&lab, PEER_V4)
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
