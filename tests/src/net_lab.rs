//! Two network namespaces joined by a veth pair, made and removed by the test itself.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use nix::sched::{CloneFlags, setns};

use crate::process::{Ended, Process};

/// Where the target lives, and where its peer lives.
pub struct NetLab {
    /// Name of the target's namespace.
    pub target: String,
    /// Name of the peer's namespace.
    pub peer: String,
}

/// IPv4 address of the target.
pub const TARGET_V4: &str = "10.77.0.1";
/// IPv4 address of the peer.
pub const PEER_V4: &str = "10.77.0.2";
/// Second IPv4 address of the peer.
pub const PEER_V4_OTHER: &str = "10.77.0.3";
/// IPv6 address of the target.
pub const TARGET_V6: &str = "fd77::1";
/// IPv6 address of the peer.
pub const PEER_V6: &str = "fd77::2";
/// The target's interface.
pub const TARGET_IFACE: &str = "vt0";

/// What the names of a lab's namespaces begin with.
const PREFIX: &str = "ft-";

/// The namespaces of all labs there are, as ip-netns(8) keeps them.
#[must_use]
pub fn namespaces() -> Vec<PathBuf> {
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    named
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| entry.path())
        .collect()
}

/// Runs a command line (no shell) and returns its stdout.
///
/// # Errors
/// When it cannot be started or fails; the message holds its stderr.
pub fn sh(line: &str) -> anyhow::Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command line")?;
    let output = Command::new(program).args(words).output().with_context(|| line.to_owned())?;
    if !output.status.success() {
        bail!("{line}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Has one ip(8) carry out several command lines.
fn batch(options: &[&str], lines: &[String]) -> anyhow::Result<()> {
    let input = lines.join("\n") + "\n";
    let ended = Ended::with_input(Command::new("ip").args(options).args(["-batch", "-"]), input.as_bytes())?;
    ensure!(ended.status.success(), "ip -batch: {}: {}{input}", ended.status, ended.stderr);
    Ok(())
}

impl NetLab {
    /// Makes both namespaces; `name` tells labs of different tests apart.
    ///
    /// # Errors
    /// When ip(8) does.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let lab = Self { target: format!("{PREFIX}{name}-t"), peer: format!("{PREFIX}{name}-p") };
        let (t, p) = (&lab.target, &lab.peer);
        for name in [t, p] {
            // Of a run that was killed.
            if Path::new("/run/netns").join(name).exists() {
                sh(&format!("ip netns del {name}"))?;
            }
        }
        let pair = [
            format!("netns add {t}"),
            format!("netns add {p}"),
            format!("link add {TARGET_IFACE} netns {t} type veth peer name vp0 netns {p}"),
        ];
        batch(&[], &pair)?;
        for (namespace, interface, v4, v6) in
            [(t, TARGET_IFACE, &[TARGET_V4][..], TARGET_V6), (p, "vp0", &[PEER_V4, PEER_V4_OTHER], PEER_V6)]
        {
            let mut lines: Vec<_> = v4.iter().map(|v4| format!("addr add {v4}/24 dev {interface}")).collect();
            lines.extend([
                format!("addr add {v6}/64 dev {interface} nodad"),
                format!("link set {interface} up"),
                "link set lo up".to_owned(),
            ]);
            batch(&["-n", namespace], &lines)?;
            // A veth hands over on the CPU that sends, so two CPUs would race each other to the socket. By receive
            // packet steering one CPU delivers everything, in the order it was sent
            // (Documentation/networking/scaling.rst).
            let steer = format!("echo 1 > /sys/class/net/{interface}/queues/rx-0/rps_cpus");
            Process::start(Command::new("ip").args(["netns", "exec", namespace, "sh", "-c", &steer]))?
                .text()?;
        }
        // Neighbours resolved beforehand: the first packet of a test is a packet of the test.
        sh(&format!("ip netns exec {t} ping -c 1 -W 5 {PEER_V4}"))?;
        sh(&format!("ip netns exec {t} ping -c 1 -W 5 {PEER_V6}"))?;
        Ok(lab)
    }

    /// `program` in the target's namespace. The process becomes the program: its PID is the program's.
    #[must_use]
    pub fn in_target(&self, program: &str) -> Command {
        in_namespace(&self.target, program)
    }

    /// `program` in the peer's namespace.
    #[must_use]
    pub fn in_peer(&self, program: &str) -> Command {
        in_namespace(&self.peer, program)
    }
}

/// `program` in a namespace. It is there before it is a program: who starts it may aim at it at once. (nsenter(1) and ip-netns(8) enter
/// after they were started, and the latter also hides what is mounted below /sys, cgroups among it.)
#[must_use]
pub fn in_namespace(namespace: &str, program: &str) -> Command {
    let path = Path::new("/run/netns").join(namespace);
    let enter = move || Ok(setns(File::open(&path)?, CloneFlags::CLONE_NEWNET)?);
    let mut command = Command::new(program);
    // SAFETY: between fork and exec it makes two system calls and allocates nothing: the path is short, which std keeps on the stack.
    unsafe { command.pre_exec(enter) };
    command
}

impl Drop for NetLab {
    fn drop(&mut self) {
        for namespace in [&self.target, &self.peer] {
            if let Err(error) = sh(&format!("ip netns del {namespace}")) {
                eprintln!("removing the lab: {error}");
            }
        }
    }
}

/// A packet counter that has nothing to do with the tool: tcpdump(8) on an interface.
pub struct Tap(Process);

impl Tap {
    /// Counts on `iface` in `namespace` what passes `filter`.
    ///
    /// # Errors
    /// When tcpdump does not listen.
    pub fn new(namespace: &str, iface: &str, filter: &str) -> anyhow::Result<Self> {
        let mut command = in_namespace(namespace, "tcpdump");
        command.args(["-i", iface, "-nn", "-l", "--immediate-mode", "-B", "16384", filter]);
        Ok(Self(Process::start_until(&mut command, "listening on")?))
    }

    /// Stops counting; one line for each packet.
    ///
    /// # Errors
    /// When tcpdump failed.
    pub fn stop(self) -> anyhow::Result<Vec<String>> {
        // What is on its way through the socket and the pipe.
        std::thread::sleep(std::time::Duration::from_millis(300));
        self.0.signal(nix::sys::signal::Signal::SIGINT)?;
        let ended = self.0.ended()?;
        // Interrupted, it ends its output with an empty line.
        Ok(ended.stdout.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }
}
