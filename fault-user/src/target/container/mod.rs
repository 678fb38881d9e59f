//! `--container NAME|ID`: containers of Docker, Podman, containerd, CRI-O, runc, crun and systemd-nspawn, and those of
//! Kubernetes pods.
//!
//! Engines know names, the cgroup tree knows who runs. So the engines are asked for ids and names (the API socket where
//! there is one that is always answered, the state directories elsewhere), and the cgroup is the directory that has the
//! id in its name, wherever driver and parent have put it: `docker-ID.scope`, `libpod-ID.scope`,
//! `cri-containerd-ID.scope`, `crio-ID.scope`, `/docker/ID`, `kubepods/…/ID`. An id is found without any engine.

mod docker;
mod id;
mod machine;
mod oci;
mod podman;
mod source;
mod state;

use std::path::PathBuf;

use super::cgroup::{Cgroup, CgroupError};
use crate::exit::Class;
use id::{is_hexadecimal, short};

/// Containers that an error names at most.
const LISTED: usize = 8;

/// A container cannot be a target.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Nothing.
    #[error("--container wants a name, an id, or `pod/namespace/container`, and got none")]
    Empty,
    /// Slashes, and not two of them.
    #[error("{0:?} is no name of a container: one of Kubernetes is `pod/namespace/container`")]
    Name(String),
    /// No such container.
    #[error("no container {given:?}{}", known(.there, .nearest.as_deref()))]
    Unknown {
        /// What the user wrote.
        given: String,
        /// Those there are.
        there: Vec<String>,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// More than one.
    #[error("{given:?} may be any of {} containers: {}", .found.len(), listed(.found))]
    Ambiguous {
        /// What the user wrote.
        given: String,
        /// Which.
        found: Vec<String>,
    },
    /// It is there, and nothing of it runs.
    #[error("container {0} does not run, so it has no processes: start it first")]
    NotRunning(String),
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

fn listed(found: &[String]) -> String {
    let mut text = found[..found.len().min(LISTED)].join(", ");
    if found.len() > LISTED {
        text += &format!(" and {} more", found.len() - LISTED);
    }
    text
}

fn known(there: &[String], nearest: Option<&str>) -> String {
    match (nearest, there) {
        (Some(nearest), _) => format!(": did you mean {nearest:?}?"),
        (None, []) => {
            ": neither Docker, Podman, containerd, CRI-O, runc, crun nor systemd-nspawn has any, and no cgroup looks \
             like one"
                .to_owned()
        }
        (None, there) => format!(": there are {}", listed(there)),
    }
}

impl ContainerError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Empty
            | Self::Name(_)
            | Self::Unknown { .. }
            | Self::Ambiguous { .. }
            | Self::NotRunning(_) => Class::Usage,
            Self::Cgroup(error) => error.class(),
        }
    }
}

/// Who knows of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Engine {
    Docker,
    Podman,
    Containerd,
    Crio,
    Runc,
    Crun,
    Nspawn,
    /// Only a cgroup says so.
    Nobody,
}

impl Engine {
    const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Nspawn => "systemd-nspawn",
            Self::Nobody => "cgroup",
        }
    }
}

/// A container, running or not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    engine: Engine,
    id: String,
    /// What people call it; `pod/namespace/container` is one of them.
    names: Vec<String>,
    /// Its cgroup, where it is known by other means than its id: a path of the hierarchy.
    cgroup: Option<PathBuf>,
    /// The user whose word this is; of root's engines none.
    user: Option<u32>,
}

impl Container {
    /// Whether who says this can know: a user names what that user runs, and nobody else's containers.
    fn is_credible(&self) -> bool {
        let Some(user) = self.user else { return true };
        let manager = format!("user@{user}.service");
        self.cgroup.as_ref().is_some_and(|path| path.iter().any(|part| part == manager.as_str()))
    }

    fn words(&self) -> String {
        match self.names.first() {
            Some(name) => format!("{name} ({} {})", self.engine.name(), short(&self.id)),
            None => format!("{} {}", self.engine.name(), short(&self.id)),
        }
    }
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where its processes live.
    pub cgroup: Cgroup,
    /// What to look for when it is gone: its name if that was given, else its whole id. (The beginning of an id may be that
    /// of another container by then.)
    pub lasting: String,
}

/// Finds the container `given`.
///
/// # Errors
/// When there is none, it does not run, or it may be more than one.
pub fn find(given: &str) -> Result<Found, ContainerError> {
    if given.is_empty() {
        return Err(ContainerError::Empty);
    }
    let parts: Vec<&str> = given.split('/').collect();
    if !matches!(parts.len(), 1 | 3) || parts.iter().any(|part| part.is_empty()) {
        return Err(ContainerError::Name(given.to_owned()));
    }
    let cgroups = id::cgroups()?;
    let mut told: Vec<Container> = docker::containers()
        .into_iter()
        .chain(podman::containers())
        .chain(oci::containers())
        .chain(state::containers())
        .chain(machine::containers()?)
        .chain(cgroups.keys().map(|id| Container {
            engine: Engine::Nobody,
            id: id.clone(),
            names: Vec::new(),
            cgroup: None,
            user: None,
        }))
        .collect();
    for container in &mut told {
        if let Some(path) = cgroups.get(&container.id) {
            container.cgroup = Some(path.clone());
        }
    }
    told.retain(Container::is_credible);
    let all = merge(told);
    let found = choose(given, &all)?;
    let stopped = || ContainerError::NotRunning(found.words());
    let path = found.cgroup.as_ref().ok_or_else(stopped)?;
    let cgroup = Cgroup::resolve(path).map_err(|error| match error {
        CgroupError::Unknown { .. } => stopped(),
        error => error.into(),
    })?;
    if !cgroup.is_populated() {
        return Err(stopped());
    }
    let lasting = if found.names.iter().any(|name| name == given) { given } else { &found.id };
    Ok(Found { cgroup, lasting: lasting.to_owned() })
}

