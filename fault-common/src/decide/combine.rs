//! Several rules, one operation.

use super::{
    delay::{ORDERED, Table},
    past::Past,
    rate::PER_CONNECTION,
    rng::{self, Coordinates, Purpose},
};
use crate::{
    counters::RuleCounters,
    limits::{MAX_PARK_NS, MAX_RULES},
    rule::{Layer, Rule, Verb, net::BOTH_DIRECTIONS},
};

/// What happens to the operation.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on (after [`Outcome::delay_ns`]).
    #[default]
    Pass,
    /// The packet is lost.
    Drop,
    /// The bio fails (after [`Outcome::delay_ns`]), or the call.
    Error,
    /// The packet becomes the end of its connection.
    Reset,
}

/// The sum of all rules that hit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What happens in the end.
    pub verdict: Verdict,
    /// How late, in nanoseconds: the delays of all rules that hit, added, and the longest wait for a link. At most
    /// `MAX_RULES × MAX_PACKET_DELAY_NS`; whoever acts on it applies the limit of its own mechanism.
    pub delay_ns: u64,
    /// What of that is waiting for a link: counted from now, while a delay counts from the beginning of its operation.
    pub link_ns: u64,
    /// [`ORDERED`], [`DUPLICATE`], [`BREAK_CHECKSUM`], [`BOTH_ENDS`] and [`MARK`], if any rule that hit asked for it.
    pub flags: u32,
    /// How many bits of the packet are flipped.
    pub corrupt_bits: u32,
    /// Where those lie: a random number.
    pub corrupt_where: u64,
    /// Mask of the slots that hit.
    pub hits: u64,
}

/// [`Outcome::flags`]: the packet arrives twice. Beside [`ORDERED`].
pub const DUPLICATE: u32 = 2;
/// [`Outcome::flags`]: bits are flipped behind the checksum's back.
pub const BREAK_CHECKSUM: u32 = 4;
/// [`Outcome::flags`]: the connection ends for the target and for its peer.
pub const BOTH_ENDS: u32 = 8;

/// [`Outcome::flags`]: the packet is marked (congestion experienced).
pub const MARK: u32 = 16;

// Each a bit of its own.
const _: () = assert!((ORDERED | DUPLICATE | BREAK_CHECKSUM | BOTH_ENDS | MARK).count_ones() == 5);

/// The way through the rules, as a kernel program keeps it: what travels from slot to slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk<F> {
    /// Index of the bank's first rule.
    pub first: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// Mask of the slots that may look.
    pub candidates: u64,
    /// Where and when.
    pub moment: Moment,
    /// What it comes to.
    pub outcome: Outcome,
    /// What filters look at.
    pub facts: F,
}

/// Where and when the operation happens.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// `--seed`.
    pub seed: u64,
    /// Number of the socket or thread.
    pub stream: u64,
    /// Nanoseconds since the session became active.
    pub elapsed_ns: u64,
    /// Size of the operation in bytes, for the report and for a `rate`; less than 2^32.
    pub bytes: u64,
    /// Number of the connection; 0 when it belongs to none.
    pub connection: u64,
    /// Which of the two links of a `rate` the packet takes: 0 out, 1 in.
    pub link: u32,
    /// 1: the packet can be marked, its ends say that they understand it (ECT of RFC 3168).
    pub can_mark: u32,
}

/// What [`decide`] needs from its surroundings.
pub trait World {
    /// The rule in this slot of the rule set in force.
    fn rule(&self, slot: u32) -> Option<&Rule>;
    /// The counters of that rule.
    fn counters(&self, slot: u32) -> Option<&RuleCounters>;
    /// The distribution of that rule's delays, if it has one of its own.
    fn table(&self, slot: u32) -> Option<&Table>;
    /// Whether the rule in `slot` wants match number `count`: [`Instance::wants`]. A kernel program has it asked by a function of
    /// its own, which the verifier looks at once, and not once for each way that leads there times each way that leads on.
    #[inline(always)]
    fn wants(&self, _slot: u32, instance: &Instance<'_>, count: u64, past: &mut Past) -> bool {
        instance.wants(count, past)
    }
    /// How long it takes by itself: [`Instance::own_ns`]. As [`World::wants`].
    #[inline(always)]
    fn own_ns(&self, slot: u32, instance: &Instance<'_>, past: &mut Past) -> u64 {
        instance.own_ns(past, self.table(slot))
    }
    /// How long it waits for its slot: [`Instance::slot_ns`]. As [`World::wants`].
    #[inline(always)]
    fn slot_ns(
        &self,
        _slot: u32,
        instance: &Instance<'_>,
        counters: &RuleCounters,
        late: Late,
    ) -> Option<u64> {
        instance.slot_ns(counters, late)
    }
    /// Whether the operation passes the rule's filter.
    fn matches(&self, rule: &Rule) -> bool;
    /// How many operations of this stream matched the rule before; counts this one.
    fn next_ordinal(&mut self, slot: u32) -> u64;
    /// What the stream remembers for the rule.
    fn memory(&mut self, slot: u32) -> &mut Past;
    /// Which of the rule's connections this is, from 1; 0 is not known yet. Nothing where there are no connections.
    fn place(&mut self, slot: u32) -> Option<&mut u32>;
}

