//! Which processes a cgroup holds, and how to get them out of it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::CgroupError;

/// How long to wait for the kernel to let go of a cgroup whose last process is just exiting.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(2);

/// Every process in `cgroup` and in the cgroups below it, as thread group ids of our PID namespace.
///
/// Cgroups that vanish meanwhile are skipped. Processes of foreign PID namespaces cannot be named and are left
/// out (the kernel shows them as 0).
///
/// # Errors
/// When `cgroup` itself cannot be read.
pub fn processes(cgroup: &Path) -> Result<BTreeSet<u32>, CgroupError> {
    let mut found = BTreeSet::new();
    for directory in subtree(cgroup)? {
        match direct(&directory) {
            Ok(pids) => found.extend(pids),
            Err(error) if is_gone(&error) && directory != cgroup => {}
            Err(source) => return Err(CgroupError::Read { path: directory, source }),
        }
    }
    Ok(found)
}

/// Moves every process out of `cgroup` and the cgroups below it to `home` (or, where that takes none, to its
/// nearest ancestor that does) and removes the directories. A cgroup that is gone already is no error.
/// Answers with how many processes were moved.
///
/// # Errors
/// When processes or directories are still there after a few seconds.
pub fn evacuate(cgroup: &Path, home: &Path) -> Result<usize, CgroupError> {
    let deadline = Instant::now() + PATIENCE;
    let mut moved = BTreeSet::new();
    loop {
        let result = evacuate_once(cgroup, home, &mut moved);
        match result {
            Ok(()) => return Ok(moved.len()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            // A process forked, or is half way through its exit.
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn evacuate_once(cgroup: &Path, home: &Path, moved: &mut BTreeSet<u32>) -> Result<(), CgroupError> {
    let directories = match subtree(cgroup) {
        Ok(directories) => directories,
        Err(CgroupError::Read { source, .. }) if is_gone(&source) => return Ok(()),
        Err(error) => return Err(error),
    };
    // Children before their parents.
    for directory in directories.iter().rev() {
        let pids = match direct(directory) {
            Ok(pids) => pids,
            Err(error) if is_gone(&error) => continue,
            Err(source) => return Err(CgroupError::Read { path: directory.clone(), source }),
        };
        for pid in pids {
            if move_home(pid, home)? {
                moved.insert(pid);
            }
        }
        match fs::remove_dir(directory) {
            Err(error) if is_gone(&error) => {}
            Err(source) => {
                return Err(CgroupError::Change { operation: "remove", path: directory.clone(), source });
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Whether the process was still there to be moved.
fn move_home(pid: u32, home: &Path) -> Result<bool, CgroupError> {
    let mut first = None;
    // Above the hierarchy there is no such file.
    for directory in home.ancestors().filter(|directory| directory.join("cgroup.procs").exists()) {
        match fs::write(directory.join("cgroup.procs"), pid.to_string()) {
            Ok(()) => return Ok(true),
            // The process has exited.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(false),
            // Home is gone, or has become an inner node that may hold no processes.
            Err(error) => _ = first.get_or_insert(error),
        }
    }
    let source = first.unwrap_or_else(|| io::ErrorKind::NotFound.into());
    Err(CgroupError::Change { operation: "move a process to", path: home.into(), source })
}

/// `cgroup` and every directory below it, parents before their children.
pub(in crate::target) fn subtree(cgroup: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut found = vec![cgroup.to_path_buf()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) && directory != cgroup => continue,
            Err(source) => return Err(CgroupError::Read { path: directory, source }),
        };
        found.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    Ok(found)
}

/// The processes of one cgroup, without those of nested ones.
fn direct(cgroup: &Path) -> io::Result<BTreeSet<u32>> {
    match fs::read_to_string(cgroup.join("cgroup.procs")) {
        Ok(text) => Ok(numbers(&text).collect()),
        // A threaded cgroup lists its threads only.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let threads = fs::read_to_string(cgroup.join("cgroup.threads"))?;
            Ok(numbers(&threads).filter_map(thread_group).collect())
        }
        Err(error) => Err(error),
    }
}

fn numbers(text: &str) -> impl Iterator<Item = u32> {
    text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid != 0)
}

fn thread_group(tid: u32) -> Option<u32> {
    procfs::process::Process::new(tid as i32).ok()?.status().ok().map(|status| status.tgid as u32)
}

/// The directory was removed: before it was opened (ENOENT) or after (ENODEV).
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}
