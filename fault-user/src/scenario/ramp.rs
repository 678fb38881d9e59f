//! A fault that turns into another one, number by number.

use std::mem::offset_of;

use fault_common::rule::Rule;

use crate::{
    session::compile::{CompileError, compile},
    spec::Fault,
};

/// A number of a rule, on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which word of the rule.
    pub word: usize,
    /// What it is at first.
    pub from: u64,
    /// What it is in the end.
    pub to: u64,
}

/// A number of a rule that may turn: its word, and the number itself.
type Number = (usize, fn(&mut Rule) -> &mut u64);

/// Each is one word that the programs read once for each operation.
const NUMBERS: [Number; 4] = [
    (offset_of!(Rule, delay.mean_ns) / 8, |rule| &mut rule.delay.mean_ns),
    (offset_of!(Rule, delay.jitter_ns) / 8, |rule| &mut rule.delay.jitter_ns),
    (offset_of!(Rule, rate.bytes_per_second) / 8, |rule| &mut rule.rate.bytes_per_second),
    (offset_of!(Rule, trigger.threshold) / 8, |rule| &mut rule.trigger.threshold),
];

/// What turns when `from` becomes `to`: nothing if that is more than numbers.
pub(super) fn turns(from: &Fault, to: &Fault) -> Result<Option<Vec<Turn>>, CompileError> {
    let same_filter = match (from, to) {
        (Fault::Net(from), Fault::Net(to)) => from.filter == to.filter,
        (Fault::Disk(from), Fault::Disk(to)) => from.filter == to.filter,
        (Fault::File(from), Fault::File(to)) => from.filter == to.filter,
        (Fault::Net(_) | Fault::Disk(_) | Fault::File(_) | Fault::Proc(_), _) => false,
    };
    // A fault without a probability is decided about without a draw.
    let both_by_chance = from.trigger().probability.is_some() == to.trigger().probability.is_some();
    let (mut first, mut last) = (compile(0, from, None)?, compile(0, to, None)?);
    let mut turns = Vec::new();
    for (word, number) in NUMBERS {
        let (from, to) = (*number(&mut first), *number(&mut last));
        if from != to {
            turns.push(Turn { word, from, to });
        }
        *number(&mut last) = from;
    }
    Ok((same_filter && both_by_chance && first == last && !turns.is_empty()).then_some(turns))
}
