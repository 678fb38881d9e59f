//! Verdicts about counts and samples, at 99.9 % confidence.

use statrs::distribution::{Binomial, Discrete as _, DiscreteCDF, Hypergeometric};

/// Chance of rejecting a correct implementation in one check.
pub const ALPHA: f64 = 0.001;

/// Whether `hits` of `trials` is what probability `p` gives: exact two-sided binomial test.
///
/// # Errors
/// A sentence with the numbers, when it is not.
pub fn binomial(what: &str, hits: u64, trials: u64, p: f64) -> Result<(), String> {
    let distribution = Binomial::new(p, trials).map_err(|error| format!("{what}: {error}"))?;
    let low = distribution.cdf(hits);
    let high = if hits == 0 { 1.0 } else { distribution.sf(hits - 1) };
    if low < ALPHA / 2.0 || high < ALPHA / 2.0 {
        return Err(format!(
            "{what}: {hits} of {trials} is not {:.4} % (P(≤)={low:.2e}, P(≥)={high:.2e})",
            p * 100.0
        ));
    }
    Ok(())
}

/// Kolmogorov–Smirnov: whether `samples` come from the continuous distribution function `cdf`.
///
/// The critical value is the asymptotic one, sqrt(ln(2/α)/2n), which is conservative for n ≥ 35.
///
/// # Errors
/// A sentence with the numbers, when they do not.
pub fn kolmogorov_smirnov(what: &str, samples: &[f64], cdf: impl Fn(f64) -> f64) -> Result<(), String> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let distance = sorted.iter().enumerate().fold(0.0f64, |worst, (index, &x)| {
        let (f, i) = (cdf(x), index as f64);
        worst.max((f - i / n).abs()).max(((i + 1.0) / n - f).abs())
    });
    let critical = ((2.0 / ALPHA).ln() / (2.0 * n)).sqrt();
    if sorted.len() < 35 || distance > critical {
        return Err(format!(
            "{what}: KS distance {distance:.4} over {critical:.4} with n = {}",
            sorted.len()
        ));
    }
    Ok(())
}

