//! The transient cgroup of `fault run`.
//!
//! It is made below the controller's own cgroup, so that limits, accounting and the service manager's idea of who
//! belongs to what stay as they are. The "no internal processes" rule of cgroup v2 does not stand in the way: a
//! cgroup that holds the controller has no controllers enabled for its children, and a child without controllers
//! may hold processes. Where it cannot be made there (a depth or number limit), it is made below the root.
//!
//! For writeback to know whose pages it writes, the cgroup needs the `io` and `memory` controllers
//! ([`Transient::attribute_writeback`]).
//!
//! When COMMAND ends, so does the session, as with `env` or `timeout`. What COMMAND left running in the background
//! moves to the controller's cgroup, where it would have been without `fault`, and the directory is removed.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::fcntl::{Flock, FlockArg};

use super::cgroup::{self, Cgroup, CgroupError};
use crate::session::{
    keeper::{Keeper, KeeperError},
    residue::Leftover,
};

/// The names of our cgroups start with this.
pub const PREFIX: &str = "fault-";
/// Controllers without which a page does not remember whose it is.
const WRITEBACK: [&str; 2] = ["io", "memory"];
/// Names tried before giving up.
const ATTEMPTS: u32 = 16;

/// The transient cgroup could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum TransientError {
    /// About a cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The keeper did not confirm, so nothing was made.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

impl TransientError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> crate::exit::Class {
        match self {
            Self::Cgroup(error) => error.class(),
            Self::Keeper(_) => crate::exit::Class::Other,
        }
    }
}

/// A cgroup that exists as long as this value, or as the controller.
#[derive(Debug)]
pub struct Transient {
    cgroup: Cgroup,
    /// What was announced, oldest first.
    leftovers: Vec<Leftover>,
    keeper: Arc<Keeper>,
    /// Held while the owner lives, whatever PID namespace it lives in: how a sweep tells the living from the dead.
    _lock: Flock<File>,
}

impl Transient {
    /// Makes one.
    ///
    /// # Errors
    /// When the hierarchy is read-only or we may not write to it, or the keeper is gone.
    pub fn create(keeper: &Arc<Keeper>) -> Result<Self, TransientError> {
        let home = Cgroup::own()?;
        match Self::create_below(&home.path, &home.path, keeper) {
            Err(TransientError::Cgroup(CgroupError::Change { source, .. })) if is_limit(&source) => {
                Self::create_below(&Cgroup::root()?.path, &home.path, keeper)
            }
            result => result,
        }
    }

    fn create_below(parent: &Path, home: &Path, keeper: &Arc<Keeper>) -> Result<Self, TransientError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{:08x}{number:02x}", process::id(), salt()));
            let leftover = Leftover::Cgroup { path: path.clone(), home: home.into() };
            keeper.announce(&leftover)?;
            match make(&path) {
                Ok((cgroup, lock)) => {
                    let (keeper, leftovers) = (Arc::clone(keeper), vec![leftover]);
                    return Ok(Self { cgroup, leftovers, keeper, _lock: lock });
                }
                Err(error) => {
                    keeper.withdraw(&leftover)?;
                    // Another's name, or a sweep took the directory before it was locked.
                    let again = matches!(
                        error.kind(),
                        io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound | io::ErrorKind::WouldBlock
                    );
                    if !again || attempt == ATTEMPTS || !parent.exists() {
                        return Err(CgroupError::Change { operation: "create", path, source: error }.into());
                    }
                }
            }
        }
    }

    /// The cgroup, to aim at.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Sees to it that the block I/O that kernel threads do for COMMAND (writeback of its buffered writes) carries this
    /// cgroup, and answers whether it does. Without the `io` and `memory` controllers such I/O belongs to
    /// the nearest ancestor that has them.
    ///
    /// The kernel keeps one owner per inode: a file that another cgroup was the first to dirty stays that cgroup's until
    /// writeback has seen enough foreign pages (`wbc_detach_inode`) or the inode was evicted.
    ///
    /// Only the root of the hierarchy may hand out controllers while it holds processes, so this changes something only
    /// if the cgroup lies directly below it; healing takes it back. On hybrid machines the two controllers
    /// usually belong to v1, and the answer is no.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn attribute_writeback(&mut self) -> Result<bool, TransientError> {
        let Some(parent) = self.cgroup.parent() else { return Ok(false) };
        let enabled = cgroup::controllers(&self.cgroup.path, "cgroup.controllers");
        let available = cgroup::controllers(&parent, "cgroup.controllers");
        if self.cgroup.level != 1 || !WRITEBACK.iter().all(|name| available.contains(*name)) {
            return Ok(WRITEBACK.iter().all(|name| enabled.contains(*name)));
        }
        // What another session enabled must outlive that session if it heals before this one.
        let borrowed = cgroup::needed_by_children(&parent, &self.cgroup.path);
        let names: Vec<String> = WRITEBACK
            .into_iter()
            .filter(|name| borrowed.contains(*name) || !enabled.contains(*name))
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            return Ok(true);
        }
        let leftover = Leftover::Controllers {
            path: parent.clone(),
            child: self.cgroup.path.clone(),
            names: names.clone(),
        };
        self.keeper.announce(&leftover)?;
        self.leftovers.push(leftover);
        Ok(cgroup::mark(&self.cgroup.path, &names).and_then(|()| cgroup::enable(&parent, &names)).is_ok())
    }

    /// Moves what still runs in it to the controller's cgroup and removes the directory. Answers with how many
    /// processes COMMAND left behind.
    ///
    /// # Errors
    /// When the directory cannot be emptied; the keeper tries again after our death.
    pub fn heal(mut self) -> Result<usize, TransientError> {
        self.heal_once()
    }

    fn heal_once(&mut self) -> Result<usize, TransientError> {
        let mut moved = 0;
        for leftover in std::mem::take(&mut self.leftovers).iter().rev() {
            match leftover {
                Leftover::Cgroup { path, home } => moved += cgroup::evacuate(path, home)?,
                Leftover::Controllers { path, child, names } => cgroup::disable(path, child, names)?,
                Leftover::Frozen { .. } | Leftover::Net(_) => {}
            }
            self.keeper.withdraw(leftover)?;
        }
        Ok(moved)
    }
}

impl Drop for Transient {
    fn drop(&mut self) {
        // Nobody is left to tell; the keeper still knows of it.
        _ = self.heal_once();
    }
}

fn make(path: &Path) -> io::Result<(Cgroup, Flock<File>)> {
    fs::create_dir(path)?;
    lock(path).inspect_err(|_| {
        // Whoever got hold of it in between (a sweep) removes it as well.
        _ = fs::remove_dir(path);
    })
}

fn lock(path: &Path) -> io::Result<(Cgroup, Flock<File>)> {
    let lock = Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| io::Error::from(error))?;
    // Still the directory of that name?
    let cgroup = Cgroup::resolve(path).map_err(|error| match error {
        CgroupError::Unknown { .. } => io::ErrorKind::NotFound.into(),
        error => io::Error::other(error),
    })?;
    Ok((cgroup, lock))
}

/// `cgroup.max.depth` or `cgroup.max.descendants` of an ancestor is reached.
fn is_limit(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAGAIN)
}

/// Something that differs between two runs with the same PID.
fn salt() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(process::id()) as u32
}
