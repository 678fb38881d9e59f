//! One QEMU process, from its start to its end.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::clock;
use super::job::Job;
use super::qemu::{self, Files, Machine};
use crate::kernel::Kernel;

/// How often to look whether QEMU has ended.
const POLL: Duration = Duration::from_millis(20);
/// How much of the command's standard output is kept for summaries, bytes.
const TAIL: usize = 64 << 10;

/// How a QEMU process ended.
pub struct End {
    /// QEMU's own exit.
    pub qemu: ExitStatus,
    /// We killed it because the time was up.
    pub timed_out: bool,
    /// The last of the command's standard output.
    pub stdout_tail: String,
}

/// Runs QEMU; the command's output goes to our stdout and stderr as it comes, each line behind
/// `label` if there is one.
pub fn qemu(
    job: &Job,
    kernel: &Kernel,
    machine: &Machine,
    timeout: Duration,
    label: Option<&str>,
) -> Result<End> {
    let (stdout, stderr) = (job.path("stdout"), job.path("stderr"));
    let out = copy(stdout.clone(), Labelled::new(std::io::stdout(), label));
    let err = copy(stderr.clone(), Labelled::new(std::io::stderr(), label));
    let args = qemu::qemu_args(
        machine,
        machine.clock.tsc_khz(clock::tsc_khz),
        Files {
            kernel: &kernel.image,
            initramfs: &job.path("initramfs"),
            vda: &job.path("vda.img"),
            vdb: &job.path("vdb.img"),
            share: job.share(),
            console: &job.path("console"),
            stdout: &stdout,
            stderr: &stderr,
        },
    );
    let mut cmd = Command::new("qemu-system-x86_64");
    cmd.args(args).stdin(Stdio::null());
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe and
    // touches no memory of the parent.
    unsafe {
        // A VM that outlives the xtask that wanted it would run for ever.
        cmd.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
    let child = cmd.spawn().context("starting qemu-system-x86_64");
    let end = child.and_then(|mut child| wait(&mut child, timeout));

    // A QEMU that failed early never opened its ends, and the readers still wait for that.
    for path in [&stdout, &stderr] {
        let _ = OpenOptions::new().read(true).write(true).open(path);
    }
    let stdout_tail = join(out);
    join(err);
    let (qemu, timed_out) = end?;
    Ok(End { qemu, timed_out, stdout_tail })
}

fn wait(child: &mut Child, timeout: Duration) -> Result<(ExitStatus, bool)> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("waiting for QEMU")? {
            return Ok((status, false));
        }
        if started.elapsed() > timeout {
            child.kill().context("killing QEMU")?;
            return Ok((child.wait().context("waiting for QEMU")?, true));
        }
        std::thread::sleep(POLL);
    }
}

fn copy(fifo: PathBuf, to: Labelled<impl Write + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || copy_until_eof(&fifo, to))
}

/// Copies until the last writer is gone; returns the end of what came.
fn copy_until_eof(fifo: &Path, mut to: Labelled<impl Write>) -> String {
    let mut tail = Vec::new();
    let mut buffer = [0; 16 << 10];
    let Ok(mut from) = File::open(fifo) else {
        return String::new();
    };
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let chunk = buffer.get(..n).unwrap_or_default();
        // Our own stdout may be closed (`| head`); the guest must be able to finish anyway.
        let _ = to.write_all(chunk).and_then(|()| to.flush());
        tail.extend_from_slice(chunk);
        if tail.len() > 2 * TAIL {
            tail.drain(..tail.len() - TAIL);
        }
    }
    let _ = to.end();
    String::from_utf8_lossy(&tail).into_owned()
}

fn join(thread: JoinHandle<String>) -> String {
    thread.join().unwrap_or_default()
}

/// Puts a label before each line, so that the output of several VMs can be told apart.
struct Labelled<W> {
    to: W,
    label: Option<String>,
    /// With a label: what came since the last end of line.
    line: Vec<u8>,
}

impl<W: Write> Labelled<W> {
    fn new(to: W, label: Option<&str>) -> Self {
        Self { to, label: label.map(str::to_owned), line: Vec::new() }
    }

    /// Writes a last line that has no end.
    fn end(&mut self) -> std::io::Result<()> {
        if !self.line.is_empty() {
            self.write_all(b"\n")?;
        }
        self.to.flush()
    }
}

impl<W: Write> Write for Labelled<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(label) = &self.label else {
            return self.to.write(bytes);
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                // One write a line: lines of several VMs must not mix.
                let whole = [format!("{label}: ").as_bytes(), &self.line].concat();
                self.line.clear();
                self.to.write_all(&whole)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(label: Option<&str>, pieces: &[&str]) -> String {
        let mut out = Vec::new();
        let mut to = Labelled::new(&mut out, label);
        for piece in pieces {
            to.write_all(piece.as_bytes()).expect("a vector takes everything");
        }
        to.end().expect("a vector takes everything");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_line_gets_its_label_once() {
        assert_eq!(labelled(Some("a"), &["one\ntw", "o\n", "rest"]), "a: one\na: two\na: rest\n");
    }

    #[test]
    fn without_a_label_bytes_pass_as_they_are() {
        assert_eq!(labelled(None, &["one\ntw", "o"]), "one\ntwo");
    }
}