/// Two-sample Kolmogorov–Smirnov: whether `a` and `b` come from one continuous distribution.
///
/// The critical value is the asymptotic one, sqrt(ln(2/α)/2 · (n+m)/nm).
///
/// # Errors
/// A sentence with the numbers, when they do not.
pub fn two_sample_ks(what: &str, a: &[f64], b: &[f64]) -> Result<(), String> {
    let sorted = |samples: &[f64]| {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let (a, b) = (sorted(a), sorted(b));
    let (n, m) = (a.len() as f64, b.len() as f64);
    let below = |samples: &[f64], x: f64| samples.partition_point(|sample| *sample <= x) as f64;
    let distance =
        a.iter().chain(&b).map(|&x| (below(&a, x) / n - below(&b, x) / m).abs()).fold(0.0f64, f64::max);
    let critical = ((2.0 / ALPHA).ln() / 2.0 * (n + m) / (n * m)).sqrt();
    if a.len() < 35 || b.len() < 35 || distance > critical {
        return Err(format!("{what}: KS distance {distance:.4} over {critical:.4} with n = {n}, m = {m}"));
    }
    Ok(())
}

/// Whether `hits` of `trials` on either side come from one probability: Fisher's exact test, two-sided (the sum of all
/// tables that are no more likely than the one seen).
///
/// # Errors
/// A sentence with the numbers, when they do not.
pub fn two_proportions(what: &str, a: (u64, u64), b: (u64, u64)) -> Result<(), String> {
    let (hits, trials) = (a.0 + b.0, a.1 + b.1);
    let law = Hypergeometric::new(trials, hits, a.1).map_err(|error| format!("{what}: {error}"))?;
    let seen = law.ln_pmf(a.0);
    let p: f64 = (hits.saturating_sub(b.1)..=hits.min(a.1))
        .map(|count| law.ln_pmf(count))
        .filter(|likelihood| *likelihood <= seen + 1e-9)
        .map(f64::exp)
        .sum();
    if p < ALPHA {
        return Err(format!("{what}: {} of {} and {} of {} differ (P = {p:.2e})", a.0, a.1, b.0, b.1));
    }
    Ok(())
}

/// The distribution function of `delay + machine`, where `cdf` is that of the delay and `machine` are measurements of
/// what is added to it whatever it is: their exact convolution.
pub fn with_overhead<'a>(machine: &'a [f64], cdf: impl Fn(f64) -> f64 + 'a) -> impl Fn(f64) -> f64 + 'a {
    move |x| machine.iter().map(|added| cdf(x - added)).sum::<f64>() / machine.len() as f64
}

/// Between what the median of that lies which `samples` were drawn from, at 99.9 %: two order statistics, by the exact binomial
/// distribution of how many samples are below it (David and Nagaraja, Order Statistics, 7.1). Nothing of less than eleven.
#[must_use]
pub fn median_bounds(samples: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = Binomial::new(0.5, sorted.len() as u64).ok()?;
    let outside = (0..sorted.len()).take_while(|few| below.cdf(*few as u64) <= ALPHA / 2.0).count();
    let place = outside.checked_sub(1)?;
    Some((sorted[place], sorted[sorted.len() - 1 - place]))
}

/// The value below which a fraction `q` of the samples lies.
#[must_use]
pub fn quantile(samples: &[u64], q: f64) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let index = ((sorted.len() as f64) * q) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// The median.
#[must_use]
pub fn median(samples: &[u64]) -> u64 {
    quantile(samples, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_a_median_are_order_statistics() {
        let samples = |count: u32| (1..=count).map(f64::from).collect::<Vec<_>>();
        // 2 · 2⁻¹⁰ is more than 0.001, 2 · 2⁻¹¹ is less.
        assert_eq!(median_bounds(&samples(10)), None);
        assert_eq!(median_bounds(&samples(11)), Some((1.0, 11.0)));
        // Tables of the sign test: of 100, 33 or fewer come with P = 0.0004, 34 with 0.0009.
        assert_eq!(median_bounds(&samples(100)), Some((34.0, 67.0)));
    }

    #[test]
    fn the_binomial_test_accepts_what_is_likely_and_rejects_what_is_not() {
        assert!(binomial("fair", 1000, 10_000, 0.1).is_ok());
        assert!(binomial("fair", 1095, 10_000, 0.1).is_ok());
        assert!(binomial("too many", 1105, 10_000, 0.1).is_err());
        assert!(binomial("too few", 895, 10_000, 0.1).is_err());
        assert!(binomial("none", 0, 1000, 0.0).is_ok());
        assert!(binomial("none", 1, 1000, 0.0).is_err());
        assert!(binomial("all", 1000, 1000, 1.0).is_ok());
        assert!(binomial("all", 999, 1000, 1.0).is_err());
    }

    #[test]
    fn the_ks_test_tells_uniform_from_shifted() {
        let samples: Vec<f64> = (0..1000).map(|i| (f64::from(i) + 0.5) / 1000.0).collect();
        assert!(kolmogorov_smirnov("uniform", &samples, |x| x.clamp(0.0, 1.0)).is_ok());
        assert!(kolmogorov_smirnov("shifted", &samples, |x| (x - 0.1).clamp(0.0, 1.0)).is_err());
        assert!(kolmogorov_smirnov("too few", &samples[..10], |x| x).is_err());
    }

    #[test]
    fn two_samples_are_told_apart_when_they_differ() {
        let samples = |shift: f64| (0..1000).map(move |i| f64::from(i) / 1000.0 + shift).collect::<Vec<_>>();
        assert!(two_sample_ks("same", &samples(0.0), &samples(0.01)).is_ok());
        assert!(two_sample_ks("shifted", &samples(0.0), &samples(0.15)).is_err());
        assert!(two_sample_ks("too few", &samples(0.0)[..10], &samples(0.0)).is_err());
        assert!(two_proportions("same", (100, 1000), (112, 1000)).is_ok());
        assert!(two_proportions("different", (100, 1000), (160, 1000)).is_err());
        assert!(two_proportions("none", (0, 1000), (0, 1000)).is_ok());
    }

    #[test]
    fn overhead_shifts_and_smears() {
        let uniform = |x: f64| x.clamp(0.0, 1.0);
        let smeared = with_overhead(&[0.5, 1.5], uniform);
        for (x, p) in [(0.4, 0.0), (1.0, 0.25), (1.5, 0.5), (2.0, 0.75), (2.5, 1.0)] {
            assert!((smeared(x) - p).abs() < 1e-12, "{x}: {}", smeared(x));
        }
    }

    #[test]
    fn quantiles_of_nothing_and_of_something() {
        assert_eq!(median(&[]), 0);
        assert_eq!(median(&[3, 1, 2]), 2);
        assert_eq!(quantile(&[1, 2, 3, 4], 1.0), 4);
    }
}
