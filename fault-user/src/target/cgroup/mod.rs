//! A cgroup v2 subtree as a target.

mod controllers;
mod freezer;
mod level;
mod members;
mod mount;

use std::{
    collections::BTreeSet,
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use fault_common::control::CgroupTarget;

use crate::exit::Class;
pub use controllers::{controllers, disable, enable, mark, needed_by_children};
pub use freezer::{Freeze, freeze, is_forgotten, is_frozen, stands_still, thaw};
pub(super) use members::subtree;
pub use members::{evacuate, processes};
use mount::Version;
pub use mount::{Mount, Mounts};

/// A cgroup could not be found, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 file system is mounted.
    #[error(
        "no cgroup v2 hierarchy is mounted: run `mount -t cgroup2 none /sys/fs/cgroup/unified` (or boot with systemd.unified_cgroup_hierarchy=1)"
    )]
    NoHierarchy,
    /// Neither a path nor a name below the v2 root.
    #[error("no cgroup {given:?}: neither {given:?} nor {tried:?} exists; `systemd-cgls` lists those of this machine", given = .given.display(), tried = .tried.display())]
    Unknown {
        /// What the user wrote.
        given: PathBuf,
        /// Where else it was looked for.
        tried: PathBuf,
    },
    /// A v1 controller's directory.
    #[error("{path:?} belongs to cgroup v1, which cannot tell whose packets and bios these are: name a cgroup v2 directory below {root:?}", path = .path.display(), root = .root.display())]
    Legacy {
        /// What the user wrote.
        path: PathBuf,
        /// Where v2 is mounted.
        root: PathBuf,
    },
    /// Some other directory or file.
    #[error("{path:?} is not a cgroup: name a directory below {root:?}", path = .path.display(), root = .root.display())]
    NotACgroup {
        /// What the user wrote.
        path: PathBuf,
        /// Where v2 is mounted.
        root: PathBuf,
    },
    /// A link, which may lead elsewhere the next moment.
    #[error("{given:?} is a symbolic link: name the cgroup itself, {path:?}", given = .given.display(), path = .path.display())]
    Link {
        /// What the user wrote.
        given: PathBuf,
        /// Where it leads now.
        path: PathBuf,
    },
    /// `..`
    #[error("{path:?} has `..` in it: name the cgroup by the path that leads straight to it", path = .0.display())]
    Upwards(PathBuf),
    /// It was removed.
    #[error("cgroup {path:?} was removed in the meantime", path = .0.display())]
    Removed(PathBuf),
    /// The cgroup namespace hides it.
    #[error("cgroup {path:?} lies outside of this cgroup namespace: run fault with the host's (`docker run --cgroupns=host`)", path = .path.display())]
    OutsideMount {
        /// As `/proc/PID/cgroup` shows it.
        path: PathBuf,
    },
    /// The level of the namespace's root could not be found out.
    #[error("cannot ask the kernel how deep this cgroup namespace lies (bpf: {0})")]
    Level(#[source] io::Error),
    /// A file of ours to read could not be read.
    #[error("cannot read {path:?}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A cgroup could not be made, removed, or given a process.
    #[error("cannot {operation} {path:?}: {source}", path = .path.display())]
    Change {
        /// What was tried: `create`, `remove`, `move processes to` …
        operation: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl CgroupError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NoHierarchy | Self::OutsideMount { .. } | Self::Level(_) => Class::Unsupported,
            Self::Unknown { .. }
            | Self::Legacy { .. }
            | Self::NotACgroup { .. }
            | Self::Link { .. }
            | Self::Upwards(_)
            | Self::Removed(_) => Class::Usage,
            Self::Read { source, .. } | Self::Change { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Class::NotPermitted,
                io::ErrorKind::ReadOnlyFilesystem => Class::Unsupported,
                _ => Class::Other,
            },
        }
    }
}

