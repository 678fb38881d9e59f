//! The memory and the sockets of the machine, as the kernel has them.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::net_lab::{NetLab, in_namespace, sh};

/// How long sockets may take to say goodbye to each other.
const GOODBYE: Duration = Duration::from_secs(60);

/// KiB of everything, at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) slab: f64,
    pub(super) unreclaimable: f64,
    pub(super) per_cpu: f64,
    pub(super) available: f64,
    /// Of this process.
    pub(super) own: f64,
    /// Pages that TCP and UDP hold in buffers.
    pub(super) socket_pages: f64,
    /// Sockets of the namespace this runs in.
    pub(super) sockets: f64,
}

impl Memory {
    /// Now, when what was freed a moment ago is free.
    pub(super) fn settled() -> anyhow::Result<Self> {
        thread::sleep(Duration::from_secs(5));
        let meminfo = numbers("/proc/meminfo")?;
        let of = |map: &BTreeMap<String, f64>, key: &str| {
            map.get(key).copied().with_context(|| format!("{key} of the machine"))
        };
        let stat = fs::read_to_string("/proc/net/sockstat")?;
        let pages = ["TCP:", "UDP:"].iter().map(|kind| after(&stat, kind, "mem")).sum::<f64>();
        Ok(Self {
            slab: of(&meminfo, "Slab")?,
            unreclaimable: of(&meminfo, "SUnreclaim")?,
            per_cpu: of(&meminfo, "Percpu")?,
            available: of(&meminfo, "MemAvailable")?,
            own: own()?,
            socket_pages: pages,
            sockets: after(&stat, "sockets:", "used"),
        })
    }
}

/// KiB of this process.
pub(super) fn own() -> anyhow::Result<f64> {
    numbers("/proc/self/status")?.get("VmRSS").copied().context("VmRSS of this process")
}

/// `Key: NUMBER …`.
fn numbers(path: &str) -> anyhow::Result<BTreeMap<String, f64>> {
    let text = fs::read_to_string(path).context(path.to_owned())?;
    let line = |line: &str| {
        let (key, rest) = line.split_once(':')?;
        Some((key.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// The number behind `word` in the line that begins with `kind`.
fn after(text: &str, kind: &str, word: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(kind)).unwrap_or_default();
    let number = line.split_whitespace().skip_while(|found| *found != word).nth(1);
    number.and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// TCP and UDP sockets in both namespaces, orphans included and those in TIME-WAIT not, when no more of them go.
pub(super) fn sockets_left(lab: &NetLab) -> anyhow::Result<f64> {
    let deadline = Instant::now() + GOODBYE;
    loop {
        let mut left = 0.0;
        for namespace in [&lab.target, &lab.peer] {
            let text = sh(&format!("nsenter --net=/run/netns/{namespace} cat /proc/net/sockstat"))?;
            left += after(&text, "TCP:", "inuse") + after(&text, "UDP:", "inuse");
        }
        if left == 0.0 || Instant::now() > deadline {
            return Ok(left);
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Packets the kernel dropped because the backlog of a CPU was full, since boot: nothing of the tool's.
pub(super) fn backlog_drops() -> anyhow::Result<u64> {
    let path = "/proc/net/softnet_stat";
    let text = fs::read_to_string(path).context(path)?;
    let second = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    Ok(text.lines().filter_map(second).sum())
}

/// What the network stack of the lab's namespaces says it threw away for lack of room.
pub(super) fn overflows(lab: &NetLab) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for namespace in [&lab.target, &lab.peer] {
        let mut command = in_namespace(namespace, "nstat");
        command.args(["-a", "-s", "-z", "UdpRcvbufErrors"]);
        let text = crate::process::Process::start(&mut command)?.text()?;
        let number = text.split_whitespace().skip_while(|word| *word != "UdpRcvbufErrors").nth(1);
        sum += number.and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(sum)
}
