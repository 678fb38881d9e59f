//! The rule set in the kernel: two banks, one in force, the other written while nobody reads it.
//!
//! Changing rules is one store of the generation: a packet or bio sees the old set or the new one, never half
//! of each.

use std::{os::fd::OwnedFd, time::Duration};

use aya::{
    Ebpf,
    maps::{
        Array, HashMap,
        lpm_trie::{Key, LpmTrie},
    },
};
use fault_common::{
    control::Bank,
    decide::delay,
    glob::Glob,
    limits::{BANKS, MAX_GLOBS, MAX_RULES},
    rule::{Rule, block::WrittenKey},
    who::{Interface as InterfaceEntry, PeerAddress, PeerRules},
};

use super::{active::Active, error::SessionError, packets::Namespace, plan::Plan, tables};
use crate::{
    file::{
        names,
        places::{self, Place},
    },
    kernel::{load::Loaded, plain::Plain},
    net::peers::{self, Named, Table},
    spec::NetFilter,
    target::Target,
};

/// What the kernel knows of the rules beyond the rules themselves.
#[derive(Default)]
pub(super) struct Rules {
    named: [Named; BANKS],
    table: Table,
    /// Where the paths of patterns lead.
    places: Vec<Place>,
    /// By bank: names of files that must stay in memory.
    held: [Vec<OwnedFd>; BANKS],
}

impl Rules {
    /// For patterns of paths that lead to `places`.
    pub(super) fn new(places: Vec<Place>) -> Self {
        Self { places, ..Self::default() }
    }

    /// Writes `plan` into the bank that is not in force (or the first one, before anything is).
    pub(super) fn write(&mut self, loaded: &mut Loaded, plan: &Plan, bank: u32) -> Result<(), SessionError> {
        let map = loaded.ebpf.map_mut("RULES").ok_or(SessionError::NoMap("RULES"))?;
        let mut map: Array<_, Plain<Rule>> = Array::try_from(map).map_err(SessionError::map("RULES"))?;
        for (slot, rule) in plan.compiled() {
            map.set(bank * MAX_RULES as u32 + slot, Plain(rule), 0).map_err(SessionError::map("RULES"))?;
            loaded.counters.reset(bank, slot);
        }
        forget_written(&mut loaded.ebpf, bank)?;
        write_tables(&mut loaded.ebpf, plan, bank)?;
        self.write_peers(&mut loaded.ebpf, plan, bank)?;
        let globs = self.write_globs(&mut loaded.ebpf, plan, bank)?;
        loaded.control.set_bank(bank, Bank { globs, ..plan.bank() });
        Ok(())
    }

    /// Writes the patterns of all file rules; how many there are, by file system.
    fn write_globs(&mut self, ebpf: &mut Ebpf, plan: &Plan, bank: u32) -> Result<u64, SessionError> {
        let globs = places::globs(&self.places, plan.globs())?;
        self.held[bank as usize % BANKS] = names::hold(&self.places, plan.globs());
        if globs.is_empty() {
            return Ok(0);
        }
        let map = ebpf.map_mut("GLOBS").ok_or(SessionError::NoMap("GLOBS"))?;
        let mut map: Array<_, Plain<Glob>> = Array::try_from(map).map_err(SessionError::map("GLOBS"))?;
        for (number, glob) in (0u32..).zip(&globs) {
            let place = bank * MAX_GLOBS as u32 + number;
            map.set(place, Plain(*glob), 0).map_err(SessionError::map("GLOBS"))?;
        }
        Ok(globs.len() as u64)
    }

    /// What the `to` of all faults and exceptions name.
    fn write_peers(&mut self, ebpf: &mut Ebpf, plan: &Plan, bank: u32) -> Result<(), SessionError> {
        let mut named = Named::new();
        for (slot, filter) in plan.net_filters() {
            for endpoint in &filter.to {
                let networks = peers::resolve(&endpoint.value.peer)?;
                named.extend(networks.into_iter().map(|network| (network, 1 << slot)));
            }
        }
        self.named[bank as usize % BANKS] = named;
        let table = peers::table(&self.named);
        let changes = peers::changes(&self.table, &table);
        let map = ebpf.map_mut("PEERS").ok_or(SessionError::NoMap("PEERS"))?;
        let mut map: LpmTrie<_, Plain<PeerAddress>, Plain<PeerRules>> =
            LpmTrie::try_from(map).map_err(SessionError::map("PEERS"))?;
        let key = |prefix: peers::Prefix| Key::new(prefix.length(), Plain(prefix.address()));
        for (prefix, rules) in changes.upserts {
            map.insert(&key(prefix), Plain(rules), 0).map_err(SessionError::map("PEERS"))?;
        }
        for prefix in changes.removals {
            map.remove(&key(prefix)).map_err(SessionError::map("PEERS"))?;
        }
        self.table = table;
        Ok(())
    }
}

