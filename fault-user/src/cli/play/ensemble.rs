//! The sessions of a scenario, one for each target, as if they were one.

use std::{collections::BTreeMap, sync::Arc};

use fault_common::limits::MAX_RULES;
use jiff::Timestamp;

use super::super::{args::SessionArgs, error::CliError, session};
use crate::{
    beacon::RuleFace,
    report::{
        events::{self, EventWriter, SharedLines},
        output::Destination,
    },
    scenario::{Part, Scenario, conduct::Score},
    session::{
        Active, End,
        arm::Request,
        heal::{Healed, RuleTotals, Totals},
        keeper::Keeper,
        plan::Plan,
    },
    target::Target,
};

/// Sessions that are active.
pub(super) struct Ensemble {
    pub(super) sessions: Vec<Active>,
    parts: Vec<Part>,
    /// When the scenario began.
    started: Timestamp,
}

/// Arms all of `parts`, or none, and then activates them; what is in force is what the scenario begins with.
pub(super) fn activate(
    scenario: &Scenario,
    parts: Vec<Part>,
    targets: Vec<Target>,
    words: &[String],
    options: &SessionArgs,
    keeper: &Arc<Keeper>,
) -> Result<(Ensemble, Score), CliError> {
    let lines = options
        .events
        .as_ref()
        .map(|path| {
            let destination = Destination::from(path.clone());
            destination.open(events::WHAT).map(|out| (SharedLines::new(out), destination))
        })
        .transpose()?;
    let mut armed = Vec::new();
    for (part, target) in parts.iter().zip(targets) {
        let writer = lines.as_ref().map(|(lines, destination)| {
            let numbers: Vec<Option<u32>> = (0..MAX_RULES as u32).map(|slot| number_in(part, slot)).collect();
            let rule_of = move |_, slot: u32| numbers.get(slot as usize).copied().flatten();
            EventWriter::sharing(lines.clone(), destination, Box::new(rule_of))
        });
        let request = Request {
            backend: session::backend(options),
            events: writer,
            ..Request::new(part.plan.clone(), target, Arc::clone(keeper))
        };
        armed.push(session::arm(request)?);
    }
    let mut score = Score::new(scenario.phases.clone());
    for (armed, part) in armed.iter().zip(&parts) {
        score.add(armed.lever()?, armed.plan(), &part.timed);
    }
    let mut sessions = armed.into_iter().map(|armed| armed.activate()).collect::<Result<Vec<_>, _>>()?;
    for ((active, part), words) in sessions.iter().zip(&parts).zip(words) {
        session::tell_hidden(active, options);
        active.introduce(words, |id, face| describe(scenario, part, id, face));
    }
    if options.report.is_some() {
        sessions.iter_mut().for_each(Active::record);
    }
    Ok((Ensemble { sessions, parts, started: Timestamp::now() }, score))
}

/// Calls a rule what the scenario calls it.
fn describe(scenario: &Scenario, part: &Part, id: u32, face: &mut RuleFace) {
    let Some(timed) = part.timed.get(id as usize) else { return };
    let fault = &scenario.faults[timed.number];
    face.id = u32::try_from(timed.number).unwrap_or(u32::MAX);
    face.spec = fault.words();
    face.phase = Some(scenario.phases[fault.phase].name.clone());
}

/// Number in the scenario of the fault in `slot`.
fn number_in(part: &Part, slot: u32) -> Option<u32> {
    let id = part.plan.in_slot(slot)?.id;
    u32::try_from(part.timed.get(id as usize)?.number).ok()
}

impl Ensemble {
    /// Heals all: first nobody is hit any more, then everything is put back.
    pub(super) async fn heal(self, end: End, seed: u64) -> Healed {
        for session in &self.sessions {
            session.stop();
        }
        let mut all = Vec::new();
        for (session, part) in self.sessions.into_iter().zip(self.parts) {
            all.push((session.heal(end).await, part));
        }
        merge(all, end, seed, self.started)
    }
}

/// As if one session had had all rules, each by its number in the scenario.
fn merge(all: Vec<(Healed, Part)>, end: End, seed: u64, started: Timestamp) -> Healed {
    let plan = Plan { rules: Vec::new(), exceptions: Vec::new(), seed, duration: None };
    let mut merged = Healed {
        plan,
        started,
        // Nobody is hit from here on; the sessions say more precisely since when.
        ended: all.first().map_or_else(Timestamp::now, |(healed, _)| healed.ended),
        end,
        rules: Vec::new(),
        history: Vec::new(),
        spared: Vec::new(),
        totals: Totals::default(),
        lanes: Vec::new(),
        backend: None,
        parking: None,
        stranded: 0,
        troubles: Vec::new(),
    };
    let mut rules = BTreeMap::new();
    for (healed, part) in all {
        let mut histories = healed.history.into_iter();
        for ((mut planned, totals), timed) in healed.plan.rules.into_iter().zip(healed.rules).zip(&part.timed)
        {
            planned.id = u32::try_from(timed.number).unwrap_or(u32::MAX);
            rules.insert(timed.number, (planned, (totals, histories.next().unwrap_or_default())));
        }
        // Every target has those of the file, or none; the whole machine has some more behind them.
        merged.spared.resize(merged.spared.len().max(healed.spared.len()), RuleTotals::default());
        for (sum, spared) in merged.spared.iter_mut().zip(&healed.spared) {
            sum.add(spared);
        }
        if merged.plan.exceptions.len() < healed.plan.exceptions.len() {
            merged.plan.exceptions = healed.plan.exceptions;
        }
        merged.totals.add(&healed.totals);
        merged.lanes.extend(healed.lanes);
        merged.backend = merged.backend.or(healed.backend);
        merged.parking = merged.parking.or(healed.parking);
        merged.stranded += healed.stranded;
        merged.troubles.extend(healed.troubles);
    }
    (merged.plan.rules, (merged.rules, merged.history)) = rules.into_values().unzip();
    merged
}
