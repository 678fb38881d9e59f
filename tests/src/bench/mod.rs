//! The benchmarks: what `fault` costs those it leaves alone, and what it can do a second.
//!
//! Each measures a ratio or a cost in one run, on one machine, against a reference measured in between, so that
//! a slow or busy machine changes both sides alike.

mod arming;
mod bio;
mod bpf;
mod figure;
mod flow;
mod netns;
mod packet;
mod parks;

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
    /// Of the sessions that are armed in this process.
    keeper: Arc<Keeper>,
}

/// One benchmark.
struct Bench {
    name: &'static str,
    lane: Lane,
    run: fn(&Setting) -> anyhow::Result<Vec<Figure>>,
}

const ALL: [Bench; 5] = [
    Bench { name: "packet", lane: Lane::Native, run: packet::run },
    Bench { name: "arming", lane: Lane::Native, run: arming::run },
    Bench { name: "flow", lane: Lane::Fault, run: flow::run },
    Bench { name: "bio", lane: Lane::Fault, run: bio::run },
    Bench { name: "parks", lane: Lane::Fault, run: parks::run },
];

/// Runs the benchmarks of `lane` whose name contains one of `names` (all if there are none), prints the table and
/// writes `$FAULT_JOB/bench.json`. Fails when something could not be measured or a target is missed.
///
/// Call it before any thread is started.
#[must_use]
pub fn main(lane: Lane, names: &[String]) -> ExitCode {
    match measure(lane, names) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fault-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(lane: Lane, names: &[String]) -> anyhow::Result<bool> {
    offspring::mark();
    let setting = Setting { keeper: Arc::new(Keeper::fork()?) };
    let _alone = crate::e2e::alone()?;
    let wanted = |bench: &&Bench| {
        bench.lane == lane
            && (names.is_empty() || names.iter().any(|name| bench.name.contains(name.as_str())))
    };
    let mut figures = Vec::new();
    let mut complete = true;
    for bench in ALL.iter().filter(wanted) {
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
