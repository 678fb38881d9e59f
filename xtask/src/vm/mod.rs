//! A virtual machine per command: the lane's kernel, the host's root read-only under an overlay.

mod clock;
mod initramfs;
mod job;
mod modules;
mod monitor;
mod qemu;
mod run;
mod splat;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

pub use qemu::{Accel, Clock, Machine};

use crate::host;
use crate::kernel::{self, Kernel};
use crate::lane::Lane;
use crate::setup::{self, Need};
use job::Job;
use run::How;

/// What the guest writes to as long as it lives, beside its boot script.
const PULSE: &str = "pulse";
const INIT: &[u8] = include_bytes!("../../guest/init");
const BOOT: &str = include_str!("../../guest/boot");

/// What to run, and in which machine.
pub struct Request {
    /// The kernel.
    pub lane: Lane,
    /// The machine.
    pub machine: Machine,
    /// The VM is killed after this long.
    pub timeout: Duration,
    /// Host directory the guest sees as /job, read-write.
    pub share: Option<PathBuf>,
    /// Directories searched before the system's for programs.
    pub path: Vec<PathBuf>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Stands before each line of output; for when several VMs run at once.
    pub label: Option<String>,
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// The command's status; 124 if the time was up, 125 if the VM died or stood still.
    pub status: i32,
    /// The guest did nothing any more, not even what a kernel does whose processors are stuck: complain of that.
    pub stood_still: bool,
    /// The kernel complained about itself.
    pub splat: bool,
    /// The end of the command's standard output, for summaries.
    pub stdout_tail: String,
}

/// Boots the VM, runs the command with its output on ours, and takes the VM down again.
pub fn run(request: &Request) -> Result<Outcome> {
    for directory in &request.path {
        must_be_visible(directory)?;
    }
    setup::ensure(&[Need::Vm])?;
    let kernel = kernel::ensure(request.lane, false)?;
    let job = Job::create(request.share.as_deref())?;
    let dir = std::env::current_dir().context("finding the current directory")?;
    let environment = job::environment(&request.path, kernel.modules.as_deref(), &dir, std::env::vars());
    job.write_private("env", &environment)?;
    job.write_private("boot", BOOT)?;
    job.write_private("command", &job::command_script(&request.command))?;
    let archive = initramfs(&kernel, job.private_dir())?;
    let path = job.path("initramfs");
    std::fs::write(&path, archive).with_context(|| format!("writing {}", path.display()))?;

    let end = run::qemu(&job, &kernel, &request.machine, request.timeout, request.label.as_deref())?;
    Ok(conclude(job, end, request))
}

/// Where the guest has file systems of its own, it sees nothing of the host's: a checkout there would have no programs.
fn must_be_visible(directory: &Path) -> Result<()> {
    let hidden =
        ["/tmp", "/run", "/proc", "/sys", "/dev"].into_iter().find(|root| directory.starts_with(root));
    match hidden {
        Some(root) => Err(anyhow!(
            "the VM has its own {root} and does not see {}: move the checkout (or CARGO_TARGET_DIR) elsewhere",
            directory.display()
        )),
        None => Ok(()),
    }
}

fn initramfs(kernel: &Kernel, private: &str) -> Result<Vec<u8>> {
    let busybox = host::which("busybox").ok_or_else(|| anyhow!("no busybox on this machine"))?;
    let mut archive = initramfs::Archive::default();
    for dir in ["bin", "fault", "fault/modules"] {
        archive.directory(dir);
    }
    archive.copy("bin/busybox", 0o755, &busybox)?;
    archive.file("init", 0o755, INIT);
    archive.file("fault/private", 0o644, private.as_bytes());
    let mut order = String::new();
    if let Some(tree) = &kernel.modules {
        for path in module_paths(tree)? {
            let file = path.rsplit('/').next().unwrap_or(&path).to_owned();
            let content = modules::read(&tree.join(&path))?;
            archive.file(&format!("fault/modules/{file}"), 0o644, &content);
            order.push_str(&file);
            order.push('\n');
        }
    }
    archive.file("fault/modules.order", 0o644, order.as_bytes());
    Ok(archive.finish())
}

fn module_paths(tree: &Path) -> Result<Vec<String>> {
    let read = |name: &str| {
        let path = tree.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    modules::resolve(&modules::BEFORE_ROOT, &read("modules.dep")?, &read("modules.builtin")?)
}

/// Turns the end of the VM into a status, and shows the kernel's log if there is a reason to.
fn conclude(job: Job, end: run::End, request: &Request) -> Outcome {
    let console = job.console();
    let log = format!("{console}{}", job.dmesg());
    let splat = !splat::lines(&log).is_empty();
    let ended = job.status();
    let orderly = ended.is_some();
    let status = ended.unwrap_or(match end.how {
        How::TimeUp => 124,
        How::Exited(_) | How::StoodStill(_) => 125,
    });
    if !orderly || splat {
        for line in console.lines() {
            eprintln!("kernel: {line}");
        }
        for line in splat::lines(&job.dmesg()) {
            eprintln!("kernel log: {line}");
        }
    }
    if !orderly {
        let command = request.command.join(" ");
        match &end.how {
            How::TimeUp => {
                eprintln!(
                    "xtask: `{command}` was still running after {} s; VM killed",
                    request.timeout.as_secs()
                );
            }
            How::StoodStill(registers) => {
                eprintln!("xtask: the VM of `{command}` stood still, and was killed; its processors were at");
                for line in monitor::places(registers) {
                    eprintln!("xtask:   {line}");
                }
                // Best effort: the lines above say most of it.
                let _ = std::fs::write(job.path("registers"), registers);
            }
            How::Exited(qemu) => eprintln!("xtask: the VM ended before the command did ({qemu})"),
        }
    }
    if orderly && !splat {
        job.remove();
    } else {
        eprintln!("xtask: the VM's logs are in {}", job.keep().display());
    }
    let stood_still = !orderly && !splat && matches!(end.how, How::StoodStill(_));
    Outcome { status, stood_still, splat, stdout_tail: end.stdout_tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_that_the_guest_does_not_see_is_refused() {
        assert!(must_be_visible(Path::new("/home/me/fault/target/release")).is_ok());
        let error = must_be_visible(Path::new("/tmp/fault/target/release")).unwrap_err().to_string();
        assert!(error.contains("its own /tmp") && error.contains("/tmp/fault/target/release"), "{error}");
        assert!(must_be_visible(Path::new("/tmpfs/fault")).is_ok());
    }
}
