//! Exact and asymptotic bounds.

use statrs::{
    distribution::{ChiSquared, ContinuousCDF, Normal},
    function::gamma::ln_gamma,
};

/// P(X ≤ k) and P(X ≥ k) for X binomial(n, p), summed exactly from k outwards.
///
/// statrs has it through the incomplete beta function, whose continued fraction gives up long before 10^8.
pub fn binomial_tails(n: u64, p: f64, k: u64) -> (f64, f64) {
    let (n_f, k_f) = (n as f64, k as f64);
    let ln_choose = ln_gamma(n_f + 1.0) - ln_gamma(k_f + 1.0) - ln_gamma(n_f - k_f + 1.0);
    let at_k = (ln_choose + k_f * p.ln() + (n_f - k_f) * (1.0 - p).ln()).exp();
    let odds = p / (1.0 - p);
    let (mut lower, mut term, mut i) = (at_k, at_k, k_f);
    while i > 0.0 && term > lower * 1e-18 {
        term *= i / ((n_f - i + 1.0) * odds);
        lower += term;
        i -= 1.0;
    }
    let (mut upper, mut term, mut i) = (at_k, at_k, k_f);
    while i < n_f && term > upper * 1e-18 {
        term *= (n_f - i) * odds / (i + 1.0);
        upper += term;
        i += 1.0;
    }
    (lower, upper)
}

/// Whether `p` lies in the Clopper–Pearson interval of `k` successes in `n` trials at significance `alpha`:
/// that interval is exactly the set of p for which neither tail is rarer than alpha / 2.
pub fn clopper_pearson(n: u64, p: f64, k: u64, alpha: f64) -> bool {
    let (lower, upper) = binomial_tails(n, p, k);
    lower > alpha / 2.0 && upper > alpha / 2.0
}

/// Largest |z| of a standard normal value at significance `alpha`, two-sided.
pub fn normal_bound(alpha: f64) -> f64 {
    Normal::standard().inverse_cdf(1.0 - alpha / 2.0)
}

/// Whether a chi-square statistic is credible at significance `alpha`, two-sided: too even is as wrong as
/// too uneven.
pub fn chi_square_is_credible(statistic: f64, freedom: u32, alpha: f64) -> bool {
    let probability = ChiSquared::new(f64::from(freedom)).unwrap().cdf(statistic);
    probability > alpha / 2.0 && probability < 1.0 - alpha / 2.0
}

/// Chi-square statistic of counts that should be equal.
pub fn chi_square_even(counts: &[u64]) -> f64 {
    let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    counts.iter().map(|&count| (count as f64 - expected).powi(2) / expected).sum()
}

/// Kolmogorov–Smirnov at 0.1 %: for `n` sorted samples D must stay below 1.949 / √n.
///
/// |F(x_i) − i/n| ≤ d for every i is the same as x_i lying between the quantiles at i/n − d and (i−1)/n + d,
/// which needs no inverse of the quantile function.
pub fn kolmogorov_smirnov(mut samples: Vec<f64>, quantile: impl Fn(f64) -> f64) -> Result<(), String> {
    samples.sort_by(f64::total_cmp);
    let n = samples.len() as f64;
    let d = 1.949 / n.sqrt();
    for (i, &x) in samples.iter().enumerate() {
        let (before, after) = (i as f64 / n, (i + 1) as f64 / n);
        let low = if after - d <= 0.0 { f64::NEG_INFINITY } else { quantile(after - d) };
        let high = if before + d >= 1.0 { f64::INFINITY } else { quantile(before + d) };
        if x < low || x > high {
            return Err(format!("sample {i} of {n} is {x}, not in {low}..{high}"));
        }
    }
    Ok(())
}

#[test]
fn tails_agree_with_values_known_exactly() {
    // Binomial(10, 1/2): P(X ≤ 2) = 56/1024, P(X ≥ 2) = 1013/1024.
    let (lower, upper) = binomial_tails(10, 0.5, 2);
    assert!((lower - 56.0 / 1024.0).abs() < 1e-12 && (upper - 1013.0 / 1024.0).abs() < 1e-12);
    // Binomial(3, 0.1), k = 0 and k = n.
    let (lower, upper) = binomial_tails(3, 0.1, 0);
    assert!((lower - 0.729).abs() < 1e-12 && (upper - 1.0).abs() < 1e-12);
    let (lower, upper) = binomial_tails(3, 0.1, 3);
    assert!((lower - 1.0).abs() < 1e-12 && (upper - 0.001).abs() < 1e-12);
    // Both tails overlap in k only, also where n is large.
    let (lower, upper) = binomial_tails(100_000_000, 0.5, 50_000_000);
    assert!((lower - upper).abs() < 1e-5 && (lower + upper - 1.0 - 7.98e-5).abs() < 1e-6);
}

#[test]
fn bounds_reject_what_is_wrong() {
    // 10 % asked, 10.2 % and 9.8 % seen in 10^6: 6.7 standard deviations.
    assert!(!clopper_pearson(1_000_000, 0.1, 102_000, 0.001));
    assert!(!clopper_pearson(1_000_000, 0.1, 98_000, 0.001));
    assert!(clopper_pearson(1_000_000, 0.1, 100_300, 0.001));
    // A uniform sample that is stretched by 2 %.
    let stretched = (0..100_000).map(|i| f64::from(i) / 100_000.0 * 1.02).collect();
    assert!(kolmogorov_smirnov(stretched, |p| p).is_err());
    let even = (0..100_000).map(|i| f64::from(i) / 100_000.0).collect();
    assert!(kolmogorov_smirnov(even, |p| p).is_ok());
}
