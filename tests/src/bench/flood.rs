//! Datagrams as fast as one sender can, counted at the far end.

use anyhow::ensure;

use crate::{
    driver::victim,
    net_lab::{NetLab, PEER_V4, TARGET_V4},
    process::Process,
    victim::report::{Flooded, Sunk},
};

const PORT: u16 = 9300;

/// Which way they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the target's namespace to its peer's.
    Out,
    /// To the target's namespace.
    In,
}

/// `count` datagrams, every one of which must arrive, once; how many a second, by the sender's clock. `prepare` gets the sender's PID before it sends; what it
/// returns lives until all have arrived.
///
/// Each on a CPU of its own: the receiver on the first, which also delivers (see the lab), the sender on the second.
pub(super) fn flood<T>(
    lab: &NetLab,
    way: Way,
    count: u64,
    prepare: impl FnOnce(&str) -> anyhow::Result<T>,
) -> anyhow::Result<(f64, T)> {
    let (mut send, sink) = pair(lab, way, count)?;
    let prepared = prepare(&send.pid())?;
    send.release()?;
    let sent: Flooded = send.report()?;
    let sunk: Sunk = sink.report()?;
    ensure!(sent.errors.is_empty(), "sending failed: {sent:?}");
    ensure!(sunk.received == sent.sent && sunk.distinct == sent.sent, "{sent:?}, {sunk:?}");
    Ok((sent.sent as f64 * 1e9 / sent.wall_ns as f64, prepared))
}

/// A sender that does not stop, and a receiver, as in [`flood`].
pub(super) fn endless(lab: &NetLab, way: Way) -> anyhow::Result<(Process, Process)> {
    let (mut send, sink) = pair(lab, way, u64::MAX)?;
    send.release()?;
    Ok((send, sink))
}

fn pair(lab: &NetLab, way: Way, count: u64) -> anyhow::Result<(Process, Process)> {
    let (program, count) = (victim()?, count.to_string());
    let (mut send, mut sink, to) = match way {
        Way::Out => (lab.in_target("taskset"), lab.in_peer("taskset"), PEER_V4),
        Way::In => (lab.in_peer("taskset"), lab.in_target("taskset"), TARGET_V4),
    };
    let to = format!("{to}:{PORT}");
    let sink = Process::start_until(sink.args(["-c", "0", &program, "udp-sink", &to]), "ready")?;
    send.args(["-c", "1", &program, "udp-flood", &to, "--wait", "--count", &count]);
    Ok((Process::start_until(&mut send, "ready")?, sink))
}