/// One match of a rule: all that a decision depends on, but for what came before.
#[derive(Clone, Copy)]
pub struct Instance<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Where and when.
    pub moment: &'a Moment,
    /// How many operations of the stream matched the rule before.
    pub ordinal: u64,
}

/// What an operation waits for already, and what the rule in question says, in nanoseconds.
#[derive(Clone, Copy)]
pub struct Late {
    /// By the rules before.
    pub before_ns: u64,
    /// [`Instance::own_ns`].
    pub own_ns: u64,
}

impl Instance<'_> {
    #[inline(always)]
    const fn coordinates(&self) -> Coordinates {
        let Moment { seed, stream, .. } = *self.moment;
        Coordinates { seed, rule: self.rule.id, stream, ordinal: self.ordinal }
    }

    /// Whether the trigger wants it, the budget apart; `count` is its number among all matches of the rule.
    #[must_use]
    #[inline(always)]
    pub const fn wants(&self, count: u64, past: &mut Past) -> bool {
        self.rule.trigger.wants(count, &self.coordinates(), past)
    }

    /// How long it takes by itself, in nanoseconds: what a delay comes to, the time on a link, the distance to the next slot; 0
    /// for verbs that take no time. `own` is the rule's table, if it has one.
    #[must_use]
    #[inline(always)]
    pub fn own_ns(&self, past: &mut Past, own: Option<&Table>) -> u64 {
        let Self { rule, moment, .. } = *self;
        match Verb::from_u32(rule.verb) {
            Some(Verb::Delay | Verb::DelayThenError | Verb::Slot) => {
                rule.delay.sample(&self.coordinates(), past, own)
            }
            Some(Verb::Rate) if rule.layer == Layer::Disk as u32 => rule.rate.service_ns(moment.bytes),
            Some(Verb::Rate) => rule.rate.transmission_ns(moment.bytes),
            Some(
                Verb::Spare
                | Verb::Drop
                | Verb::Error
                | Verb::Fail
                | Verb::Reset
                | Verb::Mark
                | Verb::Corrupt
                | Verb::Duplicate,
            )
            | None => 0,
        }
    }

    /// How long it waits for the slot it leaves with, in nanoseconds; `None` when too many wait already.
    #[inline(always)]
    pub fn slot_ns(&self, counters: &RuleCounters, late: Late) -> Option<u64> {
        let Moment { elapsed_ns, bytes, link, .. } = *self.moment;
        let slots = &counters.slots[link as usize & 1];
        let gaps_ns = (late.own_ns, self.rule.delay.mean_ns);
        self.rule.slot.wait(slots, elapsed_ns.wrapping_add(late.before_ns), bytes, gaps_ns)
    }
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

/// Whether the operation belongs to a connection that the rule in `slot` looks at.
#[inline(always)]
fn is_chosen<W: World>(world: &mut W, slot: u32, moment: &Moment) -> bool {
    let Some(rule) = world.rule(slot) else { return false };
    if rule.connections.are_all() {
        return true;
    }
    if moment.connection == 0 || !rule.connections.are_chosen(moment.seed, rule.id, moment.connection) {
        return false;
    }
    let number = rule.connections.number;
    if number == 0 {
        return true;
    }
    let known = match world.place(slot) {
        Some(place) => *place,
        None => return false,
    };
    if known != 0 {
        return known == number;
    }
    let Some(counters) = world.counters(slot) else { return false };
    let met = counters.connections.fetch_add(1).wrapping_add(1) as u32;
    if let Some(place) = world.place(slot) {
        *place = met;
    }
    met == number
}

/// What the rule in `slot` makes of the operation, added to `outcome`; whether that ends the matter.
#[inline(always)]
fn ends<W: World>(world: &mut W, slot: u32, moment: &Moment, outcome: &mut Outcome) -> bool {
    let Some(rule) = world.rule(slot) else { return false };
    if Verb::from_u32(rule.verb).is_none()
        || !rule.trigger.in_window(moment.elapsed_ns)
        || !world.matches(rule)
        || !is_chosen(world, slot, moment)
    {
        return false;
    }
    let ordinal = world.next_ordinal(slot);
    // At its first match a stream remembers nothing: what lies there is of the rule set before.
    let mut memory = if ordinal == 0 { Past(0) } else { *world.memory(slot) };
    let (Some(rule), Some(counters)) = (world.rule(slot), world.counters(slot)) else { return false };
    let instance = Instance { rule, moment, ordinal };
    let count = counters.matched.fetch_add(1).wrapping_add(1);
    let mut ended = false;
    if world.wants(slot, &instance, count, &mut memory) && claim(counters, rule.trigger.times) {
        counters.bytes.fetch_add(moment.bytes);
        ended = strike(world, &instance, counters, &mut memory, (slot, outcome));
    }
    // Also of a rule that remembers nothing: whether it does is more to ask, and one more way for the kernel's verifier.
    *world.memory(slot) = memory;
    ended
}

