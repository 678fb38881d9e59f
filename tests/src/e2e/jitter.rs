//! Jitter of packets: the distribution asked for, in order or not.
//!
//! What is measured is the delay plus what the machine takes anyway, which is milliseconds on an emulated one. The latter
//! is measured by itself, with a constant delay in the same lane, and the distribution function asked for is convolved
//! with it ([`with_overhead`]): the Kolmogorov–Smirnov test is against what must come out here. J is large (100 ms), so
//! that what the convolution cannot know (how the overhead varies with the load) stays small against it.

use anyhow::ensure;
use statrs::distribution::{ContinuousCDF as _, Normal};

use super::{Lane, Test, pair::Pair};
use crate::{
    driver::Injection,
    net_lab::{NetLab, PEER_V4},
    stats::{kolmogorov_smirnov, with_overhead},
    victim::report::Counted,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "jitter::distributions", on: Lane::tests_jitter, run: distributions },
    Test { name: "jitter::ordered_keeps_order", on: Lane::tests_jitter, run: ordered_keeps_order },
];

/// Samples of each distribution: a KS distance of 0.086 is rejected at 99.9 %.
const SAMPLES: u64 = 512;
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
type Cdf = fn(f64) -> f64;

/// Mean 0, half width 1.
fn uniform(x: f64) -> f64 {
    f64::midpoint(x, 1.0).clamp(0.0, 1.0)
}

/// Mean 0, standard deviation 1.
fn normal(x: f64) -> f64 {
    Normal::standard().cdf(x)
}

/// Shape 3 (1 - y⁻³ from 1, mean 3/2, variance 3/4), standardised.
fn pareto(x: f64) -> f64 {
    let y = x.mul_add(0.75f64.sqrt(), 1.5);
    if y <= 1.0 { 0.0 } else { 1.0 - y.powi(-3) }
}

/// A quarter normal and three quarters Pareto as netem has it, quantile by quantile; inverted by bisection.
fn pareto_normal(x: f64) -> f64 {
    let quantile = |p: f64| 0.25 * Normal::standard().inverse_cdf(p) + ((1.0 - p).cbrt().recip() - 1.5);
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if quantile(middle) < x { low = middle } else { high = middle }
    }
    low
}

/// Name in the spec, distribution function.
const DISTRIBUTIONS: [(&str, Cdf); 4] =
    [("uniform", uniform), ("normal", normal), ("pareto", pareto), ("paretonormal", pareto_normal)];

/// Tests the four distributions with D = `mean_ns` and J = D / 2. `sample` measures under a spec like
/// `delay 100ms jitter 50ms normal`.
pub fn four_distributions(
    mean_ns: f64,
    sample: impl Fn(&str) -> anyhow::Result<Vec<u64>>,
) -> anyhow::Result<()> {
    let ms = mean_ns / MS;
    // Small enough that few draws are below zero (what is not delayed at all lacks the overhead of a delay), large
    // enough that the overhead, which depends on how many wake at once, hardly shows.
    let jitter_ns = mean_ns / 2.0;
    let overhead: Vec<f64> =
        sample(&format!("delay {ms}ms"))?.iter().map(|delay| *delay as f64 - mean_ns).collect();
    ensure!(overhead.iter().all(|overhead| *overhead >= 0.0), "a constant delay is too short");
    let mut failures = Vec::new();
    for (name, cdf) in DISTRIBUTIONS {
        let samples: Vec<f64> = sample(&format!("delay {ms}ms jitter {}ms {name}", jitter_ns / MS))?
            .into_iter()
            .map(|delay| delay as f64)
            .collect();
        let cut = |x: f64| if x < 0.0 { 0.0 } else { cdf((x - mean_ns) / jitter_ns) };
        let expected = with_overhead(&overhead, cut);
        failures.extend(kolmogorov_smirnov(name, &samples, &expected).err());
        // The test can tell: it rejects a jitter that is two fifths too small.
        let narrow: Vec<f64> = samples.iter().map(|x| (x - mean_ns).mul_add(0.6, mean_ns)).collect();
        ensure!(kolmogorov_smirnov(name, &narrow, &expected).is_err(), "{name}: the test has no power");
    }
    let mut machine = overhead;
    machine.sort_by(f64::total_cmp);
    let middle = machine.get(machine.len() / 2);
    ensure!(failures.is_empty(), "{failures:?}, the machine takes {middle:?} ns");
    Ok(())
}

fn distributions(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("jitter")?;
    four_distributions(100.0 * MS, |spec| {
        let counted = arrivals(&lab, &format!("{spec} out udp"))?;
        ensure!(!spec.contains("jitter") || counted.reordered > 0, "{spec}: nothing was overtaken");
        Ok(counted.delays_ns)
    })
}

fn ordered_keeps_order(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("ordered")?;
    let counted = arrivals(&lab, "delay 50ms jitter 50ms out udp ordered")?;
    ensure!(counted.reordered == 0, "{} datagrams overtook others", counted.reordered);
    let unordered = arrivals(&lab, "delay 50ms jitter 50ms out udp")?;
    ensure!(unordered.reordered > SAMPLES / 4, "only {} datagrams were overtaken", unordered.reordered);
    Ok(())
}