/// A cgroup v2 directory and what the kernel knows it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory, absolute and without links.
    pub path: PathBuf,
    /// `kernfs_node.id`: what `bpf_get_current_ancestor_cgroup_id` returns.
    pub id: u64,
    /// Depth below the real root of the hierarchy, which is level 0.
    pub level: u32,
}

impl Cgroup {
    /// Finds what `--cgroup` names: a directory of the hierarchy, or a cgroup path as `/proc/PID/cgroup` and
    /// `systemd-cgls` show it, with or without the leading slash (`system.slice/x.service`).
    ///
    /// Neither links nor `..`: whoever may make a link, or asks a service that looks at the beginning of a path, would
    /// choose somebody else than what is read there.
    ///
    /// # Errors
    /// See [`CgroupError`].
    pub fn resolve(given: &Path) -> Result<Self, CgroupError> {
        if given.components().any(|component| component == Component::ParentDir) {
            return Err(CgroupError::Upwards(given.into()));
        }
        let mounts = Mounts::read()?;
        let root = &mounts.best().point;
        let below_root = root.join(given.strip_prefix("/").unwrap_or(given));
        // A relative name is one below the v2 root, wherever the caller's shell happens to be.
        let candidates = [given.is_absolute().then_some(given), Some(&below_root)];
        for named in candidates.into_iter().flatten() {
            let Ok(path) = named.canonicalize() else { continue };
            match Version::of(&path)
                .map_err(|source| CgroupError::Read { path: path.clone(), source: source.into() })?
            {
                // Components: neither a slash at the end nor `./` makes a link.
                Version::Unified if !path.components().eq(named.components()) => {
                    return Err(CgroupError::Link { given: given.into(), path });
                }
                Version::Unified if path.is_dir() => return Self::at(&mounts, path),
                Version::Legacy => return Err(CgroupError::Legacy { path, root: root.clone() }),
                Version::Unified => return Err(CgroupError::NotACgroup { path, root: root.clone() }),
                // `/system.slice` may be meant as a cgroup path although a directory `/system.slice` exists.
                Version::NotACgroup if path != below_root && below_root.exists() => {}
                Version::NotACgroup => return Err(CgroupError::NotACgroup { path, root: root.clone() }),
            }
        }
        Err(CgroupError::Unknown { given: given.into(), tried: below_root })
    }

    /// The v2 cgroup the calling process lives in. When that lies outside of our namespace or mount, its root.
    ///
    /// # Errors
    /// See [`CgroupError`].
    pub fn own() -> Result<Self, CgroupError> {
        let mounts = Mounts::read()?;
        let own = mount::path_of_process("self")?;
        let mount = mounts.best();
        let path = match own.strip_prefix(&mount.root) {
            Ok(below) if !mount::is_above_namespace(&own) => mount.point.join(below),
            _ => mount.point.clone(),
        };
        Self::at(&mounts, path)
    }

    /// The root of what we can see of the hierarchy.
    ///
    /// # Errors
    /// See [`CgroupError`].
    pub fn root() -> Result<Self, CgroupError> {
        let mounts = Mounts::read()?;
        Self::at(&mounts, mounts.best().point.clone())
    }

    /// The cgroup at `path`, a canonical directory below one of `mounts`.
    fn at(mounts: &Mounts, path: PathBuf) -> Result<Self, CgroupError> {
        let mount = mounts.holding(&path).ok_or_else(|| CgroupError::NotACgroup {
            path: path.clone(),
            root: mounts.best().point.clone(),
        })?;
        let below = path.strip_prefix(&mount.point).unwrap_or(Path::new(""));
        let depth = mount::depth(&mount.root) + mount::depth(below);
        let level = level::of_namespace_root()?
            .checked_add_signed(depth)
            .ok_or_else(|| CgroupError::OutsideMount { path: mount.root.clone() })?;
        Ok(Self { id: id_of(&path)?, level, path })
    }

