//! A cgroup v2 directory of a test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// Where cgroup v2 is mounted.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// How long the kernel may take to empty the directory of processes that have ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// The root of the v2 hierarchy.
///
/// # Errors
/// When there is none.
pub fn root() -> anyhow::Result<&'static Path> {
    ROOTS
        .into_iter()
        .map(Path::new)
        .find(|root| root.join("cgroup.procs").exists())
        .context("no cgroup v2 hierarchy is mounted")
}

/// The cgroup v2 of a process, relative to the root, with a leading slash.
///
/// # Errors
/// When the process is gone.
pub fn of(pid: u32) -> anyhow::Result<String> {
    let text = crate::process::proc_file(pid, "cgroup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(line.with_context(|| format!("no v2 cgroup in {text:?}"))?.to_owned())
}

/// A cgroup, removed at the end of the test.
pub struct CgroupLab {
    path: PathBuf,
}

impl CgroupLab {
    /// Makes one below the root.
    ///
    /// # Errors
    /// When mkdir(2) does.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        Self::make(root()?.join(format!("e2e-{name}")))
    }

    /// Makes one inside of this one.
    ///
    /// # Errors
    /// When mkdir(2) does.
    pub fn child(&self, name: &str) -> anyhow::Result<Self> {
        Self::make(self.path.join(name))
    }

    fn make(path: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir(&path).with_context(|| format!("mkdir {}", path.display()))?;
        Ok(Self { path })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// `program`, started inside. The process becomes the program.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        let procs = self.path.join("cgroup.procs");
        command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(procs).arg(program);
        command
    }

    /// Moves a process here.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn adopt(&self, pid: &str) -> anyhow::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid).with_context(|| format!("moving {pid}"))
    }
}

/// Removes a cgroup and those below it, whose processes are ending.
///
/// # Errors
/// When somebody lives on in one of them.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(path) {
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("rmdir {}", path.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
            Ok(()) => return Ok(()),
        }
    }
}

impl Drop for CgroupLab {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = fs::remove_dir(&self.path) {
            if Instant::now() > deadline {
                eprintln!("rmdir {}: {error}", self.path.display());
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
