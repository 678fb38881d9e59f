//! Everything netem does to packets, and what says the same to `fault`.

use super::sequence::Fate;

/// One parameter of netem and what says the same to `fault`.
pub struct Row {
    /// After `tc qdisc add dev … root netem`.
    pub netem: &'static str,
    /// After `--net`, but for `out udp`.
    pub fault: &'static str,
    /// After `--except`, but for `out udp`; empty is none.
    pub except: &'static str,
    /// How it is sent.
    pub load: Load,
    pub compare: &'static [Compare],
}

/// What is sent through both.
#[derive(Clone, Copy)]
pub struct Load {
    /// Pause between two datagrams, in microseconds.
    pub pause_us: u64,
    /// Bytes each.
    pub size: u64,
    /// No more than so many of them.
    pub most: u64,
    /// They say that their ends understand marks: ECT(0).
    pub can_mark: bool,
    /// Longer than any of them is under way, in milliseconds.
    pub linger_ms: u64,
}

const USUAL: Load = Load { pause_us: 300, size: 64, most: u64::MAX, can_mark: false, linger_ms: 700 };
const MARKABLE: Load = Load { can_mark: true, ..USUAL };
/// All at once, for half a second of queue: at its own pace one sender would be faster than the other.
const AT_ONCE: Load = Load { pause_us: 0, size: 600, most: 400, linger_ms: 1500, ..USUAL };
/// Long enough for many slots.
const SLOW: Load = Load { pause_us: 2000, ..USUAL };
/// A few for each slot, sometimes more than it takes, and not on average.
const SPARSE: Load = Load { pause_us: 6000, most: 1000, ..USUAL };

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub enum Compare {
    /// One-way delays: Kolmogorov–Smirnov.
    Delays,
    /// The same of every sixteenth datagram, where each delay resembles the one before.
    DelaysApart,
    /// One-way delays of those that came later than 5 ms, and how many those are.
    LateOnes,
    /// Share of datagrams with this fate.
    Share(Fate),
    /// Share of those with this fate among what was sent right after one that had it, and right after one that had not. Of
    /// fates that depend on each other these are independent trials, and the share of all is not.
    Runs(Fate),
    /// The same of every sixteenth datagram alone, where also those are not.
    RunsApart(Fate),
    /// How many datagrams lie between one with this fate and the next: Kolmogorov–Smirnov.
    Distances(Fate),
    /// Times from the beginning of one group of datagrams to that of the next: Kolmogorov–Smirnov.
    GroupTimes,
    /// Datagrams in a group: Kolmogorov–Smirnov.
    GroupSizes,
}

impl Compare {
    pub fn what(self) -> String {
        match self {
            Self::Delays => "one-way delay (KS)".to_owned(),
            Self::DelaysApart => "one-way delay, one of 16 (KS)".to_owned(),
            Self::LateOnes => "share and delay of those that wait".to_owned(),
            Self::Share(fate) => fate.words().to_owned(),
            Self::Runs(fate) => format!("{0} after one that was, after one that was not", fate.words()),
            Self::RunsApart(fate) => {
                format!("{0} after one that was, after one that was not, one of 16", fate.words())
            }
            Self::Distances(fate) => format!("distance from one {} to the next (KS)", fate.words()),
            Self::GroupTimes => "time from group to group (KS)".to_owned(),
            Self::GroupSizes => "size of groups (KS)".to_owned(),
        }
    }
}

const fn row(netem: &'static str, fault: &'static str, compare: &'static [Compare]) -> Row {
    Row { netem, fault, except: "", load: USUAL, compare }
}

use Compare::{Delays, DelaysApart, Distances, GroupSizes, GroupTimes, LateOnes, Runs, RunsApart, Share};
use Fate::{Late, Lost, Marked, OnTime, Twice};

