//! `fault play`: faults in phases, and what is expected of them.

mod ensemble;
mod probes;
mod stage;

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use super::{
    args::{PlayArgs, SessionArgs, StageArgs},
    error::CliError,
    finish::Subject,
    session,
};
use crate::{
    report::timeline::timeline,
    scenario::{self, GIVEN, Origin, Part, SCENARIO_MAX_BYTES, Scenario},
    session::{keeper::Keeper, plan::Plan, prepare},
    target::Target,
};

pub(super) fn main(arguments: &PlayArgs) -> Result<ExitCode, CliError> {
    let path = arguments.scenario.display().to_string();
    let failed = |source| CliError::ReadScenario { path: path.clone(), source };
    let mut text = String::new();
    let file = File::open(&arguments.scenario).map_err(failed)?;
    file.take(SCENARIO_MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > SCENARIO_MAX_BYTES {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB")));
    }
    play(Origin { name: path, text }, &arguments.parameters, &arguments.stage)
}

/// Plays what `origin` holds, with `values` for its parameters.
pub(super) fn play(
    origin: Origin,
    values: &[(String, String)],
    stage: &StageArgs,
) -> Result<ExitCode, CliError> {
    let scenario = scenario::read(origin, values, is_given(stage))?;
    let options = &stage.options;
    let seed = options.seed.or(scenario.seed).unwrap_or_else(crate::session::prepare::random_seed);
    let parts = parts(&scenario, options, seed)?;
    if options.dry_run {
        return dry_run(&scenario, parts, stage, seed);
    }
    session::require_root()?;
    session::check_outputs(options)?;
    let keeper = Arc::new(Keeper::fork()?);
    session::runtime()?.block_on(stage::perform(&scenario, parts, stage, seed, &keeper))
}

/// Whether the command line names a target.
fn is_given(stage: &StageArgs) -> bool {
    !(stage.command.is_empty() && stage.aim.target.is_empty())
}

/// A plan for each target, with the devices that specs name on this machine.
fn parts(scenario: &Scenario, options: &SessionArgs, seed: u64) -> Result<Vec<Part>, CliError> {
    let mut devices = Vec::new();
    for (number, timed) in scenario.faults.iter().enumerate() {
        let look_up = || {
            prepare::check_table(&timed.fault)?;
            prepare::device_of(&timed.fault)
        };
        let device = look_up().map_err(|error| {
            scenario.spec_error(number, &error).map_or(CliError::Spec(error), CliError::Scenario)
        })?;
        devices.push(device);
    }
    Ok(scenario.parts(&devices, seed, options.duration)?)
}

/// Target `index` of the scenario; `helpers` never suffer. COMMAND's cgroup is not in it yet.
fn target(
    scenario: &Scenario,
    index: usize,
    stage: &StageArgs,
    helpers: impl IntoIterator<Item = u32>,
) -> Result<Target, CliError> {
    let named = &scenario.targets[index];
    if named.name == GIVEN {
        return super::inject::target(&stage.aim, helpers);
    }
    let mut target = Target::nobody(helpers);
    target.descendants = !named.only;
    let added = named.requests.iter().try_for_each(|request| target.add(request));
    added.map_err(|error| {
        CliError::Scenario(scenario.target_error(named, crate::sentence::sentence(&error)))
    })?;
    Ok(target)
}

/// The target in words.
fn words(scenario: &Scenario, index: usize, target: &Target, stage: &StageArgs) -> String {
    let mut words = target.to_string();
    if scenario.targets[index].name == GIVEN && !stage.command.is_empty() {
        let command = Subject::command(&stage.command).target;
        words = if words.is_empty() { command } else { format!("{command} and {words}") };
    }
    words
}

/// Prints the timeline, arms nothing.
fn dry_run(
    scenario: &Scenario,
    mut parts: Vec<Part>,
    stage: &StageArgs,
    seed: u64,
) -> Result<ExitCode, CliError> {
    let mut all = vec![String::new(); scenario.targets.len()];
    for part in &mut parts {
        let target = target(scenario, part.target, stage, [])?;
        part.spare(&target)?;
        // COMMAND does not live yet: it will where we do.
        check(&part.plan, &target)?;
        all[part.target] = words(scenario, part.target, &target, stage);
    }
    let length = scenario.end_ns(stage.options.duration).map(std::time::Duration::from_nanos);
    let text = timeline(scenario, &parts, &all, seed, length);
    std::io::stdout().write_all(text.as_bytes()).map_err(CliError::Stdout)?;
    Ok(ExitCode::SUCCESS)
}

fn check(plan: &Plan, target: &Target) -> Result<(), CliError> {
    crate::session::check_interfaces(plan, &target.snapshot()?.netns)?;
    Ok(crate::session::check_patterns(plan, target)?)
}
