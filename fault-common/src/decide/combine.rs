//! Several rules, one operation.

use super::{delay::ORDERED, rate::PER_CONNECTION, rng::Coordinates};
use crate::{
    counters::RuleCounters,
    limits::MAX_RULES,
    rule::{Rule, Verb},
};

/// What happens to the operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on (after [`Outcome::delay_ns`]).
    #[default]
    Pass,
    /// The packet is lost.
    Drop,
    /// The bio fails (after [`Outcome::delay_ns`]), or the call.
    Error,
}

/// The sum of all rules that hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What happens in the end.
    pub verdict: Verdict,
    /// How late, in nanoseconds: the delays of all rules that hit, added, and the longest wait for a link. At most
    /// `MAX_RULES × MAX_PACKET_DELAY_NS`; whoever acts on it applies the limit of its own mechanism.
    pub delay_ns: u64,
    /// [`ORDERED`] and [`DUPLICATE`], if any rule that hit asked for it.
    pub flags: u32,
    /// Mask of the slots that hit.
    pub hits: u64,
}

/// [`Outcome::flags`]: the packet arrives twice. Beside [`ORDERED`].
pub const DUPLICATE: u32 = 2;

const _: () = assert!(ORDERED & DUPLICATE == 0);

/// Where and when the operation happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `--seed`.
    pub seed: u64,
    /// Number of the socket or thread.
    pub stream: u64,
    /// Nanoseconds since the session became active.
    pub elapsed_ns: u64,
    /// Size of the operation in bytes, for the report and for a `rate`.
    pub bytes: u64,
    /// Which of the two links of a `rate` the packet takes: 0 out, 1 in.
    pub link: u32,
}

/// What [`decide`] needs from its surroundings.
pub trait World {
    /// The rule in this slot of the rule set in force.
    fn rule(&self, slot: u32) -> Option<&Rule>;
    /// The counters of that rule.
    fn counters(&self, slot: u32) -> Option<&RuleCounters>;
    /// Whether the operation passes the rule's filter.
    fn matches(&self, rule: &Rule) -> bool;
    /// How many operations of this stream matched the rule before; counts this one.
    fn next_ordinal(&mut self, slot: u32) -> u64;
    /// What the stream remembers for the rule.
    fn memory(&mut self, slot: u32) -> &mut u64;
}

/// Claims one injection of a budget of `times`; false when it is spent.
#[inline(always)]
fn claim(counters: &RuleCounters, times: u64) -> bool {
    if times != 0 {
        // The load keeps `claimed` from growing without end (and CPUs from fighting over it) once it is spent.
        if counters.claimed.load() >= times || counters.claimed.fetch_add(1) >= times {
            return false;
        }
    }
    counters.injected.fetch_add(1);
    true
}

/// What a rule makes of an operation it hits.
struct Hit {
    verb: Verb,
    delay_ns: u64,
    flags: u32,
}

/// What the rule in `slot` makes of the operation: `None` if it spares it.
#[inline(always)]
fn hit<W: World>(world: &mut W, slot: u32, moment: &Moment) -> Option<Hit> {
    let ordinal;
    {
        let rule = world.rule(slot)?;
        Verb::from_u32(rule.verb)?;
        if !rule.trigger.in_window(moment.elapsed_ns) || !world.matches(rule) {
            return None;
        }
        ordinal = world.next_ordinal(slot);
    }
    // At its first match a stream remembers nothing: what lies there is of the rule set before.
    let mut memory = if ordinal == 0 { 0 } else { *world.memory(slot) };
    let (remembers, hit) = {
        let (rule, counters) = (world.rule(slot)?, world.counters(slot)?);
        let at = Coordinates { seed: moment.seed, rule: rule.id, stream: moment.stream, ordinal };
        (rule.remembers(), strike(rule, counters, moment, &at, &mut memory))
    };
    if remembers {
        *world.memory(slot) = memory;
    }
    hit
}

/// The decision about an operation that passed the filter.
#[inline(always)]
fn strike(
    rule: &Rule,
    counters: &RuleCounters,
    moment: &Moment,
    at: &Coordinates,
    memory: &mut u64,
) -> Option<Hit> {
    let verb = Verb::from_u32(rule.verb)?;
    let count = counters.matched.fetch_add(1).wrapping_add(1);
    if !rule.trigger.wants(count, at, memory) || !claim(counters, rule.trigger.times) {
        return None;
    }
    counters.bytes.fetch_add(moment.bytes);
    let (delay_ns, flags) = match verb {
        Verb::Drop | Verb::Error | Verb::Fail => (0, 0),
        Verb::Duplicate => (0, DUPLICATE),
        Verb::Delay | Verb::DelayThenError => (rule.delay.sample(at), rule.delay.flags),
        Verb::Rate => {
            let sent = if rule.rate.flags & PER_CONNECTION != 0 {
                rule.rate.send_alone(memory, moment.elapsed_ns, moment.bytes)
            } else {
                let link = &counters.link_free_ns[moment.link as usize & 1];
                rule.rate.send(link, moment.elapsed_ns, moment.bytes)
            };
            match sent {
                Some(delay_ns) => (delay_ns, ORDERED),
                None => {
                    counters.overflowed.fetch_add(1);
                    return Some(Hit { verb: Verb::Drop, delay_ns: 0, flags: 0 });
                }
            }
        }
    };
    if delay_ns != 0 {
        counters.delay_ns.fetch_add(delay_ns);
    }
    Some(Hit { verb, delay_ns, flags })
}

/// What the rule in `slot` (0..64) adds to `outcome`; whether nothing after it can add more.
///
/// [`decide`] is the loop of this. A kernel program must let the kernel loop (`bpf_loop`, Linux 5.17): its
/// verifier walks a loop of the program's own once per round and branch, and gives up.
#[inline(always)]
pub fn round<W: World>(
    world: &mut W,
    slot: u32,
    candidates: u64,
    moment: &Moment,
    outcome: &mut Outcome,
) -> bool {
    if candidates >> slot & 1 != 0
        && let Some(Hit { verb, delay_ns, flags }) = hit(world, slot, moment)
    {
        outcome.hits |= 1 << slot;
        outcome.delay_ns = match verb {
            // Links in a row: the slowest is what the packet waits for. Rules with a link come before those that delay
            // (`Verb::precedence`), so there is nothing but waits in the sum yet.
            Verb::Rate if delay_ns < outcome.delay_ns => outcome.delay_ns,
            Verb::Rate => delay_ns,
            _ => outcome.delay_ns.wrapping_add(delay_ns),
        };
        outcome.flags |= flags;
        match verb {
            Verb::Delay | Verb::Rate | Verb::Duplicate => {}
            Verb::Drop => {
                outcome.verdict = Verdict::Drop;
                return true;
            }
            Verb::Error | Verb::DelayThenError | Verb::Fail => {
                outcome.verdict = Verdict::Error;
                return true;
            }
        }
    }
    // Nothing after this slot: the common case is one or two rules.
    candidates >> slot >> 1 == 0
}

/// What happens to an operation that the rules of `candidates` (a mask of slots) may look at.
///
/// Slots are walked in order; a terminal verb ends the walk. Rules are stored terminal verbs first
/// ([`Verb::precedence`]), so an operation that is dropped or failed is neither matched nor counted by
/// the rules that would have delayed it.
#[inline(always)]
pub fn decide<W: World>(world: &mut W, candidates: u64, moment: &Moment) -> Outcome {
    let mut outcome = Outcome::default();
    let mut slot = 0;
    while slot < MAX_RULES as u32 && !round(world, slot, candidates, moment, &mut outcome) {
        slot += 1;
    }
    outcome
}
