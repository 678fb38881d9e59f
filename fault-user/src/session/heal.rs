//! active → healed: stop injecting, let everybody go, put everything back, and say what happened.

use std::time::Duration;

use aya::{Ebpf, maps::PerCpuArray};
use fault_common::{
    counters::{COUNTERS, Counter},
    limits::BANKS,
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{
    active::{Active, End},
    arm::{Armed, Request},
    error::SessionError,
    history::{History, Point},
    lever::Earlier,
    plan::Plan,
};
use crate::{
    block::{
        hooks::{Backend, BlockHooks},
        parking_lot::ParkingLotStats,
    },
    kernel::load::Loaded,
    net::lane::LaneStats,
};

/// How much longer than the longest delay asked for the lane may take to run empty.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);
/// However long the delays are: longer than this nobody waits for Ctrl-C. What is late is then lost.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How often a draining lane is looked at.
const DRAIN_POLL: Duration = Duration::from_millis(2);

/// What one rule did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleTotals {
    /// Operations that passed the filter.
    pub matched: u64,
    /// Operations that were hit.
    pub injected: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Sum of the delays asked for, nanoseconds.
    pub delay_ns: u64,
    /// Of those that were hit, lost because the queue of a `rate` or a `slot` was full.
    pub overflowed: u64,
    /// Of a `drop ecn`, packets that were marked in place of being lost.
    pub marked: u64,
}

impl RuleTotals {
    /// Adds what the same rule did in another session.
    pub fn add(&mut self, other: &Self) {
        let Self { matched, injected, bytes, delay_ns, overflowed, marked } = other;
        self.matched += matched;
        self.injected += injected;
        self.bytes += bytes;
        self.delay_ns += delay_ns;
        self.overflowed += overflowed;
        self.marked += marked;
    }
}

/// What the whole session counted, indexed by [`Counter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals(pub [u64; COUNTERS as usize]);

impl Totals {
    fn read(ebpf: &Ebpf) -> Result<Self, SessionError> {
        let map = ebpf.map("COUNTERS").ok_or(SessionError::NoMap("COUNTERS"))?;
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(SessionError::map("COUNTERS"))?;
        let mut totals = Self::default();
        for (index, total) in (0u32..).zip(&mut totals.0) {
            let values = map.get(&index, 0).map_err(SessionError::map("COUNTERS"))?;
            *total = values.iter().sum();
        }
        Ok(totals)
    }

    /// Adds those of another session.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            *sum += count;
        }
    }

    /// One of them.
    #[must_use]
    pub const fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }
}

/// What a session counted so far; of the rules in force only.
#[derive(Clone, Debug)]
pub struct Counts {
    /// By [`super::plan::PlannedRule::id`].
    pub rules: Vec<RuleTotals>,
    /// What each exception met and spared, in the order given.
    pub spared: Vec<RuleTotals>,
    /// Of the whole session.
    pub totals: Totals,
}

/// The session is over: nothing of it is left in the kernel.
#[derive(Debug)]
pub struct Healed {
    /// What was planned.
    pub plan: Plan,
    /// When it became active.
    pub started: Timestamp,
    /// When injecting stopped.
    pub ended: Timestamp,
    /// Why it ended.
    pub end: End,
    /// By [`super::plan::PlannedRule::id`].
    pub rules: Vec<RuleTotals>,
    /// What each rule had done every half second, in the order of `rules`; empty unless asked for
    /// ([`Active::record`]).
    pub history: Vec<Vec<Point>>,
    /// What each exception met and spared, in the order given.
    pub spared: Vec<RuleTotals>,
    /// Of the whole session.
    pub totals: Totals,
    /// Of each lane.
    pub lanes: Vec<LaneStats>,
    /// How block faults got into the kernel.
    pub backend: Option<Backend>,
    /// What the parking lot did.
    pub parking: Option<ParkingLotStats>,
    /// Packets still in a lane when it was removed.
    pub stranded: u64,
    /// What could not be put back or counted: one sentence each.
    pub troubles: Vec<SessionError>,
}

impl Healed {
    /// Together with what became of a session that this one took over from ([`Armed::relieve`]). Its rules have gone.
    pub fn after(&mut self, earlier: Self) {
        self.totals.add(&earlier.totals);
        self.lanes.extend(earlier.lanes);
        self.backend = self.backend.or(earlier.backend);
        self.parking = self.parking.or(earlier.parking);
        self.stranded += earlier.stranded;
        self.troubles.extend(earlier.troubles);
    }
}

impl Active {
    /// What was counted until now.
    ///
    /// # Errors
    /// When the counters of the session cannot be read.
    pub fn counts(&self) -> Result<Counts, SessionError> {
        let Armed { loaded, request: Request { plan, .. }, earlier, .. } = &self.armed;
        let of = |slot| totals_of(loaded, loaded.control.bank(), slot, earlier);
        let rules = plan.rules.iter().map(|planned| of(planned.slot)).collect();
        let spared = plan.exceptions.iter().map(|planned| of(planned.slot)).collect();
        Ok(Counts { rules, spared, totals: Totals::read(&loaded.ebpf)? })
    }

