//! Podman and CRI-O, from the files of their common store (containers-storage). Podman has no daemon to ask; what it
//! knows of names lies here.

use std::{fs, path::PathBuf};

use serde::Deserialize;

use super::{Container, Engine};

/// Where root's stores are: what stays, and what is gone after the next boot.
const OF_ROOT: [&str; 2] = ["/var/lib/containers/storage", "/run/containers/storage"];
/// Where a user's is, below the home directory.
const OF_USER: &str = ".local/share/containers/storage";
/// Its lists, below `DRIVER-containers`; the second is that of containers run with `--rm`.
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    names: Vec<String>,
}

/// All containers of the stores that can be read.
pub(super) fn containers() -> Vec<Container> {
    let lists = stores().into_iter().flat_map(|store| {
        let drivers = fs::read_dir(store).into_iter().flatten().flatten().map(|entry| entry.path());
        let drivers = drivers.filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-containers"))
        });
        drivers.flat_map(|driver| LISTS.map(|list| driver.join(list)))
    });
    lists.filter_map(|list| fs::read(list).ok()).flat_map(|text| parse(&text)).collect()
}

fn stores() -> Vec<PathBuf> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let homes = users.lines().filter_map(|line| line.split(':').nth(5)).filter(|home| home.len() > 1);
    let of_users = homes.map(|home| PathBuf::from(home).join(OF_USER));
    let mut all: Vec<PathBuf> = OF_ROOT.iter().map(PathBuf::from).chain(of_users).collect();
    all.sort();
    all.dedup();
    all
}

fn parse(text: &[u8]) -> Vec<Container> {
    let stored: Vec<Stored> = serde_json::from_slice(text).unwrap_or_default();
    stored
        .into_iter()
        .map(|one| Container {
            engine: Engine::Podman,
            id: one.id,
            names: one.names.into_iter().filter(|name| !name.contains('/')).collect(),
            cgroup: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list() {
        // containers-storage 1.43.
        let text = br#"[{"id":"beef","names":["web"],"image":"ab","layer":"cd","metadata":"{}","created":"2026-01-01T00:00:00Z","flags":{"MountLabel":""}},{"id":"cafe","image":"","layer":"ef"}]"#;
        let found = parse(text);
        assert_eq!((found[0].id.as_str(), found[0].names.as_slice()), ("beef", &["web".to_owned()][..]));
        assert_eq!((found[1].id.as_str(), found[1].names.len()), ("cafe", 0));
        assert!(parse(b"[{").is_empty());
    }
}
