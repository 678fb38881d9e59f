//! Whether the history of a register is linearizable: whether its operations could have happened one at a time, each at some
//! moment between its invocation and its completion.
//!
//! The search is that of Wing and Gong, with Lowe's memory of what has been tried: the same operations, in whatever order,
//! that left the same value behind. Linearizability is local, so each register is judged by itself.

use std::collections::{BTreeSet, HashMap, HashSet};

/// What was done, and what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It held this.
    Read(u64),
    /// It was given this.
    Write(u64),
    /// It held the first and was given the second.
    Swap(u64, u64),
}

impl Action {
    /// What the register holds then; nothing if that cannot be, from `value`.
    fn apply(self, value: u64) -> Option<u64> {
        match self {
            Self::Read(seen) => (seen == value).then_some(value),
            Self::Write(new) => Some(new),
            Self::Swap(old, new) => (old == value).then_some(new),
        }
    }

    /// What it needs to have been there.
    const fn needs(self) -> Option<u64> {
        match self {
            Self::Read(seen) => Some(seen),
            Self::Write(_) => None,
            Self::Swap(old, _) => Some(old),
        }
    }

    /// What it leaves, if it changes something.
    const fn leaves(self) -> Option<u64> {
        match self {
            Self::Read(_) => None,
            Self::Write(new) | Self::Swap(_, new) => Some(new),
        }
    }
}

/// One operation on a register.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// When it was asked for.
    pub invoke: u64,
    /// When it was acknowledged. If it never was, it may have taken effect at any moment since, or not at all.
    pub complete: Option<u64>,
    /// What.
    pub action: Action,
}

/// A moment of the history, in a doubly linked list.
struct Event {
    /// Which operation, and whether this is its completion.
    operation: usize,
    completes: bool,
    before: usize,
    behind: usize,
}

/// What has not been put in order yet. The first event is a head that stands for nothing.
struct Rest {
    events: Vec<Event>,
    /// Of each operation: its invocation and, if it has one, its completion.
    places: Vec<(usize, Option<usize>)>,
}

const HEAD: usize = 0;

impl Rest {
    fn of(operations: &[Operation]) -> Self {
        // What begins at the very moment at which something ends overlaps it.
        let mut order: Vec<(u64, bool, usize)> = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            order.push((operation.invoke, false, number));
            order.extend(operation.complete.map(|at| (at.max(operation.invoke), true, number)));
        }
        order.sort_unstable();
        let count = order.len() + 1;
        let mut rest = Self { events: Vec::with_capacity(count), places: vec![(0, None); operations.len()] };
        let link = |place: usize| (place.checked_sub(1).unwrap_or(count - 1), (place + 1) % count);
        let head = link(HEAD);
        rest.events.push(Event { operation: 0, completes: false, before: head.0, behind: head.1 });
        for (place, (_, completes, operation)) in (1..).zip(order) {
            let (before, behind) = link(place);
            rest.events.push(Event { operation, completes, before, behind });
            if completes {
                rest.places[operation].1 = Some(place);
            } else {
                rest.places[operation].0 = place;
            }
        }
        rest
    }

    fn unlink(&mut self, place: usize) {
        let Event { before, behind, .. } = self.events[place];
        self.events[before].behind = behind;
        self.events[behind].before = before;
    }

    /// Undoes the last [`Rest::unlink`] that is not undone yet.
    fn link(&mut self, place: usize) {
        let Event { before, behind, .. } = self.events[place];
        self.events[before].behind = place;
        self.events[behind].before = place;
    }

    fn take(&mut self, operation: usize) {
        let (invocation, completion) = self.places[operation];
        self.unlink(invocation);
        if let Some(completion) = completion {
            self.unlink(completion);
        }
    }

    fn put_back(&mut self, operation: usize) {
        let (invocation, completion) = self.places[operation];
        if let Some(completion) = completion {
            self.link(completion);
        }
        self.link(invocation);
    }
}

/// How many operations that are left need a value.
#[derive(Clone, Copy, Default)]
struct Needs {
    /// Acknowledged ones.
    must: u32,
    /// All.
    may: u32,
}

/// What is needed of each value. As no value is written twice, one that is overwritten is gone for good.
struct Needed(HashMap<u64, Needs>);

