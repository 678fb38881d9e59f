//! A cgroup that is found again under its name: a unit or a container that was restarted has a new cgroup, whose
//! path may be the old one and whose id never is.

use std::path::PathBuf;

use super::{TargetRequest, cgroup::Cgroup, container};

/// Something with a name, and the cgroup it has now.
#[derive(Clone, Debug)]
pub struct Followed {
    /// What a user named.
    pub request: TargetRequest,
    /// Where it was last.
    path: PathBuf,
    /// Nothing while it is down.
    cgroup: Option<Cgroup>,
}

impl Followed {
    /// `request`, found to be `cgroup`.
    #[must_use]
    pub fn new(request: TargetRequest, cgroup: Cgroup) -> Self {
        Self { request, path: cgroup.path.clone(), cgroup: Some(cgroup) }
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
        // Its manager puts it where it was, before the first process; one that was made anew is somewhere else.
        let found = match (Cgroup::resolve(&self.path).ok(), &self.request) {
            (Some(here), _) if here.is_populated() => Some(here),
            (here, TargetRequest::Container(name)) => container::find(name).ok().or(here),
            (
                here,
                TargetRequest::Pid(_)
                | TargetRequest::Cgroup(_)
                | TargetRequest::Unit(_)
                | TargetRequest::Comm(_)
                | TargetRequest::Host,
            ) => here,
        };
        let moved = found != self.cgroup;
        if let Some(cgroup) = &found {
            self.path.clone_from(&cgroup.path);
        }
        self.cgroup = found;
        moved
    }
}
