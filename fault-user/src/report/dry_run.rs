//! `--dry-run`: what would be armed, and what to expect of it.

use crate::{
    session::{
        plan::{Plan, PlannedRule},
        simulate::{Expectation, simulate},
    },
    spec::{Fault, ProcVerb},
};

use super::number;

/// Operations simulated for each fault.
const OPERATIONS: u64 = 100_000;

/// What something named in a spec turned out to be: `("to db.example", "10.0.0.7, 10.0.0.8")`.
pub type Resolved = (String, String);

/// What `plan` would arm against `target` (in words: `pid 4711 and its descendants`). `resolved[i]` is what
/// the names in fault `i` stand for; those of exceptions follow.
#[must_use]
pub fn dry_run(plan: &Plan, target: &str, resolved: &[Vec<Resolved>]) -> String {
    let mut text = format!("target     {target}\nseed       {}\n", plan.seed);
    match plan.duration {
        Some(duration) => {
            let duration = number::nanoseconds(duration.as_nanos().try_into().unwrap_or(u64::MAX));
            text += &format!("ends       after {duration}, on Ctrl-C or SIGTERM\n");
        }
        None => text += "ends       on Ctrl-C or SIGTERM, or with the command\n",
    }
    for planned in &plan.rules {
        text += &format!("\nfault {:<4} {} {}\n", planned.id, planned.fault.layer(), planned.fault);
        text += &names(resolved, planned.id);
        text += &format!("           {}\n", expect(planned, plan.seed));
    }
    for planned in &plan.exceptions {
        text += &format!("\nexcept     {}\n", planned.exception);
        text += &names(resolved, planned.rule.id);
        text += "           no net fault touches what passes this filter\n";
    }
    text += "\nNothing was armed.\n";
    text
}

/// What the names in rule `id` stand for, a line each.
fn names(resolved: &[Vec<Resolved>], id: u32) -> String {
    let names = resolved.get(id as usize).into_iter().flatten();
    names.map(|(what, is)| format!("           {what} is {is}\n")).collect()
}

/// One sentence about a simulation.
pub(super) fn expect(planned: &PlannedRule, seed: u64) -> String {
    if let Fault::Proc(fault) = &planned.fault {
        let ProcVerb::Pause(lasts) = fault.verb;
        let lasts = number::nanoseconds(lasts.as_nanos().try_into().unwrap_or(u64::MAX));
        return format!("everybody stands still once, for {lasts}");
    }
    let expectation = simulate(planned, seed, OPERATIONS);
    let Expectation { matched, injected, .. } = expectation;
    let is_hit = if injected == 1 { "is hit" } else { "are hit" };
    let mut text = format!("of {matched} simulated operations that match, {injected} {is_hit}");
    let trigger = &planned.rule.trigger;
    // The share of a counted trigger depends on how many operations there are.
    if (trigger.nth, trigger.first, trigger.times) == (0, 0, 0) {
        text += &format!(" ({})", number::percent(injected as f64 / matched.max(1) as f64));
    }
    if trigger.cycle_ns != 0 {
        let (on, turn) = (trigger.cycle_on_ns, trigger.cycle_ns);
        text += &format!(", for {} of every {}", number::nanoseconds(on), number::nanoseconds(turn));
    }
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)]
        .map(|(name, share)| expectation.quantile_ns(share).map(|ns| (name, ns)));
    if let [Some((_, first)), .., Some((_, last))] = quantiles
        && first == last
    {
        text += &format!(", each {} late", number::nanoseconds(first));
    } else {
        for (name, ns) in quantiles.into_iter().flatten() {
            text += &format!(", {name} {}", number::nanoseconds(ns));
        }
    }
    text
}
