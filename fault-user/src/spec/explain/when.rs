//! Which of the operations that pass a filter are hit.

use crate::spec::{
    Probability, Trigger,
    units::{print_duration, print_probability},
};

/// One sentence for each condition; none for a fault that always hits.
pub(super) fn when(trigger: &Trigger, noun: &str) -> Vec<String> {
    let Trigger { probability, burst, gilbert, markov, gap, nth, every, first, times, after, window, cycle } =
        trigger;
    let mut when = Vec::new();
    match probability {
        Some(Probability::NEVER) => when.push("never: 0% touches nothing at all".to_owned()),
        Some(chance) => when.push(match burst {
            Some(burst) => format!(
                "with a chance of {}, in bursts: each draw of a flow takes {} of the one before (so the share is not exactly \
                 the chance)",
                print_probability(*chance),
                print_probability(*burst)
            ),
            None => format!("each {noun} with a chance of {}, independently", print_probability(*chance)),
        }),
        None => {}
    }
    if let Some(gilbert) = gilbert {
        when.push(format!(
            "each flow turns bad with a chance of {} at every {noun}, and good again with {}; {} are hit while it is bad, {} while good",
            print_probability(gilbert.to_bad),
            print_probability(gilbert.to_good),
            print_probability(gilbert.bad),
            print_probability(gilbert.good)
        ));
    }
    if let Some(model) = markov {
        when.push(format!(
            "each flow is in a gap, in which a {noun} is hit alone with a chance of {} and begins a burst with {}; in a burst, after \
             a hit, it is over with {} and pauses with {}, and after a pause goes on with {}",
            print_probability(model.alone),
            print_probability(model.to_burst),
            print_probability(model.to_gap),
            print_probability(model.to_pause),
            print_probability(model.to_hit)
        ));
    }
    if let Some(gap) = gap {
        when.push(format!(
            "from one hit of a flow to the next at least {gap} matches, and as many from its first"
        ));
    }
    let counted = [
        nth.map(|n| format!("only match number {n}")),
        every.map(|n| format!("only every match whose number {n} divides")),
        first.map(|n| format!("only among the first {n} matches")),
        times.map(|n| format!("at most {n} times")),
        after.map(|after| format!("not before {} have passed", print_duration(after))),
        window.map(|window| format!("for {}, no longer", print_duration(window))),
        cycle.map(|cycle| {
            format!("for {}, then not for {}, and so on", print_duration(cycle.on), print_duration(cycle.off))
        }),
    ];
    when.extend(counted.into_iter().flatten());
    when
}
