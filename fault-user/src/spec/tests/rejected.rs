//! Specs that are wrong, and the exact report: `rejected.txt` holds both, as a shell would show them.

use crate::spec::{Layer, Problem, SpecError, parse, parse_exception};

/// What reads the text.
#[derive(Clone, Copy, Debug)]
enum Reader {
    Fault(Layer),
    Exception,
}

impl Reader {
    const ALL: [Self; 5] = [
        Self::Fault(Layer::Net),
        Self::Fault(Layer::Disk),
        Self::Fault(Layer::File),
        Self::Fault(Layer::Proc),
        Self::Exception,
    ];

    const fn option(self) -> &'static str {
        match self {
            Self::Fault(layer) => layer.option(),
            Self::Exception => "--except",
        }
    }

    /// What it has to say against `text`.
    fn refusal(self, text: &str) -> SpecError {
        let read = match self {
            Self::Fault(layer) => parse(layer, text).map(|fault| fault.to_string()),
            Self::Exception => parse_exception(text).map(|exception| exception.to_string()),
        };
        match read {
            Ok(meaning) => panic!("{text}: read as {meaning}"),
            Err(error) => error,
        }
    }
}

/// A wrong spec and its report.
struct Case<'a> {
    reader: Reader,
    text: &'a str,
    report: String,
}

/// The cases of `rejected.txt`: a line `--OPTION 'SPEC'`, the report, an empty line.
fn cases() -> Vec<Case<'static>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for line in include_str!("rejected.txt").lines() {
        let spec = Reader::ALL.into_iter().find_map(|reader| {
            let text = line.strip_prefix(reader.option())?.strip_prefix(" '")?.strip_suffix('\'')?;
            Some((reader, text))
        });
        match (spec, cases.last_mut()) {
            (Some((reader, text)), _) => cases.push(Case { reader, text, report: String::new() }),
            (None, Some(case)) => case.report += &format!("{line}\n"),
            (None, None) => panic!("a report without a spec: {line}"),
        }
    }
    cases
}

fn without_trailing_blanks(report: &str) -> String {
    report.trim_end().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn wrong_specs_are_reported_word_for_word() {
    let cases = cases();
    assert!(cases.len() > 80, "{} cases", cases.len());
    if std::env::var_os("FAULT_BLESS").is_some() {
        let fresh = |Case { reader, text, .. }: &Case<'_>| {
            let report = without_trailing_blanks(&reader.refusal(text).render(false));
            format!("{} '{text}'\n{report}\n", reader.option())
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/spec/tests/rejected.txt");
        std::fs::write(path, cases.iter().map(fresh).collect::<String>()).expect("rejected.txt");
    }
    for Case { reader, text, report } in cases {
        let actual = reader.refusal(text).render(false);
        assert_eq!(
            without_trailing_blanks(&actual),
            without_trailing_blanks(&report),
            "{} '{text}'\n{actual}",
            reader.option()
        );
    }
}

#[test]
fn a_long_spec_is_refused_without_repeating_it() {
    let text = "drop ".repeat(100_000);
    let error = parse(Layer::Net, &text).expect_err("a long spec");
    assert_eq!(error.problem(), &Problem::TooLong { bytes: 500_000 });
    assert!(error.render(false).len() < 500);
}

#[test]
fn a_long_word_is_cut_in_the_sentence() {
    let error = parse(Layer::Net, &"x".repeat(4_000)).expect_err("a long word");
    assert_eq!(error.to_string(), format!("unknown verb `{}…`", "x".repeat(40)));
}
