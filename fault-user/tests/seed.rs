//! The kernel decides what userspace says it will: the same seed hits the same packets, and `--dry-run` can
//! know them beforehand. Needs root, tc hooks and ping(8).

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeSet, process::Command};

use fault_common::{
    counters::RuleCounters,
    decide::{Moment, decide, simulation::Simulation},
    who::Stream,
};
use fault_user::{session::plan::Plan, spec};

const SPEC: &str = "drop 30% out icmp to 127.0.0.1";
const PINGS: u64 = 100;

/// Which of the packets of the session's first stream the decision hits, from 1.
fn predicted(spec: &str, seed: u64) -> BTreeSet<u64> {
    let plan = Plan::new(vec![spec::parse(spec::Layer::Net, spec).unwrap()], &[], seed, None).unwrap();
    let rules = [plan.rules[0].rule];
    let counters = [RuleCounters::default()];
    let mut stream = Stream::new(1);
    let moment = Moment { seed, stream: stream.number, bytes: 98, ..Moment::default() };
    let hit = |_: &u64| {
        let mut world = Simulation::of(&rules, &counters, &mut stream);
        decide(&mut world, 1, &moment).hits != 0
    };
    (1..=PINGS).filter(hit).collect()
}

/// Which echo requests got no answer, as ping saw it.
fn lost(seed: u64) -> BTreeSet<u64> {
    let output = Command::new(env!("CARGO_BIN_EXE_fault"))
        .args(["run", "--quiet", "--seed", &seed.to_string(), "--net", SPEC, "--"])
        .args(["ping", "-n", "-c", &PINGS.to_string(), "-i", "0.01", "-W", "1", "127.0.0.1"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lost: BTreeSet<u64> = (1..=PINGS).collect();
    for answer in text.lines().filter_map(|line| line.split_once("icmp_seq=")) {
        let number = answer.1.split(' ').next().unwrap().parse().unwrap();
        assert!(lost.remove(&number), "{number} was answered twice: {text}");
    }
    assert!(
        text.contains(&format!("{PINGS} packets transmitted")),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    lost
}

#[test]
fn the_kernel_hits_the_packets_that_userspace_predicts() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    for seed in [7, 2026] {
        assert_eq!(lost(seed), predicted(SPEC, seed), "seed {seed}");
    }
}
