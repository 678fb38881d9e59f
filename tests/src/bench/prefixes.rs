//! A flow that no rule hits, while the rules name one network and while they name ten thousand; and the same behind
//! netem, where `tc` asks one filter after the other.

use std::{fmt::Write as _, sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};
use fault_user::{
    session::{
        End,
        arm::{Armed, Request},
        plan::Plan,
    },
    spec::{Fault, Layer, parse},
    target::Target as Victims,
};

use super::{
    Lane, Setting,
    figure::{Figure, Target},
    flood::{Way, flood},
};
use crate::{
    driver::Injection,
    net_lab::{NetLab, TARGET_IFACE, sh},
    process::{Ended, Process},
};

/// How many networks.
const MANY: usize = 10_000;
/// Of one fault: a spec is at most 4096 bytes, and a session has at most 64 rules.
const IN_ONE_FAULT: usize = 160;
/// Filters of one `pref`: u32's table has room for 4095.
const IN_ONE_PREF: usize = 2_500;
const ARMINGS: usize = 5;

/// What stands in the way of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Nothing,
    Fault(usize),
    Netem(usize),
}

pub(super) fn run(setting: &Setting) -> anyhow::Result<Vec<Figure>> {
    let lab = NetLab::new("bench-prefix")?;
    let native = setting.lane == Lane::Native;
    // netem is not in the machine's own kernel.
    let ways = [By::Nothing, By::Fault(1), By::Fault(MANY), By::Netem(1), By::Netem(MANY)];
    let ways = if native { &ways[..3] } else { &ways[..] };
    let rounds = if native { 20 } else { 6 };
    let mut samples = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        // Each round starts with another, so that a drift favours nobody.
        for step in 0..ways.len() {
            let index = (round + step) % ways.len();
            let rate = spared(setting, &lab, ways[index])?;
            eprintln!("  {:?}: {:.0} packets/s", ways[index], rate);
            samples[index].push(rate);
        }
    }
    let arming = |count| (0..ARMINGS).map(|_| arm(setting, &lab, count)).collect::<anyhow::Result<Vec<_>>>();
    let (one, many) = (arming(1)?, arming(MANY)?);
    let ratio = |many: usize, one: usize| -> Vec<f64> {
        samples[many].iter().zip(&samples[one]).map(|(many, one)| many / one).collect()
    };
    let mut figures = vec![
        Figure::median("packets a second, spared by 10 000 networks / by one", "×", &ratio(2, 1))
            .target(Target::AtLeast(0.95)),
        Figure::median("  without anything", "packets/s", &samples[0]),
        Figure::median("  spared by one network", "packets/s", &samples[1]),
        Figure::median("  spared by 10 000 networks", "packets/s", &samples[2]),
        Figure::median("  arming with one network", "ms", &one),
        Figure::median("  arming with 10 000 networks", "ms", &many),
    ];
    if !native {
        figures.extend([
            Figure::median("for comparison: netem, 10 000 u32 filters / one", "×", &ratio(4, 3)),
            Figure::median("  netem behind one filter", "packets/s", &samples[3]),
            Figure::median("  netem behind 10 000 filters", "packets/s", &samples[4]),
        ]);
    }
    Ok(figures)
}

/// Networks of which none is the lab's, but all are near it: a look-up goes as deep as it gets.
fn networks(count: usize) -> impl Iterator<Item = String> {
    let blocks = (60..).filter(|block| *block != 77);
    blocks.flat_map(|block| (0..256).map(move |third| format!("10.{block}.{third}.0/24"))).take(count)
}

/// As many faults as these networks need.
fn faults(count: usize) -> Vec<String> {
    let networks: Vec<_> = networks(count).collect();
    let fault = |part: &[String]| {
        part.iter().fold("drop".to_owned(), |mut text, network| {
            // Writing to a string cannot fail.
            let _ = write!(text, " to {network}");
            text
        })
    };
    networks.chunks(IN_ONE_FAULT).map(fault).collect()
}

fn spared(setting: &Setting, lab: &NetLab, by: By) -> anyhow::Result<f64> {
    let native = setting.lane == Lane::Native;
    // Ten thousand filters, one after the other, take a while on an emulated machine.
    let count = match by {
        By::Netem(MANY) => 1_000,
        _ if native => 200_000,
        _ => 40_000,
    };
    match by {
        By::Nothing => flood(lab, Way::Out, count, |_| Ok(())).map(|(rate, ())| rate),
        By::Fault(networks) => {
            let (rate, injection) = flood(lab, Way::Out, count, |pid| {
                let faults = faults(networks);
                let mut arguments = vec!["--pid", pid];
                arguments.extend(faults.iter().flat_map(|fault| ["--net", fault]));
                Injection::start(&arguments)
            })?;
            let report = injection.wait()?;
            ensure!(report.rule(0, "matched")? == 0, "a rule named the peer");
            Ok(rate)
        }
        By::Netem(filters) => {
            let tc = |line: &str| sh(&format!("tc -n {} {line}", lab.target)).map(drop);
            tc(&format!("qdisc add dev {TARGET_IFACE} root handle 1: prio bands 4"))?;
            tc(&format!("qdisc add dev {TARGET_IFACE} parent 1:4 handle 40: netem loss 100%"))?;
            classify(lab, filters)?;
            let rate = flood(lab, Way::Out, count, |_| Ok(())).map(|(rate, ())| rate);
            tc(&format!("qdisc del dev {TARGET_IFACE} root"))?;
            rate
        }
    }
}

/// A filter for each network that sends it through netem.
fn classify(lab: &NetLab, count: usize) -> anyhow::Result<()> {
    let mut lines = String::new();
    for (index, network) in networks(count).enumerate() {
        let pref = 1 + index / IN_ONE_PREF;
        let _ = writeln!(
            lines,
            "filter add dev {TARGET_IFACE} parent 1: protocol ip pref {pref} u32 match ip dst {network} flowid 1:4"
        );
    }
    let mut command = std::process::Command::new("tc");
    command.args(["-n", &lab.target, "-batch", "-"]);
    let ended = Ended::with_input(&mut command, lines.as_bytes())?;
    ensure!(ended.status.success(), "tc -batch: {}: {}", ended.status, ended.stderr);
    Ok(())
}

/// Milliseconds it takes to arm with so many networks.
fn arm(setting: &Setting, lab: &NetLab, count: usize) -> anyhow::Result<f64> {
    let victim = Process::start(lab.in_target("sleep").arg("1000"))?;
    let faults = faults(count);
    let keeper = Arc::clone(&setting.keeper);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(async {
            let started = Instant::now();
            let faults =
                faults.iter().map(|text| parse(Layer::Net, text)).collect::<Result<Vec<Fault>, _>>()?;
            let plan = Plan::new(faults, &[], 1, None)?;
            let mut target = Victims::nobody([keeper.pid()]);
            target.add_pid(victim.pid().parse()?)?;
            let request = Request::new(plan, target, keeper);
            let active = Armed::arm(request)?.activate()?;
            let took = started.elapsed().as_secs_f64() * 1e3;
            let healed = active.heal(End::Deadline).await;
            ensure!(healed.troubles.is_empty(), "{:?}", healed.troubles);
            Ok(took)
        })
        .context("arming")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_networks_fit_a_session() {
        let faults = faults(MANY);
        assert!(faults.len() <= 64 && faults.iter().all(|fault| fault.len() <= 4096));
        assert!(faults.iter().all(|fault| parse(Layer::Net, fault).is_ok()));
        assert_eq!(networks(MANY).count(), MANY);
        assert!(networks(MANY).all(|network| !network.starts_with("10.77.")));
    }
}
