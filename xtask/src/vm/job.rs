//! The directory one VM lives in while it runs: disks, console, pipes, and what both sides share.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use nix::sys::stat::Mode;

use crate::{exec, host};

/// Size of /dev/vda and /dev/vdb, bytes. The files are sparse.
const DISK_BYTES: u64 = 1 << 30;
/// Directories of VMs that were killed are swept after this long.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Inside the share, with a name of its own behind it: what the guest's boot script needs and what it leaves behind.
const PRIVATE: &str = ".vm-";
/// Variables of ours the command gets, by the start of their names.
const PASSED_ON: [&str; 7] = ["FAULT_", "RUST_", "PROPTEST_", "NO_COLOR", "CLICOLOR", "TERM", "LANG"];

/// Where a VM's files are. Not below /tmp or /run: the guest mounts its own there.
pub struct Job {
    dir: PathBuf,
    share: PathBuf,
    private: String,
}

impl Job {
    /// Makes the directory, its disks and its FIFOs. `share` is the directory the guest sees as
    /// /job; without one it is part of the job and vanishes with it.
    pub fn create(share: Option<&Path>) -> Result<Self> {
        let jobs = host::cache_dir()?.join("jobs");
        host::make_dir(&jobs)?;
        sweep(&jobs);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let name = format!("{stamp}-{}-{count}", std::process::id());
        let dir = jobs.join(&name);
        let private = format!("{PRIVATE}{name}");
        let share = match share {
            Some(share) => {
                host::make_dir(share)?;
                std::fs::canonicalize(share).with_context(|| format!("resolving {}", share.display()))?
            }
            None => dir.join("share"),
        };
        host::make_dir(&dir)?;
        host::make_dir(&share.join(&private))?;
        let job = Self { dir, share, private };
        for name in ["vda.img", "vdb.img"] {
            let path = job.path(name);
            File::create(&path)
                .and_then(|file| file.set_len(DISK_BYTES))
                .with_context(|| format!("creating disk {}", path.display()))?;
        }
        for name in ["stdout", "stderr"] {
            let path = job.path(name);
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .with_context(|| format!("creating FIFO {}", path.display()))?;
        }
        Ok(job)
    }

    /// A file of the host's side.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The directory the guest sees as /job.
    pub fn share(&self) -> &Path {
        &self.share
    }

    /// A file of the boot script's.
    pub fn private(&self, name: &str) -> PathBuf {
        self.share.join(&self.private).join(name)
    }

    /// The directory of those, below the share.
    pub fn private_dir(&self) -> &str {
        &self.private
    }

    /// Writes a file of the boot script's.
    pub fn write_private(&self, name: &str, content: &str) -> Result<()> {
        let path = self.private(name);
        std::fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    }

    /// The exit status the guest left, if it got that far.
    pub fn status(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.private("status")).ok()?;
        text.trim().parse().ok()
    }

    /// Everything the kernel said: its console (warnings and worse, to the last moment) and, if the
    /// guest ended in order, the whole log.
    pub fn console(&self) -> String {
        read_lossy(&self.path("console"))
    }

    /// The whole kernel log; empty when the guest did not end in order.
    pub fn dmesg(&self) -> String {
        read_lossy(&self.private("dmesg"))
    }

    /// Removes the job; the caller's share stays, without what was ours in it.
    pub fn remove(self) {
        // Best effort: what cannot be removed now is swept later.
        let _ = std::fs::remove_dir_all(self.share.join(&self.private));
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// Keeps logs and share for a look afterwards, without the disks.
    pub fn keep(self) -> PathBuf {
        for name in ["vda.img", "vdb.img", "stdout", "stderr", "initramfs"] {
            let _ = std::fs::remove_file(self.path(name));
        }
        if self.private("dmesg").is_file() {
            let _ = std::fs::copy(self.private("dmesg"), self.path("dmesg"));
        }
        self.dir
    }
}

fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn sweep(jobs: &Path) {
    let Ok(entries) = std::fs::read_dir(jobs) else {
        return;
    };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > STALE) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The values the guest's boot script sources.
pub fn environment(
    path: &[PathBuf],
    modules: Option<&Path>,
    dir: &Path,
    ours: impl Iterator<Item = (String, String)>,
) -> String {
    let mut search: Vec<String> = path.iter().map(|dir| dir.display().to_string()).collect();
    search.extend(
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(str::to_owned),
    );
    let modules = modules.map(|dir| dir.display().to_string());
    let mut lines = vec![
        format!("MODULES={}", exec::quote(&modules.unwrap_or_default())),
        format!("DIR={}", exec::quote(&dir.display().to_string())),
    ];
    let fixed = [
        ("PATH".to_owned(), search.join(":")),
        ("HOME".to_owned(), "/root".to_owned()),
        ("USER".to_owned(), "root".to_owned()),
        ("FAULT_JOB".to_owned(), "/job".to_owned()),
    ];
    let ours =
        ours.filter(|(name, _)| PASSED_ON.iter().any(|start| name.starts_with(start)) && name != "FAULT_JOB");
    for (name, value) in ours.chain(fixed) {
        lines.push(format!("export {name}={}", exec::quote(&value)));
    }
    lines.join("\n") + "\n"
}

/// The command as the script the guest runs.
pub fn command_script(command: &[String]) -> String {
    let words: Vec<String> = command.iter().map(|word| exec::quote(word)).collect();
    // exec: signals and statuses are the command's own, with no shell in between.
    format!("exec {}\n", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_variables_are_passed_on() {
        let vars = [("RUST_LOG", "debug"), ("SECRET", "x"), ("FAULT_JOB", "/elsewhere")];
        let text = environment(
            &[PathBuf::from("/w/target/debug")],
            None,
            Path::new("/w x"),
            vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        );
        assert!(text.contains("export RUST_LOG=debug\n"));
        assert!(!text.contains("SECRET"));
        assert!(text.contains("export FAULT_JOB=/job\n") && !text.contains("elsewhere"));
        assert!(text.contains("export PATH=/w/target/debug:/usr/local/sbin"));
        assert!(text.contains("DIR='/w x'\n"));
    }

    #[test]
    fn the_command_keeps_its_words() {
        let command = ["sh", "-c", "echo $HOME | wc"].map(str::to_owned);
        assert_eq!(command_script(&command), "exec sh -c 'echo $HOME | wc'\n");
    }
}
