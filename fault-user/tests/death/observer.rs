//! Watches a controller and what is left of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fault_user::target::{cgroup::Cgroup, pid};
use libtest_mimic::Failed;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The promise is "normal again within a second". On an emulated CPU that others use as well a second is little, so
/// what is checked here is that it comes to pass; how long it took is printed.
const PATIENCE: Duration = Duration::from_secs(20);

/// From SIGKILL to the end of the keeper, the slowest so far.
pub static SLOWEST_MS: AtomicU64 = AtomicU64::new(0);

/// A controller and what it said.
pub struct Controller {
    pub child: Child,
    pub lines: BufReader<ChildStdout>,
    pub said: BTreeMap<String, String>,
    pub keeper: u32,
    pub cgroup: Option<PathBuf>,
}

impl Controller {
    pub fn start(stage: &str, command: &[&str]) -> Self {
        Self::start_in(None, stage, command)
    }

    /// In a cgroup other than ours.
    pub fn start_in(cgroup: Option<PathBuf>, stage: &str, command: &[&str]) -> Self {
        let mut program = Command::new(env::current_exe().unwrap());
        program.arg("controller").arg(stage).args(command).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(cgroup) = cgroup {
            let procs = cgroup.join("cgroup.procs");
            // SAFETY: this program has one thread beside the harness's, and a write is all that happens.
            unsafe { program.pre_exec(move || fs::write(&procs, "0")) };
        }
        let mut child = program.spawn().unwrap();
        STARTED.lock().unwrap().insert(child.id());
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, said: BTreeMap::new(), keeper: 0, cgroup: None }
    }

    /// The value of `what`: said already (it and COMMAND speak in any order), or the next to be said.
    pub fn until(&mut self, what: &str) -> String {
        loop {
            if let Some(value) = self.said.get(what) {
                return value.clone();
            }
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "the controller ended before it said {what:?}"
            );
            let (name, value) = line.trim().split_once(' ').unwrap();
            match name {
                "keeper" => self.keeper = value.parse().unwrap(),
                "cgroup" => self.cgroup = Some(value.into()),
                _ => {}
            }
            self.said.insert(name.into(), value.into());
        }
    }

    /// SIGKILL; then nothing may be left.
    pub fn kill(self) -> Result<(), Failed> {
        let cgroup = self.cgroup.clone();
        self.kill_one()?;
        match cgroup {
            Some(path) if path.exists() => Err(format!("{path:?} is still there").into()),
            _ => nothing_left(),
        }
    }

    /// SIGKILL while others of our controllers live.
    pub fn kill_one(mut self) -> Result<(), Failed> {
        let killed = Instant::now();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let keeper = self.keeper;
        eventually(|| (!pid::is_alive(keeper)).then_some(()).ok_or("the keeper is still there".into()))?;
        SLOWEST_MS.fetch_max(killed.elapsed().as_millis() as u64, Ordering::Relaxed);
        Ok(())
    }
}

pub fn eventually<T>(mut check: impl FnMut() -> Result<T, String>) -> Result<T, Failed> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Every controller this program has started. Others may be at work on the machine.
pub static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// No cgroup and no keeper of our controllers is anywhere.
pub fn nothing_left() -> Result<(), Failed> {
    let started = STARTED.lock().unwrap();
    let ours = |name: &str| {
        name.strip_prefix("fault-")
            .and_then(|rest| rest.split_once('-')?.0.parse().ok())
            .is_some_and(|pid: u32| started.contains(&pid))
    };
    let mut open = vec![Cgroup::root().unwrap().path];
    while let Some(directory) = open.pop() {
        if directory.file_name().is_some_and(|name| ours(name.to_str().unwrap())) {
            return Err(format!("{directory:?} is left").into());
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        open.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()),
        );
    }
    let own = env::current_exe().unwrap();
    for process in procfs::process::all_processes().unwrap().flatten() {
        let keeper = process.stat().is_ok_and(|stat| stat.comm == "fault-keeper" && stat.state != 'Z');
        if keeper && process.exe().is_ok_and(|exe| exe == own) {
            return Err(format!("process {} is a keeper", process.pid).into());
        }
    }
    Ok(())
}

pub fn cgroup_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().into()
}

/// Kills it, and comes back when it has ended.
pub fn end(pid: u32) -> Result<(), String> {
    // It may be on its way out already.
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).ok();
    eventually(|| pid::is_gone(pid).then_some(()).ok_or_else(String::new))
        .map_err(|_| format!("{pid} does not end"))
}
