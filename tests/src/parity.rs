//! netem and `fault` side by side: the same workload in the same run, and whether their results can be told apart.
//!
//! Each row sends numbered datagrams through netem and then through `fault`, and compares what the receiver saw by
//! two-sample tests at 99.9 %.

use anyhow::{Context as _, bail};

use crate::{
    driver::{Injection, victim},
    net_lab::{NetLab, PEER_V4, TARGET_IFACE, sh},
    process::Process,
    stats::{two_proportions, two_sample_ks},
    victim::report::{Counted, Sent},
};

/// One parameter of netem and what says the same to `fault`.
pub struct Row {
    /// After `tc qdisc add dev … root netem`.
    netem: &'static str,
    /// After `--net`.
    fault: &'static str,
    /// Pause between two datagrams, in microseconds.
    pause_us: u64,
    /// Bytes each.
    size: u64,
    /// No more than so many of them.
    most: u64,
    compare: &'static [Compare],
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
enum Compare {
    /// One-way delays: Kolmogorov–Smirnov.
    Delays,
    /// One-way delays of those that came later than 5 ms, and how many those are.
    LateOnes,
    /// Share of datagrams that never arrived.
    Lost,
    /// Share of those lost among what was sent right after one that was lost, and right after one that was not. Of losses
    /// that depend on each other these are independent trials, and the share of all is not.
    Runs,
    /// Share of datagrams that came twice.
    Twice,
}

impl Compare {
    const fn what(self) -> &'static str {
        match self {
            Self::Delays => "one-way delay (KS)",
            Self::LateOnes => "share and delay of those that wait",
            Self::Lost => "lost",
            Self::Runs => "lost after a loss, lost after none",
            Self::Twice => "arrived twice",
        }
    }
}

const fn row(netem: &'static str, fault: &'static str, compare: &'static [Compare]) -> Row {
    Row { netem, fault, pause_us: 300, size: 64, most: u64::MAX, compare }
}

/// Everything netem does to packets that `fault` does, too.
pub const ROWS: &[Row] = &[
    row("delay 40ms 10ms", "delay 40ms jitter 10ms", &[Compare::Delays]),
    row("delay 40ms 8ms distribution normal", "delay 40ms jitter 8ms normal", &[Compare::Delays]),
    // netem's table is 2/√3 times as wide as the standard deviation it is asked for (iproute2, netem/pareto.c).
    row("delay 40ms 8ms distribution pareto", "delay 40ms jitter 9238us pareto", &[Compare::Delays]),
    row("delay 40ms 8ms distribution paretonormal", "delay 40ms jitter 8ms paretonormal", &[Compare::Delays]),
    row("loss 10%", "drop 10%", &[Compare::Lost, Compare::Runs]),
    row("loss 20% 50%", "drop 20% burst 50%", &[Compare::Runs]),
    row("loss gemodel 4% 25%", "drop gilbert 4% 25%", &[Compare::Runs]),
    row("loss gemodel 4% 25% 30% 1%", "drop gilbert 4% 25% 30% 1%", &[Compare::Runs]),
    row("duplicate 10%", "duplicate 10%", &[Compare::Twice, Compare::Lost]),
    row("corrupt 10%", "corrupt 10%", &[Compare::Lost]),
    row("delay 30ms reorder 25%", "delay 30ms 75%", &[Compare::LateOnes]),
    Row {
        netem: "rate 4mbit limit 100000",
        fault: "rate 4mbit",
        // All at once, for half a second of queue: at its own pace one sender would be faster than the other.
        pause_us: 0,
        size: 600,
        most: 400,
        compare: &[Compare::Delays, Compare::Lost],
    },
];

/// What came of one comparison.
pub struct Verdict {
    /// As netem writes it.
    pub netem: &'static str,
    /// As `fault` does.
    pub fault: &'static str,
    /// What was compared.
    pub what: &'static str,
    /// What netem's receiver saw, and `fault`'s.
    pub saw: (String, String),
    /// Empty when they cannot be told apart.
    pub differs: Option<String>,
}

/// Compares every row, `datagrams` each way.
///
/// # Errors
/// When something could not be measured at all.
pub fn compare(datagrams: u64) -> anyhow::Result<Vec<Verdict>> {
    let lab = NetLab::new("parity")?;
    let mut verdicts = Vec::new();
    for row in ROWS {
        let datagrams = datagrams.min(row.most);
        let (netem, fault) = (through_netem(&lab, row, datagrams)?, through_fault(&lab, row, datagrams)?);
        for compare in row.compare {
            let (saw, result) = judge(*compare, &netem, &fault, datagrams);
            verdicts.push(Verdict {
                netem: row.netem,
                fault: row.fault,
                what: compare.what(),
                saw,
                differs: result.err(),
            });
        }
    }
    Ok(verdicts)
}

/// The table of docs/parity-netem.md.
#[must_use]
pub fn table(verdicts: &[Verdict]) -> String {
    let mut text =
        String::from("| netem | fault | compared | netem | fault | same? |\n|---|---|---|---|---|---|\n");
    for Verdict { netem, fault, what, saw, differs } in verdicts {
        let same = if differs.is_none() { "yes" } else { "**no**" };
        text += &format!("| `{netem}` | `{fault}` | {what} | {} | {} | {same} |\n", saw.0, saw.1);
    }
    text
}

