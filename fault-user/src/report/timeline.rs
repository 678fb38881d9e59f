//! `--dry-run` of a scenario: when what would happen to whom.

use std::time::Duration;

use super::{dry_run::expect, number};
use crate::{
    scenario::{GIVEN, Part, RAMP_STEPS, SHORTEST_STEP_NS, Scenario, Schedule},
    spec::print_duration,
};

/// Edges shown of a scenario that has more, or has no end.
const EDGES: usize = 40;

/// What playing `scenario` would do; `words[i]` is target `i` in words, `length` when it would be over.
#[must_use]
pub fn timeline(
    scenario: &Scenario,
    parts: &[Part],
    words: &[String],
    seed: u64,
    length: Option<Duration>,
) -> String {
    let mut text = String::new();
    for part in parts {
        let name = &scenario.targets[part.target].name;
        text += &format!("target     {name}: {}\n", words[part.target]);
    }
    text += &format!("seed       {seed}\n");
    text += &match length {
        Some(length) => format!("ends       after {}, on Ctrl-C or SIGTERM\n", print_duration(length)),
        None => "ends       on Ctrl-C or SIGTERM, or with the command\n".to_owned(),
    };
    text.push('\n');
    text += &edges(scenario, length);
    for (number, fault) in scenario.faults.iter().enumerate() {
        let target = &scenario.targets[fault.target].name;
        let target =
            if target == GIVEN && parts.len() == 1 { String::new() } else { format!(", target {target}") };
        let phase = &scenario.phases[fault.phase].name;
        text += &format!("\nfault {number:<4} {} {}\n", fault.fault.layer(), fault.words());
        text += &format!("           phase {phase}{target}: {}\n", when(&fault.schedule));
        if let Some(ramp) = fault.schedule.ramp {
            let ramp = Duration::from_nanos(ramp);
            text += &format!("           a ramp of {}, {}\n", print_duration(ramp), steps(ramp));
        } else {
            let planned = parts.iter().find_map(|part| {
                let place = part.timed.iter().position(|timed| timed.number == number)?;
                part.plan.rules.get(place)
            });
            text += &planned
                .map_or_else(String::new, |planned| format!("           {}\n", expect(planned, seed)));
        }
        for expectation in &fault.expect {
            text += &format!("           expected: {expectation}\n");
        }
    }
    // Those of the file are in every part that has net faults, those of a part's target behind them.
    let exceptions = parts.iter().map(|part| &part.plan.exceptions).max_by_key(|exceptions| exceptions.len());
    for exception in exceptions.into_iter().flatten().map(|planned| &planned.exception) {
        text +=
            &format!("\nexcept     {exception}\n           no net fault touches what passes this filter\n");
    }
    for probe in &scenario.probes {
        let at = probe
            .at
            .map_or_else(|| "when all is healed".to_owned(), |at| format!("at {}", print_duration(at)));
        text += &format!("\nexpect     `{}`\n           {at}: exit status {}", probe.line(), probe.status);
        for (word, output) in [("prints", &probe.stdout), ("prints something with", &probe.stdout_has)] {
            text += &output.as_ref().map_or_else(String::new, |output| format!(", {word} {output:?}"));
        }
        text.push('\n');
    }
    text += "\nNothing was armed.\n";
    text
}

fn steps(ramp: Duration) -> String {
    let steps = (ramp.as_nanos() / u128::from(SHORTEST_STEP_NS)).clamp(1, u128::from(RAMP_STEPS));
    let each = u64::try_from(ramp.as_nanos() / steps).unwrap_or(u64::MAX);
    if steps == 1 {
        "one step".to_owned()
    } else {
        format!("{steps} steps, one every {}", number::nanoseconds(each))
    }
}

fn when(schedule: &Schedule) -> String {
    let print = |ns| print_duration(Duration::from_nanos(ns));
    let mut text = format!("from {}", print(schedule.at));
    text += &match schedule.length {
        Some(length) => format!(" for {}", print(length)),
        None => " to the end".to_owned(),
    };
    if let Some(every) = schedule.every {
        text += &format!(", every {}", print(every));
        text += &schedule.times.map_or_else(String::new, |times| format!(", {times} times"));
    }
    text
}

/// When which phase begins and ends.
fn edges(scenario: &Scenario, length: Option<Duration>) -> String {
    let end = length.map_or(u64::MAX, |length| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX));
    let mut text = String::new();
    let mut before = None;
    let mut next = Some(0);
    let mut shown = 0;
    while let Some(now) = next.filter(|now| *now <= end) {
        if shown == EDGES {
            text += "           …\n";
            break;
        }
        let mut words = Vec::new();
        for phase in &scenario.phases {
            let was = before.and_then(|before| phase.schedule.occurrence(before));
            let is = phase.schedule.occurrence(now).filter(|_| now < end);
            if was == is {
                continue;
            }
            words.extend(was.map(|_| format!("`{}` ends", phase.name)));
            words.extend(is.map(|_| format!("`{}` begins", phase.name)));
        }
        if !words.is_empty() {
            text += &format!("{:>10} {}\n", print_duration(Duration::from_nanos(now)), words.join(", "));
            shown += 1;
        }
        before = Some(now);
        next = scenario.phases.iter().filter_map(|phase| phase.schedule.next(now)).min();
    }
    text
}
