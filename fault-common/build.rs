//! Computes the quantile tables of the delay distributions.
//!
//! Integer tables because there is no floating point in the kernel; computed rather than copied so that the
//! formula is the source. The statistics tests compare what comes out with the analytic distributions.

use std::{env, fmt::Write as _, fs, path::PathBuf};

const BITS: u32 = 12;
const SIZE: usize = 1 << BITS;
/// One standard deviation, as in netem's tables (`NETEM_DIST_SCALE` is 8192).
const ONE_BITS: u32 = 13;

/// Standard normal quantile by Newton's method on the error function's series: exact enough for 13 bits.
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
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
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
fn pareto(p: f64) -> f64 {
    let x = (1.0 - p).powf(-1.0 / 3.0);
    (x - 1.5) / 0.75f64.sqrt()
}

/// The mixture netem calls paretonormal.
fn pareto_normal(p: f64) -> f64 {
    0.25 * normal(p) + 0.75 * pareto(p)
}

fn table(name: &str, doc: &str, quantile: impl Fn(f64) -> f64) -> String {
    let mut text = format!("/// {doc}\nstatic {name}: [i32; TABLE_SIZE + 1] = [");
    for i in 0..=SIZE {
        // The ends are infinite; half a step inside is where the first and last draws lie on average.
        let p = (i as f64).clamp(0.5, SIZE as f64 - 0.5) / SIZE as f64;
        let value = (quantile(p) * f64::from(1 << ONE_BITS)).round() as i32;
        write!(text, "{value},").expect("writing to a String cannot fail");
    }
    text.push_str("];\n");
    text
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut text = format!(
        "/// Steps of a quantile table.\nconst TABLE_SIZE: usize = {SIZE};\n\
         /// A standard deviation is 2 to this power.\nconst TABLE_ONE_BITS: u32 = {ONE_BITS};\n"
    );
    text += &table("NORMAL", "Standard normal.", normal);
    text += &table("PARETO", "Standardised Pareto, shape 3.", pareto);
    text += &table("PARETO_NORMAL", "0.25 normal + 0.75 Pareto.", pareto_normal);
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("distribution_tables.rs"), text).expect("OUT_DIR is writable");
}
