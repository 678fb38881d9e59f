//! Jitter of packets: the distribution asked for, in order or not.
//!
//! What is measured is the delay plus what the machine takes anyway. The latter is measured with a constant delay in
//! the same lane: its median is taken off, and its spread (one or two milliseconds on an emulated machine) is small
//! against the jitter, which is chosen for that: with J = 50 ms a spread of 2 ms moves the KS distance by at most
//! 2 / 100 (uniform) or 2 / (50 × 0.58) (Pareto at its steepest, where only the part inside of the spread counts).

use anyhow::ensure;
use statrs::distribution::{ContinuousCDF as _, Normal};

use super::{Lane, Test, pair::Pair};
use crate::{
    driver::Injection,
    net_lab::{NetLab, PEER_V4},
    stats::{kolmogorov_smirnov, median},
    victim::report::Counted,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "jitter::distributions", on: Lane::has_packet_delay, run: distributions },
    Test { name: "jitter::ordered_keeps_order", on: Lane::has_packet_delay, run: ordered_keeps_order },
];

/// Samples of each distribution: a KS distance of 0.062 is rejected at 99.9 %.
const SAMPLES: u64 = 1000;
const MS: f64 = 1e6;

/// The arrivals under `spec`, one millisecond between two datagrams.
fn arrivals(lab: &NetLab, spec: &str) -> anyhow::Result<Counted> {
    let pair = Pair::with(lab, PEER_V4, 9000, SAMPLES, &["--pause-us", "1000"])?;
    let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", spec, "--seed", "42"])?;
    let (sent, counted) = pair.run()?;
    let report = injection.wait()?;
    ensure!(sent.sent == SAMPLES && sent.errors.is_empty(), "{spec}: {sent:?}");
    ensure!(counted.received == SAMPLES && counted.distinct == SAMPLES, "{spec}: {}", report.json);
    Ok(counted)
}

/// A distribution function of a standardised jitter.
pub type Cdf = fn(f64) -> f64;

/// Mean 0, half width 1.
pub fn uniform(x: f64) -> f64 {
    f64::midpoint(x, 1.0).clamp(0.0, 1.0)
}

/// Mean 0, standard deviation 1.
pub fn normal(x: f64) -> f64 {
    Normal::standard().cdf(x)
}

/// Shape 3 (1 - y⁻³ from 1, mean 3/2, variance 3/4), standardised.
pub fn pareto(x: f64) -> f64 {
    let y = x.mul_add(0.75f64.sqrt(), 1.5);
    if y <= 1.0 { 0.0 } else { 1.0 - y.powi(-3) }
}

/// A quarter normal and three quarters Pareto, quantile by quantile; inverted by bisection.
pub fn pareto_normal(x: f64) -> f64 {
    let quantile = |p: f64| {
        0.25 * Normal::standard().inverse_cdf(p) + 0.75 * ((1.0 - p).cbrt().recip() - 1.5) / 0.75f64.sqrt()
    };
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if quantile(middle) < x { low = middle } else { high = middle }
    }
    low
}

/// Name in the spec, distribution function.
pub const DISTRIBUTIONS: [(&str, Cdf); 4] =
    [("uniform", uniform), ("normal", normal), ("pareto", pareto), ("paretonormal", pareto_normal)];

fn distributions(_: Lane) -> anyhow::Result<()> {
    // D is four J: what would be negative is below the test's resolution.
    const D: f64 = 200.0 * MS;
    const J: f64 = 50.0 * MS;
    let lab = NetLab::new("jitter")?;
    let constant = arrivals(&lab, "delay 200ms out udp")?;
    let machine = median(&constant.delays_ns) as f64 - D;
    ensure!(machine >= 0.0, "a constant delay is too short by {} ns", -machine);
    let mut failures = Vec::new();
    for (name, cdf) in DISTRIBUTIONS {
        let counted = arrivals(&lab, &format!("delay 200ms jitter 50ms {name} out udp"))?;
        ensure!(counted.reordered > 0, "{name}: jitter of fifty times the distance reorders");
        let samples: Vec<f64> =
            counted.delays_ns.iter().map(|delay| (*delay as f64 - machine - D) / J).collect();
        failures.extend(kolmogorov_smirnov(name, &samples, cdf).err());
        // The test can tell: none of the others passes for it, nor does half the jitter.
        let half: Vec<f64> = samples.iter().map(|x| x / 2.0).collect();
        ensure!(kolmogorov_smirnov(name, &half, cdf).is_err(), "{name}: no power");
    }
    ensure!(failures.is_empty(), "{failures:?}, the machine takes {machine} ns");
    Ok(())
}

fn ordered_keeps_order(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("ordered")?;
    let counted = arrivals(&lab, "delay 50ms jitter 50ms out udp ordered")?;
    ensure!(counted.reordered == 0, "{} datagrams overtook others", counted.reordered);
    let unordered = arrivals(&lab, "delay 50ms jitter 50ms out udp")?;
    ensure!(unordered.reordered > SAMPLES / 4, "only {} datagrams were overtaken", unordered.reordered);
    Ok(())
}
