//! Where things are on this machine: the workspace, its build output, the cache outside the clone.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::vm::{Accel, Machine};

/// Root of the workspace this xtask was started from.
pub fn workspace() -> PathBuf {
    // cargo sets the variable at run time too; the compiled-in value would point at the
    // original clone when a target directory was copied along with a second clone.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    match manifest.parent() {
        Some(root) => root.to_owned(),
        None => manifest,
    }
}

/// Cargo's output directory of this workspace.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// Cache shared by all clones: `$XDG_CACHE_HOME/fault`, else `~/.cache/fault`.
pub fn cache_dir() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::home_dir()
            .ok_or_else(|| anyhow!("no home directory: set XDG_CACHE_HOME to a directory to cache in"))?
            .join(".cache"),
    };
    let dir = cache.join("fault");
    make_dir(&dir)?;
    Ok(dir)
}

/// Creates `dir` and its parents.
pub fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating directory {}", dir.display()))
}

/// True when this process may install packages.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Finds `program` on PATH or in the administrator's directories, which a user's PATH often lacks.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

/// How many VMs like `machine` this host can run at once.
pub fn room_for(machine: &Machine) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    vms(machine, processors, available_mib(&memory).unwrap_or(0))
}

fn vms(machine: &Machine, processors: usize, available_mib: u64) -> usize {
    let by_processors = match machine.accel {
        // One thread for all of the guest's processors, which waits a good deal of its time: three on two left a fifth of it.
        Accel::Tcg => processors * 2,
        // Its time is that of the host: it must not be late.
        Accel::Kvm => processors / machine.cpus.max(1) as usize,
    };
    let by_memory = available_mib / u64::from(machine.memory_mib.max(1));
    let by_memory = usize::try_from(by_memory).unwrap_or(usize::MAX);
    by_processors.min(by_memory).max(1)
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024)
}

/// An exclusive lock on one named part of the cache, held until dropped.
///
/// Several clones may build the same kernel at the same time; one of them does it, the others
/// wait and find it done.
pub struct CacheLock {
    _file: File,
}

impl CacheLock {
    /// Waits for the lock called `name`.
    pub fn take(name: &str) -> Result<Self> {
        let path = cache_dir()?.join(format!("{name}.lock"));
        let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("waiting for another xtask ({})", path.display());
            file.lock().with_context(|| format!("locking {}", path.display()))?;
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Clock;

    fn machine(accel: Accel) -> Machine {
        Machine { accel, clock: Clock::Host, cpus: 2, memory_mib: 4096, append: String::new() }
    }

    #[test]
    fn an_emulated_machine_takes_one_processor_and_its_memory() {
        assert_eq!(vms(&machine(Accel::Tcg), 2, 20_000), 4);
        assert_eq!(vms(&machine(Accel::Kvm), 2, 20_000), 1);
        assert_eq!(vms(&machine(Accel::Tcg), 8, 9_000), 2);
        assert_eq!(vms(&machine(Accel::Tcg), 8, 100), 1);
    }

    #[test]
    fn available_memory() {
        assert_eq!(available_mib("MemTotal: 9 kB\nMemAvailable:    2097152 kB\n"), Some(2048));
        assert_eq!(available_mib(""), None);
    }
}
