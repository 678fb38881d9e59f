//! What a bystander's packets cost while a session aims at somebody else in the same namespace.
//!
//! One flood that never pauses: processes that are started anew land in other places of caches and memory, which makes single
//! floods differ by a tenth. The session comes and goes meanwhile.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{
    Lane, Setting,
    bpf::Program,
    figure::{Figure, Target},
    flood::{Way, endless},
    netns::inside,
    packet::attach,
};
use crate::{
    driver::Injection,
    net_lab::NetLab,
    process::{Process, proc_file},
};

/// How often, and for how long packets are counted each time.
const NATIVE: (usize, Duration) = (80, Duration::from_millis(400));
/// Emulated, where the clock counts instructions, which are the same each time.
const EMULATED: (usize, Duration) = (6, Duration::from_millis(150));
/// Until what came or went with a session is over.
const SETTLE: Duration = Duration::from_millis(80);
const GOOD: Target = Target::AtLeast(0.97);

pub(super) fn run(setting: &Setting) -> anyhow::Result<Vec<Figure>> {
    let lab = NetLab::new("bench-by")?;
    let target = Process::start(lab.in_target("sleep").arg("10000"))?;
    let (rounds, stretch) = match setting.lane {
        Lane::Native => NATIVE,
        Lane::Fault => EMULATED,
    };
    // Not `fault`: programs that do nothing, on the same hooks.
    let reference = Program::reference()?;
    let mut figures = Vec::new();
    for (way, name) in [(Way::Out, "sends"), (Way::In, "receives")] {
        let (sender, sink) = endless(&lab, way)?;
        let end = sink.pid().parse()?;
        let counted = || {
            sleep(SETTLE);
            arrivals(end, stretch)
        };
        let (mut ratios, mut empty_ratios) = (Vec::new(), Vec::new());
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let mut before = counted()?;
        for _ in 0..rounds {
            let injection = Injection::start(&["--pid", &target.pid(), "--net", "drop 50%"])?;
            let armed = counted()?;
            injection.heal()?;
            let between = counted()?;
            let links = inside(&lab.target, || attach(&reference))?;
            let empty = counted()?;
            drop(links);
            let after = counted()?;
            // Between the two neighbours, so that a drift favours nobody.
            ratios.push(armed / f64::midpoint(before, between));
            empty_ratios.push(empty / f64::midpoint(between, after));
            with.push(armed);
            without.push(between);
            before = after;
        }
        drop(sender);
        let lost = Udp::of(end)?.overflowed;
        // What overflows costs the receiver nothing, and the sender as much.
        ensure!(lost == 0, "{lost} datagrams overflowed");
        figures.extend([
            Figure::ratio(format!("bystander {name}: packets that arrive a second, with / without"), &ratios)
                .target(GOOD),
            Figure::ratio(format!("  {name}, with programs that return at once"), &empty_ratios),
            Figure::median(format!("  {name}, without"), "packets/s", &without),
            Figure::median(format!("  {name}, with"), "packets/s", &with),
        ]);
    }
    Ok(figures)
}

/// Datagrams that arrive a second.
fn arrivals(sink: u32, stretch: Duration) -> anyhow::Result<f64> {
    let (begin, before) = (Instant::now(), Udp::of(sink)?);
    sleep(stretch);
    let (took, after) = (begin.elapsed(), Udp::of(sink)?);
    Ok((after.arrived - before.arrived) as f64 / took.as_secs_f64())
}

/// What the kernel counted in a process's network namespace (`/proc/PID/net/snmp`, proc_net(5)).
#[derive(Clone, Copy, Debug)]
struct Udp {
    arrived: u64,
    overflowed: u64,
}

impl Udp {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let text = proc_file(pid, "net/snmp")?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        let value = |wanted: &str| -> anyhow::Result<u64> {
            let mut both = names.split(' ').zip(values.split(' '));
            let (_, value) = both.find(|(name, _)| *name == wanted).with_context(|| wanted.to_owned())?;
            Ok(value.parse()?)
        };
        Ok(Self { arrived: value("InDatagrams")?, overflowed: value("RcvbufErrors")? })
    }
}
