//! The benchmarks: what `fault` costs those it leaves alone, and what it can do a second.
//!
//! Each measures a ratio or a cost in one run, on one machine, against a reference measured in between, so that
//! a slow or busy machine changes both sides alike.

mod arming;
mod bio;
pub(crate) mod bpf;
mod bystander;
mod depth;
mod figure;
mod flood;
mod flow;
mod netns;
mod packet;
mod parity;
mod parity_disk;
mod parks;
mod prefixes;
mod proxy;
mod soak;

use std::{fs, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use fault_user::session::keeper::Keeper;

use crate::offspring;
use figure::Figure;

/// Which kernel the benchmarks run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lane {
    /// The machine's own kernel: costs in nanoseconds and milliseconds.
    Native,
    /// The VM with everything: ratios.
    Fault,
}

/// What a benchmark gets.
struct Setting {
    /// Where it runs.
    lane: Lane,
    /// How long `soak` takes, in minutes.
    minutes: f64,
    /// Of the sessions that are armed in this process.
    keeper: Arc<Keeper>,
}

/// One benchmark.
struct Bench {
    name: &'static str,
    on: &'static [Lane],
    /// Runs only when it is asked for by its whole name: it takes too long for every day.
    asked: bool,
    run: fn(&Setting) -> anyhow::Result<Vec<Figure>>,
}

impl Bench {
    const fn new(
        name: &'static str,
        on: &'static [Lane],
        run: fn(&Setting) -> anyhow::Result<Vec<Figure>>,
    ) -> Self {
        Self { name, on, asked: false, run }
    }

    fn is_wanted(&self, lane: Lane, names: &[String]) -> bool {
        let named = |name: &String| {
            if self.asked { self.name == name } else { self.name.contains(name.as_str()) }
        };
        self.on.contains(&lane) && (names.is_empty() && !self.asked || names.iter().any(named))
    }
}

const ALL: [Bench; 12] = [
    Bench::new("packet", &[Lane::Native], packet::run),
    Bench::new("arming", &[Lane::Native], arming::run),
    Bench::new("bystander", &[Lane::Native, Lane::Fault], bystander::run),
    Bench::new("proxy", &[Lane::Native], proxy::run),
    Bench::new("prefixes", &[Lane::Native, Lane::Fault], prefixes::run),
    Bench::new("flow", &[Lane::Fault], flow::run),
    Bench::new("bio", &[Lane::Fault], bio::run),
    Bench::new("parks", &[Lane::Fault], parks::run),
    Bench::new("parity", &[Lane::Fault], parity::run),
    Bench::new("disk-parity", &[Lane::Fault], parity_disk::run),
    Bench::new("depth", &[Lane::Fault], depth::run),
    Bench { asked: true, ..Bench::new("soak", &[Lane::Native, Lane::Fault], soak::run) },
];

/// Runs the benchmarks of `lane` whose name contains one of `names` (if there are none, all but `soak`, which takes
/// `minutes`), prints the table and
/// writes `$FAULT_JOB/bench.json`. Fails when something could not be measured or a target is missed.
///
/// Call it before any thread is started.
#[must_use]
pub fn main(lane: Lane, minutes: f64, names: &[String]) -> ExitCode {
    match measure(lane, minutes, names) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fault-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(lane: Lane, minutes: f64, names: &[String]) -> anyhow::Result<bool> {
    offspring::mark();
    let setting = Setting { lane, minutes, keeper: Arc::new(Keeper::fork()?) };
    let _alone = crate::e2e::alone()?;
    let mut figures = Vec::new();
    let mut complete = true;
    for bench in ALL.iter().filter(|bench| bench.is_wanted(lane, names)) {
        eprintln!("{} …", bench.name);
        match (bench.run)(&setting) {
            Ok(of_bench) => figures.extend(of_bench.into_iter().map(|figure| figure.of_bench(bench.name))),
            Err(error) => {
                eprintln!("{}: {error:#}", bench.name);
                complete = false;
            }
        }
    }
    print!("{}", figure::table(&figures));
    if let Some(directory) = std::env::var_os("FAULT_JOB") {
        let path = PathBuf::from(directory).join("bench.json");
        let text = serde_json::to_string_pretty(&figures)?;
        fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    }
    Ok(complete && figures.iter().all(Figure::is_reached))
}
