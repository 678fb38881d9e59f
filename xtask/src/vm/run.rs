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

/// Runs QEMU; the command's output goes to our stdout and stderr as it comes.
pub fn qemu(job: &Job, kernel: &Kernel, machine: &Machine, timeout: Duration) -> Result<End> {
    let (stdout, stderr) = (job.path("stdout"), job.path("stderr"));
    let out = copy(stdout.clone(), std::io::stdout());
    let err = copy(stderr.clone(), std::io::stderr());
    let args = qemu::qemu_args(
        machine,
        clock::tsc_khz(),
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

fn copy(fifo: PathBuf, to: impl Write + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || copy_until_eof(&fifo, to))
}

/// Copies until the last writer is gone; returns the end of what came.
fn copy_until_eof(fifo: &Path, mut to: impl Write) -> String {
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
    String::from_utf8_lossy(&tail).into_owned()
}

fn join(thread: JoinHandle<String>) -> String {
    thread.join().unwrap_or_default()
}
