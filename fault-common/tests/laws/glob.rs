//! Patterns of paths, against another implementation and by example.

use fault_common::glob::{Automaton, MAX_GLOB_BYTES, TooLong};
use globset::GlobBuilder;
use proptest::prelude::*;

/// `/a/**/b*`, from the last component to the first. Components: `**` for directories, else bytes, `*` and `?`.
fn automaton(pattern: &str) -> Result<Automaton, TooLong> {
    let mut automaton = Automaton::new();
    let mut components: Vec<&str> = pattern.split('/').skip(1).collect();
    // Several in a row say what one says, and one more directory for each if they are at the end.
    components.dedup_by(|a, b| a == b && *a == "**");
    for (index, component) in components.iter().rev().enumerate() {
        if *component == "**" {
            automaton.directories(index != 0)?;
            continue;
        }
        for byte in component.bytes() {
            match byte {
                b'*' => automaton.star(),
                b'?' => automaton.character()?,
                byte => automaton.byte(byte)?,
            }
        }
        automaton.byte(b'/')?;
    }
    Ok(automaton)
}

/// `/a/b` as `b/a/`.
fn reversed(path: &str) -> Vec<u8> {
    path.split('/')
        .skip(1)
        .collect::<Vec<_>>()
        .iter()
        .rev()
        .flat_map(|name| format!("{name}/").into_bytes())
        .collect()
}

fn matches(pattern: &str, path: &str) -> bool {
    automaton(pattern).unwrap().matches(reversed(path))
}

#[test]
fn examples() {
    for (pattern, path, wanted) in [
        ("/data/wal/**", "/data/wal/1", true),
        ("/data/wal/**", "/data/wal/a/b/c", true),
        ("/data/wal/**", "/data/wal", false),
        ("/data/wal/**", "/data/walrus/1", false),
        ("/data/wal/**", "/data/xwal/1", false),
        ("/data/*", "/data/1", true),
        ("/data/*", "/data/.hidden", true),
        ("/data/*", "/data/a/b", false),
        ("/**/wal/*", "/wal/1", true),
        ("/**/wal/*", "/a/b/wal/1", true),
        ("/**/wal/*", "/a/b/xwal/1", false),
        ("/a/**/b", "/a/b", true),
        ("/a/**/b", "/a/x/y/b", true),
        ("/a/**/b", "/a/x/yb", false),
        ("/a/**/**/b", "/a/b", true),
        ("/a/?.log", "/a/1.log", true),
        ("/a/?.log", "/a/é.log", true),
        ("/a/?.log", "/a/12.log", false),
        ("/a/?.log", "/a/.log", false),
        ("/**", "/a", true),
        ("/**", "/a/b", true),
        ("/a*b*c", "/abxbc", true),
        ("/a*b*c", "/abx/bc", false),
        ("/*/x", "/x", false),
    ] {
        assert_eq!(matches(pattern, path), wanted, "{pattern} {path}");
    }
}

#[test]
fn a_pattern_has_room_for_so_many_bytes_and_no_more() {
    let name = "n".repeat(MAX_GLOB_BYTES - 1);
    assert!(matches(&format!("/{name}"), &format!("/{name}")));
    assert!(!matches(&format!("/{name}"), &format!("/{name}n")));
    assert_eq!(automaton(&format!("/{name}n")), Err(TooLong));
}

fn component() -> impl Strategy<Value = String> {
    prop_oneof![2 => "[ab.*?]{1,4}", 1 => Just("**".to_owned()), 1 => "[ab]{1,70}"]
        .prop_filter("two stars only alone", |text| text == "**" || !text.contains("**"))
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![3 => "[ab.]{1,3}", 1 => "[ab]{60,70}"], 1..6)
        .prop_map(|names| names.iter().map(|name| format!("/{name}")).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn globset_says_the_same(
        components in prop::collection::vec(component(), 1..5),
        paths in prop::collection::vec(path(), 1..40),
    ) {
        let pattern: String = components.iter().map(|component| format!("/{component}")).collect();
        let Ok(automaton) = automaton(&pattern) else { return Ok(()) };
        // Two in a row at the end are one here.
        let mut plain = components.clone();
        plain.dedup_by(|a, b| a == b && *a == "**");
        let plain: String = plain.iter().map(|component| format!("/{component}")).collect();
        let other = GlobBuilder::new(&plain).literal_separator(true).build().unwrap().compile_matcher();
        for path in paths {
            prop_assert_eq!(automaton.matches(reversed(&path)), other.is_match(&path), "{} {}", pattern, path);
        }
    }

    #[test]
    fn a_path_matches_itself_and_whatever_one_makes_of_it(path in path(), place in any::<prop::sample::Index>()) {
        prop_assume!(path.len() < MAX_GLOB_BYTES);
        prop_assert!(matches(&path, &path));
        prop_assert!(matches("/**", &path));
        let mut looser = path.clone().into_bytes();
        let place = place.index(looser.len());
        if looser[place] != b'/' {
            for wild in *b"*?" {
                looser[place] = wild;
                prop_assert!(matches(std::str::from_utf8(&looser).unwrap(), &path));
            }
        }
    }
}
