//! What a packet pays that is not hit: a bystander's, and one of the target that the rules spare.
//!
//! Two ways. `BPF_PROG_TEST_RUN` runs a program many times on one packet and takes the mean: exact, caches hot, but
//! only where the packet stays what it was (a decision marks it) and needs no socket of its own. The kernel's
//! run-time statistics measure every run under real traffic, clock included; what an empty program on the same hook
//! takes at the same time is taken off.

use std::{os::fd::OwnedFd, process::Command, thread, time::Duration};

use anyhow::{Context as _, ensure};
use aya_obj::generated::bpf_attach_type::{BPF_TCX_EGRESS, BPF_TCX_INGRESS};

use super::{
    Setting,
    bpf::{Order, Program, Statistics},
    figure::{Figure, Target},
    netns::inside,
};
use crate::{
    driver::{Injection, victim},
    net_lab::{NetLab, PEER_V4, TARGET_IFACE, TARGET_V4},
    process::Process,
    victim::report::Sent,
};

const ROUNDS: usize = 5;
/// Of `BPF_PROG_TEST_RUN`.
const REPEAT: u32 = 1_000_000;
/// Datagrams of one measurement under real traffic.
const DATAGRAMS: u64 = 200_000;
/// Ports that the parties listen on.
const TARGET_PORT: u16 = 7001;
const BYSTANDER_PORT: u16 = 7002;
/// Port nobody listens on.
const OTHER_PORT: u16 = 7003;

const BYSTANDER: Target = Target::AtMost(30.0);
const SPARED: Target = Target::AtMost(80.0);

/// Rules that spare every packet of the lab (one in a million, for the second).
const OTHER_PEER: &str = "drop to 192.0.2.1";
const ALMOST_NEVER: &str = "drop 0.0001%";

/// Samples of one cost: with everything, and without what the empty program takes.
#[derive(Default)]
struct Cost {
    whole: Vec<f64>,
    net: Vec<f64>,
}

impl Cost {
    fn push(&mut self, whole: f64, reference: f64) {
        self.whole.push(whole);
        self.net.push(whole - reference);
    }

    fn figure(&self, what: &str, target: Target) -> Figure {
        Figure::median(what, "ns", &self.net).target(target)
    }
}

#[derive(Default)]
struct Costs {
    /// Test runs.
    reference: Vec<f64>,
    bystander_out: Cost,
    bystander_in: Cost,
    spared_in: Cost,
    /// Real traffic.
    clock: Vec<f64>,
    real_bystander_out: Cost,
    real_bystander_in: Cost,
    real_spared_out: Cost,
    real_spared_in: Cost,
    real_decided_out: Cost,
    real_decided_in: Cost,
}

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let lab = NetLab::new("bench-packet")?;
    let reference = Program::reference()?;
    let _links = inside(&lab.target, || attach(&reference))?;
    let mut costs = Costs::default();
    for _ in 0..ROUNDS {
        other_peer(&lab, &reference, &mut costs)?;
        decided(&lab, &reference, &mut costs)?;
    }
    let c = &costs;
    Ok(vec![
        c.bystander_out.figure("bystander, egress (test run)", BYSTANDER),
        c.bystander_in.figure("bystander, ingress (test run)", BYSTANDER),
        c.spared_in.figure("spared by `to`, ingress (test run)", SPARED),
        Figure::median("  empty program (test run)", "ns", &c.reference),
        c.real_bystander_out.figure("bystander, egress (traffic)", BYSTANDER),
        c.real_bystander_in.figure("bystander, ingress (traffic)", BYSTANDER),
        c.real_spared_out.figure("spared by `to`, egress (traffic)", SPARED),
        c.real_spared_in.figure("spared by `to`, ingress (traffic)", SPARED),
        c.real_decided_out.figure("spared by decision, egress (traffic)", SPARED),
        c.real_decided_in.figure("spared by decision, ingress (traffic)", SPARED),
        Figure::median("  empty program (traffic, mostly the clock)", "ns", &c.clock),
    ])
}

