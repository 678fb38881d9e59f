//! Computes the quantile tables of the delay distributions.
//!
//! Integer tables because there is no floating point in the kernel; computed rather than copied so that the
//! formula is the source. The statistics tests compare what comes out with the analytic distributions.

use std::{env, fmt::Write as _, fs, path::PathBuf};

const BITS: u32 = 12;
const SIZE: usize = 1 << BITS;
/// One standard deviation, as in netem's tables (`NETEM_DIST_SCALE` is 8192).
const ONE_BITS: u32 = 13;

/// Standard normal density.
fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Standard normal quantile, by bisection.
fn normal(p: f64) -> f64 {
    let (mut low, mut high) = (-10.0f64, 10.0f64);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if cdf(middle) < p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// Standard normal distribution function: Taylor series about 0 (Abramowitz & Stegun 26.2.10), and the
/// continued fraction 26.2.14 in the tails.
fn cdf(x: f64) -> f64 {
    let density = density(x);
    if x.abs() < 3.0 {
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term.abs() > 1e-17 {
            n += 2.0;
            term *= x * x / n;
            sum += term;
        }
        0.5 + density * sum
    } else {
        let mut fraction = 0.0;
        for n in (1..=60).rev() {
            fraction = f64::from(n) / (x.abs() + fraction);
        }
        let tail = density / (x.abs() + fraction);
        if x > 0.0 { 1.0 - tail } else { tail }
    }
}

/// Pareto with shape 3 and scale 1, standardised: its mean is 3/2, its variance 3/4.
fn pareto(x: f64) -> f64 {
    (x - 1.5) / 0.75f64.sqrt()
}

/// Share of one cell of a table.
const CELL: f64 = 1.0 / SIZE as f64;

/// The far end of a table whose true end is infinite: interpolating from the last border to it gives the
/// last cell the mean it should have.
fn end(border: f64, cell_mean: f64) -> f64 {
    2.0 * cell_mean - border
}

/// Quantiles of the standard normal distribution. The mean of all above z is density(z) / P(above z).
fn normal_table() -> Vec<f64> {
    let mut table: Vec<f64> = (0..=SIZE).map(|i| normal(i as f64 * CELL)).collect();
    let border = table[SIZE - 1];
    table[SIZE] = end(border, density(border) / CELL);
    table[0] = -table[SIZE];
    table
}

/// Quantiles of the standardised Pareto distribution. The mean of all above x is 3/2 x.
fn pareto_table() -> Vec<f64> {
    let quantile = |p: f64| (1.0 - p).powf(-1.0 / 3.0);
    let mut table: Vec<f64> = (0..SIZE).map(|i| pareto(quantile(i as f64 * CELL))).collect();
    let border = quantile(1.0 - CELL);
    table.push(end(pareto(border), pareto(1.5 * border)));
    table
}

/// The standard normal distribution function from -8 to 8, × 2^32.
fn cdf_table() -> Vec<u32> {
    let at = |i: usize| cdf(i as f64 * 16.0 * CELL - 8.0) * 2f64.powi(32);
    (0..=SIZE).map(|i| at(i).round().min(f64::from(u32::MAX)) as u32).collect()
}

/// Rust source of one table.
fn source(name: &str, doc: &str, table: &[f64]) -> String {
    let mut text = format!("/// {doc}\nstatic {name}: [i32; TABLE_SIZE + 1] = [");
    for value in table {
        let value = (value * f64::from(1 << ONE_BITS)).round() as i32;
        write!(text, "{value},").expect("writing to a String cannot fail");
    }
    text.push_str("];\n");
    text
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut text = format!(
        "/// Steps of a quantile table.\npub const TABLE_SIZE: usize = {SIZE};\n\
         /// A standard deviation is 2 to this power, as in netem's tables (`NETEM_DIST_SCALE`).\npub const TABLE_ONE_BITS: u32 = {ONE_BITS};\n"
    );
    let (normal, pareto) = (normal_table(), pareto_table());
    // In netem's tables Pareto is (x - 3/2) × 4/3, which is 2/√3 times as wide as its standard deviation.
    let width = 2.0 / 3f64.sqrt();
    let mixed: Vec<f64> = normal.iter().zip(&pareto).map(|(n, p)| 0.25 * n + 0.75 * width * p).collect();
    text += &source("NORMAL", "Standard normal.", &normal);
    text += &source("PARETO", "Standardised Pareto, shape 3.", &pareto);
    text += &source("PARETO_NORMAL", "0.25 normal + 0.75 Pareto, that as wide as in netem.", &mixed);
    write!(text, "/// Distribution function of the standard normal, from -8 to 8, × 2^32.\nstatic NORMAL_CDF: [u32; TABLE_SIZE + 1] = {:?};\n", cdf_table())
        .expect("writing to a String cannot fail");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("distribution_tables.rs"), text).expect("OUT_DIR is writable");
}