impl Needed {
    fn of(operations: &[Operation]) -> Self {
        let mut needed = Self(HashMap::new());
        for operation in operations {
            needed.change(operation, |count| count + 1);
        }
        needed
    }

    fn change(&mut self, operation: &Operation, by: fn(u32) -> u32) {
        if let Some(value) = operation.action.needs() {
            let needs = self.0.entry(value).or_default();
            needs.may = by(needs.may);
            if operation.complete.is_some() {
                needs.must = by(needs.must);
            }
        }
    }

    fn left(&self, value: u64) -> Needs {
        self.0.get(&value).copied().unwrap_or_default()
    }

    /// Whether `operation` would overwrite what an acknowledged one still has to meet.
    fn forbid(&self, operation: &Operation, value: u64) -> bool {
        let own = u32::from(operation.complete.is_some() && operation.action.needs() == Some(value));
        operation.action.leaves().is_some() && self.left(value).must > own
    }

    /// Whether nothing is lost if it comes now: a read, or a write that nobody meets over another.
    fn let_pass(&self, operation: &Operation, value: u64) -> bool {
        match operation.action {
            Action::Read(_) => true,
            Action::Write(new) => {
                operation.complete.is_some() && self.left(value).may == 0 && self.left(new).may == 0
            }
            Action::Swap(..) => false,
        }
    }
}

/// What has been put in order.
struct Step {
    operation: usize,
    /// What the register held before.
    held: u64,
    /// No other choice is better.
    certain: bool,
}

/// Whether there is an order for a register that held `value` at first. All values that are written must differ.
#[must_use]
pub fn linearizable(value: u64, operations: &[Operation]) -> bool {
    let operations = relevant(operations);
    let (mut rest, mut needed) = (Rest::of(&operations), Needed::of(&operations));
    let mut value = value;
    let mut done = vec![0_u64; operations.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, u64)> = HashSet::new();
    let mut order: Vec<Step> = Vec::new();
    let mut at = rest.events[HEAD].behind;
    // Whoever meets no completion has put all in order that must be.
    while at != HEAD {
        let Event { operation: number, completes, behind, .. } = rest.events[at];
        if completes {
            // It should have been put in order before: another choice is needed.
            loop {
                let Some(last) = order.pop() else { return false };
                value = last.held;
                done[last.operation / 64] &= !(1 << (last.operation % 64));
                needed.change(&operations[last.operation], |count| count + 1);
                rest.put_back(last.operation);
                at = rest.events[rest.places[last.operation].0].behind;
                if !last.certain {
                    break;
                }
            }
            continue;
        }
        at = behind;
        let operation = &operations[number];
        let Some(left) = operation.action.apply(value) else { continue };
        if needed.forbid(operation, value) {
            continue;
        }
        done[number / 64] |= 1 << (number % 64);
        if tried.insert((done.clone(), left)) {
            order.push(Step { operation: number, held: value, certain: needed.let_pass(operation, value) });
            value = left;
            needed.change(operation, |count| count - 1);
            rest.take(number);
            at = rest.events[HEAD].behind;
        } else {
            done[number / 64] &= !(1 << (number % 64));
        }
    }
    true
}

