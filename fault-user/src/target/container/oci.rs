//! containerd (with nerdctl, Docker or Kubernetes above it) and CRI-O, from the OCI bundles of what runs: `config.json`, whose
//! annotations have the names.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Container, Engine};

/// containerd keeps `NAMESPACE/ID/config.json` here for everything that runs; the second is that of a Docker that started
/// its own.
const CONTAINERD: [&str; 2] = [
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/docker/containerd/daemon/io.containerd.runtime.v2.task",
];
/// CRI-O and Podman keep `ID/userdata/config.json` in directories like this one: `DRIVER-containers`.
const STORAGE: &str = "/run/containers/storage";

/// Pod, namespace, container: as containerd's CRI plugin, and as CRI-O and the kubelet say it.
const KUBERNETES: [[&str; 3]; 2] = [
    [
        "io.kubernetes.cri.sandbox-name",
        "io.kubernetes.cri.sandbox-namespace",
        "io.kubernetes.cri.container-name",
    ],
    ["io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.container.name"],
];
/// What nerdctl calls it.
const NERDCTL: &str = "nerdctl/name";
/// What CRI-O calls the container that holds a pod's namespaces.
const SANDBOX: &str = "POD";

/// As much of an OCI runtime specification as is needed.
#[derive(Default, Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Everything that has a bundle.
pub(super) fn containers() -> Vec<Container> {
    let namespaces = CONTAINERD.iter().flat_map(|state| directories(Path::new(state)));
    let tasks = namespaces.flat_map(|namespace| directories(&namespace));
    let stored = directories(Path::new(STORAGE)).into_iter().flat_map(|driver| directories(&driver));
    let tasks = tasks.filter_map(|bundle| read(Engine::Containerd, &bundle, &bundle.join("config.json")));
    let stored =
        stored.filter_map(|bundle| read(Engine::Crio, &bundle, &bundle.join("userdata/config.json")));
    tasks.chain(stored).collect()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn read(engine: Engine, bundle: &Path, config: &Path) -> Option<Container> {
    let config = fs::read(config).ok()?;
    let id = bundle.file_name()?.to_str()?.to_owned();
    let bundle: Bundle = serde_json::from_slice(&config).unwrap_or_default();
    Some(Container { engine, id, names: names(&bundle.annotations), cgroup: None })
}

fn names(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let get = |key: &str| annotations.get(key).map(String::as_str);
    let pods = KUBERNETES.iter().filter_map(|[pod, namespace, container]| {
        let (pod, namespace, container) = (get(pod)?, get(namespace)?, get(container)?);
        (container != SANDBOX).then(|| format!("{pod}/{namespace}/{container}"))
    });
    get(NERDCTL).map(str::to_owned).into_iter().chain(pods).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        names(&serde_json::from_str::<Bundle>(text).unwrap().annotations)
    }

    #[test]
    fn names_of_pods() {
        // containerd 1.6 for a kubelet.
        let text = r#"{"ociVersion":"1.0.2","annotations":{"io.kubernetes.cri.container-name":"app",
            "io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"ab",
            "io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"prod"}}"#;
        assert_eq!(of(text), ["web-0/prod/app"]);
        // Its sandbox.
        let text = r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox",
            "io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"prod"}}"#;
        assert_eq!(of(text), [""; 0]);
        // CRI-O, container and sandbox.
        let text = r#"{"annotations":{"io.kubernetes.container.name":"app","io.kubernetes.pod.name":"web-0",
            "io.kubernetes.pod.namespace":"prod"}}"#;
        assert_eq!(of(text), ["web-0/prod/app"]);
        assert_eq!(of(&text.replace("app", "POD")), [""; 0]);
    }

    #[test]
    fn names_of_nerdctl() {
        assert_eq!(of(r#"{"annotations":{"nerdctl/name":"web","nerdctl/namespace":"default"}}"#), ["web"]);
        assert_eq!(of("{}"), [""; 0]);
    }
}
