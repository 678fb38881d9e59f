//! Delay distributions against the analytic ones.

use fault_common::decide::{
    delay::{Delay, Distribution, SHARE_BITS},
    past::Past,
};
use statrs::distribution::{ContinuousCDF, Normal};

use crate::{
    ALPHA, at,
    bounds::{kolmogorov_smirnov, normal_bound},
};

/// Far enough from zero that nothing is cut off there.
const MEAN_NS: u64 = 100_000_000_000;
const JITTER_NS: u64 = 1_000_000_000;

type Quantile = fn(f64) -> f64;

/// `count` delays in units of the jitter, their mean at 0.
fn samples(distribution: Distribution, count: u64) -> Vec<f64> {
    let delay = Delay {
        mean_ns: MEAN_NS,
        jitter_ns: JITTER_NS,
        distribution: distribution as u32,
        flags: 0,
        ..Delay::default()
    };
    (0..count)
        .map(|ordinal| {
            (delay.sample(&at(42, 1, 9, ordinal), &mut Past::default(), None) as f64 - MEAN_NS as f64)
                / JITTER_NS as f64
        })
        .collect()
}

fn normal(p: f64) -> f64 {
    Normal::standard().inverse_cdf(p)
}

/// Shape 3, scale 1: F(x) = 1 - x^-3; mean 3/2, variance 3/4.
fn pareto(p: f64) -> f64 {
    ((1.0 - p).powf(-1.0 / 3.0) - 1.5) / 0.75f64.sqrt()
}

/// Kolmogorov–Smirnov at 99.9 %, n = 200 000: D < 0.0044.
#[track_caller]
fn assert_distribution(distribution: Distribution, quantile: impl Fn(f64) -> f64) {
    if let Err(error) = kolmogorov_smirnov(samples(distribution, 200_000), quantile) {
        panic!("{distribution:?}: {error}");
    }
}

#[test]
fn uniform_is_uniform() {
    assert_distribution(Distribution::Uniform, |p| 2.0 * p - 1.0);
}

#[test]
fn normal_is_normal() {
    assert_distribution(Distribution::Normal, normal);
}

#[test]
fn pareto_is_pareto() {
    assert_distribution(Distribution::Pareto, pareto);
}

/// netem's: `netem/paretonormal.c` of iproute2, where Pareto is (x - 3/2) × 4/3.
fn pareto_normal(p: f64) -> f64 {
    0.25 * normal(p) + 0.75 * ((1.0 - p).powf(-1.0 / 3.0) - 1.5) * (4.0 / 3.0)
}

#[test]
fn paretonormal_is_netems_mixture() {
    assert_distribution(Distribution::ParetoNormal, pareto_normal);
}

#[test]
fn distributions_are_told_apart() {
    // The test above has the power to see the wrong distribution.
    let wrong = |distribution, quantile: Quantile| {
        kolmogorov_smirnov(samples(distribution, 200_000), quantile).is_err()
    };
    assert!(wrong(Distribution::Normal, pareto_normal));
    assert!(wrong(Distribution::ParetoNormal, pareto));
    assert!(wrong(Distribution::ParetoNormal, |p| 0.25 * normal(p) + 0.75 * pareto(p)));
    assert!(wrong(Distribution::Uniform, normal));
    assert!(wrong(Distribution::Normal, |p| 1.02 * normal(p)));
}

/// Mean and standard deviation of 10^6 delays. The mean within its 99.9 % bound; the deviation within 0.3 %
/// for the light tails, and within 1.5 % where the tail is heavy and a few samples carry it.
#[test]
fn mean_and_deviation() {
    // Cutting Pareto's tail at 35 J takes 2.8 % of its deviation; the mixture has 1.06 to begin with.
    let expected = [
        (Distribution::Uniform, 1.0 / 3f64.sqrt(), 0.003),
        (Distribution::Normal, 1.0, 0.003),
        (Distribution::Pareto, 0.972, 0.015),
        (Distribution::ParetoNormal, 1.043, 0.015),
    ];
    let bound = normal_bound(ALPHA / expected.len() as f64);
    for (distribution, deviation, tolerance) in expected {
        let samples = samples(distribution, 1_000_000);
        let n = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / n;
        let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        assert!(mean.abs() < bound * deviation / n.sqrt(), "{distribution:?}: mean {mean}");
        let off = variance.sqrt() / deviation - 1.0;
        assert!(off.abs() < tolerance, "{distribution:?}: deviation {}", variance.sqrt());
    }
}

