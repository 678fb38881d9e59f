//! Watching who can still send, for targets that are found again and again: echo requests, counted where they arrive.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::net_lab::{NetLab, Tap};

/// How long a target may take to be found again on an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The echo requests that arrive at `to`, at the peer, within a second.
pub fn arrivals(lab: &NetLab, to: &str) -> anyhow::Result<usize> {
    arrivals_at(&lab.peer, "vp0", to)
}

/// The same on any interface.
pub fn arrivals_at(namespace: &str, iface: &str, to: &str) -> anyhow::Result<usize> {
    let tap = Tap::new(namespace, iface, &format!("icmp[icmptype] == icmp-echo and dst {to}"))?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(tap.stop()?.len())
}

/// Waits until nothing arrives at `to` any more for a second.
pub fn until_none_arrive(lab: &NetLab, to: &str) -> anyhow::Result<()> {
    until(|| Ok(arrivals(lab, to)? == 0), || format!("echo requests still arrive at {to}"))
}

/// Waits until something arrives at `to`.
pub fn until_some_arrive(lab: &NetLab, to: &str) -> anyhow::Result<()> {
    until(|| Ok(arrivals(lab, to)? > 0), || format!("no echo request arrives at {to}"))
}

/// Waits until `so`.
pub fn until(so: impl Fn() -> anyhow::Result<bool>, otherwise: impl Fn() -> String) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !so()? {
        ensure!(Instant::now() < deadline, "{}", otherwise());
    }
    Ok(())
}