/// Without the unacknowledged changes whose values nobody met: whatever order there is with them, there is without them, since
/// nobody wrote the same value. Each would double the search.
fn relevant(operations: &[Operation]) -> Vec<Operation> {
    let met: BTreeSet<u64> = operations.iter().filter_map(|one| one.action.needs()).collect();
    let counts = |one: &&Operation| {
        one.complete.is_some() || one.action.leaves().is_some_and(|value| met.contains(&value))
    };
    operations.iter().filter(counts).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::{
        Action::{Read, Swap, Write},
        *,
    };

    fn did(invoke: u64, complete: u64, action: Action) -> Operation {
        Operation { invoke, complete: Some(complete), action }
    }

    fn open(invoke: u64, action: Action) -> Operation {
        Operation { invoke, complete: None, action }
    }

    #[test]
    fn histories_that_are() {
        let cases: [&[Operation]; 8] = [
            &[],
            &[did(0, 1, Write(1)), did(2, 3, Read(1))],
            // They overlap: either may come first.
            &[did(0, 9, Write(1)), did(1, 2, Read(0)), did(3, 4, Read(1))],
            &[did(0, 9, Write(1)), did(0, 9, Write(2)), did(1, 3, Read(2)), did(4, 5, Read(1))],
            // The end of one is the beginning of another.
            &[did(0, 5, Write(1)), did(5, 6, Read(0))],
            // Never acknowledged: never, at once, or much later.
            &[open(0, Write(1)), did(1, 2, Read(0)), did(8, 9, Read(0))],
            &[open(0, Write(1)), did(1, 2, Write(2)), did(3, 4, Read(2)), did(5, 6, Read(1))],
            &[open(0, Swap(2, 3)), did(1, 2, Write(2)), did(3, 4, Swap(3, 4)), did(5, 6, Read(4))],
        ];
        for case in cases {
            assert!(linearizable(0, case), "{case:?}");
        }
    }

    #[test]
    fn histories_that_are_not() {
        let cases: [&[Operation]; 9] = [
            // A stale read.
            &[did(0, 1, Write(1)), did(2, 3, Read(0))],
            // A lost write.
            &[did(0, 1, Write(1)), did(2, 3, Write(2)), did(4, 5, Read(1))],
            // New, then old, while the write is under way.
            &[did(0, 9, Write(1)), did(1, 2, Read(1)), did(3, 4, Read(0))],
            // Two readers who disagree about the order of two writes.
            &[
                did(0, 9, Write(1)),
                did(0, 9, Write(2)),
                did(1, 2, Read(1)),
                did(3, 4, Read(2)),
                did(5, 6, Read(1)),
            ],
            // What nobody wrote.
            &[did(0, 1, Read(7))],
            // Two who swapped the same value.
            &[did(0, 5, Swap(0, 1)), did(1, 6, Swap(0, 2))],
            // A swap of what was overwritten before.
            &[did(0, 1, Write(1)), did(2, 3, Write(2)), did(4, 5, Swap(1, 3))],
            // Seen before it was asked for.
            &[did(0, 1, Read(1)), open(2, Write(1))],
            // Never acknowledged, seen, and gone again.
            &[open(0, Write(1)), did(1, 2, Read(1)), did(3, 4, Read(0))],
        ];
        for case in cases {
            assert!(!linearizable(0, case), "{case:?}");
        }
    }

    /// By trying every order.
    fn by_force(value: u64, left: &[Operation]) -> bool {
        left.iter().all(|one| one.complete.is_none())
            || left.iter().enumerate().any(|(number, next)| {
                let first = left.iter().all(|other| other.complete.is_none_or(|at| at >= next.invoke));
                let others: Vec<Operation> = [&left[..number], &left[number + 1..]].concat();
                first && next.action.apply(value).is_some_and(|value| by_force(value, &others))
            })
    }

    #[test]
    fn agrees_with_trying_every_order() {
        let mut state = 1_u64;
        let mut draw = |below: u64| {
            // The generator of Knuth's MMIX.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut found = [0, 0];
        for _ in 0..20_000 {
            let count = 1 + draw(6);
            let history: Vec<Operation> = (1..=count)
                .map(|new| {
                    let action = match draw(5) {
                        0 | 1 => Write(new),
                        2 => Swap(draw(count + 1), new),
                        _ => Read(draw(count + 1)),
                    };
                    let invoke = draw(10);
                    // Nobody reads for ever: a read without an answer says nothing.
                    let ends = matches!(action, Read(_)) || draw(4) > 0;
                    Operation { invoke, complete: ends.then_some(invoke + 1 + draw(6)), action }
                })
                .collect();
            let expected = by_force(0, &history);
            assert_eq!(linearizable(0, &history), expected, "{history:?}");
            found[usize::from(expected)] += 1;
        }
        assert!(found[0] > 2000 && found[1] > 2000, "{found:?}");
    }

    #[test]
    fn a_long_history_does_not_take_long() {
        // Eight clients that always overlap, and an unacknowledged write every now and then.
        let mut history: Vec<Operation> = (1..2000).map(|n| did(10 * n, 10 * n + 75, Write(n))).collect();
        history.extend((1..2000).map(|n| did(10 * n + 1, 10 * n + 78, Read(n))));
        history.extend((1..50).map(|n| open(400 * n, Write(10_000 + n))));
        assert!(linearizable(0, &history));
        history.push(did(30_000, 30_001, Read(1)));
        assert!(!linearizable(0, &history));
    }
}
