//! Every fault that can be expressed is printed as text that means it; no text at all panics.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::strategies::{disk_faults, file_faults, net_faults, net_filters, proc_faults, triggers};
use crate::spec::{Exception, Fault, Layer, Source, SpecError, parse, parse_exception};

/// Text made of the language's own words, which gets far into the parser.
fn near_misses() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        select(Layer::ALL.iter().flat_map(|layer| super::super::words::of(*layer)).collect::<Vec<_>>())
            .prop_map(|known| known.word.to_owned()),
        select(vec![
            "5%",
            "0%",
            "101%",
            "%",
            "-1%",
            "1e9%",
            "0.00000001%",
            "100ms",
            "1m30s",
            "30s1m",
            "99999999999999999999s",
            "1.5",
            "80",
            "90-80",
            "0",
            "65536",
            "1s/2s",
            "1..2",
            "2..1",
            "..",
            "EIO",
            "ENOSPC",
            "/dev/vdb",
            "vdb",
            "10.0.0.1",
            "10.0.0.0/33",
            "[::1]:80",
            "[",
            "]",
            "::",
            ":::",
            "\"",
            "\"a b\"",
            "\\",
            "é",
            "\u{202e}",
            "\u{1b}[31m",
            "\0",
            "64KiB",
            "3",
            "bits",
            "33",
            "1B",
            "-14B",
            "0B",
            "60%",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ];
    vec(word, 0..12).prop_map(|words| words.join(" "))
}

fn never_panics(text: &str) -> Result<(), TestCaseError> {
    for layer in Layer::ALL {
        match parse(*layer, text) {
            Ok(fault) => {
                let printed = fault.to_string();
                prop_assert_eq!(parse(*layer, &printed).ok(), Some(fault), "{}", printed);
            }
            Err(error) => report_is_sound(&error, text)?,
        }
    }
    match parse_exception(text) {
        Ok(exception) => {
            let printed = exception.to_string();
            prop_assert_eq!(parse_exception(&printed).ok(), Some(exception), "{}", printed);
        }
        Err(error) => report_is_sound(&error, text)?,
    }
    Ok(())
}

fn report_is_sound(error: &SpecError, text: &str) -> Result<(), TestCaseError> {
    let report = error.render(false);
    prop_assert!(!report.is_empty());
    prop_assert!(report.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", report);
    let span = error.span();
    prop_assert!(span.start <= span.end && span.end <= text.len());
    Ok(())
}

fn is_what_it_prints(fault: &Fault) -> Result<(), TestCaseError> {
    match parse(fault.layer(), &fault.to_string()) {
        Ok(read) => prop_assert_eq!(&read, fault),
        Err(error) => prop_assert!(false, "{}", error.render(false)),
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_net_fault_is_what_it_prints(fault in net_faults()) {
        is_what_it_prints(&fault)?;
    }

    #[test]
    fn an_exception_is_what_it_prints(filter in net_filters(), trigger in triggers()) {
        let exception = Exception { filter, trigger, source: Source::default() };
        let text = exception.to_string();
        match parse_exception(&text) {
            Ok(read) => prop_assert_eq!(read, exception),
            Err(error) => prop_assert!(false, "{}", error.render(false)),
        }
    }

    #[test]
    fn a_disk_fault_is_what_it_prints(fault in disk_faults()) {
        is_what_it_prints(&fault)?;
    }

    #[test]
    fn a_file_fault_is_what_it_prints(fault in file_faults()) {
        is_what_it_prints(&fault)?;
    }

    #[test]
    fn a_proc_fault_is_what_it_prints(fault in proc_faults()) {
        is_what_it_prints(&fault)?;
    }

    #[test]
    fn text_never_panics(text in any::<String>()) {
        never_panics(&text)?;
    }

    #[test]
    fn near_misses_never_panic(text in near_misses()) {
        never_panics(&text)?;
    }

    #[test]
    fn cutting_a_spec_never_panics(fault in net_faults(), at in any::<prop::sample::Index>()) {
        let text = fault.to_string();
        let chars: Vec<char> = text.chars().collect();
        let cut: String = chars[..at.index(chars.len())].iter().collect();
        never_panics(&cut)?;
    }

    #[test]
    fn long_text_never_panics(word in near_misses(), times in 1_usize..2_000) {
        never_panics(&word.repeat(times))?;
    }
}
