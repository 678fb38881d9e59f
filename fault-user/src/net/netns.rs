//! Network namespaces: holding them, entering them, making private ones.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::MetadataExt,
    },
    panic,
    path::Path,
    sync::Arc,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use super::error::{NetError, Result};

/// A network namespace kept alive by a file descriptor.
///
/// Clones share the descriptor; two handles are equal when they are the same namespace, however they were found.
#[derive(Clone)]
pub struct NetnsHandle {
    file: Arc<File>,
    device: u64,
    inode: u64,
}

impl NetnsHandle {
    /// The namespace of a process (of its main thread).
    ///
    /// # Errors
    /// When the process does not exist or may not be looked at (ptrace access is needed).
    pub fn of_pid(pid: u32) -> Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net"))).map_err(|error| match error.errno() {
            // ESRCH: a zombie has no namespaces any more.
            Some(libc::ENOENT | libc::ESRCH) => NetError::NoSuchProcess { pid },
            _ => error,
        })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace behind a path: `/run/netns/NAME`, `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// When the path cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let file = File::open(path)?;
            let status = file.metadata()?;
            Ok(Self { file: Arc::new(file), device: status.dev(), inode: status.ino() })
        };
        open().map_err(|error| NetError::os("open network namespace", path.display().to_string(), error))
    }

    /// Looks for the namespace with this inode number among those that a process lives in or a file names.
    ///
    /// Namespaces that only a file descriptor keeps alive are not found.
    #[must_use]
    pub fn find(inode: u64) -> Option<Self> {
        let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path().join("ns/net"));
        let named = ["/run/netns", "/run/docker/netns"]
            .into_iter()
            .filter_map(|directory| fs::read_dir(directory).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()));
        processes
            .chain(named)
            .find(|path| fs::metadata(path).is_ok_and(|status| status.ino() == inode))
            .and_then(|path| Self::open(&path).ok())
            .filter(|handle| handle.inode == inode)
    }

    /// A new, empty namespace that dies with the last clone of its handle.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or when the limit of namespaces is reached.
    pub fn private() -> Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| NetError::os("make", "a private network namespace", errno.into()))?;
            Self::current()
        })
    }

    /// Runs `work` in this namespace, on a thread made for it: the caller's thread never changes its own.
    ///
    /// # Errors
    /// When the namespace cannot be entered (CAP_SYS_ADMIN), or with the error of `work`.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(|errno| NetError::os("enter", self.to_string(), errno.into()))?;
            work()
        })
    }

    /// Inode number: what `lsns` and `readlink /proc/PID/ns/net` show.
    #[must_use]
    pub const fn inode(&self) -> u64 {
        self.inode
    }
}

impl PartialEq for NetnsHandle {
    fn eq(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl Eq for NetnsHandle {}

impl AsFd for NetnsHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for NetnsHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl fmt::Display for NetnsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network namespace net:[{}]", self.inode)
    }
}

impl fmt::Debug for NetnsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetnsHandle({})", self.inode)
    }
}

/// Runs `work` on a thread of its own and waits for it.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("fault-netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| NetError::os("start", "a thread for a network namespace", error))?;
        thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}
