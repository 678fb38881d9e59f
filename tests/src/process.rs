//! Victims and bystanders as processes of their own: started, held until the fault is armed, released, read.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;

/// A process whose stdin and stdout are ours.
pub struct Process {
    child: Child,
    line: String,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let line = format!("{command:?}");
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| line.clone())?;
        Ok(Self { child, line })
    }

    /// Starts it and waits until it prints `word` on stderr (`ready`, `connected`, `open`).
    ///
    /// # Errors
    /// When it ends before that.
    pub fn start_until(command: &mut Command, word: &str) -> anyhow::Result<Self> {
        let mut process = Self::start(command)?;
        let pipe = process.child.stderr.take().context("stderr is piped")?;
        let mut reader = BufReader::new(pipe);
        let mut printed = String::new();
        loop {
            let before = printed.len();
            if reader.read_line(&mut printed)? == 0 {
                bail!("{} ended before it was {word}: {printed}", process.line);
            }
            if printed[before..].trim() == word {
                break;
            }
        }
        // Whatever it says later goes nowhere, but must not block it.
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        Ok(process)
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Lets a program go that waits for a line on stdin.
    ///
    /// # Errors
    /// When it is gone.
    pub fn release(&mut self) -> anyhow::Result<()> {
        let mut stdin = self.child.stdin.take().context("released twice")?;
        stdin.write_all(b"\n").with_context(|| format!("releasing {}", self.line))
    }

    /// Waits for its end and parses the JSON it printed.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub fn report<T: DeserializeOwned>(self) -> anyhow::Result<T> {
        let line = self.line.clone();
        let text = self.text()?;
        serde_json::from_str(text.trim()).with_context(|| format!("{line} printed {text:?}"))
    }

    /// Waits for its successful end and returns what it printed on stdout.
    ///
    /// # Errors
    /// When it fails.
    pub fn text(mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        self.child.stdout.take().context("stdout is piped")?.read_to_string(&mut text)?;
        let mut errors = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut errors)?;
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{}: {status}: {text}{errors}", self.line);
        }
        Ok(text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}