#[test]
fn every_cell_of_the_tables_is_exact() {
    // One draw in the middle of each of the 4096 cells, against the analytic quantile there. The ends, where
    // the quantile bends most, are what `mean_and_deviation` looks at.
    let tables: [(Distribution, Quantile); 3] = [
        (Distribution::Normal, normal),
        (Distribution::Pareto, pareto),
        (Distribution::ParetoNormal, pareto_normal),
    ];
    for (distribution, quantile) in tables {
        let delay = Delay {
            mean_ns: MEAN_NS,
            jitter_ns: JITTER_NS,
            distribution: distribution as u32,
            flags: 0,
            ..Delay::default()
        };
        for cell in 32..4096 - 32u64 {
            let late = delay.shape(cell << 52 | 1 << 51, None) as f64;
            let expected = quantile((cell as f64 + 0.5) / 4096.0);
            let got = (late - MEAN_NS as f64) / JITTER_NS as f64;
            assert!((got - expected).abs() < 0.001, "{distribution:?}, cell {cell}: {got}, not {expected}");
        }
    }
}

/// `count` delays in a row, each like the one before with this rank correlation, in units of the jitter.
fn correlated(distribution: Distribution, rank: f64, seed: u64, count: u64) -> Vec<f64> {
    let rho = 2.0 * (std::f64::consts::PI * rank / 6.0).sin();
    let share = |of: f64| (of * f64::from(1 << SHARE_BITS)).round() as u32;
    let delay = Delay {
        mean_ns: MEAN_NS,
        jitter_ns: JITTER_NS,
        distribution: distribution as u32,
        flags: 0,
        old: share(rho),
        new: share((1.0 - rho * rho).sqrt()),
    };
    let mut past = Past::default();
    (0..count)
        .map(|ordinal| delay.sample(&at(seed, 1, 9, ordinal), &mut past, None) as f64)
        .map(|late| (late - MEAN_NS as f64) / JITTER_NS as f64)
        .collect()
}

const ALL: [(Distribution, Quantile); 4] = [
    (Distribution::Uniform, |p| 2.0 * p - 1.0),
    (Distribution::Normal, normal),
    (Distribution::Pareto, pareto),
    (Distribution::ParetoNormal, pareto_normal),
];

/// Kolmogorov–Smirnov needs independent samples: the 20th delay of each of 20 000 streams (99.9 %: D < 0.0138).
#[test]
fn correlation_leaves_the_distribution_as_it_is() {
    for (distribution, quantile) in ALL {
        for rank in [0.25, 0.9] {
            let samples = (0..20_000).map(|seed| correlated(distribution, rank, seed, 20)[19]).collect();
            if let Err(error) = kolmogorov_smirnov(samples, quantile) {
                panic!("{distribution:?}, correlation {rank}: {error}");
            }
        }
    }
}

/// Spearman's rank correlation.
fn rank_correlation(pairs: &[(f64, f64)]) -> f64 {
    let ranks = |of: fn(&(f64, f64)) -> f64| {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_by(|a, b| of(&pairs[*a]).total_cmp(&of(&pairs[*b])));
        let mut ranks = vec![0.0; pairs.len()];
        order.iter().enumerate().for_each(|(rank, index)| ranks[*index] = rank as f64);
        ranks
    };
    let (a, b) = (ranks(|pair| pair.0), ranks(|pair| pair.1));
    let n = pairs.len() as f64;
    let squares: f64 = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}

/// 100 000 independent pairs of one delay and the next: the sample's rank correlation is within 0.0105 of the true one at
/// 99.9 % (its deviation is at most 1/√n), for each of twelve comparisons 0.0128.
#[test]
fn a_delay_resembles_the_one_before_as_much_as_asked() {
    for (distribution, _) in ALL {
        for rank in [0.0, 0.5, 0.95] {
            let pairs: Vec<_> = (0..100_000)
                .map(|seed| correlated(distribution, rank, seed, 3))
                .map(|delays| (delays[1], delays[2]))
                .collect();
            let got = rank_correlation(&pairs);
            assert!((got - rank).abs() < 0.0128, "{distribution:?}: {got}, not {rank}");
        }
    }
}

#[test]
fn a_correlation_of_one_is_one_delay_for_all() {
    let delays = correlated(Distribution::Normal, 1.0, 5, 1000);
    assert!(delays.iter().all(|delay| *delay == delays[0]), "{:?}", &delays[..4]);
    assert_ne!(delays[0], correlated(Distribution::Normal, 1.0, 6, 1)[0]);
}
