//! `docs/spec.md` tells the truth.

use crate::spec::{Layer, parse, parse_exception, words};

const PAGE: &str = include_str!("../../../../docs/spec.md");

/// The lines of the page's code blocks of this kind, with their line numbers.
fn examples(kind: &str) -> Vec<(usize, &'static str)> {
    let mut block = None;
    let mut lines = Vec::new();
    for (number, line) in PAGE.lines().enumerate() {
        block = match (line.strip_prefix("```"), block) {
            (Some(_), Some(_)) => None,
            (Some(opened), None) => Some(opened),
            (None, block) => {
                if block == Some(kind) {
                    lines.push((number + 1, line));
                }
                block
            }
        };
    }
    lines
}

#[test]
fn every_example_is_read() {
    for layer in Layer::ALL {
        let examples = examples(&format!("fault-{layer}"));
        let least = if *layer == Layer::Proc { 2 } else { 10 };
        assert!(examples.len() >= least, "{layer}: {} examples", examples.len());
        for (number, text) in examples {
            if let Err(error) = parse(*layer, text) {
                panic!("{}", error.with_origin(&format!("docs/spec.md, line {number}")).render(false));
            }
        }
    }
}

#[test]
fn every_exception_is_read() {
    let examples = examples("fault-except");
    assert!(examples.len() >= 5, "{} examples", examples.len());
    for (number, text) in examples {
        if let Err(error) = parse_exception(text) {
            panic!("{}", error.with_origin(&format!("docs/spec.md, line {number}")).render(false));
        }
    }
}

#[test]
fn the_error_on_the_page_is_the_real_one() {
    let error = parse(Layer::Net, "drop 5% otu").expect_err("a wrong word");
    assert!(PAGE.contains(&error.render(false)), "{}", error.render(false));
}

#[test]
fn every_word_is_on_the_page() {
    for layer in Layer::ALL {
        for known in words::of(*layer) {
            let written = [format!("`{}`", known.word), format!("`{} ", known.word)];
            let optional = format!("[{} ", known.word);
            let found = written.iter().chain([&optional]).any(|word| PAGE.contains(word));
            assert!(found, "{layer}: `{}`", known.word);
        }
    }
}

#[test]
fn the_limits_on_the_page_are_the_real_ones() {
    use crate::spec::{
        BAD_SECTORS_MAX, ByteSize, COUNT_MAX, DISK_HOLD_MAX, NET_DELAY_MAX, PAUSE_MAX, SPEC_MAX_BYTES,
        WINDOW_MAX,
    };
    assert_eq!(COUNT_MAX, 10_u64.pow(18));
    assert_eq!(DISK_HOLD_MAX.as_secs(), 60);
    assert_eq!(NET_DELAY_MAX.as_secs(), 3600);
    assert_eq!(PAUSE_MAX.as_secs(), 3600);
    assert_eq!(WINDOW_MAX.as_secs(), 365 * 86_400);
    assert_eq!(SPEC_MAX_BYTES, 4096);
    assert_eq!(BAD_SECTORS_MAX, (2 << 30) / 512);
    assert_eq!(ByteSize::MAX.bytes(), 1 << 40);
    assert_eq!(fault_common::limits::MAX_CORRUPT_BITS, 32);
    assert_eq!(fault_common::limits::MAX_RULES, 64);
}
