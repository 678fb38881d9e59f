//! `cargo xtask fuzz`: libFuzzer looks for texts that the properties of `fault-user/tests/fuzz` do not hold for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::setup::{self, Need};
use crate::{exec, host};

/// What is given texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// Specs of all layers, and exceptions.
    Spec,
    /// Scenario files.
    Scenario,
    /// Patterns of paths.
    Glob,
}

impl Target {
    const ALL: [Self; 3] = [Self::Spec, Self::Scenario, Self::Glob];

    const fn name(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Scenario => "scenario",
            Self::Glob => "glob",
        }
    }

    /// Bytes of the longest text: a little more than is read, or where quadratic time would show.
    const fn longest(self) -> u32 {
        match self {
            Self::Spec => 4200,
            Self::Scenario => 64 << 10,
            Self::Glob => 1024,
        }
    }
}

/// Arguments of the task.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// Only this one (may be repeated).
    #[arg(long)]
    target: Vec<Target>,
    /// How many texts for each.
    #[arg(long, default_value_t = 1_000_000)]
    runs: u64,
    /// Put what was found and reaches new code into `fuzz/corpus`, which `cargo test` replays.
    #[arg(long)]
    keep: bool,
}

/// The longest text that is kept, in bytes: people read the corpus.
const KEPT_MAX_BYTES: u32 = 512;

/// One text in so many may be as long as [`Target::longest`], the others as long as what is kept. Grammar is found in short
/// texts, five times as fast; quadratic time shows only in long ones.
const LONG_ONE_IN: u64 = 10;

/// Counters at every edge. Not comparisons as well, which took two thirds of the time: the words that are compared with are in
/// `fuzz/words`. Flags of the stable compiler; no sanitizer, because what is fuzzed has no `unsafe` in it.
const FLAGS: [&str; 7] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Ccodegen-units=4",
];

/// Fuzzes; the first text that something does not hold for is an error that says where it is.
pub fn run(args: &FuzzArgs) -> Result<()> {
    setup::ensure(&[Need::Fuzz])?;
    let programs = build()?;
    let targets = if args.target.is_empty() { Target::ALL.to_vec() } else { args.target.clone() };
    for target in targets {
        fuzz(&programs, target, args)?;
    }
    Ok(())
}

/// Everything lies apart from what others build: these programs are instrumented.
fn output() -> PathBuf {
    host::target_dir().join("fuzz")
}

/// Builds the programs and says where they are.
fn build() -> Result<PathBuf> {
    let version = exec::capture(Command::new("rustc").arg("-vV"))?;
    let triple = version.lines().find_map(|line| line.strip_prefix("host: "));
    let triple = triple.context("`rustc -vV` names no host")?;
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(host::workspace().join("fuzz"))
        // With a target, build scripts are not instrumented.
        .args(["build", "--release", "--locked", "--bins", "--target", triple, "--target-dir"])
        .arg(output())
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env("FAULT_FUZZING", "1");
    exec::run(&mut cargo)?;
    Ok(output().join(triple).join("release"))
}

fn fuzz(programs: &Path, target: Target, args: &FuzzArgs) -> Result<()> {
    let name = target.name();
    let found = output().join("corpus").join(name);
    let artifacts = output().join("artifacts").join(name);
    host::make_dir(&found)?;
    host::make_dir(&artifacts)?;
    let source = host::workspace().join("fuzz");
    let kept = source.join("corpus").join(name);
    let long = args.runs.div_ceil(LONG_ONE_IN);
    for (runs, longest) in [(args.runs - long, KEPT_MAX_BYTES), (long, target.longest())] {
        // To libFuzzer none is no limit.
        if runs == 0 {
            continue;
        }
        let mut fuzzer = Command::new(programs.join(name));
        fuzzer
            .arg(format!("-runs={runs}"))
            .arg(format!("-max_len={longest}"))
            .arg(format!("-dict={}", source.join("words").join(name).display()))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-timeout=30", "-print_final_stats=1"])
            // The first is where it puts what it finds.
            .args([&found, &kept]);
        exec::run(&mut fuzzer)?;
    }
    if args.keep {
        let mut merge = Command::new(programs.join(name));
        merge.args(["-set_cover_merge=1", &format!("-max_len={KEPT_MAX_BYTES}")]).args([&kept, &found]);
        exec::run(&mut merge)?;
    }
    Ok(())
}
