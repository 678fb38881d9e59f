//! What the session's counters say of all rule sets together. They are read from the kernel's map, where those of the
//! set before the present one still stand: nobody counts there any more.

use fault_user::session::plan::Plan;

use crate::bench::bpf::Map;

/// Rule sets side by side, and rules of each, as the map has them.
const BANKS: u64 = 2;
const RULES: u32 = 64;

/// Sums over all sets that are over.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// Rule sets.
    pub(super) sets: u64,
    /// Datagrams the first fault of a set looked at, or an exception spared.
    pub(super) datagrams: u64,
    /// Of these, dropped.
    pub(super) dropped: u64,
    /// Of these, sent twice.
    pub(super) doubled: u64,
    /// Of all rules.
    pub(super) matched: u64,
    pub(super) injected: u64,
    /// Rules with more hits than matches.
    pub(super) impossible: u64,
    /// Rules that hit every match until a budget is spent, and hit another number.
    pub(super) budgets: u64,
    /// Of these, how many rules there were.
    pub(super) budgeted: u64,
}

/// A rule set that is or was in force.
struct Entry {
    number: u64,
    plan: Plan,
}

/// The sums, and the sets that may still count.
pub(super) struct Ledger {
    counters: Map,
    entries: Vec<Entry>,
    pub(super) sums: Sums,
}

impl Ledger {
    /// Of the session that process `pid` has armed with set number 0.
    pub(super) fn new(pid: u32, first: &Plan) -> anyhow::Result<Self> {
        let counters = Map::held_by(pid, "RULE_COUNTERS")?;
        Ok(Self { counters, entries: vec![Entry { number: 0, plan: first.clone() }], sums: Sums::default() })
    }

    /// To be called before the session changes to `next`, which takes the place of the set before the present one.
    pub(super) fn before(&mut self, next: &Plan) -> anyhow::Result<()> {
        let number = self.entries.last().map_or(0, |entry| entry.number + 1);
        if self.entries.len() as u64 == BANKS {
            self.close_oldest()?;
        }
        self.entries.push(Entry { number, plan: next.clone() });
        Ok(())
    }

    /// To be called when nothing is sent any more, and the session is still there.
    pub(super) fn close(mut self) -> anyhow::Result<Sums> {
        while !self.entries.is_empty() {
            self.close_oldest()?;
        }
        Ok(self.sums)
    }

    fn close_oldest(&mut self) -> anyhow::Result<()> {
        let Entry { number, plan } = self.entries.remove(0);
        let bank = (number % BANKS) as u32;
        // fault_common::counters::RuleCounters begins with them.
        let of = |slot: u32| -> anyhow::Result<(u64, u64)> {
            let entry = self.counters.entry(bank * RULES + slot)?;
            Ok((entry[0], entry[1]))
        };
        let sums = &mut self.sums;
        sums.sets += 1;
        for planned in &plan.rules {
            let (matched, injected) = of(planned.slot)?;
            sums.matched += matched;
            sums.injected += injected;
            sums.impossible += u64::from(injected > matched);
            let spec = planned.fault.to_string();
            if planned.id == 0 {
                sums.datagrams += matched;
                sums.dropped += injected;
                let times = planned.rule.trigger.times;
                if times != 0 {
                    sums.budgeted += 1;
                    sums.budgets += u64::from(injected != matched.min(times));
                }
            } else if spec.starts_with("duplicate") && spec.contains("udp") {
                sums.doubled += injected;
            }
        }
        for planned in &plan.exceptions {
            if planned.exception.to_string().contains("udp") {
                sums.datagrams += of(planned.slot)?.0;
            }
        }
        Ok(())
    }
}