/// Writes the distributions that rules of `plan` have of their own.
fn write_tables(ebpf: &mut Ebpf, plan: &Plan, bank: u32) -> Result<(), SessionError> {
    let map = ebpf.map_mut("TABLES").ok_or(SessionError::NoMap("TABLES"))?;
    let mut map: Array<_, Plain<delay::Table>> = Array::try_from(map).map_err(SessionError::map("TABLES"))?;
    for (slot, path) in plan.tables() {
        let table = Plain(*tables::read(path)?);
        map.set(bank * MAX_RULES as u32 + slot, table, 0).map_err(SessionError::map("TABLES"))?;
    }
    Ok(())
}

/// Forgets which sectors were written while the rules of `bank` were in force.
fn forget_written(ebpf: &mut Ebpf, bank: u32) -> Result<(), SessionError> {
    let map = ebpf.map_mut("WRITTEN").ok_or(SessionError::NoMap("WRITTEN"))?;
    let mut map: HashMap<_, Plain<WrittenKey>, u64> =
        HashMap::try_from(map).map_err(SessionError::map("WRITTEN"))?;
    let keys: Vec<_> = map.keys().collect::<Result<_, _>>().map_err(SessionError::map("WRITTEN"))?;
    for key in keys.into_iter().filter(|Plain(key)| key.place / MAX_RULES as u32 == bank) {
        map.remove(&key).map_err(SessionError::map("WRITTEN"))?;
    }
    Ok(())
}

/// Whether the patterns of `plan` lead to where they can be matched, as somebody of `target` sees it.
///
/// # Errors
/// As arming would say.
pub fn check_patterns(plan: &Plan, target: &Target) -> Result<(), SessionError> {
    if plan.globs().next().is_some() {
        places::globs(&places::of(&target.snapshot()?.members)?, plan.globs())?;
    }
    Ok(())
}

/// Which slots of `plan` name the interface `name`.
pub(super) fn naming(plan: &Plan, name: &str) -> u64 {
    let names = |filter: &NetFilter| filter.iface.as_ref().is_some_and(|iface| iface.value == name);
    plan.net_filters().filter(|(_, filter)| names(filter)).fold(0, |mask, (slot, _)| mask | 1 << slot)
}

impl Active {
    /// Replaces the whole rule set by one store. Counters of the new rules start at zero, `after` and `for`
    /// count from now.
    ///
    /// # Errors
    /// When the new rules need more of the kernel than the session was armed for; the old ones stay in force.
    pub fn change(&mut self, plan: Plan) -> Result<(), SessionError> {
        let armed = &mut self.armed;
        if !armed.needs.cover(plan.needs()) {
            return Err(SessionError::NotArmedFor);
        }
        super::packets::check_interfaces(&plan, armed.namespaces.iter().map(Namespace::netns))?;
        let generation = armed.loaded.control.generation.load().wrapping_add(1);
        let bank = generation % BANKS as u32;
        armed.rules.write(&mut armed.loaded, &plan, bank)?;
        for namespace in &armed.namespaces {
            namespace.rename(&mut armed.loaded.ebpf, &plan, bank)?;
        }
        let control = &armed.loaded.control;
        control.seed.store(plan.seed);
        control.started_ns.store(crate::kernel::control::monotonic_ns());
        control.generation.store(generation);
        if let Some(pauser) = &armed.pauser {
            pauser.change(&plan);
        }
        armed.longest_delay = armed.longest_delay.max(plan.longest_delay());
        let duration: Option<Duration> = armed.request.plan.duration;
        armed.request.plan = Plan { duration, ..plan };
        if let Ok(registration) = &self.registered {
            registration.show(armed.face());
        }
        Ok(())
    }
}

/// Writes which rules name the interface behind `key` into one bank of its entry.
pub(super) fn rename(ebpf: &mut Ebpf, key: u64, bank: u32, rules: u64) -> Result<(), SessionError> {
    let map = ebpf.map_mut("INTERFACES").ok_or(SessionError::NoMap("INTERFACES"))?;
    let mut map: HashMap<_, u64, Plain<InterfaceEntry>> =
        HashMap::try_from(map).map_err(SessionError::map("INTERFACES"))?;
    let Plain(mut entry) = map.get(&key, 0).map_err(SessionError::map("INTERFACES"))?;
    entry.rules[bank as usize % BANKS] = rules;
    map.insert(key, Plain(entry), 0).map_err(SessionError::map("INTERFACES"))
}
