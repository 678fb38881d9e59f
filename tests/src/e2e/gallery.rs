//! The short scenarios of the gallery, at their shortest.

use anyhow::Context as _;

use super::{Lane, Test};
use crate::gallery::{Pace, SHORT, Stage};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "gallery::dependency_out", on: Lane::shows_the_gallery, run: |_| play("dependency-out") },
    Test { name: "gallery::payment", on: Lane::shows_the_gallery, run: |_| play("payment") },
    Test {
        name: "gallery::accepts_then_nothing",
        on: Lane::shows_the_gallery,
        run: |_| play("accepts-then-nothing"),
    },
    Test { name: "gallery::failing_disk", on: Lane::shows_the_gallery, run: |_| play("failing-disk") },
    Test { name: "gallery::five_states", on: Lane::shows_the_gallery, run: |_| play("five-states") },
];

fn play(name: &str) -> anyhow::Result<()> {
    let scenario = SHORT.iter().find(|scenario| scenario.name == name).context("no such scenario")?;
    (scenario.run)(&mut Stage::new(Pace::Short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_scenario_is_a_test() {
        let tests: Vec<String> =
            TESTS.iter().map(|test| test.name.replace("gallery::", "").replace('_', "-")).collect();
        let scenarios: Vec<&str> = SHORT.iter().map(|scenario| scenario.name).collect();
        assert_eq!(tests, scenarios);
    }
}
