//! What somebody who is not the target can send and receive while a session is at work on the same interface.

use super::{
    Setting,
    figure::{Figure, Target},
    flood::{Rate, Way, flood},
};
use crate::{driver::Injection, net_lab::NetLab, process::Process};

/// Many and short: what else the machine does, and its clock speed, change within seconds, and then either both of a round
/// feel it or one of many does.
const ROUNDS: usize = 160;
const DATAGRAMS: u64 = 30_000;
const GOOD: Target = Target::AtLeast(0.97);

/// Of one way.
#[derive(Default)]
struct Rates {
    sent: Vec<f64>,
    arrived: Vec<f64>,
}

impl Rates {
    fn push(&mut self, rate: Rate) {
        self.sent.push(rate.sent);
        self.arrived.push(rate.arrived);
    }
}

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let lab = NetLab::new("bench-by")?;
    let target = Process::start(lab.in_target("sleep").arg("10000"))?;
    let mut figures = Vec::new();
    for (way, name) in [(Way::Out, "sends"), (Way::In, "receives")] {
        let (mut with, mut without) = (Rates::default(), Rates::default());
        for round in 0..ROUNDS {
            // Who comes first changes, so that a drift favours nobody.
            let order = if round % 2 == 0 { [true, false] } else { [false, true] };
            for armed in order {
                let arm = |_: &str| {
                    armed
                        .then(|| Injection::start(&["--pid", &target.pid(), "--net", "drop 50%"]))
                        .transpose()
                };
                let (rate, injection) = flood(&lab, way, DATAGRAMS, arm)?;
                if let Some(injection) = injection {
                    injection.heal()?;
                }
                if armed { with.push(rate) } else { without.push(rate) }
            }
        }
        let ratios = |with: &[f64], without: &[f64]| {
            with.iter().zip(without).map(|(with, without)| with / without).collect::<Vec<_>>()
        };
        let arrived = ratios(&with.arrived, &without.arrived);
        let sent = ratios(&with.sent, &without.sent);
        figures.extend([
            Figure::ratio(
                format!("bystander {name}: packets that arrive a second, with / without"),
                &arrived,
            )
            .target(GOOD),
            Figure::ratio(format!("  {name}, by the sender's clock"), &sent).target(GOOD),
            Figure::median(format!("  {name}, without"), "packets/s", &without.arrived),
            Figure::median(format!("  {name}, with"), "packets/s", &with.arrived),
        ]);
    }
    Ok(figures)
}
