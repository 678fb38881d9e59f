//! Every failure of the command line: one sentence, one exit status.

use std::io;

use crate::{
    exit::Class,
    kernel::probe::Unsupported,
    report::output::OutputError,
    scenario::ScenarioError,
    sentence::sentence,
    session::{
        SessionError,
        keeper::KeeperError,
        plan::PlanError,
        prepare::{ArmError, PrepareError},
    },
    spec::{SpecError, wants_color},
    target::{TargetError, command::CommandError, run::TransientError},
};

/// Why `fault` did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A spec.
    #[error(transparent)]
    Spec(#[from] Box<SpecError>),
    /// A scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A preset that does not exist.
    #[error(
        "there is no preset `{name}`{}; `fault preset` lists them",
        nearest.map_or_else(String::new, |nearest| format!(", did you mean `{nearest}`?"))
    )]
    NoPreset {
        /// What was asked for.
        name: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// A scenario that cannot be read.
    #[error("reading the scenario {path} failed")]
    ReadScenario {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The faults together.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The session.
    #[error(transparent)]
    Session(#[from] Box<SessionError>),
    /// The cgroup of COMMAND.
    #[error(transparent)]
    Transient(#[from] TransientError),
    /// COMMAND.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The keeper.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The kernel cannot do it.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Not root.
    #[error("this needs root: it loads eBPF programs (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN); use sudo")]
    NotRoot,
    /// Not root, and nothing would be loaded.
    #[error("this needs root: those who inject answer nobody else; use sudo")]
    NotRootToLook,
    /// The terminal.
    #[error("drawing on the terminal failed")]
    Terminal(#[source] io::Error),
    /// The asynchronous runtime or its signal handlers.
    #[error("starting the runtime failed")]
    Runtime(#[source] io::Error),
    /// `--until-eof`.
    #[error("--until-eof needs a pipe at standard input, which whoever started `fault` holds open")]
    Leash(#[source] io::Error),
    /// A file named by `--json` or `--events`.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The directory of `fault man`.
    #[error("writing manual pages to {directory} failed")]
    Man {
        /// Which.
        directory: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The service.
    #[error(transparent)]
    Serve(#[from] crate::serve::ServeError),
    /// Standard output.
    #[error("writing to standard output failed")]
    Stdout(#[source] io::Error),
}

impl From<SessionError> for CliError {
    fn from(error: SessionError) -> Self {
        Self::Session(Box::new(error))
    }
}

impl From<PrepareError> for CliError {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Spec(error) => Self::Spec(error),
            PrepareError::Plan(error) => Self::Plan(error),
        }
    }
}

impl From<ArmError> for CliError {
    fn from(error: ArmError) -> Self {
        match error {
            ArmError::Session(error) => Self::Session(error),
            ArmError::Unsupported(error) => Self::Unsupported(error),
        }
    }
}

impl CliError {
    /// The exit status.
    #[must_use]
    pub fn status(&self) -> u8 {
        let class = match self {
            Self::Spec(error) => error.class(),
            Self::Target(error) => error.class(),
            Self::Scenario(error) => error.class(),
            Self::Plan(_) | Self::NoPreset { .. } | Self::ReadScenario { .. } | Self::Man { .. } => {
                Class::Usage
            }
            Self::Session(error) => error.class(),
            Self::Transient(error) => error.class(),
            // 126 and 127 as a shell has them.
            Self::Command(error) => return error.status(),
            Self::Unsupported(error) => error.class(),
            Self::NotRoot | Self::NotRootToLook => Class::NotPermitted,
            Self::Leash(_) => Class::Usage,
            Self::Output(error) => error.class(),
            Self::Serve(crate::serve::ServeError::Listen(_)) => Class::Usage,
            Self::Serve(crate::serve::ServeError::Signals(_))
            | Self::Keeper(_)
            | Self::Runtime(_)
            | Self::Terminal(_)
            | Self::Stdout(_) => Class::Other,
        };
        class.status()
    }

    /// What the user reads: for a spec the line and the word, else one sentence with its causes.
    #[must_use]
    pub fn render(&self) -> String {
        match self {
            Self::Spec(error) => error.render(wants_color(&io::stderr())),
            Self::Scenario(error) => error.render(wants_color(&io::stderr())),
            other => format!("fault: {}\n", sentence(other)),
        }
    }
}
