//! What the programs print.

use std::{collections::BTreeMap, io::Write};

use serde::{Deserialize, Serialize};

/// Of `udp-send`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    /// Calls of send(2) that returned success.
    pub sent: u64,
    /// errno name → calls.
    pub errors: BTreeMap<String, u64>,
    /// When each was sent, `CLOCK_MONOTONIC` nanoseconds, if asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stamps_ns: Vec<u64>,
}

/// One request, as whoever made it felt it. Of `ask` a list of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Who asked, or for which kind of thing.
    pub who: String,
    /// What was asked for.
    pub what: String,
    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
    /// How long it took.
    pub took_ns: u64,
    /// How it ended, in a word or two.
    pub outcome: String,
    /// Whether that is what was wanted.
    pub good: bool,
}

impl Sample {
    /// Times what `request` does; it says how it ended, and whether that is good.
    pub fn timed(who: &str, what: &str, request: impl FnOnce() -> (String, bool)) -> Self {
        let at_ns = now_ns();
        let (outcome, good) = request();
        let took_ns = now_ns() - at_ns;
        Self { who: who.to_owned(), what: what.to_owned(), at_ns, took_ns, outcome, good }
    }
}

/// Of `udp-count`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    /// Datagrams that arrived, duplicates included.
    pub received: u64,
    /// Different sequence numbers that arrived.
    pub distinct: u64,
    /// Datagrams that arrived after one with a higher number.
    pub reordered: u64,
    /// Nanoseconds between sending and receiving (one clock: both ends are on this machine).
    pub delays_ns: Vec<u64>,
    /// Nanoseconds between the first arrival and the last.
    #[serde(default)]
    pub span_ns: u64,
    /// Numbers that never arrived, up to the first thousand.
    pub missing: Vec<u64>,
    /// The number of each that arrived, in order of arrival, if asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<u64>,
    /// The number of each that arrived marked (congestion experienced), if asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<u64>,
}

/// Of `stream-send` and `stream-take`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Streamed {
    /// Bytes written, or read.
    pub bytes: u64,
    /// Bytes read that were not what was sent.
    pub wrong: u64,
    /// errno name of what ended it early.
    pub error: Option<String>,
    /// Segments the sender's kernel sent again.
    pub sent_again: u64,
    /// Nanoseconds it took.
    pub wall_ns: u64,
}

/// Of `segments`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Arrived {
    /// Packets with payload.
    pub packets: u64,
    /// Bytes of payload of the largest.
    pub largest: u32,
    /// Bytes of each part of the stream that had not come when what is behind it did, in order.
    pub holes: Vec<u32>,
    /// Packets with nothing that had not come before: sent again, or copies.
    pub again: u64,
}

/// Of `udp-flood`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Flooded {
    /// Calls of send(2) that returned success.
    pub sent: u64,
    /// errno name → calls.
    pub errors: BTreeMap<String, u64>,
    /// Nanoseconds all of them took.
    pub wall_ns: u64,
    /// CPU time of it.
    pub cpu_ns: u64,
}

/// Of `udp-sink`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sunk {
    /// Datagrams that arrived, duplicates included.
    pub received: u64,
    /// Different numbers among them.
    pub distinct: u64,
    /// Nanoseconds between the first arrival and the last.
    pub span_ns: u64,
}

/// Of `many-hold`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// Bytes written.
    pub sent: u64,
    /// Bytes that came back.
    pub received: u64,
    /// Of these, not what was sent.
    pub wrong: u64,
    /// Messages that came back whole.
    pub messages: u64,
    /// errno name → connections it ended.
    pub errors: BTreeMap<String, u64>,
    /// Connections on which nothing moved any more.
    pub given_up: u64,
    /// Connections made in place of those that ended.
    pub reconnected: u64,
    /// Connections at the end.
    pub held: u64,
}

/// Of `tcp-ping` and `pread`: one entry per operation.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Timed {
    /// Nanoseconds each successful operation took, in order.
    pub latencies_ns: Vec<u64>,
    /// errno name → operations.
    pub errors: BTreeMap<String, u64>,
    /// Index of each operation that failed.
    pub failed: Vec<u64>,
    /// Nanoseconds each failed operation took, in the order of `failed`.
    #[serde(default)]
    pub failed_latencies_ns: Vec<u64>,
    /// When each successful operation of `pread` began, as `latencies_ns`; `CLOCK_MONOTONIC` nanoseconds.
    #[serde(default)]
    pub began_ns: Vec<u64>,
    /// When each failed operation of `pread` began.
    #[serde(default)]
    pub failed_began_ns: Vec<u64>,
    /// CPU time of the whole process during all operations, nanoseconds.
    pub cpu_ns: u64,
    /// Wall-clock time of all operations, nanoseconds.
    pub wall_ns: u64,
}

/// Prints `report` as one line.
///
/// # Errors
/// When stdout is gone.
pub fn print<T: Serialize>(report: &T) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// The name of an errno: `EIO`.
#[must_use]
pub fn errno_name(error: &std::io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| format!("{:?}", error.kind()), |raw| format!("{:?}", nix::Error::from_raw(raw)))
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

/// CPU time of this process, nanoseconds.
#[must_use]
pub fn cpu_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}
