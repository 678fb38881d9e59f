//! Faults from test code: the words of the spec language, and a guard that heals.
//!
//! The controller is a process of its own, the `fault` binary: what is armed belongs to it, and it heals when the guard is
//! dropped, when the test panics, and when the whole test process is killed, because its standard input ends then
//! (`fault inject --until-eof`). So a test may aim at itself, and threads of a test runner are in nobody's way. `$FAULT`
//! names the binary; without it, it is looked for on the `PATH`.
//!
//! ```no_run
//! use fault_user::client::{Faults, Inject};
//!
//! # fn connect_and_query() {}
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let faults = Faults::new().net("drop 30% out to 10.0.0.0/8:5432").disk("delay 20ms read").seed(7);
//! let injected = Inject::new(faults).pid(std::process::id()).start()?;
//! connect_and_query();
//! let report = injected.heal()?;
//! assert!(report.rules[0].injected > 0, "nothing was lost: the test shows nothing");
//! # Ok(())
//! # }
//! ```
//!
//! What is refused is refused before anything is armed, and says what to do:
//!
//! ```
//! use fault_user::client::{Faults, Inject, InjectError};
//!
//! let wrong = Inject::new(Faults::new().net("dorp 5%")).pid(1).start();
//! let Err(InjectError::Spec(error)) = wrong else { panic!("it must not be taken") };
//! assert!(error.render(false).contains("did you mean `drop`?"));
//! ```

mod error;
mod faults;
mod injected;
mod report;

use std::{ffi::OsString, path::Path, process::Stdio};

pub use error::{InjectError, Refusal};
pub use faults::Faults;
pub use injected::Injected;
pub use report::{Report, RuleReport};

/// Faults for somebody who already runs: `fault inject`.
///
/// At least one target and one fault; targets add up. As for the command line, Linux 5.18 and root.
#[derive(Debug)]
#[must_use = "nothing is armed before `start`"]
pub struct Inject {
    faults: Faults,
    target: Vec<OsString>,
}

impl Inject {
    /// These faults, for nobody yet.
    pub const fn new(faults: Faults) -> Self {
        Self { faults, target: Vec::new() }
    }

    fn option(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.target.extend([name.into(), value.into()]);
        self
    }

    /// A process and its present and future descendants: `--pid`. It may be the caller's own.
    pub fn pid(self, pid: u32) -> Self {
        self.option("--pid", pid.to_string())
    }

    /// A cgroup v2 directory and everything below it: `--cgroup`.
    pub fn cgroup(self, path: impl AsRef<Path>) -> Self {
        self.option("--cgroup", path.as_ref())
    }

    /// A container by name, the beginning of its id, or `pod/namespace/container`: `--container`.
    pub fn container(self, name: &str) -> Self {
        self.option("--container", name)
    }

    /// A unit of systemd: `--unit`.
    pub fn unit(self, name: &str) -> Self {
        self.option("--unit", name)
    }

    /// Every process of this name, present and future: `--comm`.
    pub fn comm(self, name: &str) -> Self {
        self.option("--comm", name)
    }

    /// Only the named processes, not their descendants: `--only`.
    pub fn only(mut self) -> Self {
        self.target.push("--only".into());
        self
    }

    /// Arms, and returns when the faults are active.
    ///
    /// # Errors
    /// A spec that is wrong, or what the controller refuses; nothing is armed then.
    pub fn start(self) -> Result<Injected, InjectError> {
        let mut command = self.faults.controller("inject")?;
        command.args(["--until-eof", "--json", "-"]).args(&self.target);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Injected::start(command)
    }

    /// [`Inject::start`], for callers that must not block.
    ///
    /// # Errors
    /// As [`Inject::start`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn start_async(self) -> Result<Injected, InjectError> {
        injected::elsewhere(|| self.start()).await
    }
}
