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
    let (mut send, sink) = pair(lab, way, ["1", "0"], &["--count", &count.to_string()], &[])?;
    let prepared = prepare(&send.pid())?;
    send.release()?;
    let sent: Flooded = send.report()?;
    let sunk: Sunk = sink.report()?;
    ensure!(sent.errors.is_empty(), "sending failed: {sent:?}");
    ensure!(sunk.received == sent.sent && sunk.distinct == sent.sent, "{sent:?}, {sunk:?}");
    Ok((sent.sent as f64 * 1e9 / sent.wall_ns as f64, prepared))
}

/// How far an endless sender is ahead of its receiver: less than what a CPU keeps for later (`net.core.netdev_max_backlog`, 1000).
const WINDOW: &str = "512";
const ACKNOWLEDGE: &str = "256";

/// A sender that does not stop, and a receiver, on the same CPU: what either of them pays for a packet makes both slower. The sender
/// waits for the receiver, so that nothing overflows.
pub(super) fn endless(lab: &NetLab, way: Way) -> anyhow::Result<(Process, Process)> {
    let (mut send, sink) =
        pair(lab, way, ["0", "0"], &["--window", WINDOW], &["--acknowledge", ACKNOWLEDGE])?;
    send.release()?;
    Ok((send, sink))
}

/// A sender and a receiver on these CPUs, with these arguments.
fn pair(
    lab: &NetLab,
    way: Way,
    [sender_on, receiver_on]: [&str; 2],
    sender: &[&str],
    receiver: &[&str],
) -> anyhow::Result<(Process, Process)> {
    let program = victim()?;
    let (mut send, mut sink, to) = match way {
        Way::Out => (lab.in_target("taskset"), lab.in_peer("taskset"), PEER_V4),
        Way::In => (lab.in_peer("taskset"), lab.in_target("taskset"), TARGET_V4),
    };
    let to = format!("{to}:{PORT}");
    sink.args(["-c", receiver_on, &program, "udp-sink", &to]).args(receiver);
    let sink = Process::start_until(&mut sink, "ready")?;
    send.args(["-c", sender_on, &program, "udp-flood", &to, "--wait"]).args(sender);
    Ok((Process::start_until(&mut send, "ready")?, sink))
}
