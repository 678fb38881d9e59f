//! `cargo xtask`: everything a developer does with this repository.

mod apt;
mod dist;
mod exec;
mod fuzz;
mod fuzz_api;
mod gallery;
mod host;
mod kernel;
mod lane;
mod lint;
mod program;
mod progress;
mod setup;
mod test;
mod vm;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use lane::Lane;
use vm::{Accel, Clock, Machine};

/// Build, boot, test and measure `fault`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install everything any task needs. The others call what they need of it themselves.
    Setup,
    /// Build library and programs, eBPF included.
    Build {
        /// Optimised, as it ships.
        #[arg(long)]
        release: bool,
    },
    /// Build a lane's kernel, or fetch it, into the cache.
    Kernel {
        /// Which kernel; all of them if none is named.
        #[arg(long)]
        lane: Vec<Lane>,
        /// Look for a newer one even if one is cached.
        #[arg(long)]
        update: bool,
    },
    /// Run a command as root in a VM and exit with its status.
    ///
    /// The VM sees this machine's root read-only under an overlay, has `fault` on its PATH, empty
    /// disks /dev/vda and /dev/vdb of 1 GiB, and the directory $FAULT_JOB to leave files in.
    Vm(VmArgs),
    /// Look at formatting and lints: everything a change must pass before it is run.
    Lint,
    /// Run all tests: unit and property tests here, end-to-end tests here and on every lane.
    Test(TestArgs),
    /// Watch real programs live through partial failure (program fault-demo).
    Demo(ProgramArgs),
    /// Measure what `fault` costs (program fault-bench).
    Bench(ProgramArgs),
    /// Ask the service of this machine's kernel everything that its OpenAPI document allows, and what it does not (schemathesis).
    FuzzApi {
        /// About how long.
        #[arg(long, default_value = "2m", value_parser = parse_duration)]
        budget: Duration,
    },
    /// Break systems everybody knows, in the VM, and write docs/gallery (program fault-gallery).
    Gallery(gallery::GalleryArgs),
    /// Look for texts that break the readers of specs, scenarios and patterns.
    Fuzz(fuzz::FuzzArgs),
    /// Make the static binary that runs on other machines, packed and with its checksum in dist/.
    Dist,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// Only these lanes (may be repeated), and nothing on this machine's kernel.
    #[arg(long, conflicts_with = "host_only")]
    lane: Vec<Lane>,
    /// Only what needs no VM.
    #[arg(long)]
    host_only: bool,
    /// How many VMs at once (default: what processors and memory allow).
    #[arg(long)]
    jobs: Option<usize>,
    /// End-to-end tests of the debug build, which is quicker to make, instead of the one that ships.
    #[arg(long)]
    debug: bool,
    /// A VM that takes longer has failed.
    #[arg(long, default_value = "45m", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    machine: MachineArgs,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

