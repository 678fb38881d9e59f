//! One QEMU process, from its start to its end.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::clock;
use super::job::Job;
use super::monitor;
use super::qemu::{self, Files, Machine};
use crate::kernel::Kernel;

/// How often to look whether QEMU has ended.
const POLL: Duration = Duration::from_millis(20);
/// A guest that has given no sign of life for so long stands still. It gives one every ten seconds of its own time, the first when
/// it has booted; on a busy host that was seen to take a minute.
const STILL: Duration = Duration::from_secs(300);
/// How much of the command's standard output is kept for summaries, bytes.
const TAIL: usize = 64 << 10;

/// How a QEMU process ended.
pub struct End {
    /// How it came to that.
    pub how: How,
    /// The last of the command's standard output.
    pub stdout_tail: String,
}

/// Why a QEMU process ended.
#[derive(Debug)]
pub enum How {
    /// By itself.
    Exited(ExitStatus),
    /// We killed it because the time was up.
    TimeUp,
    /// We killed it because its guest did nothing any more; what its processors were at.
    StoodStill(String),
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
    // Its monitor.
    cmd.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe and
    // touches no memory of the parent.
    unsafe {
        // A VM that outlives the xtask that wanted it would run for ever.
        cmd.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
    let child = cmd.spawn().context("starting qemu-system-x86_64");
    let how =
        child.and_then(|mut child| wait(&mut child, timeout, Pulse::of(job.private(super::PULSE)), STILL));

    // A QEMU that failed early never opened its ends, and the readers still wait for that.
    for path in [&stdout, &stderr] {
        let _ = OpenOptions::new().read(true).write(true).open(path);
    }
    let stdout_tail = join(out);
    join(err);
    Ok(End { how: how?, stdout_tail })
}

/// Waits for the end of QEMU, or brings it about: when the time is up, or when the pulse has been missing for `still`.
fn wait(child: &mut Child, timeout: Duration, mut pulse: Pulse, still: Duration) -> Result<How> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("waiting for QEMU")? {
            return Ok(How::Exited(status));
        }
        let how = if started.elapsed() > timeout {
            Some(How::TimeUp)
        } else if pulse.missing_for() > still {
            Some(How::StoodStill(monitor::registers(child)))
        } else {
            None
        };
        if let Some(how) = how {
            child.kill().context("killing QEMU")?;
            child.wait().context("waiting for QEMU")?;
            return Ok(how);
        }
        std::thread::sleep(POLL);
    }
}

/// The guest's sign of life: a file it writes to again and again.
struct Pulse {
    file: PathBuf,
    /// When the guest last wrote to it, as far as was seen.
    last: Option<SystemTime>,
    /// When that was seen, by a clock that stops when this machine sleeps.
    since: Instant,
}

impl Pulse {
    /// Of a guest that was just started.
    fn of(file: PathBuf) -> Self {
        Self { file, last: None, since: Instant::now() }
    }

    fn missing_for(&mut self) -> Duration {
        let written = std::fs::metadata(&self.file).and_then(|file| file.modified()).ok();
        if written != self.last {
            self.last = written;
            self.since = Instant::now();
        }
        self.since.elapsed()
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
    fn a_guest_is_silent_since_its_last_sign_of_life_or_since_it_was_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let minute = Duration::from_secs(60);
        let long_ago = Instant::now().checked_sub(minute).expect("a clock that began before");
        let mut pulse = Pulse { since: long_ago, ..Pulse::of(dir.path().join("pulse")) };
        assert!(pulse.missing_for() >= minute, "it never booted");
        std::fs::write(&pulse.file, "\n").expect("a file");
        assert!(pulse.missing_for() < minute);
        pulse.since = long_ago;
        assert!(pulse.missing_for() >= minute, "that was one sign, and not two");
    }

    /// Stands in for QEMU: answers on its monitor, and does not end.
    #[test]
    fn who_gives_no_sign_of_life_is_asked_what_it_is_at_and_killed() {
        let dir = tempfile::tempdir().expect("a directory");
        let script = "while read -r line; do echo \"you said $line\"; done; exec sleep 1000";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let pulse = Pulse::of(dir.path().join("pulse"));
        let how = wait(&mut child, Duration::from_secs(600), pulse, Duration::from_millis(100));
        let how = how.expect("waited for");
        let How::StoodStill(registers) = how else { panic!("{how:?}") };
        assert!(registers.contains("you said info registers -a"), "{registers}");
        assert!(child.try_wait().expect("a status").is_some(), "it lives");
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
