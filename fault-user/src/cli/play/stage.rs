//! A scenario, played.

use std::{io::IsTerminal as _, process::ExitCode, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::{
    super::{
        args::{SessionArgs, StageArgs},
        error::CliError,
        finish::{self, Subject},
        run::{follow_writeback, forward, hits_writes, outlive},
        session::{tell_unborn, tell_unmatched},
    },
    ensemble::{self, Ensemble},
    probes,
};
use crate::{
    exit::Class,
    report::{
        SessionReport,
        scenario::{ExpectationReport, ScenarioReport},
    },
    scenario::{
        GIVEN, Part, Probe, Scenario,
        conduct::{Conductor, Edge},
    },
    session::{End, SessionError, active::Signals, heal::RuleTotals, keeper::Keeper},
    spec::print_duration,
    target::{
        command::{CommandError, Ending, Held, Running},
        run::Transient,
    },
};

/// Why the scenario is over, and what had been found until then.
struct Curtain {
    end: End,
    ending: Option<Ending>,
    trouble: Option<SessionError>,
    /// Nobody knows how COMMAND ended.
    lost: Option<CommandError>,
    /// By place in [`Scenario::probes`]; nothing where the probe had not ended.
    found: Vec<Option<ExpectationReport>>,
}

pub(super) async fn perform(
    scenario: &Scenario,
    mut parts: Vec<Part>,
    stage: &StageArgs,
    seed: u64,
    keeper: &Arc<Keeper>,
) -> Result<ExitCode, CliError> {
    let options = &stage.options;
    let mut signals = Signals::catch().map_err(CliError::Runtime)?;
    let is_given = |part: &Part| scenario.targets[part.target].name == GIVEN;
    let mut transient = None;
    let mut held = None;
    if !stage.command.is_empty() {
        let mut cgroup = Transient::create(keeper)?;
        if parts.iter().any(|part| is_given(part) && hits_writes(&part.plan)) {
            follow_writeback(&mut cgroup, options)?;
        }
        held = Some(Held::spawn(&stage.command, &cgroup.cgroup().path)?);
        transient = Some(cgroup);
    }
    let mut targets = Vec::new();
    let mut words = Vec::new();
    for part in &mut parts {
        let mut target = super::target(scenario, part.target, stage, [keeper.pid()])?;
        // A file's word is not enough for the whole machine, which the root cgroup is, too.
        target.confirm(stage.aim.yes)?;
        part.spare(&target)?;
        tell_unborn(&target, options)?;
        words.push(super::words(scenario, part.target, &target, stage));
        if let Some(cgroup) = transient.as_ref().filter(|_| is_given(part)) {
            target.cgroups.push(cgroup.cgroup().clone());
        }
        tell_unmatched(&part.plan, &target, options)?;
        targets.push(target);
    }
    let each = words.clone();
    let words = if words.is_empty() { "nobody".to_owned() } else { words.join("; ") };

    let (mut ensemble, score) = ensemble::activate(scenario, parts, targets, &each, options, keeper)?;
    let mut conductor = score.begin()?;
    announce(scenario, &words, seed, options);
    let command = held.map(Held::release).transpose()?;
    let mut report = ScenarioReport::new(scenario);
    let cast = Cast { scenario, options, command: command.as_ref() };
    let mut curtain = cast.live(&mut ensemble, &mut conductor, &mut signals, &mut report).await;
    conductor.stop();
    while let Ok(edge) = conductor.edges.try_recv() {
        note(&mut report, edge);
    }
    let mut healed = ensemble.heal(curtain.end, seed).await;
    healed.troubles.extend(curtain.trouble.take());
    if let Some(error) = curtain.lost {
        return Err(error.into());
    }
    // The scenario may be over before COMMAND is: it goes on unharmed.
    if let (Some(command), None) = (&command, curtain.ending) {
        curtain.ending = Some(outlive(command, &mut signals).await?);
    }
    let interrupted = curtain.end.is_interruption();
    for (place, probe) in scenario.probes.iter().enumerate() {
        if probe.at.is_none() && !interrupted {
            curtain.found[place] = tokio::select! {
                found = probes::judge(probe) => Some(found),
                // Whoever asks a second time to end does not want to wait for this.
                _ = signals.next() => None,
            };
        }
    }
    report.expectations = judged(scenario, &healed.rules, interrupted, curtain.found);

    let subject = Subject {
        target: words,
        ending: curtain.ending,
        command: Some(Subject::command(&stage.command))
            .filter(|_| command.is_some())
            .and_then(|it| it.command),
    };
    let mut whole = finish::of(&healed, subject);
    describe(scenario, &report, &mut whole);
    let is_clean = healed.troubles.is_empty() && !matches!(curtain.end, End::Stalled(_));
    let is_as_expected = report.is_as_expected();
    whole.scenario = Some(report);
    finish::write(&whole, &healed.history, options)?;
    if let Some(transient) = transient {
        transient.heal()?;
    }
    if !is_as_expected || !is_clean {
        return Ok(Class::Other.into());
    }
    Ok(curtain.ending.map_or(ExitCode::SUCCESS, |ending| ExitCode::from(ending.status())))
}

/// Who is there while it is played.
struct Cast<'a> {
    scenario: &'a Scenario,
    options: &'a SessionArgs,
    command: Option<&'a Running>,
}

