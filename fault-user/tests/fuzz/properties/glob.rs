//! Patterns of paths: a pattern in the first line, a path in each of the others.

use fault_user::spec::{Component, FileGlob, Flaw, automaton};
use globset::GlobBuilder;

use super::in_linear_time;

/// Reads the pattern, and matches the paths with it and with `globset`.
///
/// # Panics
/// When something does not hold.
pub fn holds(text: &str) {
    in_linear_time(text.len(), || {
        let mut lines = text.split('\n');
        let pattern = lines.next().unwrap_or_default();
        match FileGlob::read(pattern) {
            Ok(glob) => glob_is_sound(&glob, lines.filter(|path| is_path(path))),
            Err(flaw) => assert!(matches!(flaw, Flaw::Shape | Flaw::Range), "{pattern:?}: {flaw:?}"),
        }
    });
}

fn glob_is_sound<'a>(glob: &FileGlob, paths: impl Iterator<Item = &'a str>) {
    assert_eq!(FileGlob::read(&glob.to_string()).as_ref(), Ok(glob));
    let ours = automaton(glob.components()).expect("what was read is not too long");
    // Two in a row are one here.
    let text = glob.text();
    let mut parts: Vec<&str> = text.split('/').collect();
    parts.dedup_by(|a, b| a == b && *a == "**");
    let plain = parts.join("/");
    let theirs = GlobBuilder::new(&plain)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .unwrap_or_else(|error| panic!("{text:?} is a pattern here and none there: {error}"))
        .compile_matcher();
    // Theirs is one byte, ours one character.
    let has_character = text.contains('?');
    for path in paths.filter(|path| path.is_ascii() || !has_character) {
        let reversed = path.split('/').skip(1).collect::<Vec<_>>();
        let reversed = reversed.iter().rev().flat_map(|name| name.bytes().chain([b'/']));
        assert_eq!(ours.matches(reversed), theirs.is_match(path), "{text:?} and {path:?}");
    }
    let literal: Option<Vec<Vec<u8>>> = glob.components().iter().map(Component::as_literal).collect();
    if let Some(names) = literal {
        let itself = names.iter().rev().flat_map(|name| name.iter().copied().chain([b'/']));
        assert!(ours.matches(itself), "{text:?} does not match itself");
    }
}

/// As the kernel knows them: absolute, every name with letters in it.
fn is_path(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|names| names.split('/').all(|name| !matches!(name, "" | "." | "..")))
        && !text.contains('\0')
}