/// Each once: an engine and the runtime below it know the same ids.
fn merge(found: impl IntoIterator<Item = Container>) -> Vec<Container> {
    let mut all: Vec<Container> = Vec::new();
    for container in found {
        match all.iter_mut().find(|known| known.id == container.id) {
            Some(known) => {
                for name in container.names {
                    if !known.names.contains(&name) {
                        known.names.push(name);
                    }
                }
                known.engine = known.engine.min(container.engine);
                known.cgroup = known.cgroup.take().or(container.cgroup);
            }
            None => all.push(container),
        }
    }
    all
}

/// The one that `given` means: by its name or whole id, else by the beginning of its id.
fn choose<'a>(given: &str, all: &'a [Container]) -> Result<&'a Container, ContainerError> {
    let exact: Vec<&Container> = all
        .iter()
        .filter(|container| container.id == given || container.names.iter().any(|name| name == given))
        .collect();
    let found = if exact.is_empty() && is_hexadecimal(given) {
        all.iter().filter(|container| container.id.starts_with(given)).collect()
    } else {
        exact
    };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(unknown(given, all)),
        _ => Err(ContainerError::Ambiguous {
            given: given.to_owned(),
            found: found.iter().map(|container| container.words()).collect(),
        }),
    }
}

fn unknown(given: &str, all: &[Container]) -> ContainerError {
    let names = all.iter().flat_map(|container| &container.names);
    let nearest = names
        .map(|name| (strsim::damerau_levenshtein(name, given), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name.clone());
    let there = all.iter().map(Container::words).collect();
    ContainerError::Unknown { given: given.to_owned(), there, nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(engine: Engine, id: &str, names: &[&str]) -> Container {
        Container {
            engine,
            id: id.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            cgroup: None,
            user: None,
        }
    }

    #[test]
    fn users_name_what_they_run() {
        let of = |path: &str| Container {
            cgroup: Some(path.into()),
            user: Some(1000),
            ..container(Engine::Podman, "beef01", &["web"])
        };
        let own = "/c/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-beef01.scope";
        assert!(of(own).is_credible());
        assert!(!of("/c/docker/beef01").is_credible());
        assert!(!of("/c/user.slice/user-1001.slice/user@1001.service/libpod-beef01.scope").is_credible());
        assert!(!Container { cgroup: None, ..of(own) }.is_credible());
        assert!(Container { user: None, ..of("/c/docker/beef01") }.is_credible());
    }

    #[test]
    fn names_before_beginnings_of_ids() {
        let all = [
            container(Engine::Docker, "beef01", &["web"]),
            container(Engine::Docker, "beef02", &["db"]),
            container(Engine::Podman, "cafe03", &["beef"]),
        ];
        assert_eq!(choose("web", &all).unwrap().id, "beef01");
        assert_eq!(choose("beef02", &all).unwrap().id, "beef02");
        assert_eq!(choose("ca", &all).unwrap().id, "cafe03");
        assert_eq!(choose("beef", &all).unwrap().id, "cafe03");
        let error = choose("bee", &all).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#""bee" may be any of 2 containers: web (docker beef01), db (docker beef02)"#
        );
        assert_eq!(error.class().status(), 2);
    }

    #[test]
    fn the_same_name_in_two_engines_is_ambiguous() {
        let all = [container(Engine::Docker, "aa", &["web"]), container(Engine::Podman, "bb", &["web"])];
        assert!(
            matches!(choose("web", &all), Err(ContainerError::Ambiguous { found, .. }) if found.len() == 2)
        );
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let all = [container(Engine::Docker, "beef01", &["frontend"])];
        assert!(choose("frontent", &all).unwrap_err().to_string().ends_with(r#"did you mean "frontend"?"#));
        assert!(choose("db", &all).unwrap_err().to_string().ends_with("there are frontend (docker beef01)"));
        assert!(choose("db", &[]).unwrap_err().to_string().contains("no cgroup looks like one"));
    }

    #[test]
    fn engine_and_runtime_are_one() {
        let all = merge([
            container(Engine::Crun, "beef01", &[]),
            container(Engine::Podman, "beef01", &["web"]),
            container(Engine::Nobody, "beef01", &[]),
        ]);
        assert_eq!(all, [container(Engine::Podman, "beef01", &["web"])]);
    }

    #[test]
    fn what_no_container_is_called() {
        for given in ["", "a/b", "/a/b", "a//b", "a/b/c/d", "../../../etc"] {
            let error = find(given).unwrap_err();
            assert!(matches!(error, ContainerError::Empty | ContainerError::Name(_)), "{given}: {error}");
        }
    }
}
