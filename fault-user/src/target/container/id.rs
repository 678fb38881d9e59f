//! Ids of containers, and the cgroups that have them in their names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::target::cgroup::{CgroupError, Mounts, subtree};

/// Digits of an id (the engines make them of 32 random bytes).
const DIGITS: usize = 64;
/// Digits of an id that people look at.
const SHORT: usize = 12;
/// What is in front of the id of the process that watches over a container and is not in it.
const WATCHERS: [&str; 2] = ["libpod-conmon-", "crio-conmon-"];

/// The beginning of an id, as the engines show it. An id given by people may be anything.
pub(super) fn short(id: &str) -> &str {
    if is_id(id) { &id[..SHORT] } else { id }
}

pub(super) fn is_hexadecimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn is_id(text: &str) -> bool {
    text.len() == DIGITS && is_hexadecimal(text)
}

/// The id in the name of a cgroup: `ID`, or `docker-ID.scope` with any word in front.
pub(super) fn of_cgroup(name: &str) -> Option<&str> {
    if is_id(name) {
        return Some(name);
    }
    let inner = name.strip_suffix(".scope")?;
    if WATCHERS.iter().any(|watcher| inner.starts_with(watcher)) {
        return None;
    }
    let (_, id) = inner.rsplit_once('-')?;
    is_id(id).then_some(id)
}

/// The cgroup of every container that runs, by id: the outermost one.
pub(super) fn cgroups() -> Result<BTreeMap<String, PathBuf>, CgroupError> {
    let mut found = BTreeMap::new();
    // Parents come before their children.
    for path in subtree(&Mounts::read()?.best().point)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(id) = of_cgroup(name)
            && !is_inside_another(&path)
        {
            found.entry(id.to_owned()).or_insert(path);
        }
    }
    Ok(found)
}

/// Whether this is a cgroup that a container made itself: an engine in a container.
///
/// Its containers are found under their ids all the same; only the same id twice is the inner one's doing.
fn is_inside_another(path: &Path) -> bool {
    let own = path.file_name().and_then(|name| name.to_str()).and_then(of_cgroup);
    path.parent()
        .into_iter()
        .flat_map(Path::iter)
        .filter_map(|part| part.to_str().and_then(of_cgroup))
        .any(|outer| Some(outer) == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e5d6c7b8a99887766554433221100ffeeddccbbaa99887766554433221100";

    #[test]
    fn ids_in_the_names_of_cgroups() {
        for name in [
            "{}",
            "docker-{}.scope",
            "libpod-{}.scope",
            "cri-containerd-{}.scope",
            "crio-{}.scope",
            "nerdctl-{}.scope",
        ] {
            assert_eq!(of_cgroup(&name.replace("{}", ID)), Some(ID), "{name}");
        }
        for name in ["libpod-conmon-{}.scope", "crio-conmon-{}.scope", "x{}", "docker-{}", "{}0"] {
            assert_eq!(of_cgroup(&name.replace("{}", ID)), None, "{name}");
        }
        assert_eq!(of_cgroup("session-1.scope"), None);
        assert_eq!(short(ID), "3f4e5d6c7b8a");
        assert_eq!(short("web"), "web");
    }
}