#[derive(Debug, Args)]
struct ProgramArgs {
    /// Only there; both if not given.
    #[arg(long)]
    place: Option<program::Place>,
    /// Kill the VM after this long.
    #[arg(long, default_value = "30m", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    machine: MachineArgs,
    /// Passed to the program.
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Debug, Args)]
struct VmArgs {
    /// The kernel to boot.
    #[arg(long, default_value = "fault")]
    lane: Lane,
    /// Kill the VM after this long: 90s, 10m, 1h.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    machine: MachineArgs,
    /// Directory of this machine to share as /job (default: a temporary one).
    #[arg(long)]
    job: Option<PathBuf>,
    /// Use the release build of `fault`.
    #[arg(long)]
    release: bool,
    /// Use what is built already.
    #[arg(long)]
    no_build: bool,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct MachineArgs {
    /// Memory of the VM, MiB.
    #[arg(long, default_value_t = 4096)]
    memory: u32,
    /// Virtual processors.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// How to execute the guest. KVM is not the default because a /dev/kvm that exists need not work.
    #[arg(long, default_value = "tcg")]
    accel: Accel,
    /// What the clocks of an emulated guest count (default: of tests, what is best for them; otherwise the host's time).
    #[arg(long)]
    clock: Option<Clock>,
    /// More for the kernel's command line, such as `lsm=apparmor`.
    #[arg(long, value_name = "ARGUMENTS", default_value = "", hide_default_value = true)]
    append: String,
}

impl From<&MachineArgs> for Machine {
    fn from(args: &MachineArgs) -> Self {
        Self {
            accel: args.accel,
            clock: args.clock.unwrap_or(Clock::Host),
            cpus: args.cpus,
            memory_mib: args.memory,
            append: args.append.clone(),
        }
    }
}

fn main() -> ExitCode {
    run(Cli::parse().task).unwrap_or_else(|error| {
        // The chain of what was being done says more than a backtrace of how we got there.
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => {
            setup::ensure(&setup::Need::ALL)?;
            eprintln!("set-up is complete");
            Ok(ExitCode::SUCCESS)
        }
        Task::Build { release } => {
            setup::ensure(&[setup::Need::Ebpf])?;
            workspace::build(&["fault-user", "fault-tests"], workspace::Profile::from_release(release))?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Kernel { lane, update } => {
            let lanes = if lane.is_empty() { Lane::ALL.to_vec() } else { lane };
            for lane in lanes {
                let kernel = kernel::ensure(lane, update)?;
                println!("{lane}: {}", kernel.image.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Vm(args) => vm_task(args),
        Task::Lint => {
            lint::run()?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Test(args) => test_task(args),
        Task::Demo(args) => program_task("fault-demo", &args),
        Task::Bench(args) => program_task("fault-bench", &args),
        Task::FuzzApi { budget } => Ok(passed(fuzz_api::run(budget)?)),
        Task::Gallery(args) => Ok(passed(gallery::run(&args)?)),
        Task::Fuzz(args) => {
            fuzz::run(&args)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Dist => {
            println!("{}", dist::run()?.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn test_task(args: TestArgs) -> Result<ExitCode> {
    let machine: Machine = (&args.machine).into();
    let (host, lanes) = match (args.host_only, args.lane.is_empty()) {
        (true, _) => (true, Vec::new()),
        (false, true) => (true, Lane::ALL.to_vec()),
        (false, false) => (false, args.lane),
    };
    let profile = workspace::Profile::from_release(!args.debug);
    let jobs = args.jobs.unwrap_or_else(|| host::room_for(&machine));
    let clock = args.machine.clock;
    let TestArgs { filter, timeout, .. } = args;
    let plan = test::Plan { lanes, host, profile, filter, jobs, timeout, machine, clock };
    Ok(passed(test::run(&plan)?))
}

fn program_task(program: &str, args: &ProgramArgs) -> Result<ExitCode> {
    let places = match args.place {
        Some(place) => vec![place],
        None => vec![program::Place::Native, program::Place::Vm],
    };
    let run = program::Run {
        program,
        places: &places,
        timeout: args.timeout,
        machine: (&args.machine).into(),
        machines: 1,
        args: &args.args,
    };
    Ok(passed(program::run(&run)?))
}

fn passed(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn vm_task(args: VmArgs) -> Result<ExitCode> {
    let profile = workspace::Profile::from_release(args.release);
    if !args.no_build {
        setup::ensure(&[setup::Need::Ebpf])?;
        workspace::build(&["fault-user"], profile)?;
    }
    let outcome = vm::run(&vm::Request {
        lane: args.lane,
        machine: (&args.machine).into(),
        timeout: args.timeout,
        share: args.job,
        path: vec![profile.output_dir()],
        command: args.command,
        label: None,
    })?;
    Ok(exit_code(outcome.status))
}

fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

/// `90s`, `10m`, `1h`, or plain seconds.
fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.strip_prefix(digits) {
        Some("s" | "") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        _ => bail!("expected a duration like 90s, 10m or 1h"),
    };
    match digits.parse::<u64>() {
        Ok(number) => Ok(Duration::from_secs(number.saturating_mul(unit))),
        Err(_) => bail!("expected a duration like 90s, 10m or 1h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("90s").ok(), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("10m").ok(), Some(Duration::from_secs(600)));
        assert_eq!(parse_duration("7").ok(), Some(Duration::from_secs(7)));
        assert!(parse_duration("10x").is_err());
        assert!(parse_duration("m").is_err());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