/// What becomes of packets.
pub const FATES: &[Row] = &[
    row("loss 10%", "drop 10%", &[Share(Lost), Runs(Lost)]),
    row("loss 20% 50%", "drop 20% burst 50%", &[Runs(Lost)]),
    row("loss gemodel 4% 25%", "drop gilbert 4% 25%", &[Runs(Lost)]),
    row("loss gemodel 4% 25% 30% 1%", "drop gilbert 4% 25% 30% 1%", &[Runs(Lost)]),
    row("loss state 4% 40%", "drop markov 4% 40%", &[Runs(Lost)]),
    row("loss state 4% 20% 30% 60% 1%", "drop markov 4% 20% 30% 60% 1%", &[RunsApart(Lost)]),
    Row {
        load: MARKABLE,
        ..row("loss 10% ecn", "drop 10% ecn", &[Share(Marked), Runs(Marked), Share(Lost)])
    },
    row("loss 10% ecn", "drop 10% ecn", &[Share(Lost), Share(Marked)]),
    row("duplicate 10%", "duplicate 10%", &[Share(Twice), Share(Lost)]),
    // tc sends the correlation of `duplicate` only beside that of a loss or of a delay (iproute2, tc/q_netem.c).
    row("loss 0% 1% duplicate 30% 50%", "duplicate 30% burst 50%", &[Runs(Twice)]),
    row("corrupt 10%", "corrupt 10%", &[Share(Lost)]),
    row("corrupt 30% 50%", "corrupt 30% burst 50%", &[Runs(Lost)]),
];

/// How late they are.
pub const DELAYS: &[Row] = &[
    row("delay 40ms 10ms", "delay 40ms jitter 10ms", &[Delays]),
    row("delay 40ms 8ms distribution normal", "delay 40ms jitter 8ms normal", &[Delays]),
    // netem's table is 2/√3 times as wide as the standard deviation it is asked for (iproute2, netem/pareto.c).
    row("delay 40ms 8ms distribution pareto", "delay 40ms jitter 9238us pareto", &[Delays]),
    row("delay 40ms 8ms distribution paretonormal", "delay 40ms jitter 8ms paretonormal", &[Delays]),
    // A file that tc reads and `fault` reads.
    row(
        "delay 40ms 8ms distribution own",
        "delay 40ms jitter 8ms table /run/fault-parity/own.dist",
        &[Delays],
    ),
    row("delay 40ms 10ms 50%", "delay 40ms jitter 10ms correlation 50%", &[DelaysApart]),
    row("delay 30ms reorder 25%", "delay 30ms 75%", &[LateOnes]),
    row("delay 30ms reorder 25% 50%", "delay 30ms 75% burst 50%", &[Runs(Late)]),
    Row {
        except: "25% gap 5",
        ..row("delay 30ms reorder 25% gap 5", "delay 30ms", &[LateOnes, Distances(OnTime)])
    },
];

/// What waits for a link or a slot.
pub const LINKS: &[Row] = &[
    Row { load: AT_ONCE, ..row("rate 4mbit limit 100000", "rate 4mbit", &[Delays, Share(Lost)]) },
    Row {
        load: AT_ONCE,
        ..row(
            "rate 4mbit 30 48 5 limit 100000",
            "rate 4mbit overhead 30B cell 48B cell-overhead 5B",
            &[Delays, Share(Lost)],
        )
    },
    Row { load: SLOW, ..row("slot 10ms 30ms", "slot 20ms jitter 10ms", &[GroupTimes, Share(Lost)]) },
    Row {
        load: SLOW,
        ..row("slot distribution normal 20ms 4ms", "slot 20ms jitter 4ms normal", &[GroupTimes])
    },
    Row { load: SPARSE, ..row("slot 20ms packets 5", "slot 20ms packets 5", &[GroupSizes, Share(Lost)]) },
    // Three to eight come between two slots, and six fit.
    Row {
        load: SPARSE,
        ..row("slot 10ms 50ms packets 6", "slot 30ms jitter 20ms packets 6", &[GroupSizes, Share(Lost)])
    },
    // What counts is the frame, 106 bytes, and the sixth may go beyond.
    Row {
        load: SPARSE,
        ..row("slot 10ms 50ms bytes 600", "slot 30ms jitter 20ms bytes 600B", &[GroupSizes, Share(Lost)])
    },
];

/// Where the file is that [`DELAYS`] name.
pub const OWN: &str = "/run/fault-parity/own.dist";

/// The same delay for all: whatever is more than that is what the way itself takes, on this machine at this moment.
pub const CONSTANT: Row = row("delay 40ms", "delay 40ms", &[]);
/// That delay.
pub const CONSTANT_NS: u64 = 40_000_000;

/// Where `fault` does what netem says and does not do: a row, and what the rank correlation of a delay with the one before
/// should be.
pub const CORRELATED: (Row, f64) =
    (row("delay 40ms 10ms 50%", "delay 40ms jitter 10ms correlation 50%", &[]), 0.5);
