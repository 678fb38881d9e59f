//! A shell that lives as long as the demo and runs what it is told: the process a fault is aimed at.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail};

/// Ends the output of one command.
const MARK: &str = "--fault-demo-done--";

/// A running `sh`.
pub(crate) struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    /// Starts `command`, which must be or become a shell reading commands from stdin.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting a shell")?;
        let stdin = child.stdin.take().context("stdin is piped")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { child, stdin, stdout })
    }

    /// Its PID.
    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Runs a command line and returns what it printed, stderr included.
    pub(crate) fn run(&mut self, line: &str) -> anyhow::Result<String> {
        writeln!(self.stdin, "{{ {line}\n}} 2>&1; echo; echo {MARK}")?;
        self.stdin.flush()?;
        let mut text = String::new();
        loop {
            let before = text.len();
            if self.stdout.read_line(&mut text)? == 0 {
                bail!("the shell ended during {line}: {text}");
            }
            if text[before..].trim_end() == MARK {
                text.truncate(before);
                return Ok(text.trim().to_owned());
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It ends with its input; an error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