    /// What each rule of `replaced` did, to the last injection: of the plan that [`Active::change`] has just taken out of force.
    #[must_use]
    pub fn counts_of_replaced(&self, replaced: &Plan) -> Vec<RuleTotals> {
        let Armed { loaded, earlier, .. } = &self.armed;
        let bank = (loaded.control.bank() + 1) % BANKS as u32;
        replaced.rules.iter().map(|planned| totals_of(loaded, bank, planned.slot, earlier)).collect()
    }

    /// Stops injecting with one store, wakes everybody who is parked, lets the lane run empty (late packets
    /// are late, not lost), takes everything out of the kernel.
    pub async fn heal(self, end: End) -> Healed {
        let started = self.started;
        let mut events = self.events;
        let bell = self.bell;
        let mut history = self.history;
        // Seen as long as it is not over.
        let registered = self.registered;
        self.armed.write_down(&mut history);
        let Armed {
            block,
            files,
            parking: lot,
            pauser,
            mut namespaces,
            sockets,
            tasks,
            mut lanes,
            copies: _,
            btf: _,
            rules,
            loaded,
            needs,
            longest_delay,
            request,
            switch,
            earlier,
        } = self.armed;
        switch.stop();
        let ended = Timestamp::now();
        let mut troubles = pauser.map(|mut pauser| pauser.stop()).unwrap_or_default();
        let backend = block.as_ref().map(BlockHooks::backend);
        let parking = lot.stats();
        if let Err(error) = lot.release_all() {
            troubles.push(error.into());
        }
        drop(block);
        let stranded =
            if needs.packet_delay { drain(&loaded, longest_delay, &mut troubles).await } else { 0 };
        let totals = Totals::read(&loaded.ebpf).unwrap_or_else(|error| {
            troubles.push(error);
            Totals::default()
        });
        if let Some(events) = &mut events
            && let Err(error) = events.drain()
        {
            troubles.push(error);
        }
        let bank = loaded.control.bank();
        let counts = request
            .plan
            .rules
            .iter()
            .map(|planned| totals_of(&loaded, bank, planned.slot, &earlier))
            .collect();
        let exceptions = request.plan.exceptions.iter();
        let spared = exceptions.map(|planned| totals_of(&loaded, bank, planned.slot, &earlier)).collect();
        for namespace in &mut namespaces {
            match namespace.lane_stats() {
                Ok(stats) => lanes.extend(stats),
                Err(error) => troubles.push(error.into()),
            }
        }
        for namespace in namespaces {
            if let Err(error) = namespace.detach(&request.keeper) {
                troubles.push(error);
            }
        }
        drop((registered, files, lot, sockets, tasks, rules, switch, bell, loaded));
        Healed {
            plan: request.plan,
            started,
            ended,
            end,
            rules: counts,
            history: history.map(History::into_points).unwrap_or_default(),
            spared,
            totals,
            lanes,
            stranded,
            backend,
            parking,
            troubles,
        }
    }
}

impl Armed {
    /// Adds what the rules have done until now to `history`, if there is one.
    pub(super) fn write_down(&self, history: &mut Option<History>) {
        if let Some(history) = history {
            let (rules, bank) = (&self.request.plan.rules, self.loaded.control.bank());
            history
                .take(rules.iter().map(|planned| totals_of(&self.loaded, bank, planned.slot, &self.earlier)));
        }
    }
}

fn totals_of(loaded: &Loaded, bank: u32, slot: u32, earlier: &Earlier) -> RuleTotals {
    let counters = loaded.counters.rule(bank, slot);
    // In this order: a hit is counted as a match first, so there are never more hits than matches.
    let injected = counters.injected.load();
    RuleTotals {
        matched: counters.matched.load() + earlier.matched(slot),
        injected,
        bytes: counters.bytes.load(),
        delay_ns: counters.delay_ns.load(),
        overflowed: counters.overflowed.load(),
        marked: counters.marked.load(),
    }
}

/// Waits until every packet that entered a lane has left it. How many have not when even the longest delay is over.
async fn drain(loaded: &Loaded, longest_delay: Duration, troubles: &mut Vec<SessionError>) -> u64 {
    let deadline = Instant::now() + (longest_delay + DRAIN_MARGIN).min(DRAIN_LIMIT);
    loop {
        let inside = match Totals::read(&loaded.ebpf) {
            Ok(totals) => totals.get(Counter::LaneIn).saturating_sub(totals.get(Counter::LaneOut)),
            Err(error) => {
                troubles.push(error);
                return 0;
            }
        };
        if inside == 0 || Instant::now() >= deadline {
            return inside;
        }
        sleep(DRAIN_POLL).await;
    }
}
