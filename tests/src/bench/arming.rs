//! How long it takes to arm a session, to change its rules, and to heal.
//!
//! Through the library, in this process: what a long-running controller pays. What a command line adds (starting
//! the program, its keeper and the command) is measured as well.

use std::{
    net::UdpSocket,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use fault_user::{
    session::{
        Active, End,
        arm::{Armed, Request},
        plan::Plan,
    },
    spec::{Fault, Layer, parse},
    target::Target as Victims,
};

use super::{
    Setting,
    figure::{Figure, Target},
    netns::inside,
};
use crate::{
    driver::{Injection, fault, victim},
    net_lab::{NetLab, PEER_V4},
    process::Process,
    victim::report::{cpu_ns, now_ns},
};
use nix::sys::signal::Signal;

const ROUNDS: usize = 21;
/// Changes of rules in one session.
const CHANGES: usize = 11;
/// Whole command lines.
const COMMANDS: usize = 5;
/// Healings as the target feels them.
const HEALINGS: usize = 11;

pub(super) fn run(setting: &Setting) -> anyhow::Result<Vec<Figure>> {
    let lab = NetLab::new("bench-arming")?;
    let victim = Process::start(lab.in_target("sleep").arg("1000"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut arming, mut changing, mut healing) = (Vec::new(), Vec::new(), Vec::new());
    let (mut arming_cpu, mut healing_cpu) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        runtime.block_on(async {
            let (started, cpu) = (Instant::now(), cpu_ns());
            let mut active = arm(setting, victim.pid().parse()?)?;
            arming.push(milliseconds(started));
            arming_cpu.push((cpu_ns() - cpu) as f64 / 1e6);
            for _ in 0..CHANGES {
                let plan = rules()?;
                let started = Instant::now();
                active.change(plan)?;
                changing.push(milliseconds(started));
            }
            let (started, cpu) = (Instant::now(), cpu_ns());
            let healed = active.heal(End::Deadline).await;
            healing.push(milliseconds(started));
            healing_cpu.push((cpu_ns() - cpu) as f64 / 1e6);
            ensure!(healed.troubles.is_empty(), "{:?}", healed.troubles);
            anyhow::Ok(())
        })?;
    }
    let felt = (0..HEALINGS).map(|_| felt_healing(&lab)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut inject = Vec::new();
    let mut whole = Vec::new();
    for _ in 0..COMMANDS {
        let [first, second] = RULES;
        let started = Instant::now();
        let injection = Injection::start(&["--pid", &victim.pid(), "--net", first, "--net", second])?;
        inject.push(milliseconds(started));
        injection.heal()?;
        let mut command = fault(&["run", "--net", first, "--net", second, "--", "true"]);
        whole.push(wall(&mut command)?);
    }
    let mut bare = Vec::new();
    for _ in 0..COMMANDS {
        bare.push(wall(&mut fault(&["--version"]))?);
    }
    Ok(vec![
        Figure::median("arming two rules", "ms", &arming).target(Target::AtMost(150.0)),
        Figure::median("changing the rules", "ms", &changing).target(Target::AtMost(1.0)),
        Figure::median("healing, signal to first packet through", "ms", &felt).target(Target::AtMost(20.0)),
        Figure::median("healing, until nothing is left in the kernel", "ms", &healing),
        Figure::least("  arming, best case", "ms", &arming),
        Figure::median("  arming, CPU time", "ms", &arming_cpu),
        Figure::least("  healing, best case", "ms", &healing),
        Figure::median("  healing, CPU time", "ms", &healing_cpu),
        Figure::median("  `fault inject`, start to active", "ms", &inject),
        Figure::median("  `fault run … -- true`, whole", "ms", &whole),
        Figure::median("  `fault --version`, whole", "ms", &bare),
    ])
}

/// One names a peer, so that the table of peers is part of it.
const RULES: [&str; 2] = ["drop 10% in", "drop 5% out to 10.77.0.2:5432"];

fn rules() -> anyhow::Result<Plan> {
    let faults = RULES.iter().map(|text| parse(Layer::Net, text)).collect::<Result<Vec<Fault>, _>>()?;
    Ok(Plan::new(faults, &[], 1, None)?)
}

fn arm(setting: &Setting, pid: u32) -> anyhow::Result<Active> {
    let keeper = Arc::clone(&setting.keeper);
    let mut target = Victims::nobody([keeper.pid()]);
    target.add_pid(pid)?;
    let request = Request::new(rules()?, target, keeper);
    Ok(Armed::arm(request)?.activate()?)
}

/// Milliseconds from the signal that ends a session to the first packet that its target gets through.
fn felt_healing(lab: &NetLab) -> anyhow::Result<f64> {
    let counter = inside(&lab.peer, || Ok(UdpSocket::bind((PEER_V4, 0))?))?;
    counter.set_read_timeout(Some(Duration::from_secs(20)))?;
    let to = counter.local_addr()?.to_string();
    let mut command = lab.in_target(&victim()?);
    command.args(["udp-send", &to, "--wait", "--pause-us", "50", "--count", "100000000"]);
    let mut sender = Process::start(&mut command)?;
    let injection = Injection::start(&["--pid", &sender.pid(), "--net", "drop out"])?;
    sender.release()?;
    // Time enough to start sending, also on a busy machine.
    std::thread::sleep(Duration::from_millis(500));
    let signalled = now_ns();
    injection.signal(Signal::SIGTERM)?;
    let mut datagram = [0u8; 64];
    counter.recv(&mut datagram).context("nothing came through after the session")?;
    let sent: [u8; 8] = datagram[8..16].try_into().context("eight bytes")?;
    let late = u64::from_le_bytes(sent).checked_sub(signalled).context("a packet came through before")?;
    let report = injection.wait()?;
    ensure!(report.rule(0, "injected")? > 0, "nothing was dropped: {}", report.json);
    Ok(late as f64 / 1e6)
}

/// Milliseconds a command takes, which must succeed.
fn wall(command: &mut Command) -> anyhow::Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Instant::now();
    let status = command.status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(milliseconds(started))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
