//! A systemd of the test's own: first process of a PID namespace, with a cgroup of its own, and with `/run/systemd` shared
//! with the machine, so that the machine looks like one that it manages.
//!
//! It answers nobody of another PID namespace. So the `systemctl` that is first on [`SystemdLab::path`] enters its
//! namespace and is the real one from there on.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::{
    cgroup_lab,
    net_lab::sh,
    process::{Process, descendants, proc_file},
};

/// What the manager and `systemctl` share.
pub const SHARED: &str = "/run/systemd";
/// How long it may take to start, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running manager.
pub struct SystemdLab {
    manager: Option<Process>,
    cgroup: PathBuf,
    programs: tempfile::TempDir,
    /// Where its root file system can be reached.
    root: PathBuf,
}

impl SystemdLab {
    /// Starts one that knows `units` (file name and content) and has started those in `wants`.
    ///
    /// # Errors
    /// When it does not start within a minute.
    pub fn new(units: &[(&str, String)], wants: &[&str]) -> anyhow::Result<Self> {
        ensure!(!Path::new(SHARED).join("system").exists(), "this machine has a systemd");
        let cgroup = cgroup_lab::root()?.join("e2e-systemd");
        fs::create_dir(&cgroup)?;
        let mut lab = Self { manager: None, cgroup, programs: tempfile::tempdir()?, root: PathBuf::new() };
        fs::create_dir_all(SHARED)?;
        sh(&format!("mount -t tmpfs e2e-systemd {SHARED}"))?;
        let directory = Path::new(SHARED).join("system");
        fs::create_dir(&directory)?;
        let target = format!("[Unit]\nDefaultDependencies=no\nWants={}\n", wants.join(" "));
        for (name, text) in units.iter().map(|(name, text)| (*name, text)).chain([("e2e.target", &target)]) {
            let path = directory.join(name);
            // Of a drop-in: `x.service.d`.
            fs::create_dir_all(path.parent().context("a directory")?)?;
            fs::write(path, text)?;
        }
        // Its own /run, /tmp and /proc: it tidies up in them.
        let inside = format!(
            "mount -t tmpfs e2e /mnt && mkdir /mnt/systemd /mnt/netns && mount --rbind {SHARED} /mnt/systemd && \
             mount --rbind /run/netns /mnt/netns && mount -n --move /mnt /run && mount -t tmpfs e2e /tmp && \
             exec env container=e2e /lib/systemd/systemd --system --unit=e2e.target --log-target=null"
        );
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""]).arg(&lab.cgroup);
        command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]);
        lab.manager = Some(Process::start(command.args(["sh", "-c", &inside]))?);
        lab.write_systemctl()?;
        for unit in wants {
            lab.wait_for(unit)?;
        }
        Ok(lab)
    }

    fn write_systemctl(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // Children of `unshare`; the cgroup lists them as this namespace knows them.
        let manager = loop {
            let found = descendants(self.manager.as_ref().context("no manager")?.pid().parse()?)
                .into_iter()
                .find(|pid| proc_file(*pid, "comm").is_ok_and(|comm| comm == "systemd"));
            match found {
                Some(pid) => break pid,
                None => ensure!(Instant::now() < deadline, "systemd does not start"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        self.root = format!("/proc/{manager}/root").into();
        let path = self.programs.path().join("systemctl");
        let script = format!("#!/bin/sh\nexec nsenter -t {manager} -p -m -- /usr/bin/systemctl \"$@\"\n");
        fs::write(&path, script)?;
        Ok(fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?)
    }

    /// Its root file system, from outside: `/run` and `/tmp` are its own.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `PATH` with a `systemctl` that talks to this manager.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}:{}", self.programs.path().display(), std::env::var("PATH").unwrap_or_default())
    }

    /// `systemctl` with these arguments.
    ///
    /// # Errors
    /// When it fails.
    pub fn ctl(&self, arguments: &str) -> anyhow::Result<String> {
        sh(&format!("{} {arguments}", self.programs.path().join("systemctl").display()))
    }

    /// Waits until `unit` is active.
    ///
    /// # Errors
    /// When it is not within a minute.
    pub fn wait_for(&self, unit: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said =
                Command::new(self.programs.path().join("systemctl")).args(["is-active", unit]).output()?;
            if said.status.success() {
                return Ok(());
            }
            let (answer, error) =
                (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
            ensure!(Instant::now() < deadline, "{unit} is not active: {answer}{error}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for SystemdLab {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("removing systemd: {error:#}");
        }
    }
}

impl SystemdLab {
    fn remove(&mut self) -> anyhow::Result<()> {
        let kill = self.cgroup.join("cgroup.kill");
        fs::write(&kill, "1").with_context(|| kill.display().to_string())?;
        if let Some(manager) = self.manager.take() {
            manager.ended()?;
        }
        cgroup_lab::remove(&self.cgroup)?;
        sh(&format!("umount {SHARED}"))?;
        Ok(())
    }
}