    /// Whether it is still there: a directory of the same path may be a younger one.
    #[must_use]
    pub fn exists(&self) -> bool {
        id_of(&self.path).is_ok_and(|id| id == self.id)
    }

    /// Whether anybody lives in it or below, as the kernel says. The root does not say.
    #[must_use]
    pub fn is_populated(&self) -> bool {
        let events = std::fs::read_to_string(self.path.join("cgroup.events"));
        events.map_or_else(|_| self.exists(), |events| events.lines().any(|line| line == "populated 1"))
    }

    /// Every process in it and below; nobody when it was removed.
    ///
    /// # Errors
    /// As [`processes`].
    pub fn processes(&self) -> Result<BTreeSet<u32>, CgroupError> {
        let found = match processes(&self.path) {
            Err(CgroupError::Read { source, .. }) if members::is_gone(&source) => return Ok(BTreeSet::new()),
            found => found?,
        };
        // Asked afterwards: an id is never given twice, so what was read is this cgroup's if it is still there.
        Ok(if self.exists() { found } else { BTreeSet::new() })
    }

    /// Its parent, unless it is the root of what we can see.
    #[must_use]
    pub fn parent(&self) -> Option<PathBuf> {
        let parent = self.path.parent()?;
        matches!(Version::of(parent), Ok(Version::Unified)).then(|| parent.into())
    }

    /// For the control block.
    #[must_use]
    pub fn target(&self) -> CgroupTarget {
        CgroupTarget { id: self.id, level: self.level, _pad: 0 }
    }
}

/// The directory of the v2 cgroup that `pid` lives in; none when it is gone, or lives outside of what `mounts` show.
#[must_use]
pub fn of_process(mounts: &Mounts, pid: u32) -> Option<PathBuf> {
    let path = mount::path_of_process(&pid.to_string()).ok()?;
    let mount = mounts.best();
    let below = path.strip_prefix(&mount.root).ok().filter(|_| !mount::is_above_namespace(&path))?;
    Some(mount.point.join(below))
}

/// The id of the v2 cgroup that `pid` lives in, as [`of_process`].
#[must_use]
pub fn id_of_process(mounts: &Mounts, pid: u32) -> Option<u64> {
    id_of(&of_process(mounts, pid)?).ok()
}

/// The id the kernel gives a cgroup.
///
/// It is the payload of the directory's file handle, as systemd reads it: exact on every kernel. The inode
/// number is the same only where `ino_t` has 64 bits and only since Linux 5.5 (40430452fd5d); before that, the
/// id carried a generation number in its upper half. statx(2) reports no more than the inode number does.
fn id_of(path: &Path) -> Result<u64, CgroupError> {
    use std::os::unix::fs::MetadataExt;
    let failed = |source| CgroupError::Read { path: path.into(), source };
    match file_handle(path) {
        Ok(id) => Ok(id),
        // Not exportable, e.g. refused by a seccomp filter: the inode number is right on every 64-bit machine
        // this tool supports.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM | libc::ENOSYS)) => {
            path.metadata().map(|metadata| metadata.ino()).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn file_handle(path: &Path) -> io::Result<u64> {
    /// `struct file_handle` with room for the eight bytes of a kernfs handle (`FILEID_KERNFS`).
    #[repr(C)]
    struct KernfsHandle {
        bytes: u32,
        kind: i32,
        id: [u8; 8],
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut handle = KernfsHandle { bytes: 8, kind: 0, id: [0; 8] };
    let mut mount_id = 0;
    // SAFETY: `path` is NUL-terminated, `handle` has the eight bytes it announces, and both outlive the call.
    let done = unsafe {
        libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), (&raw mut handle).cast(), &raw mut mount_id, 0)
    };
    match done {
        0 if handle.bytes == 8 => Ok(u64::from_ne_bytes(handle.id)),
        0 => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        _ => Err(io::Error::last_os_error()),
    }
}
