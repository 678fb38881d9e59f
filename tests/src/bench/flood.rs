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

/// Packets a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// By the sender's clock.
    pub(super) sent: f64,
    /// By the receiver's.
    pub(super) arrived: f64,
}

/// `count` datagrams, every one of which must arrive, once. `prepare` gets the sender's PID before it sends; what it
/// returns lives until all have arrived.
///
/// Each on a CPU of its own: the receiver on the first, which also delivers (see the lab), the sender on the second.
pub(super) fn flood<T>(
    lab: &NetLab,
    way: Way,
    count: u64,
    prepare: impl FnOnce(&str) -> anyhow::Result<T>,
) -> anyhow::Result<(Rate, T)> {
    let (program, count) = (victim()?, count.to_string());
    let (mut send, mut sink, to) = match way {
        Way::Out => (lab.in_target("taskset"), lab.in_peer("taskset"), PEER_V4),
        Way::In => (lab.in_peer("taskset"), lab.in_target("taskset"), TARGET_V4),
    };
    let to = format!("{to}:{PORT}");
    let sink = Process::start_until(sink.args(["-c", "0", &program, "udp-sink", &to]), "ready")?;
    send.args(["-c", "1", &program, "udp-flood", &to, "--wait", "--count", &count]);
    let mut send = Process::start_until(&mut send, "ready")?;
    let prepared = prepare(&send.pid())?;
    send.release()?;
    let sent: Flooded = send.report()?;
    let sunk: Sunk = sink.report()?;
    ensure!(sent.errors.is_empty(), "sending failed: {sent:?}");
    ensure!(sunk.received == sent.sent && sunk.distinct == sent.sent, "{sent:?}, {sunk:?}");
    let a_second = |count: u64, ns: u64| count as f64 * 1e9 / ns as f64;
    Ok((
        Rate { sent: a_second(sent.sent, sent.wall_ns), arrived: a_second(sunk.received, sunk.span_ns) },
        prepared,
    ))
}
