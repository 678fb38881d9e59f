//! runc and crun by themselves: their state directories. The id is the name, and people choose it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::Deserialize;

use super::{Container, Engine};

/// `ID/state.json`
const RUNC: &str = "/run/runc";
/// `ID/status`
const CRUN: &str = "/run/crun";

/// Of runc's.
#[derive(Deserialize)]
struct RuncState {
    /// Controller → path of the file system; of v2 under the empty name.
    #[serde(default)]
    cgroup_paths: BTreeMap<String, PathBuf>,
}

/// Of crun's.
#[derive(Deserialize)]
struct CrunStatus {
    /// Path of the hierarchy.
    #[serde(rename = "cgroup-path")]
    cgroup_path: Option<PathBuf>,
}

/// Everything that these runtimes have a state of.
pub(super) fn containers() -> Vec<Container> {
    let runc = bundles(RUNC, "state.json").into_iter().map(|(id, text)| (Engine::Runc, id, of_runc(&text)));
    let crun = bundles(CRUN, "status").into_iter().map(|(id, text)| (Engine::Crun, id, of_crun(&text)));
    runc.chain(crun)
        .map(|(engine, id, cgroup)| Container {
            engine,
            id,
            names: Vec::new(),
            // Of the root everybody would be hit.
            cgroup: cgroup.filter(|path| path.components().count() > 1),
        })
        .collect()
}

fn bundles(directory: &str, file: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            Some((entry.file_name().into_string().ok()?, fs::read(entry.path().join(file)).ok()?))
        })
        .collect()
}

fn of_runc(text: &[u8]) -> Option<PathBuf> {
    serde_json::from_slice::<RuncState>(text).ok()?.cgroup_paths.remove("")
}

fn of_crun(text: &[u8]) -> Option<PathBuf> {
    let path = serde_json::from_slice::<CrunStatus>(text).ok()?.cgroup_path?;
    // Older ones write it without the slash in front.
    Some(PathBuf::from("/").join(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn states() {
        // runc 1.1, crun 1.8.
        let text =
            br#"{"id":"web","init_process_pid":7,"cgroup_paths":{"":"/sys/fs/cgroup/web"},"config":{}}"#;
        assert_eq!(of_runc(text).as_deref(), Some(Path::new("/sys/fs/cgroup/web")));
        let text = br#"{"pid":7,"cgroup-path":"web","scope":"","rootfs":"/x","bundle":"/y"}"#;
        assert_eq!(of_crun(text).as_deref(), Some(Path::new("/web")));
        assert_eq!(of_crun(br#"{"pid":7}"#), None);
        assert_eq!(of_runc(b""), None);
    }
}
