//! A cgroup that is found again under its name: a unit or a container that was restarted has a new cgroup, whose
//! path may be the old one and whose id never is.

use std::path::PathBuf;

use super::{TargetRequest, cgroup::Cgroup, container};

/// How a thing is found again whose cgroup is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Again {
    /// Its manager puts it where it was.
    Path,
    /// A container of this name or whole id, wherever that is by then.
    Container(String),
}

/// Something with a name, and the cgroup it has now.
#[derive(Clone, Debug)]
pub struct Followed {
    /// What a user named.
    pub request: TargetRequest,
    again: Again,
    /// Where it was last.
    path: PathBuf,
    /// Nothing while it is down.
    cgroup: Option<Cgroup>,
}

impl Followed {
    /// `request`, found to be `cgroup`.
    #[must_use]
    pub fn new(request: TargetRequest, cgroup: Cgroup, again: Again) -> Self {
        Self { request, again, path: cgroup.path.clone(), cgroup: Some(cgroup) }
    }

    /// Its cgroup; nothing while it is down.
    #[must_use]
    pub const fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// Looks where it is now. Whether that is another cgroup than before, or none any more.
    pub(super) fn refresh(&mut self) -> bool {
        if self.cgroup.as_ref().is_some_and(|cgroup| cgroup.exists() && cgroup.is_populated()) {
            return false;
        }
        // Also when nobody lives there yet: a manager makes the cgroup before the first process of it.
        let found = match (Cgroup::resolve(&self.path).ok(), &self.again) {
            (Some(here), _) if here.is_populated() => Some(here),
            (here, Again::Container(name)) => container::find(name).ok().map(|found| found.cgroup).or(here),
            (here, Again::Path) => here,
        };
        let moved = found != self.cgroup;
        if let Some(cgroup) = &found {
            self.path.clone_from(&cgroup.path);
        }
        self.cgroup = found;
        moved
    }
}