/// A sender that waits, and its counter.
fn pair(lab: &NetLab, row: &Row, datagrams: u64) -> anyhow::Result<(Process, Process)> {
    let (program, to) = (victim()?, format!("{PEER_V4}:9000"));
    let counter = Process::start_until(lab.in_peer(&program).args(["udp-count", &to]), "ready")?;
    let mut sender = lab.in_target(&program);
    let numbers = [datagrams, row.pause_us, row.size].map(|number| number.to_string());
    sender.args(["udp-send", &to, "--wait", "--count", &numbers[0]]);
    sender.args([
        "--pause-us",
        &numbers[1],
        "--size",
        &numbers[2],
        "--linger-ms",
        "1500",
        "--burst",
        "1000000",
    ]);
    Ok((Process::start_until(&mut sender, "ready")?, counter))
}

fn sent(mut sender: Process, counter: Process, datagrams: u64) -> anyhow::Result<Counted> {
    sender.release()?;
    let sent: Sent = sender.report()?;
    if sent.sent != datagrams {
        bail!("{sent:?}");
    }
    counter.report()
}

fn through_netem(lab: &NetLab, row: &Row, datagrams: u64) -> anyhow::Result<Counted> {
    let (sender, counter) = pair(lab, row, datagrams)?;
    let qdisc = |verb: &str, what: &str| {
        sh(&format!("tc -n {} qdisc {verb} dev {TARGET_IFACE} root netem {what}", lab.target))
    };
    // The default queue holds a thousand packets and loses the rest.
    let limit = if row.netem.contains("limit") { "" } else { " limit 100000" };
    qdisc("add", &format!("{}{limit}", row.netem)).context(row.netem)?;
    let counted = sent(sender, counter, datagrams);
    qdisc("del", "")?;
    counted
}

fn through_fault(lab: &NetLab, row: &Row, datagrams: u64) -> anyhow::Result<Counted> {
    let (sender, counter) = pair(lab, row, datagrams)?;
    let spec = format!("{} out udp", row.fault);
    let injection = Injection::start(&["--pid", &sender.pid(), "--net", &spec])?;
    let counted = sent(sender, counter, datagrams)?;
    injection.wait()?;
    Ok(counted)
}

/// What both saw, and whether that can be told apart.
fn judge(
    compare: Compare,
    netem: &Counted,
    fault: &Counted,
    datagrams: u64,
) -> ((String, String), Result<(), String>) {
    let both = |of: &dyn Fn(&Counted) -> (u64, u64)| {
        let (a, b) = (of(netem), of(fault));
        let percent = |(hits, trials): (u64, u64)| {
            format!("{:.1} % of {trials}", hits as f64 * 100.0 / trials.max(1) as f64)
        };
        ((percent(a), percent(b)), two_proportions(compare.what(), a, b))
    };
    match compare {
        Compare::Delays => delays(compare, &netem.delays_ns, &fault.delays_ns),
        Compare::LateOnes => {
            const LATE_NS: u64 = 5_000_000;
            let late = |counted: &Counted| -> Vec<u64> {
                counted.delays_ns.iter().copied().filter(|delay| *delay > LATE_NS).collect()
            };
            let (a, b) = (late(netem), late(fault));
            let share = |late: &[u64]| (late.len() as u64, datagrams);
            let shares = two_proportions(compare.what(), share(&a), share(&b));
            let mean = |late: &[u64]| {
                let share = late.len() as f64 * 100.0 / datagrams as f64;
                format!(
                    "{share:.1} %, {:.1} ms",
                    late.iter().sum::<u64>() as f64 / 1e6 / late.len().max(1) as f64
                )
            };
            ((mean(&a), mean(&b)), shares)
        }
        Compare::Lost => both(&|counted| (datagrams - counted.distinct, datagrams)),
        Compare::Runs => {
            let after_loss = |counted: &Counted| {
                let pairs = counted.missing.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
                (pairs as u64, counted.missing.len() as u64)
            };
            let after_none = |counted: &Counted| {
                let (pairs, losses) = after_loss(counted);
                (losses - pairs, datagrams - losses)
            };
            let (first, second) = (both(&after_loss), both(&after_none));
            let (a, b) = (first.0, second.0);
            ((format!("{}, {}", a.0, b.0), format!("{}, {}", a.1, b.1)), first.1.and(second.1))
        }
        Compare::Twice => both(&|counted| (counted.received - counted.distinct, counted.distinct)),
    }
}

/// Mean and 99th percentile of both, and whether they come from one distribution.
fn delays(compare: Compare, netem: &[u64], fault: &[u64]) -> ((String, String), Result<(), String>) {
    let describe = |delays: &[u64]| {
        let mean = delays.iter().sum::<u64>() as f64 / delays.len().max(1) as f64 / 1e6;
        format!("{mean:.1} ms, 99 % below {:.1} ms", crate::stats::quantile(delays, 0.99) as f64 / 1e6)
    };
    let seconds = |delays: &[u64]| delays.iter().map(|delay| *delay as f64 / 1e9).collect::<Vec<_>>();
    let result = two_sample_ks(compare.what(), &seconds(netem), &seconds(fault));
    ((describe(netem), describe(fault)), result)
}
