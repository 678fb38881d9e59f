//! Driving `fault` as a user's script would: start it, wait until it says it is active, end it, read its JSON.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::process::Ended;

/// The line `fault inject` prints when everything is armed.
pub const ACTIVE: &str = "fault: active";

/// A running `fault inject`.
pub struct Injection {
    child: Child,
    json: tempfile::NamedTempFile,
    log: mpsc::Receiver<String>,
    /// Everything it printed to stderr so far.
    pub stderr: String,
}

/// What a session reported.
#[derive(Debug)]
pub struct Report {
    /// How the process ended.
    pub status: ExitStatus,
    /// The `--json` object.
    pub json: serde_json::Value,
    /// Everything it printed to stderr.
    pub stderr: String,
}

impl Report {
    /// `rules[id].field`.
    ///
    /// # Errors
    /// When the report has no such number.
    pub fn rule(&self, id: usize, field: &str) -> anyhow::Result<u64> {
        self.json["rules"][id][field]
            .as_u64()
            .with_context(|| format!("rules[{id}].{field} in {}", self.json))
    }
}

impl Report {
    /// `counters.name`, a counter of the whole session.
    ///
    /// # Errors
    /// When the report has no such number.
    pub fn counter(&self, name: &str) -> anyhow::Result<u64> {
        self.json["counters"][name].as_u64().with_context(|| format!("counters.{name} in {}", self.json))
    }
}

/// The binary under test: `$FAULT`, or `fault` beside this program, or on `PATH`.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FAULT") {
        return path.into();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("fault")));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| "fault".into())
}

/// `fault-victim`, which lies beside this program.
///
/// # Errors
/// When it does not.
pub fn victim() -> anyhow::Result<String> {
    let path = std::env::current_exe()?.parent().context("a directory")?.join("fault-victim");
    if !path.is_file() {
        bail!("{} does not exist: build the package fault-tests", path.display());
    }
    Ok(path.to_string_lossy().into_owned())
}

/// `fault ARGUMENTS`, to be started.
#[must_use]
pub fn fault(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    command
}

/// `fault ARGUMENTS` must end with `status` before anything is armed, and say why; returns what it said.
///
/// # Errors
/// When it does something else.
pub fn refused(arguments: &[&str], status: i32) -> anyhow::Result<String> {
    refused_by(&mut fault(arguments), status)
}

/// The same with a prepared command.
///
/// # Errors
/// As [`refused`].
pub fn refused_by(command: &mut Command, status: i32) -> anyhow::Result<String> {
    let ended = Ended::of(command)?;
    if ended.status.code() != Some(status) {
        bail!("{command:?}: {} instead of {status}: {}", ended.status, ended.stderr);
    }
    let said = ended.stderr.trim();
    if said.is_empty() || said.contains("panicked") || said.contains(ACTIVE) {
        bail!("{command:?}: no honest refusal: {said:?}");
    }
    Ok(ended.stderr)
}

impl Injection {
    /// Starts `fault inject ARGUMENTS` and waits until it is active.
    ///
    /// # Errors
    /// When it ends before that, or is not active within 60 s; with what it printed.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(Command::new(binary()), arguments)
    }

    /// The same with a prepared command (for example inside a network namespace).
    ///
    /// # Errors
    /// As [`Injection::start`].
    pub fn start_with(command: Command, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_verb(command, &[&["inject"], arguments].concat())
    }

    /// Starts `fault play ARGUMENTS` and waits until it is active.
    ///
    /// # Errors
    /// As [`Injection::start`].
    pub fn play(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_verb(Command::new(binary()), &[&["play"], arguments].concat())
    }

    /// Starts a prepared `fault` with all of its arguments, and waits until it is active.
    ///
    /// # Errors
    /// As [`Injection::start`].
    pub fn start_verb(mut command: Command, arguments: &[&str]) -> anyhow::Result<Self> {
        let json = tempfile::NamedTempFile::new()?;
        command.args(arguments).arg("--json").arg(json.path());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting fault")?;
        let pipe = child.stderr.take().context("stderr is piped")?;
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut injection = Self { child, json, log, stderr: String::new() };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match injection.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let active = line.starts_with(ACTIVE);
                    injection.stderr += &line;
                    injection.stderr.push('\n');
                    if active {
                        return Ok(injection);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = injection.child.wait()?;
                    bail!("fault {arguments:?} ended with {status}: {}", injection.stderr);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("fault {arguments:?} is not active after 60 s: {}", injection.stderr)
                }
            }
        }
    }

    /// PID of the controller.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Sends a signal to the controller.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Ends the session with SIGTERM and returns its report.
    ///
    /// # Errors
    /// When it does not end, or wrote no report.
    pub fn heal(self) -> anyhow::Result<Report> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }

    /// Waits until the session ends by itself (`--for`, end of the target).
    ///
    /// # Errors
    /// When it wrote no report.
    pub fn wait(mut self) -> anyhow::Result<Report> {
        let status = self.child.wait()?;
        while let Ok(line) = self.log.recv() {
            self.stderr += &line;
            self.stderr.push('\n');
        }
        let text = std::fs::read_to_string(self.json.path())?;
        let json = serde_json::from_str(&text)
            .with_context(|| format!("the report {text:?} after {status}: {}", self.stderr))?;
        Ok(Report { status, json, stderr: self.stderr.clone() })
    }

    /// Kills the controller with SIGKILL and reaps it.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn sigkill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // A failed test must not leave its controller running. It may have ended: then there is nothing to do.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill(self.pid(), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end and parses the JSON line it prints.
///
/// # Errors
/// When it fails or prints something else.
pub fn report_of<T: serde::de::DeserializeOwned>(command: &mut Command) -> anyhow::Result<T> {
    let output = command.stderr(Stdio::piped()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_str(text.trim()).with_context(|| format!("{command:?} printed {text:?}"))
}
