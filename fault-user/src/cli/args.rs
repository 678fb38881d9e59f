//! The command line (DESIGN.md §2).

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, builder::PossibleValue,
};

use crate::{spec::Layer, target::TargetRequest};

/// Makes real, unmodified programs live through partial failure.
#[derive(Debug, Parser)]
#[command(name = "fault", version, about, max_term_width = 100, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run COMMAND under the faults in a cgroup of its own; exit with its status
    Run(RunArgs),
    /// Hit what already runs, until Ctrl-C, SIGTERM or --for
    Inject(InjectArgs),
    /// Play a scenario from a TOML file: faults in phases, and what is expected of them
    Play(PlayArgs),
    /// Partial failures that real systems had, each a scenario with parameters; without NAME, a list of them
    Preset(PresetArgs),
    /// Serve sessions to other programs: HTTP and JSON over a Unix socket
    Serve(ServeArgs),
    /// What is being injected on this machine, live: who is hit, how often, how late; pause and heal
    Top(TopArgs),
    /// What a spec will do, in plain words, and whether this kernel can
    Explain(ExplainArgs),
    /// What this kernel can do, what it cannot, and what to change
    Doctor(DoctorArgs),
    /// Find and remove residue (there should never be any)
    Sweep(SweepArgs),
    /// Print what a shell needs to complete command lines, e.g. `source <(fault completions bash)`
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    #[command(hide = true)]
    Man(ManArgs),
}

/// `fault run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The faults.
    #[command(flatten)]
    pub faults: FaultArgs,
    /// Everything else.
    #[command(flatten)]
    pub options: SessionArgs,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `fault inject`.
#[derive(Debug, Args)]
pub struct InjectArgs {
    /// Who suffers.
    #[command(flatten)]
    pub aim: AimArgs,
    /// The faults.
    #[command(flatten)]
    pub faults: FaultArgs,
    /// Everything else.
    #[command(flatten)]
    pub options: SessionArgs,
    /// Heal when standard input, a pipe, ends: for programs that start `fault` and may be killed
    #[arg(long, conflicts_with = "quiet")]
    pub until_eof: bool,
}

/// `fault play`.
#[derive(Debug, Args)]
pub struct PlayArgs {
    /// The scenario: a TOML file, see docs/scenarios.md
    #[arg(value_name = "SCENARIO")]
    pub scenario: PathBuf,
    /// Values of its parameters
    #[arg(value_name = "PARAMETER=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, String)>,
    /// Whom and how.
    #[command(flatten)]
    pub stage: StageArgs,
}

/// `fault preset`.
#[derive(Debug, Args)]
pub struct PresetArgs {
    /// Which one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Values of its parameters
    #[arg(value_name = "PARAMETER=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, String)>,
    /// Print the scenario, play nothing
    #[arg(long)]
    pub show: bool,
    /// Whom and how.
    #[command(flatten)]
    pub stage: StageArgs,
}

/// Whom a scenario is played to, and how.
#[derive(Debug, Args)]
pub struct StageArgs {
    /// The target `given`; none is needed where the scenario names its own.
    #[command(flatten)]
    pub aim: AimArgs,
    /// Everything else.
    #[command(flatten)]
    pub options: SessionArgs,
    /// A command to run meanwhile, after `--`; it is the target `given`, too
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Who suffers, and how much of it.
#[derive(Debug, Args)]
pub struct AimArgs {
    /// By what it is known.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Only the named processes, not their descendants
    #[arg(long)]
    pub only: bool,
    /// Yes, the whole machine (--host)
    #[arg(long)]
    pub yes: bool,
}

/// Who suffers.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct TargetArgs {
    /// A process and its present and future descendants
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// A cgroup v2 directory and everything below it: a path, or a name relative to the v2 root
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,
    /// A container of Docker, Podman, containerd or Kubernetes: its name, the beginning of its id, or
    /// pod/namespace/container; found again when it is restarted
    #[arg(long, value_name = "NAME|ID")]
    pub container: Vec<String>,
    /// A unit of systemd, of the system or of a user; found again when it is restarted
    #[arg(long, value_name = "NAME")]
    pub unit: Vec<String>,
    /// Every process of this name (as in /proc/PID/comm), present and future, with its descendants
    #[arg(long, value_name = "NAME")]
    pub comm: Vec<String>,
    /// Every process of this machine; spares SSH, DHCP, ARP and neighbour discovery, and wants --yes
    #[arg(long)]
    pub host: bool,
}

