//! What a session could leave behind, looked for without asking the tool: a picture of the machine before and
//! after must be the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{cgroup_lab, net_lab, offspring};

mod bpf;
mod net;

/// How long the kernel may take to be rid of what acts or is visible: links, devices, qdiscs, mounts, processes. Under a second;
/// three on a machine whose processors are kept busy by lanes.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take to free the memory of programs and maps that nobody can reach any more: after grace periods
/// of RCU and of its variant for sleepable programs, by a work queue, on a machine that is emulated.
const FREEING: Duration = Duration::from_secs(10);

/// Settings a careless session might change.
const SYSCTLS: [&str; 4] =
    ["net.core.netdev_max_backlog", "net.core.rmem_max", "net.ipv4.ip_forward", "kernel.kptr_restrict"];

/// Everything of the machine that a session touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    things: BTreeSet<String>,
}

impl Picture {
    /// The machine now.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn take() -> anyhow::Result<Self> {
        let mut things = BTreeSet::new();
        for kind in bpf::KINDS {
            things.extend(bpf::ids(kind)?.into_iter().map(|id| kind.thing(id)));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        // Named network namespaces are made by people and tests, never by the tool.
        things.extend(lines("mount", &mounts).filter(|line| !line.contains("/netns")));
        for (name, path) in network_namespaces()? {
            // Its last process may end between two lines.
            if let Some(found) = net::devices_and_qdiscs(&name, &path)? {
                things.extend(found);
            }
        }
        cgroups(cgroup_lab::root()?, &mut things)?;
        things.extend(fuse_connections()?);
        for list in ["kprobe_events", "uprobe_events"] {
            if let Ok(text) = fs::read_to_string(format!("/sys/kernel/tracing/{list}")) {
                things.extend(lines(list, &text));
            }
        }
        if let Ok(text) = fs::read_to_string("/sys/kernel/debug/kprobes/list") {
            things.extend(lines("kprobe", &text));
        }
        for (pid, name) in processes()? {
            if name.starts_with("fault") && !name.starts_with("fault-e2e") && offspring::is(pid) {
                things.insert(format!("process {pid} {name}"));
            }
        }
        for name in SYSCTLS {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            if let Ok(value) = fs::read_to_string(path) {
                things.insert(format!("sysctl {name} = {}", value.trim()));
            }
        }
        Ok(Self { things })
    }

    /// Waits until the machine looks like this picture again.
    ///
    /// # Errors
    /// Names what was added or lost, when it still does not after three seconds (programs and maps without a holder:
    /// after ten).
    pub fn must_return(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let now = Self::take()?;
            let mut added: Vec<_> = now.things.difference(&self.things).cloned().collect();
            let mut lost: Vec<_> = self.things.difference(&now.things).cloned().collect();
            // Other people use this machine, too. What they brought is held by their processes; what they took away
            // was theirs.
            lost.retain(|thing| !bpf::is_one(thing) && !thing.starts_with("process "));
            if !added.is_empty() {
                let foreign = bpf::held_by_others()?;
                added.retain(|thing| !foreign.contains(thing));
            }
            if added.is_empty() && lost.is_empty() {
                return Ok(());
            }
            let patience = if lost.is_empty() && added.iter().all(|thing| bpf::is_memory(thing)) {
                FREEING
            } else {
                PATIENCE
            };
            if start.elapsed() > patience {
                bail!("residue: left behind {added:#?}; lost {lost:#?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Names of the FUSE connections: one of a mount that is attached nowhere is seen only here.
fn fuse_connections() -> anyhow::Result<Vec<String>> {
    let directory = "/sys/fs/fuse/connections";
    if !Path::new(directory).is_dir() {
        return Ok(Vec::new());
    }
    // In a mount namespace of a thread's own: the machine need not have fusectl mounted, and shall not.
    let look = || -> anyhow::Result<Vec<String>> {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(none, directory, Some("fusectl"), MsFlags::empty(), none)?;
        let entries = fs::read_dir(directory)?;
        Ok(entries
            .flatten()
            .map(|entry| format!("FUSE connection {}", entry.file_name().display()))
            .collect())
    };
    thread::scope(|scope| scope.spawn(look).join())
        .map_err(|_| anyhow::anyhow!("looking for FUSE connections"))?
        .context("looking for FUSE connections")
}

fn lines<'a>(kind: &'a str, text: &'a str) -> impl Iterator<Item = String> + 'a {
    text.lines().map(move |line| format!("{kind} {line}"))
}

/// Name and path of each network namespace that this program, one of its offspring, or nobody in a lab of ours lives
/// in.
fn network_namespaces() -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    // A lab keeps its namespaces whoever lives there at the moment.
    for path in net_lab::namespaces() {
        if let Ok(about) = fs::metadata(&path) {
            found.insert(format!("net:[{}]", about.ino()), path);
        }
    }
    for (pid, _) in processes()? {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let Ok(name) = fs::read_link(&path) else { continue };
        if pid == std::process::id() || offspring::is(pid) {
            found.entry(name.to_string_lossy().into_owned()).or_insert(path);
        }
    }
    Ok(found)
}

fn processes() -> anyhow::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the two lines; a zombie has no name worth keeping.
        if let Ok(name) = fs::read_to_string(format!("/proc/{pid}/comm")) {
            found.push((pid, name.trim().to_owned()));
        }
    }
    Ok(found)
}

fn cgroups(directory: &Path, things: &mut BTreeSet<String>) -> anyhow::Result<()> {
    // It may be removed between two lines.
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // The tool's, unless the controller it is named after is somebody else's and alive.
            let controller =
                name.strip_prefix("fault-").and_then(|rest| rest.split('-').next()?.parse().ok());
            let foreign = controller
                .is_some_and(|pid: u32| Path::new(&format!("/proc/{pid}")).exists() && !offspring::is(pid));
            if name.starts_with("fault") && !foreign {
                things.insert(format!("cgroup {}", path.display()));
            }
            cgroups(&path, things)?;
        }
    }
    Ok(())
}
