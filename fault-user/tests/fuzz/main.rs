//! The corpus that fuzzing left behind (`cargo xtask fuzz`, `fuzz/corpus`) is replayed, and long texts cost what their length
//! allows.

mod properties;

use std::{fs, path::Path};

use properties::{glob, scenario, spec};

/// Calls `holds` with every file of `fuzz/corpus/TARGET`.
fn replay(target: &str, holds: fn(&str)) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&directory).expect("the corpus") {
        let path = entry.expect("an entry of the corpus").path();
        let bytes = fs::read(&path).expect("a file of the corpus");
        // What the fuzzer makes of bytes that are no text: as much of them as is.
        let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        // What panics is named.
        std::panic::catch_unwind(|| holds(text))
            .unwrap_or_else(|_| panic!("does not hold for {}", path.display()));
        replayed += 1;
    }
    assert!(replayed > 50, "only {replayed} texts in {}", directory.display());
}

#[test]
fn corpus_of_specs() {
    replay("spec", spec::holds);
}

#[test]
fn corpus_of_scenarios() {
    replay("scenario", scenario::holds);
}

#[test]
fn corpus_of_globs() {
    replay("glob", glob::holds);
}

/// The longest text that is tried.
const LONG: usize = 64 << 10;

/// `unit` again and again between `head` and `tail`, up to [`LONG`] bytes.
fn long(head: &str, unit: &str, tail: &str) -> String {
    let count = (LONG - head.len() - tail.len()) / unit.len();
    format!("{head}{}{tail}", unit.repeat(count))
}

#[test]
fn long_specs() {
    for (head, unit) in [
        ("", "x"),
        ("", "\u{e4}"),
        ("", " "),
        ("", "\""),
        ("drop ", "in "),
        ("drop ", "5% "),
        ("drop to ", "10.0.0.1,"),
        ("error read file /", "*a"),
        ("error read file \"", "\\\\"),
        ("delay ", "9"),
        ("delay ", "1ms"),
    ] {
        spec::holds(&long(head, unit, ""));
        // As long as a spec may be.
        let longest = long(head, unit, "");
        let end = (0..=fault_user::spec::SPEC_MAX_BYTES).rev().find(|at| longest.is_char_boundary(*at));
        spec::holds(&longest[..end.unwrap_or_default()]);
    }
}

#[test]
fn long_scenarios() {
    let phase = "[[phase]]\nfor = \"1s\"\nfaults = [{ net = \"drop\" }]\n";
    let value = format!("[parameters]\na = \"{}\"\n[[phase]]\nname = \"", "x".repeat(LONG / 2));
    for (head, unit, tail) in [
        ("", "x", ""),
        ("", "[", ""),
        ("a = ", "[", ""),
        ("a = ", "{a=", ""),
        ("", "a.", "a = 1"),
        ("", "\n", ""),
        ("", "\u{1b}", ""),
        ("[[phase]]\nname = \"", "\\u00e4", "\""),
        ("[[phase]]\nname = \"", "${a}", "\""),
        (&value, "${a}", "\""),
        ("", phase, ""),
        ("except = [", "\"to 10.0.0.1\",", "]\n[[phase]]\nfor = \"1s\"\n"),
        ("[[phase]]\nfaults = [", "{ net = \"drop\" },", "]\n"),
    ] {
        scenario::holds(&long(head, unit, tail));
    }
    let targets: String = (0..2000).map(|number| format!("[targets.t{number}]\ncomm = \"c\"\n")).collect();
    scenario::holds(&format!("{targets}[[phase]]\nfaults = [{{ net = \"drop\", target = \"t1999\" }}]\n"));
    scenario::holds(&format!("{targets}[[phase]]\nfaults = [{{ net = \"drop\", target = \"t\" }}]\n"));
}

#[test]
fn long_globs() {
    for unit in ["a", "*a", "/**", "/*", "?", "\\", "\\a"] {
        glob::holds(&format!("{}\n/a", long("/", unit, "")));
        glob::holds(&long("/**/*a*a*a*a*b/**\n/", "a", ""));
        glob::holds(&long("/**/*a*a*a*a*b/**\n", "/a", ""));
    }
}