impl TargetArgs {
    /// What was named.
    #[must_use]
    pub fn requests(&self) -> Vec<TargetRequest> {
        let Self { pid, cgroup, container, unit, comm, host } = self;
        let pids = pid.iter().copied().map(TargetRequest::Pid);
        let cgroups = cgroup.iter().cloned().map(TargetRequest::Cgroup);
        let containers = container.iter().cloned().map(TargetRequest::Container);
        let units = unit.iter().cloned().map(TargetRequest::Unit);
        let names = comm.iter().cloned().map(TargetRequest::Comm);
        let host = host.then_some(TargetRequest::Host);
        pids.chain(cgroups).chain(containers).chain(units).chain(names).chain(host).collect()
    }

    /// Whether they name nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests().is_empty()
    }
}

/// The faults; numbered in the order given, whatever their layer.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct FaultArgs {
    /// A fault of packets, e.g. 'drop 5% out to 10.0.0.0/8:5432'
    #[arg(long, value_name = "SPEC")]
    pub net: Vec<String>,
    /// A fault of block I/O, e.g. 'error 1% read on /var/lib/pg'
    #[arg(long, value_name = "SPEC")]
    pub disk: Vec<String>,
    /// A fault of operations on files, e.g. 'error ENOSPC write file /data/wal/**'
    #[arg(long, value_name = "SPEC")]
    pub file: Vec<String>,
    /// A fault of the processes themselves, e.g. 'pause 5s after 10s'
    #[arg(long, value_name = "SPEC")]
    pub proc: Vec<String>,
    /// Spare packets and calls from all net faults, e.g. 'tcp port 22' or '25% out'
    #[arg(long, value_name = "FILTER")]
    pub except: Vec<String>,
    /// In the order given; filled by [`parse`].
    #[arg(skip)]
    pub ordered: Vec<(Layer, String)>,
}

/// Options of every session.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// Heal after this long, e.g. 30s, 5m (also enforced inside the kernel)
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Same seed and same order of operations: same faults [default: random, reported]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Write one JSON object when the session ends
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Write one JSON object per injection
    #[arg(long, value_name = "FILE|-")]
    pub events: Option<PathBuf>,
    /// Write a page for a browser when the session ends: what was hit, over time
    #[arg(long, value_name = "FILE|-")]
    pub report: Option<PathBuf>,
    /// How block faults get into the kernel
    #[arg(long, value_enum, default_value_t = BlockBackend::Auto, value_name = "BACKEND")]
    pub block_backend: BlockBackend,
    /// Check and print what would be armed, arm nothing
    #[arg(long)]
    pub dry_run: bool,
    /// No summary
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what is being done
    #[arg(short, long)]
    pub verbose: bool,
}

/// `--block-backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BlockBackend {
    /// What this kernel can do best
    #[default]
    Auto,
    /// fmod_ret programs: errors and delays
    #[value(name = "fmod_ret")]
    FmodRet,
    /// A kprobe with bpf_override_return: errors only, a kprobe cannot sleep
    Kprobe,
}

/// `fault serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where: a path, of a socket that only root may use, or tcp:127.0.0.1:PORT for who knows the token; may be given
    /// several times
    #[arg(long, value_name = "unix:PATH", default_value = "unix:/run/fault/fault.sock")]
    pub listen: Vec<String>,
    /// What clients over TCP have to send as a bearer token: a file that only its owner may read
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Another user who may ask for anything; may be given several times
    #[arg(long, value_name = "UID")]
    pub allow_uid: Vec<u32>,
    /// Sessions that may live at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_sessions: u32,
    /// Print what can be asked, as an OpenAPI document, and do nothing else
    #[arg(long)]
    pub openapi: bool,
}

/// `fault top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print what is so now and end; so it is where standard output is no terminal
    #[arg(long)]
    pub once: bool,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `fault explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The spec, e.g. 'drop 5% out to 10.0.0.0/8:5432'
    #[arg(value_name = "SPEC")]
    pub spec: String,
    /// Its layer [default: whichever has such a spec, or both]
    #[arg(long, value_name = "LAYER")]
    pub layer: Option<Layer>,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

/// `fault doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