/// Puts a program on both hooks of the target's interface, from within its namespace.
pub(super) fn attach(reference: &Program) -> anyhow::Result<[OwnedFd; 2]> {
    let ifindex = nix::net::if_::if_nametoindex(TARGET_IFACE)?;
    let attach = |way| reference.attach(ifindex, way, Order::Last);
    Ok([attach(BPF_TCX_EGRESS)?, attach(BPF_TCX_INGRESS)?])
}

/// A session with one fault on a sender and a listener in the target's namespace.
struct Session {
    sender: Process,
    _listener: Process,
    injection: Injection,
    egress: Program,
    ingress: Program,
    /// In front of `ingress`. What arrives was written by another CPU, and whoever reads it first waits for it: without a program
    /// that is IP, just behind the hook.
    _reader: OwnedFd,
}

impl Session {
    fn start(lab: &NetLab, fault: &str) -> anyhow::Result<Self> {
        let sender = sender(lab.in_target(&victim()?), PEER_V4, TARGET_PORT)?;
        let listener = listener(lab.in_target(&victim()?), TARGET_V4, TARGET_PORT)?;
        let injection =
            Injection::start(&["--pid", &sender.pid(), "--pid", &listener.pid(), "--net", fault])?;
        let program = |name| Program::held_by(injection.pid().as_raw(), name);
        let (egress, ingress) = (program("net_egress")?, program("net_ingress")?);
        let reader = Program::reader()?;
        let _reader = inside(&lab.target, || {
            reader.attach(nix::net::if_::if_nametoindex(TARGET_IFACE)?, BPF_TCX_INGRESS, Order::First)
        })?;
        Ok(Self { sender, _listener: listener, injection, egress, ingress, _reader })
    }

    fn end(self) -> anyhow::Result<()> {
        drop(self.sender);
        self.injection.heal().map(drop)
    }
}

fn sender(mut command: Command, to: &str, port: u16) -> anyhow::Result<Process> {
    let count = DATAGRAMS.to_string();
    command.args(["udp-send", &format!("{to}:{port}"), "--wait", "--burst", "500", "--count", &count]);
    Process::start(&mut command)
}

fn listener(mut command: Command, on: &str, port: u16) -> anyhow::Result<Process> {
    command.args(["udp-count", &format!("{on}:{port}")]);
    Process::start_until(&mut command, "ready")
}

fn other_peer(lab: &NetLab, reference: &Program, costs: &mut Costs) -> anyhow::Result<()> {
    let session = Session::start(lab, OTHER_PEER)?;
    inside(&lab.target, || {
        let out = datagram(TARGET_V4, PEER_V4, OTHER_PORT)?;
        let to_other = datagram(PEER_V4, TARGET_V4, OTHER_PORT)?;
        let to_target = datagram(PEER_V4, TARGET_V4, TARGET_PORT)?;
        let empty = passing(reference, &out)?;
        costs.reference.push(empty);
        costs.bystander_out.push(passing(&session.egress, &out)?, empty);
        costs.bystander_in.push(passing(&session.ingress, &to_other)?, empty);
        costs.spared_in.push(passing(&session.ingress, &to_target)?, empty);
        Ok(())
    })?;
    let _statistics = Statistics::on()?;
    bystanders(lab, reference, &session, costs)?;
    let mut session = session;
    let (whole, clock) = target_sends(lab, reference, &mut session)?;
    costs.real_spared_out.push(whole, clock);
    let (whole, clock) = target_receives(lab, reference, &session)?;
    costs.real_spared_in.push(whole, clock);
    session.end()
}

fn decided(lab: &NetLab, reference: &Program, costs: &mut Costs) -> anyhow::Result<()> {
    let mut session = Session::start(lab, ALMOST_NEVER)?;
    let _statistics = Statistics::on()?;
    let (whole, clock) = target_sends(lab, reference, &mut session)?;
    costs.real_decided_out.push(whole, clock);
    let (whole, clock) = target_receives(lab, reference, &session)?;
    costs.real_decided_in.push(whole, clock);
    session.end()
}