impl Cast<'_> {
    /// Until there is a reason to stop.
    async fn live(
        &self,
        ensemble: &mut Ensemble,
        conductor: &mut Conductor,
        signals: &mut Signals,
        report: &mut ScenarioReport,
    ) -> Curtain {
        let began = Instant::now();
        let probes = &self.scenario.probes;
        let mut curtain = Curtain {
            end: End::Deadline,
            ending: None,
            trouble: None,
            lost: None,
            found: vec![None; probes.len()],
        };
        // Those that are due at some moment, the last one first.
        let mut due: Vec<(Duration, usize)> =
            probes.iter().enumerate().filter_map(|(place, probe)| Some((probe.at?, place))).collect();
        due.sort_unstable_by(|a, b| b.cmp(a));
        let mut running = FuturesUnordered::new();
        let judge = |place: usize, probe: &'_ Probe| {
            let probe = probe.clone();
            async move { (place, probes::judge(&probe).await) }
        };
        let mut command = std::pin::pin!(ended(self.command));
        let mut tended: FuturesUnordered<_> =
            ensemble.sessions.iter_mut().map(|session| session.tend()).collect();
        let is_alone = tended.is_empty();
        let over = self.scenario.end_ns(self.options.duration).map(|end| began + Duration::from_nanos(end));
        loop {
            let next = due.last().map(|(at, _)| began + *at);
            tokio::select! {
                biased;
                ending = &mut command => {
                    match ending {
                        Ok(ending) => (curtain.end, curtain.ending) = (End::CommandEnded, Some(ending)),
                        Err(error) => (curtain.end, curtain.lost) = (End::Trouble, Some(error)),
                    }
                    break;
                }
                number = signals.next() => match self.command {
                    // A signal is meant for COMMAND, and the scenario ends when it does.
                    Some(command) => drop(forward(command, number)),
                    None => {
                        curtain.end = End::Signal(number);
                        break;
                    }
                },
                Some(result) = tended.next() => match result {
                    // Others may be left to suffer.
                    Ok(End::TargetGone) if !tended.is_empty() => {}
                    Ok(end) => {
                        curtain.end = end;
                        break;
                    }
                    Err(error) => {
                        (curtain.end, curtain.trouble) = (End::Trouble, Some(error));
                        break;
                    }
                },
                () = until(next) => {
                    if let Some((_, place)) = due.pop() {
                        running.push(judge(place, &probes[place]));
                    }
                }
                Some((place, found)) = running.next() => curtain.found[place] = Some(found),
                Some(edge) = conductor.edges.recv() => {
                    note(report, edge);
                    self.tell(edge);
                }
                // Without faults there is no session that would say so.
                () = until(over), if is_alone => break,
            }
        }
        // A probe that is due at the very end still runs, but nobody waits for one after Ctrl-C.
        if !curtain.end.is_interruption() {
            if matches!(curtain.end, End::Deadline) {
                let due = due.into_iter().filter(|(at, _)| over.is_some_and(|over| began + *at <= over));
                running.extend(due.map(|(_, place)| judge(place, &probes[place])));
            }
            while let Some((place, found)) = running.next().await {
                curtain.found[place] = Some(found);
            }
        }
        curtain
    }

    /// Says what begins and ends, where somebody looks on.
    fn tell(&self, edge: Edge) {
        let Some(phase) = self.scenario.phases.get(edge.phase) else { return };
        if self.options.quiet || !(self.options.verbose || std::io::stderr().is_terminal()) {
            return;
        }
        let verb = if edge.begins { "begins" } else { "ends" };
        eprintln!("fault: {} phase `{}` {verb}", print_duration(Duration::from_nanos(edge.due)), phase.name);
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn ended(command: Option<&Running>) -> Result<Ending, CommandError> {
    match command {
        Some(command) => command.ended().await,
        None => std::future::pending().await,
    }
}

fn note(report: &mut ScenarioReport, edge: Edge) {
    if let Some(phase) = report.phases.get_mut(edge.phase) {
        if edge.begins {
            phase.turns.push((edge.due, None));
        } else if let Some((_, end)) = phase.turns.last_mut() {
            *end = Some(edge.due);
        }
        phase.began += u64::from(edge.begins);
        phase.late_ns = phase.late_ns.max(edge.late);
    }
}

/// Everything that was expected, and whether it was so.
fn judged(
    scenario: &Scenario,
    totals: &[RuleTotals],
    interrupted: bool,
    found: Vec<Option<ExpectationReport>>,
) -> Vec<ExpectationReport> {
    let mut judged = Vec::new();
    for (number, (fault, totals)) in scenario.faults.iter().zip(totals).enumerate() {
        for expectation in &fault.expect {
            let (met, found) = expectation.judge(totals);
            // What an interrupted scenario has not got round to yet is not wrong.
            let met = Some(met).filter(|met| *met || !interrupted);
            judged.push(ExpectationReport { what: format!("fault {number}, `{expectation}`"), met, found });
        }
    }
    let probes = scenario.probes.iter().zip(found);
    judged.extend(probes.map(|(probe, found)| {
        found.unwrap_or_else(|| ExpectationReport {
            what: probes::what(probe),
            met: None,
            found: "the scenario ended before".to_owned(),
        })
    }));
    judged
}

/// Rows of the report belong to phases and targets.
fn describe(scenario: &Scenario, played: &ScenarioReport, report: &mut SessionReport) {
    for (row, fault) in report.rules.iter_mut().zip(&scenario.faults) {
        if row.matched == 0 && played.phases[fault.phase].began == 0 {
            row.hint = Some("matched nothing: its phase had not begun".to_owned());
        }
        row.spec = fault.words();
        row.phase = Some(scenario.phases[fault.phase].name.clone());
        row.target = Some(scenario.targets[fault.target].name.clone());
    }
}

/// `fault: active …`, which scripts wait for.
fn announce(scenario: &Scenario, target: &str, seed: u64, options: &SessionArgs) {
    if options.quiet {
        return;
    }
    let some = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let (phases, faults) = (some(scenario.phases.len(), "phase"), some(scenario.faults.len(), "fault"));
    eprintln!("fault: active, {faults} in {phases} on {target}, seed {seed}");
}
