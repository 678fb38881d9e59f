//! The decision without a kernel: a [`World`] over slices.
//!
//! Tests and `--dry-run` run operations through [`decide`](super::decide) with it: the very code the kernel
//! runs, so that what they see is what the target will feel.
//!
//! ```
//! use fault_common::{
//!     counters::RuleCounters,
//!     decide::{Moment, Verdict, decide, simulation::{Facts, Simulation, candidates}, trigger::Trigger},
//!     rule::{Layer, Rule, Verb, block::{BioFacts, op}},
//!     who::Stream,
//! };
//!
//! let trigger = Trigger { nth: 3, ..Trigger::ALWAYS };
//! let rules = [Rule { layer: Layer::Disk as u32, verb: Verb::Error as u32, trigger, ..Rule::default() }];
//! let counters = [RuleCounters::default()];
//! let mut stream = Stream::new(1);
//! let read = Facts::Bio(BioFacts { ops: op::READ, sectors: 8, ..BioFacts::default() });
//! let moment = Moment { seed: 42, stream: 1, bytes: 4096, ..Moment::default() };
//! let mut failed = Vec::new();
//! for number in 1..=10 {
//!     let mut world = Simulation { rules: &rules, counters: &counters, stream: &mut stream, table: None, connection: None, facts: read };
//!     if decide(&mut world, candidates(&rules, read), &moment).verdict == Verdict::Error {
//!         failed.push(number);
//!     }
//! }
//! assert_eq!(failed, [3]);
//! assert_eq!((counters[0].matched.load(), counters[0].injected.load()), (10, 1));
//! ```

use super::{World, delay::Table, past::Past};
use crate::{
    counters::RuleCounters,
    limits::MAX_RULES,
    rule::{Layer, Rule, block::BioFacts, file::FileFacts, net::PacketFacts},
    who::{Connection, Stream},
};

/// The operation that is decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facts {
    /// A packet of the target; its peer and its interface are those the rules ask for.
    Packet(PacketFacts),
    /// A bio of the target.
    Bio(BioFacts),
    /// An operation of the target on a file that the patterns of all rules match.
    File(FileFacts),
    /// Whatever the rule looks at: passes every filter of any layer.
    Anything,
}

/// One stream of operations (a socket in one direction, or a thread) among rules that may be shared with
/// other streams, and other threads.
#[derive(Debug)]
pub struct Simulation<'a> {
    /// The rules by slot, in [`Rule::storage_order`].
    pub rules: &'a [Rule],
    /// Their counters, as many.
    pub counters: &'a [RuleCounters],
    /// Where the stream stands in the random sequences. Its number does not matter here, see
    /// [`super::Moment::stream`].
    pub stream: &'a mut Stream,
    /// The distribution of the delays of those that have one of their own.
    pub table: Option<&'a Table>,
    /// The connection it belongs to, if there are connections.
    pub connection: Option<&'a mut Connection>,
    /// The operation.
    pub facts: Facts,
}

impl<'a> Simulation<'a> {
    /// One stream of operations that pass every filter and belong to no connection.
    #[must_use]
    pub const fn of(rules: &'a [Rule], counters: &'a [RuleCounters], stream: &'a mut Stream) -> Self {
        Self { rules, counters, stream, table: None, connection: None, facts: Facts::Anything }
    }
}

impl World for Simulation<'_> {
    fn rule(&self, slot: u32) -> Option<&Rule> {
        self.rules.get(slot as usize)
    }

    fn counters(&self, slot: u32) -> Option<&RuleCounters> {
        self.counters.get(slot as usize)
    }

    fn table(&self, _slot: u32) -> Option<&Table> {
        self.table
    }

    fn matches(&self, rule: &Rule) -> bool {
        match &self.facts {
            Facts::Packet(packet) => rule.net.matches(packet),
            Facts::Bio(bio) => rule.block.matches(bio),
            Facts::File(file) => rule.file.matches(file),
            Facts::Anything => true,
        }
    }

    fn next_ordinal(&mut self, slot: u32) -> u64 {
        self.stream.next(slot)
    }

    fn memory(&mut self, slot: u32) -> &mut Past {
        self.stream.memory(slot)
    }

    fn place(&mut self, slot: u32) -> Option<&mut u32> {
        self.connection.as_mut().map(|connection| connection.place(slot))
    }
}

/// Mask of the slots whose layer is that of the operation, as `Bank::net` and `Bank::disk` hold it.
#[must_use]
pub fn candidates(rules: &[Rule], facts: Facts) -> u64 {
    let wanted = |rule: &Rule| match facts {
        Facts::Packet(_) => rule.layer == Layer::Net as u32,
        Facts::Bio(_) => rule.layer == Layer::Disk as u32,
        Facts::File(_) => rule.layer == Layer::File as u32,
        Facts::Anything => true,
    };
    let slots = rules.iter().take(MAX_RULES).enumerate();
    slots.filter(|(_, rule)| wanted(rule)).fold(0, |mask, (slot, _)| mask | 1 << slot)
}
