//! `docs/scenarios.md` tells the truth.

use super::{super::read, golden_text, origin, wrong};

const PAGE: &str = include_str!("../../../../docs/scenarios.md");

/// The `toml` blocks of the page.
fn examples() -> Vec<&'static str> {
    PAGE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_example_is_read() {
    assert!(examples().len() >= 5, "{}", examples().len());
    for text in examples() {
        if let Err(error) = read(origin(text), &[], true) {
            panic!("{}", error.render(false));
        }
    }
}

#[test]
fn the_error_on_the_page_is_the_real_one() {
    let error = wrong("[[phase]]\nfor = \"1s\"\nfaults = [{ net = \"drop 5% otu\" }]", true).render(false);
    assert!(PAGE.contains(&error), "{error}");
}

#[test]
fn the_timeline_on_the_page_is_the_real_one() {
    let text = golden_text(examples()[0], &["`ping -i 0.05 127.0.0.1`"]);
    let (timeline, _) = text.split_once("\n\nfault 0").expect("faults");
    assert!(PAGE.contains(timeline), "{timeline}");
}

#[test]
fn every_key_is_on_the_page() {
    let told =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/scenario/tests/rejected.txt"));
    let told = told.expect("the rejected files");
    let mut keys = 0;
    for line in told.lines().filter(|line| line.contains("+-- a ") && line.contains(" has `")) {
        for key in line.split('`').skip(1).step_by(2) {
            keys += 1;
            let written = [format!("`{key}`"), format!("[{key}]"), format!("[{key}."), format!("`{key} ")];
            assert!(written.iter().any(|word| PAGE.contains(word)), "`{key}`");
        }
    }
    assert!(keys > 10, "{keys}");
}

#[test]
fn the_steps_on_the_page_are_the_real_ones() {
    assert_eq!((super::super::RAMP_STEPS, super::super::SHORTEST_STEP_NS), (100, 10_000_000));
}
