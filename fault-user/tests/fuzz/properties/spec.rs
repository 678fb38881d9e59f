//! Specs of every layer, and exceptions.

use std::fmt::Display;

use fault_user::{
    session::compile::{compile, spare},
    spec::{Exception, Fault, Layer, SpecError, explain, parse, parse_exception},
};

use super::{in_linear_time, is_shown, is_within};

/// Reads `text` as everything that a spec can be.
///
/// # Panics
/// When something does not hold.
pub fn holds(text: &str) {
    in_linear_time(text.len(), || {
        for layer in Layer::ALL {
            match parse(*layer, text) {
                Ok(fault) => fault_is_sound(&fault),
                Err(error) => error_is_sound(text, &error),
            }
        }
        match parse_exception(text) {
            Ok(exception) => exception_is_sound(&exception),
            Err(error) => error_is_sound(text, &error),
        }
    });
}

/// It is printed as text that means it, and everybody who asks is told about it.
pub(super) fn fault_is_sound(fault: &Fault) {
    round_trip(fault, |printed| parse(fault.layer(), printed));
    let explanation = explain(fault);
    assert!(!explanation.what.is_empty() && !explanation.which.is_empty(), "{fault}: {explanation:?}");
    assert!(explanation.when.iter().all(|when| !when.is_empty()), "{fault}: {explanation:?}");
    // What cannot be a rule is refused with a sentence.
    if let Err(error) = compile(0, fault, None) {
        assert!(!error.to_string().is_empty());
    }
}

fn exception_is_sound(it: &Exception) {
    round_trip(it, parse_exception);
    if let Err(error) = spare(0, 0, it) {
        assert!(!error.to_string().is_empty());
    }
}

fn round_trip<T: Display + PartialEq + std::fmt::Debug>(
    it: &T,
    parse: impl Fn(&str) -> Result<T, SpecError>,
) {
    let printed = it.to_string();
    match parse(&printed) {
        Ok(again) => {
            assert_eq!(again, *it, "printed as {printed:?}");
            assert_eq!(again.to_string(), printed);
        }
        Err(error) => panic!("{it:?} is printed as {printed:?}, which is refused:\n{}", error.render(false)),
    }
}

/// It points into the text, and can be shown. That the place was not moved to be there is asserted where errors are made.
fn error_is_sound(text: &str, error: &SpecError) {
    assert!(is_within(text, error.span()), "{:?}: {error:?}", error.span());
    assert!(!error.to_string().trim().is_empty(), "{error:?}");
    if !is_shown(text) {
        return;
    }
    let report = error.render(false);
    assert!(report.lines().count() > 3, "{report}");
    assert!(report.chars().all(|letter| letter == '\n' || !letter.is_control()), "{report:?}");
}
