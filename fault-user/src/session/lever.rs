//! From phase to phase of a scenario: which rules are in force, and the numbers of those that change in the course of one.
//!
//! Each change is one store into memory that the programs read; nothing is attached, loaded or allocated. So rules that go on
//! from one phase to the next keep their counts, budgets, links and sequences.

use std::sync::Arc;

use fault_common::{limits::MAX_RULES, shared::SharedU64};

use super::error::SessionError;
use crate::kernel::{
    control::{ControlBlock, CounterBlock, RuleBlock},
    load::{LoadError, Loaded, find},
};

/// What rules matched before they came into force again, by slot.
#[derive(Debug)]
pub struct Earlier([SharedU64; MAX_RULES]);

impl Default for Earlier {
    fn default() -> Self {
        Self(std::array::from_fn(|_| SharedU64::default()))
    }
}

impl Earlier {
    pub(crate) fn matched(&self, slot: u32) -> u64 {
        self.0[slot as usize % MAX_RULES].load()
    }
}

/// See the module. Maps of its own, so that it may live on another thread than the session.
pub struct Lever {
    control: ControlBlock,
    rules: RuleBlock,
    counters: CounterBlock,
    earlier: Arc<Earlier>,
}

impl Lever {
    pub(super) fn new(loaded: &Loaded, earlier: Arc<Earlier>) -> Result<Self, SessionError> {
        let map = |name| find(&loaded.ebpf, name);
        Ok(Self {
            control: ControlBlock::new(map("CONTROL")?).map_err(LoadError::from)?,
            rules: RuleBlock::new(map("RULES")?).map_err(LoadError::from)?,
            counters: CounterBlock::new(map("RULE_COUNTERS")?).map_err(LoadError::from)?,
            earlier,
        })
    }

    /// Only the rules in these slots are in force from now on; one store.
    pub fn put_in_force(&self, slots: u64) {
        self.control.in_force.store(slots);
    }

    /// Sets word `word` of the rule in `slot`; one store.
    pub fn set(&self, slot: u32, word: usize, value: u64) {
        self.rules.word(self.control.bank(), slot, word).store(value);
    }

    /// The rule in `slot` counts from one again (`nth`, `every`, `first`), and has its budget (`times`) back.
    pub fn renew(&self, slot: u32) {
        let counters = self.counters.rule(self.control.bank(), slot);
        // Taken away, not set to zero: an operation that is being decided about meanwhile must not be lost from the report.
        let matched = counters.matched.load();
        self.earlier.0[slot as usize % MAX_RULES].fetch_add(matched);
        counters.matched.fetch_add(matched.wrapping_neg());
        counters.claimed.store(0);
    }
}
