//! What goes wrong, in the words of the spec language.

use std::{
    env,
    ffi::{OsStr, OsString},
    process::Command,
    time::Duration,
};

use super::error::InjectError;
use crate::spec::{self, Layer, SpecError};

/// Faults, exceptions, and the options of a session that have nothing to do with who suffers.
///
/// ```
/// use std::time::Duration;
/// use fault_user::client::Faults;
///
/// let faults = Faults::new()
///     .net("delay 100ms jitter 20ms out")
///     .except("port 22")
///     .seed(7)
///     .lasting(Duration::from_secs(60));
/// let curl = faults.command("curl")?;
/// assert_eq!(curl.get_args().last(), Some("curl".as_ref()));
/// # Ok::<(), fault_user::client::InjectError>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "faults do nothing by themselves"]
pub struct Faults {
    program: Option<OsString>,
    arguments: Vec<OsString>,
    /// The first spec that is wrong.
    wrong: Option<Box<SpecError>>,
}

impl Faults {
    /// None yet.
    pub const fn new() -> Self {
        Self { program: None, arguments: Vec::new(), wrong: None }
    }

    /// The `fault` binary to start, in place of `$FAULT` and the one on the `PATH`.
    pub fn controller_at(mut self, program: impl Into<OsString>) -> Self {
        self.program = Some(program.into());
        self
    }

    fn option(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.arguments.extend([name.into(), value.into()]);
        self
    }

    fn checked(mut self, option: &str, text: &str, checked: Result<(), SpecError>) -> Self {
        if let Err(error) = checked {
            self.wrong.get_or_insert_with(|| Box::new(error));
        }
        self.option(option, text)
    }

    /// A fault of `layer`. Numbered from 0 in the order given, whatever the layer.
    pub fn fault(self, layer: Layer, text: &str) -> Self {
        self.checked(layer.option(), text, spec::parse(layer, text).map(drop))
    }

    /// A fault of packets: `--net`.
    pub fn net(self, text: &str) -> Self {
        self.fault(Layer::Net, text)
    }

    /// A fault of block I/O: `--disk`.
    pub fn disk(self, text: &str) -> Self {
        self.fault(Layer::Disk, text)
    }

    /// A fault of operations on files: `--file`.
    pub fn file(self, text: &str) -> Self {
        self.fault(Layer::File, text)
    }

    /// A fault of the processes themselves: `--proc`.
    pub fn proc(self, text: &str) -> Self {
        self.fault(Layer::Proc, text)
    }

    /// What passes this filter is spared by every net fault: `--except`.
    pub fn except(self, filter: &str) -> Self {
        self.checked("--except", filter, spec::parse_exception(filter).map(drop))
    }

    /// Same seed, same order of operations: same faults. Random without.
    pub fn seed(self, seed: u64) -> Self {
        self.option("--seed", seed.to_string())
    }

    /// Heal after this long, whatever becomes of us: enforced inside the kernel.
    pub fn lasting(self, duration: Duration) -> Self {
        self.option("--for", format!("{}ns", duration.as_nanos()))
    }

    /// `program` under these faults, in a cgroup of its own, as `fault run` starts it: its arguments, streams and exit status
    /// are the program's.
    ///
    /// # Errors
    /// The first spec that is wrong.
    pub fn command(self, program: impl AsRef<OsStr>) -> Result<Command, InjectError> {
        let mut command = self.controller("run")?;
        command.args(["--quiet", "--"]).arg(program);
        Ok(command)
    }

    /// The controller, with what is known here.
    pub(super) fn controller(self, verb: &str) -> Result<Command, InjectError> {
        if let Some(error) = self.wrong {
            return Err(InjectError::Spec(error));
        }
        let program = self.program.or_else(|| env::var_os("FAULT")).unwrap_or_else(|| "fault".into());
        let mut command = Command::new(program);
        command.arg(verb).args(self.arguments);
        Ok(command)
    }
}
