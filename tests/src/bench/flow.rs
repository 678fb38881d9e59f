//! One TCP flow at 10, 100 and 300 ms: through the lane, and through netem on the same interface.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{
    Setting,
    figure::{Figure, Target},
};
use crate::{
    driver::Injection,
    net_lab::{NetLab, PEER_V4, TARGET_IFACE, sh},
    process::{Ended, Process},
};

const ROUNDS: usize = 11;
/// Measured seconds of a flow, after the seconds of slow start, which are not.
const SECONDS: &str = "6";
const SLOW_START: &str = "4";
/// iperf3's, and as /proc/net/tcp writes it.
const PORT: &str = "5201";
const PORT_HEX: &str = ":1451 ";
const DELAYS_MS: [u64; 3] = [10, 100, 300];
/// What limits the flow: so many bytes of window for each millisecond of delay, which is below what an emulated machine can send.
/// A flow limited by the machine would measure what else the machine does.
const WINDOW_PER_MS: u64 = 28_000;
/// Grows to the window without looking at delays, which on an emulated machine are no sign of a full path.
const CONGESTION: &str = "reno";

/// What delays the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Nothing,
    Netem,
    Fault,
}

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let lab = NetLab::new("bench-flow")?;
    let undelayed = flow(&lab, By::Nothing, 0)?;
    let mut figures = Vec::new();
    for delay_ms in DELAYS_MS {
        figures.extend(at(&lab, delay_ms)?);
    }
    figures.push(Figure::median("  without delay", "Mbit/s", &[undelayed]));
    Ok(figures)
}

fn at(lab: &NetLab, delay_ms: u64) -> anyhow::Result<[Figure; 3]> {
    for namespace in [&lab.target, &lab.peer] {
        for key in ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"] {
            let window = format!("{key}=4096 131072 {}", delay_ms * WINDOW_PER_MS);
            let mut command = std::process::Command::new("ip");
            command.args(["netns", "exec", namespace, "sysctl", "-qw", &window]);
            ensure!(Ended::of(&mut command)?.status.success(), "setting {window}");
        }
    }
    let (mut netem, mut lane) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Who comes first changes, so that a drift favours nobody.
        let order = if round % 2 == 0 { [By::Netem, By::Fault] } else { [By::Fault, By::Netem] };
        for by in order {
            let speed = flow(lab, by, delay_ms)?;
            eprintln!("  {by:?}, {delay_ms} ms: {speed:.1} Mbit/s");
            if by == By::Netem { netem.push(speed) } else { lane.push(speed) }
        }
    }
    let ratios: Vec<f64> = lane.iter().zip(&netem).map(|(lane, netem)| lane / netem).collect();
    Ok([
        Figure::ratio(format!("one TCP flow at {delay_ms} ms, lane / netem"), &ratios)
            .target(Target::AtLeast(1.0)),
        Figure::median("  through the lane", "Mbit/s", &lane),
        Figure::median("  through netem", "Mbit/s", &netem),
    ])
}

/// Megabits a second that arrive.
fn flow(lab: &NetLab, by: By, delay_ms: u64) -> anyhow::Result<f64> {
    // One for each flow: it would not always be ready for the next.
    let server = Process::start(lab.in_peer("iperf3").args(["-s", "-1", "-p", PORT]))?;
    wait_for_listener(&server.pid())?;
    let line = format!(
        "read go; exec iperf3 -c {PEER_V4} -p {PORT} -t {SECONDS} -O {SLOW_START} -C {CONGESTION} -J"
    );
    let mut client = Process::start(lab.in_target("sh").args(["-c", &line]))?;
    let qdisc = |verb: &str| format!("tc -n {} qdisc {verb} dev {TARGET_IFACE} root netem", lab.target);
    let injection = match by {
        By::Nothing => None,
        By::Netem => {
            sh(&format!("{} delay {delay_ms}ms limit 100000", qdisc("add")))?;
            None
        }
        By::Fault => {
            let spec = format!("delay {delay_ms}ms out");
            Some(Injection::start(&["--pid", &client.pid(), "--net", &spec])?)
        }
    };
    client.release()?;
    let ended = client.ended()?;
    if by == By::Netem {
        sh(&qdisc("del"))?;
    }
    if let Some(injection) = injection {
        let report = injection.heal()?;
        ensure!(report.rule(0, "injected")? > 0, "nothing was delayed: {}", report.json);
    }
    let json: serde_json::Value = serde_json::from_str(&ended.stdout)
        .with_context(|| format!("iperf3: {} {}", ended.status, ended.stdout))?;
    let speed = json["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(speed.with_context(|| format!("iperf3: {}", json["error"]))? / 1e6)
}

/// Waits until a process's namespace has a listener on the port.
fn wait_for_listener(pid: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        for table in ["tcp", "tcp6"] {
            if fs::read_to_string(format!("/proc/{pid}/net/{table}"))?.contains(PORT_HEX) {
                return Ok(());
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("iperf3 does not listen")
}
