//! The gallery: partial failures on systems everybody knows, before, during and after, as their users felt them.
//!
//! Each scenario starts the real system from Debian's packages, breaks it with `fault` by a preset or a scenario file, and
//! asserts both what still works and what does not. [`run`] plays scenarios at full length and writes a page and a plot for
//! each; the end-to-end tests play the short ones.

mod checks;
mod dependency_out;
mod etcd;
mod failing_disk;
mod failing_fsync;
mod five_states;
mod history;
mod limping;
mod linear;
mod page;
mod partition;
mod payments;
mod plot;
mod pool;
mod quorum;
mod quorum_pause;
mod record;
mod replica_lag;
mod service;
mod slow_dependency;
mod snapshot_stall;
mod stage;
mod zone_split;
mod zookeeper;

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, bail, ensure};

pub use stage::{Pace, Stage};

use crate::{e2e, kernel_log::KernelLog, offspring, residue::Picture};

/// What a page says that no run measures.
#[derive(Debug)]
pub struct Story {
    /// Its title.
    pub title: &'static str,
    /// What happens, in one or two sentences.
    pub lead: &'static str,
    /// What one would see in production.
    pub production: &'static str,
    /// What to look for in the plot.
    pub look_for: &'static str,
    /// What the names in the command stand for.
    pub who: &'static str,
}

/// One of them.
#[derive(Debug)]
pub struct Scenario {
    /// Of its page.
    pub name: &'static str,
    /// Which kind of partial failure, as the presets count them.
    pub number: &'static str,
    /// Its page.
    pub story: Story,
    /// Plays it and judges.
    pub run: fn(&mut Stage) -> anyhow::Result<()>,
}

/// Those that are short enough to be end-to-end tests, too.
pub const SHORT: &[Scenario] = &[
    dependency_out::SCENARIO,
    payments::SCENARIO,
    pool::SCENARIO,
    failing_disk::SCENARIO,
    five_states::SCENARIO,
];

/// Those that are not.
pub const LONG: &[Scenario] = &[
    snapshot_stall::SCENARIO,
    quorum::SCENARIO,
    failing_fsync::SCENARIO,
    quorum_pause::SCENARIO,
    replica_lag::SCENARIO,
    zone_split::SCENARIO,
    slow_dependency::SCENARIO,
    partition::SCENARIO,
    limping::SCENARIO,
];

/// All.
fn all() -> impl Iterator<Item = &'static Scenario> {
    SHORT.iter().chain(LONG)
}

/// Plays the scenarios called `names`, all if there is none, and leaves pages, plots and an index in `directory`. Several
/// machines may share it: each scenario is played by the one that comes first.
///
/// # Errors
/// When one of them went otherwise than it must; the others are played all the same.
pub fn run(names: &[String], directory: &Path) -> anyhow::Result<()> {
    offspring::mark();
    let _alone = e2e::alone().context("waiting for other tests")?;
    if let Some(unknown) = names.iter().find(|name| all().all(|scenario| scenario.name != name.as_str())) {
        let known: Vec<&str> = all().map(|scenario| scenario.name).collect();
        bail!("no scenario `{unknown}`; there are {}", known.join(", "));
    }
    fs::create_dir_all(directory)?;
    let mut failed = Vec::new();
    // The longest first, so that machines that share the work end at about the same time.
    for scenario in LONG.iter().chain(SHORT) {
        let is_wanted = names.is_empty() || names.iter().any(|name| name == scenario.name);
        if !is_wanted || !claims(directory, scenario)? {
            continue;
        }
        let begin = Instant::now();
        let mut stage = Stage::new(Pace::Full);
        let verdict = guarded(scenario, &mut stage);
        // Also of one that failed: it shows how.
        let json = serde_json::to_string(&stage.record.samples)?;
        fs::write(directory.join(format!("{}.json", scenario.name)), json)?;
        for (ending, text) in &stage.beside {
            fs::write(directory.join(format!("{}.{ending}", scenario.name)), text)?;
        }
        let took = begin.elapsed().as_secs_f64();
        match verdict {
            Ok(()) => {
                println!("{}: {} checks held, {took:.0} s", scenario.name, stage.checks.sentences().len());
                fs::write(directory.join(format!("{}.svg", scenario.name)), plot::render(&stage.record))?;
                fs::write(directory.join(format!("{}.md", scenario.name)), page::render(scenario, &stage)?)?;
            }
            Err(error) => {
                println!("{}: {error:#} ({took:.0} s)", scenario.name);
                failed.push(scenario.name);
            }
        }
    }
    fs::write(directory.join("README.md"), page::index(all()))?;
    ensure!(failed.is_empty(), "not as it must be: {}", failed.join(", "));
    Ok(())
}

/// Whether this machine is the first that wants to play it.
fn claims(directory: &Path, scenario: &Scenario) -> anyhow::Result<bool> {
    match fs::File::create_new(directory.join(format!("{}.claim", scenario.name))) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("claiming {}", scenario.name)),
    }
}

/// With the looks at the machine that every end-to-end test ends with.
fn guarded(scenario: &Scenario, stage: &mut Stage) -> anyhow::Result<()> {
    let before = Picture::take()?;
    let mut log = KernelLog::from_now()?;
    let verdict = (scenario.run)(stage);
    log.must_be_clean()?;
    verdict.and(before.must_return())
}