fn bystanders(lab: &NetLab, reference: &Program, session: &Session, costs: &mut Costs) -> anyhow::Result<()> {
    let _far = listener(lab.in_peer(&victim()?), PEER_V4, BYSTANDER_PORT)?;
    let out = sender(lab.in_target(&victim()?), PEER_V4, BYSTANDER_PORT)?;
    let (whole, clock) = under(&session.egress, reference, out)?;
    costs.real_bystander_out.push(whole, clock);
    costs.clock.push(clock);
    let _near = listener(lab.in_target(&victim()?), TARGET_V4, BYSTANDER_PORT)?;
    let back = sender(lab.in_peer(&victim()?), TARGET_V4, BYSTANDER_PORT)?;
    let (whole, clock) = under(&session.ingress, reference, back)?;
    costs.real_bystander_in.push(whole, clock);
    Ok(())
}

fn target_sends(lab: &NetLab, reference: &Program, session: &mut Session) -> anyhow::Result<(f64, f64)> {
    let _far = listener(lab.in_peer(&victim()?), PEER_V4, TARGET_PORT)?;
    let idle = Process::start(Command::new("sleep").arg("0"))?;
    let sender = std::mem::replace(&mut session.sender, idle);
    under(&session.egress, reference, sender)
}

fn target_receives(lab: &NetLab, reference: &Program, session: &Session) -> anyhow::Result<(f64, f64)> {
    let back = sender(lab.in_peer(&victim()?), TARGET_V4, TARGET_PORT)?;
    under(&session.ingress, reference, back)
}

/// Nanoseconds a run of `program` and one of `reference` takes while `sender` sends.
fn under(program: &Program, reference: &Program, mut sender: Process) -> anyhow::Result<(f64, f64)> {
    // Whatever the last traffic left behind.
    thread::sleep(Duration::from_millis(20));
    let before = (program.runs()?, reference.runs()?);
    sender.release()?;
    let sent: Sent = sender.report()?;
    ensure!(sent.errors.is_empty(), "sending failed: {:?}", sent.errors);
    thread::sleep(Duration::from_millis(20));
    let (count, whole) = program.runs()?.since(before.0)?;
    let (passed, clock) = reference.runs()?.since(before.1)?;
    let expected = DATAGRAMS..DATAGRAMS + DATAGRAMS / 100;
    ensure!(expected.contains(&count), "{count} runs for {DATAGRAMS} datagrams");
    // One in a million of the target's may be lost before it gets there.
    ensure!(passed + DATAGRAMS / 100 >= DATAGRAMS, "only {passed} of {DATAGRAMS} passed");
    Ok((whole, clock))
}

/// Nanoseconds one run takes, which must let the packet pass.
fn passing(program: &Program, packet: &[u8]) -> anyhow::Result<f64> {
    let (cost, returned) = program.test_run(packet, REPEAT)?;
    ensure!(returned == -1, "the program returned {returned} instead of TCX_NEXT");
    Ok(cost)
}

/// Ethernet, IPv4, UDP and 64 bytes of payload; checksums are not looked at.
fn datagram(from: &str, to: &str, port: u16) -> anyhow::Result<Vec<u8>> {
    const PAYLOAD: u16 = 64;
    let address = |text: &str| -> anyhow::Result<[u8; 4]> {
        Ok(text.parse::<std::net::Ipv4Addr>().context("an address of the lab")?.octets())
    };
    let mut packet = vec![0u8; 12];
    packet.extend([0x08, 0x00]);
    packet.extend([0x45, 0]);
    packet.extend((20 + 8 + PAYLOAD).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(address(from)?);
    packet.extend(address(to)?);
    for word in [40_000, port, 8 + PAYLOAD, 0] {
        packet.extend(word.to_be_bytes());
    }
    packet.resize(packet.len() + usize::from(PAYLOAD), 0);
    Ok(packet)
}
