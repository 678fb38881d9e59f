//! Victims and bystanders as processes of their own: started, held until the fault is armed, released, read.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;

/// How a program ended and what it printed.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Ended {
    /// Runs `command` to its end without input.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn of(command: &mut Command) -> anyhow::Result<Self> {
        Self::with_input(command, b"")
    }

    /// Runs `command` to its end; `input` is all its stdin holds.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn with_input(command: &mut Command, input: &[u8]) -> anyhow::Result<Self> {
        let mut process = Process::start(command)?;
        let mut stdin = process.child.stdin.take().context("stdin is piped")?;
        let input = input.to_vec();
        // In a thread: whoever reads slowly must be able to write meanwhile. It may also not read at all.
        let writer = thread::spawn(move || stdin.write_all(&input));
        let ended = process.ended()?;
        let _ = writer.join();
        Ok(ended)
    }
}

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

    /// Starts it and waits until a line on its stderr starts with `word` (`ready`, `connected`, `open`).
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
            if printed[before..].starts_with(word) {
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

    /// Sends a line to its stdin, which stays open.
    ///
    /// # Errors
    /// When it is gone.
    pub fn say(&mut self, line: &str) -> anyhow::Result<()> {
        let stdin = self.child.stdin.as_mut().context("released before")?;
        stdin.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("talking to {}", self.line))
    }

    /// Sends a signal to it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), signal)
            .with_context(|| format!("{signal} to {}", self.line))
    }

    /// Ends its input and waits for its end, however it comes.
    ///
    /// # Errors
    /// When its output is not text.
    pub fn ended(mut self) -> anyhow::Result<Ended> {
        drop(self.child.stdin.take());
        let stdout = self.child.stdout.take().context("stdout is piped")?;
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut stdout = stdout;
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut stderr)?;
        }
        let bytes = reader.join().map_err(|_| anyhow::anyhow!("reading its stdout"))??;
        let stdout = String::from_utf8(bytes).context("stdout is text")?;
        Ok(Ended { status: self.child.wait()?, stdout, stderr })
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
    pub fn text(self) -> anyhow::Result<String> {
        let line = self.line.clone();
        let ended = self.ended()?;
        if !ended.status.success() {
            bail!("{line}: {}: {}{}", ended.status, ended.stdout, ended.stderr);
        }
        Ok(ended.stdout)
    }
}

/// Every descendant of this process, youngest last.
#[must_use]
pub fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(&one) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == one).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (comm) state ppid: comm may hold anything, also parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// What `/proc/PID/FILE` says, trimmed.
///
/// # Errors
/// When the process is gone.
pub fn proc_file(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    Ok(fs::read_to_string(&path).with_context(|| path)?.trim().to_owned())
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // With its children: the workers of a server that is killed would live on.
            for pid in std::iter::once(self.child.id()).chain(descendants(self.child.id())) {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
            let _ = self.child.wait();
        }
    }
}
