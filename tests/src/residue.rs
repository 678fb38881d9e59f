//! What a session could leave behind, looked for without asking the tool: a picture of the machine before and
//! after must be the same.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::net_lab::sh;

/// How long the kernel may take to free what lost its last owner.
const PATIENCE: Duration = Duration::from_secs(1);

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
        for (kind, command) in [("program", 11), ("map", 12), ("link", 31)] {
            things.extend(bpf_ids(command)?.into_iter().map(|id| format!("BPF {kind} {id}")));
        }
        things.extend(lines("mount", &fs::read_to_string("/proc/self/mountinfo")?));
        for namespace in network_namespaces()? {
            let enter = format!("nsenter --net=/proc/{}/ns/net", namespace.1);
            let name = format!("netns {}", namespace.0);
            things.insert(name.clone());
            for line in sh(&format!("{enter} ip -o link"))?.lines() {
                // Counters, state and flags change by themselves.
                let device = line.split_whitespace().nth(1).unwrap_or_default();
                things.insert(format!("{name} device {device}"));
            }
            for line in sh(&format!("{enter} tc qdisc show"))?.lines() {
                let words: Vec<_> = line.split_whitespace().collect();
                let device = words.iter().position(|word| *word == "dev").and_then(|at| words.get(at + 1));
                things.insert(format!("{name} qdisc {:?} on {device:?}", words.get(1)));
            }
        }
        for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
            if Path::new(root).join("cgroup.procs").exists() {
                cgroups(Path::new(root), &mut things)?;
                break;
            }
        }
        things.extend(fuse_connections());
        for list in ["kprobe_events", "uprobe_events"] {
            if let Ok(text) = fs::read_to_string(format!("/sys/kernel/tracing/{list}")) {
                things.extend(lines(list, &text));
            }
        }
        if let Ok(text) = fs::read_to_string("/sys/kernel/debug/kprobes/list") {
            things.extend(lines("kprobe", &text));
        }
        for (pid, name) in processes()? {
            if name.starts_with("fault") && pid != std::process::id() && !name.starts_with("fault-e2e") {
                things.insert(format!("process {pid} {name}"));
            }
        }
        for name in [
            "net.core.netdev_max_backlog",
            "net.core.rmem_max",
            "net.ipv4.ip_forward",
            "kernel.kptr_restrict",
        ] {
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
    /// Names what was added or lost, when it still does not after a second.
    pub fn must_return(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::take()?;
            let added: Vec<_> = now.things.difference(&self.things).cloned().collect();
            let lost: Vec<_> = self.things.difference(&now.things).cloned().collect();
            if added.is_empty() && lost.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("residue: left behind {added:#?}; lost {lost:#?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Names of the FUSE connections: one of a mount that is attached nowhere is seen only here.
fn fuse_connections() -> Vec<String> {
    let directory = "/sys/fs/fuse/connections";
    if !Path::new(directory).is_dir() {
        return Vec::new();
    }
    // In a mount namespace of its own: the machine need not have fusectl mounted, and shall not.
    let look = format!("mount -t fusectl none {directory} 2>/dev/null; ls {directory}");
    let output = std::process::Command::new("unshare").args(["--mount", "sh", "-c", &look]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    lines("FUSE connection", &text).collect()
}

fn lines<'a>(kind: &'a str, text: &'a str) -> impl Iterator<Item = String> + 'a {
    text.lines().map(move |line| format!("{kind} {line}"))
}

/// All ids the kernel has for one kind of BPF object; `command` is `BPF_*_GET_NEXT_ID` of linux/bpf.h.
fn bpf_ids(command: libc::c_int) -> anyhow::Result<Vec<u32>> {
    let mut ids = Vec::new();
    // union bpf_attr: start_id, next_id, open_flags.
    let mut attribute = [0u32; 32];
    loop {
        // SAFETY: the kernel reads and writes the first twelve bytes of the attribute.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(&attribute)) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENOENT) {
                return Ok(ids);
            }
            bail!("listing BPF objects (bpf command {command}): {error}");
        }
        ids.push(attribute[1]);
        attribute[0] = attribute[1];
    }
}

/// Inode and one process of each network namespace that has a process.
fn network_namespaces() -> anyhow::Result<Vec<(String, u32)>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (pid, _) in processes()? {
        let Ok(name) = fs::read_link(format!("/proc/{pid}/ns/net")) else { continue };
        let name = name.to_string_lossy().into_owned();
        if seen.insert(name.clone()) {
            found.push((name, pid));
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
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            things.insert(format!("cgroup {}", path.display()));
            cgroups(&path, things)?;
        }
    }
    Ok(())
}
