//! Scenario files.

use std::collections::BTreeSet;

use fault_user::{
    scenario::{Origin, Scenario, ScenarioError, outline, read},
    spec::Span,
};
use miette::Diagnostic as _;

use super::{in_linear_time, is_shown, is_within, spec::fault_is_sound};

/// Changes of a schedule that are followed.
const CHANGES: usize = 32;

/// Reads `text` with a target from the command line, without one, and as far as `fault preset` does.
///
/// # Panics
/// When something does not hold.
pub fn holds(text: &str) {
    in_linear_time(text.len(), || {
        let origin = Origin { name: "fuzz.toml".to_owned(), text: text.to_owned() };
        let given = read(origin.clone(), &[], true);
        let not_given = read(origin.clone(), &[], false);
        if let Err(error) = outline(&origin) {
            error_is_sound(text, &error);
            assert!(given.is_err(), "it can be read, but not outlined: {}", error.render(false));
        }
        // What names its targets does not need another one.
        if let (Err(error), Ok(_)) = (&given, &not_given) {
            panic!("one target more, and it cannot be read: {}", error.render(false));
        }
        for read in [given, not_given] {
            match read {
                Ok(scenario) => scenario_is_sound(text, &scenario),
                Err(error) => error_is_sound(text, &error),
            }
        }
    });
}

fn scenario_is_sound(text: &str, scenario: &Scenario) {
    for fault in &scenario.faults {
        fault_is_sound(&fault.fault);
        fault.becomes.iter().for_each(fault_is_sound);
        assert!(!fault.words().is_empty());
        assert!(is_within(text, fault.text.span), "{:?}", fault.text.span);
        assert!(fault.target < scenario.targets.len() && fault.phase < scenario.phases.len());
        let mut now = 0;
        let mut seen = BTreeSet::new();
        while let Some(next) = fault.schedule.next(now).filter(|_| seen.len() < CHANGES) {
            assert!(next > now || now == 0, "{:?} changes at {next}, behind {now}", fault.schedule);
            let _ = (fault.schedule.occurrence(next), fault.schedule.step(next));
            if !seen.insert(next) {
                break;
            }
            now = next;
        }
        if let Some(end) = fault.schedule.end() {
            assert_eq!(fault.schedule.occurrence(end), None, "{:?} goes on at its end", fault.schedule);
        }
    }
    if let Err(error) = scenario.parts(&[], 1, None) {
        assert!(!error.to_string().is_empty());
    }
    let _ = scenario.end_ns(None);
}

/// It points into the file, and can be shown.
fn error_is_sound(text: &str, error: &ScenarioError) {
    let labels: Vec<_> = error.labels().into_iter().flatten().collect();
    assert!(!labels.is_empty(), "{error:?}");
    for label in labels {
        let span = Span::new(label.offset(), label.offset() + label.len());
        assert!(is_within(text, span), "{span:?}: {error:?}");
    }
    assert!(!error.to_string().trim().is_empty(), "{error:?}");
    if !is_shown(text) {
        return;
    }
    let report = error.render(false);
    assert!(report.contains("error:"), "{report}");
    assert!(report.chars().all(|letter| letter == '\n' || !letter.is_control()), "{report:?}");
}
