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
    Setting,
    figure::{Figure, Target},
    flood::{Way, endless},
};
use crate::{
    driver::Injection,
    net_lab::NetLab,
    process::{Process, proc_file},
};

const ROUNDS: usize = 80;
/// How long packets are counted each time.
const STRETCH: Duration = Duration::from_millis(400);
/// Until what came or went with a session is over.
const SETTLE: Duration = Duration::from_millis(80);
const GOOD: Target = Target::AtLeast(0.97);

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let lab = NetLab::new("bench-by")?;
    let target = Process::start(lab.in_target("sleep").arg("10000"))?;
    let mut figures = Vec::new();
    for (way, name) in [(Way::Out, "sends"), (Way::In, "receives")] {
        let (sender, sink) = endless(&lab, way)?;
        let end = sink.pid().parse()?;
        sleep(SETTLE);
        let (mut ratios, mut with, mut without) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = arrivals(end)?;
        for _ in 0..ROUNDS {
            let injection = Injection::start(&["--pid", &target.pid(), "--net", "drop 50%"])?;
            sleep(SETTLE);
            let armed = arrivals(end)?;
            injection.heal()?;
            sleep(SETTLE);
            let after = arrivals(end)?;
            // Between the two neighbours, so that a drift favours nobody.
            ratios.push(armed / f64::midpoint(before, after));
            with.push(armed);
            without.push(after);
            before = after;
        }
        drop(sender);
        let lost = Udp::of(end)?.overflowed;
        // What overflows costs the receiver nothing, and the sender as much.
        ensure!(lost == 0, "{lost} datagrams found the receiver too slow");
        figures.extend([
            Figure::ratio(format!("bystander {name}: packets that arrive a second, with / without"), &ratios)
                .target(GOOD),
            Figure::median(format!("  {name}, without"), "packets/s", &without),
            Figure::median(format!("  {name}, with"), "packets/s", &with),
        ]);
    }
    Ok(figures)
}

/// Datagrams that arrive a second.
fn arrivals(sink: u32) -> anyhow::Result<f64> {
    let (begin, before) = (Instant::now(), Udp::of(sink)?);
    sleep(STRETCH);
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