/// What a rule does to an operation it hits, added to the outcome; whether that ends the matter.
#[inline(always)]
fn strike<W: World>(
    world: &W,
    instance: &Instance<'_>,
    counters: &RuleCounters,
    memory: &mut Past,
    (slot, outcome): (u32, &mut Outcome),
) -> bool {
    let Instance { rule, moment, .. } = *instance;
    let Some(verb) = Verb::from_u32(rule.verb) else { return false };
    if matches!(verb, Verb::Spare) {
        // Exceptions come first: nothing has hit yet.
        return true;
    }
    outcome.hits |= 1 << slot;
    let own_ns = if verb.delays() { world.own_ns(slot, instance, memory) } else { 0 };
    match verb {
        Verb::Spare => {}
        Verb::Drop => outcome.verdict = Verdict::Drop,
        Verb::Error | Verb::Fail => outcome.verdict = Verdict::Error,
        Verb::Reset => {
            outcome.verdict = Verdict::Reset;
            outcome.flags |= if rule.net.directions == BOTH_DIRECTIONS { BOTH_ENDS } else { 0 };
        }
        Verb::Corrupt => {
            outcome.corrupt_bits = outcome.corrupt_bits.wrapping_add(rule.corruption.bits);
            outcome.corrupt_where = rng::draw(&instance.coordinates(), Purpose::Corruption);
            outcome.flags |= if rule.corruption.fix_checksum == 0 { BREAK_CHECKSUM } else { 0 };
        }
        Verb::Duplicate => outcome.flags |= DUPLICATE,
        Verb::Mark if moment.can_mark != 0 => {
            counters.marked.fetch_add(1);
            outcome.flags |= MARK;
        }
        Verb::Mark => {
            outcome.verdict = Verdict::Drop;
            return true;
        }
        Verb::Slot => {
            let late = Late { before_ns: outcome.delay_ns, own_ns };
            let Some(delay_ns) = world.slot_ns(slot, instance, counters, late) else {
                counters.overflowed.fetch_add(1);
                outcome.verdict = Verdict::Drop;
                return true;
            };
            counters.delay_ns.fetch_add(delay_ns);
            outcome.delay_ns = outcome.delay_ns.wrapping_add(delay_ns);
            outcome.flags |= ORDERED;
        }
        Verb::Delay | Verb::DelayThenError => {
            if own_ns != 0 {
                counters.delay_ns.fetch_add(own_ns);
            }
            outcome.delay_ns = outcome.delay_ns.wrapping_add(own_ns);
            outcome.flags |= rule.delay.flags;
            if matches!(verb, Verb::DelayThenError) {
                outcome.verdict = Verdict::Error;
            }
        }
        Verb::Rate if rule.layer == Layer::Disk as u32 => {
            let mut delay_ns = rule.rate.hold(&counters.link_free_ns[0], moment.elapsed_ns, own_ns);
            if delay_ns > MAX_PARK_NS {
                counters.overflowed.fetch_add(1);
                delay_ns = MAX_PARK_NS;
            }
            wait_for_link(counters, outcome, delay_ns);
        }
        Verb::Rate => {
            let sent = if rule.rate.flags & PER_CONNECTION != 0 {
                rule.rate.send_alone(&mut memory.0, moment.elapsed_ns, own_ns)
            } else {
                let link = &counters.link_free_ns[moment.link as usize & 1];
                rule.rate.send(link, moment.elapsed_ns, own_ns)
            };
            let Some(delay_ns) = sent else {
                counters.overflowed.fetch_add(1);
                outcome.verdict = Verdict::Drop;
                return true;
            };
            wait_for_link(counters, outcome, delay_ns);
        }
    }
    verb.is_terminal()
}

/// Adds the wait for a link to the outcome. Links in a row: the slowest is what the operation waits for.
#[inline(always)]
fn wait_for_link(counters: &RuleCounters, outcome: &mut Outcome, delay_ns: u64) {
    if delay_ns != 0 {
        counters.delay_ns.fetch_add(delay_ns);
    }
    // Rules with a link come before those that delay (`Verb::precedence`): there is nothing but waits in the sum yet.
    if outcome.link_ns < delay_ns {
        outcome.link_ns = delay_ns;
        outcome.delay_ns = delay_ns;
    }
    outcome.flags |= ORDERED;
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
    if candidates >> slot & 1 != 0 && ends(world, slot, moment, outcome) {
        return true;
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
