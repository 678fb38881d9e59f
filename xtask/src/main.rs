//! `cargo xtask`: everything a developer does with this repository.

#![expect(dead_code, reason = "set-up and the stock kernels use the rest; they come next")]

mod apt;
mod exec;
mod host;
mod kernel;
mod lane;
mod progress;
mod setup;
mod vm;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use lane::Lane;
use vm::{Accel, Machine};

/// Build, boot, test and measure `fault`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
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
}

impl From<&MachineArgs> for Machine {
    fn from(args: &MachineArgs) -> Self {
        Self { accel: args.accel, cpus: args.cpus, memory_mib: args.memory }
    }
}

fn main() -> Result<ExitCode> {
    match Cli::parse().task {
        Task::Kernel { lane, update } => {
            let lanes = if lane.is_empty() { Lane::ALL.to_vec() } else { lane };
            for lane in lanes {
                let kernel = kernel::ensure(lane, update)?;
                println!("{lane}: {}", kernel.image.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Task::Vm(args) => vm_task(args),
    }
}

fn vm_task(args: VmArgs) -> Result<ExitCode> {
    let profile = workspace::Profile::from_release(args.release);
    if !args.no_build {
        workspace::build(&["fault-user"], profile)?;
    }
    let outcome = vm::run(&vm::Request {
        lane: args.lane,
        machine: (&args.machine).into(),
        timeout: args.timeout,
        share: args.job,
        path: vec![profile.output_dir()],
        command: args.command,
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
