//! Statistics of the generator, of probabilities and of delays.
//!
//! Every seed is fixed, so a test that passes once passes always. Significance is 0.1 % for each test
//! function as a whole: where one makes many comparisons, each of them gets its share of the 0.1 %
//! (Bonferroni). Sample sizes stand beside the bounds.

mod bounds;
mod bursts;
mod delays;
mod generator;
mod golden;
mod independence;
mod probability;

use fault_common::decide::rng::Coordinates;

/// Significance of one test function.
const ALPHA: f64 = 0.001;

fn at(seed: u64, rule: u32, stream: u64, ordinal: u64) -> Coordinates {
    Coordinates { seed, rule, stream, ordinal }
}