/// `fault completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `fault man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// A directory to write all pages to, one for each command [default: `fault(1)` to standard output]
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// `fault sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Only say what would be removed; exit with 1 if there is anything
    #[arg(long)]
    pub dry_run: bool,
}

impl ValueEnum for Layer {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected PARAMETER=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("must be longer than zero".to_owned()) } else { Ok(duration) }
}

/// The whole command line.
#[must_use]
pub fn command() -> clap::Command {
    // A scenario may name all its targets itself.
    let optional = |command: clap::Command| command.mut_group("TargetArgs", |group| group.required(false));
    Cli::command().mut_subcommand("play", optional).mut_subcommand("preset", optional)
}

/// Parses the command line; keeps the order of faults across `--net`, `--disk`, `--file` and `--proc`.
///
/// # Errors
/// clap's, which know how to print themselves.
pub fn parse<I: IntoIterator<Item = OsString>>(arguments: I) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    let faults = match &mut cli.command {
        Command::Run(run) => &mut run.faults,
        Command::Inject(inject) => &mut inject.faults,
        Command::Play(_)
        | Command::Preset(_)
        | Command::Serve(_)
        | Command::Top(_)
        | Command::Explain(_)
        | Command::Doctor(_)
        | Command::Sweep(_)
        | Command::Completions(_)
        | Command::Man(_) => return Ok(cli),
    };
    if let Some((_, matches)) = matches.subcommand() {
        faults.ordered = in_order(matches);
    }
    Ok(cli)
}

fn in_order(matches: &ArgMatches) -> Vec<(Layer, String)> {
    let mut found = Vec::new();
    for &layer in Layer::ALL {
        let id = layer.name();
        let (Some(indices), Some(values)) = (matches.indices_of(id), matches.get_many::<String>(id)) else {
            continue;
        };
        found.extend(indices.zip(values).map(|(index, value)| (index, layer, value.clone())));
    }
    found.sort_by_key(|(index, _, _)| *index);
    found.into_iter().map(|(_, layer, value)| (layer, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cli(line: &str) -> Result<Cli, clap::Error> {
        parse(shell_words(line))
    }

    fn shell_words(line: &str) -> Vec<OsString> {
        line.split('|').map(OsString::from).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn faults_are_numbered_in_the_order_given() {
        let cli = cli("fault|run|--disk|error read|--net|drop 5%|--disk|delay 1ms|--|true").unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        let texts: Vec<_> = run.faults.ordered.iter().map(|(layer, text)| (*layer, text.as_str())).collect();
        assert_eq!(texts, [(Layer::Disk, "error read"), (Layer::Net, "drop 5%"), (Layer::Disk, "delay 1ms")]);
        assert_eq!(run.command, ["true"]);
    }

    #[test]
    fn exceptions_are_no_faults() {
        let cli = cli("fault|inject|--pid|1|--except|tcp port 22|--net|drop|--except|udp").unwrap();
        let Command::Inject(inject) = cli.command else { panic!("not inject") };
        assert_eq!(inject.faults.except, ["tcp port 22", "udp"]);
        assert_eq!(inject.faults.ordered, [(Layer::Net, "drop".to_owned())]);
    }

    #[test]
    fn a_scenario_may_name_its_targets_itself() {
        for line in ["fault|play|a.toml", "fault|preset", "fault|preset|zone-split|zone=10.0.0.0/8|--|true"] {
            assert!(cli(line).is_ok(), "{line}");
        }
        let Command::Play(play) = cli("fault|play|a.toml|late=1=2|--only|--pid|7").unwrap().command else {
            panic!("not play")
        };
        assert_eq!(play.parameters, [("late".to_owned(), "1=2".to_owned())]);
        assert!(play.stage.aim.only && !play.stage.aim.target.is_empty());
    }

    #[test]
    fn what_is_missing_is_a_usage_error() {
        for line in [
            "fault",
            "fault|run|--|true",
            "fault|run|--net|drop 1%",
            "fault|inject|--net|drop 1%",
            "fault|inject|--pid|1",
            "fault|run|--net|drop 1%|--for|0s|--|true",
            "fault|run|--net|drop 1%|--block-backend|magic|--|true",
            "fault|play",
            "fault|play|a.toml|late",
            "fault|explain",
            "fault|completions",
        ] {
            assert_eq!(cli(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
