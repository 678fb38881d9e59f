//! netem and `fault` side by side: the same workload in the same run, and whether their results can be told apart.
//!
//! Each row sends numbered datagrams through netem and then through `fault`, and compares what the receiver saw by
//! two-sample tests at 99.9 %.

mod rows;
mod sequence;

use anyhow::{Context as _, ensure};

use crate::{
    driver::{Injection, victim},
    net_lab::{NetLab, PEER_V4, TARGET_IFACE, sh},
    process::Process,
    stats::{median, quantile, two_proportions, two_sample_ks},
    victim::report::{Counted, Sent},
};
use rows::{CONSTANT, CONSTANT_NS, CORRELATED, Compare, DELAYS, FATES, LINKS, OWN, Row};
use sequence::Sequence;

/// What came of one comparison.
pub struct Verdict {
    /// As netem writes it, and of what.
    pub netem: String,
    /// As `fault` does: its options.
    pub fault: String,
    /// What was compared.
    pub what: String,
    /// What netem's receiver saw, and `fault`'s.
    pub saw: (String, String),
    /// Empty when they cannot be told apart.
    pub differs: Option<String>,
}

/// How often a row is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Once: of thirty comparisons at 99.9 % one fails by chance in every thirty-odd runs.
    Never,
    /// Once more if it differs: then it differs only if it does so twice.
    OnceIfDifferent,
}

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// What becomes of packets: they are lost, marked, doubled, corrupted.
    Fates,
    /// How late they are.
    Delays,
    /// What waits for a link or a slot.
    Links,
}

/// Compares every row, `datagrams` each way.
///
/// # Errors
/// When something could not be measured at all.
pub fn compare(of: Of, datagrams: u64, repeat: Repeat) -> anyhow::Result<Vec<Verdict>> {
    let (lab, rows) = match of {
        Of::Fates => (NetLab::new("fates")?, FATES),
        Of::Delays => (NetLab::new("delays")?, DELAYS),
        Of::Links => (NetLab::new("links")?, LINKS),
    };
    write_own()?;
    let mut verdicts = Vec::new();
    for row in rows {
        let mut of_row = measure(&lab, row, datagrams)?;
        if repeat == Repeat::OnceIfDifferent && of_row.iter().any(|verdict| verdict.differs.is_some()) {
            let again = measure(&lab, row, datagrams)?;
            for (first, second) in of_row.iter_mut().zip(again) {
                first.differs = first.differs.take().and(second.differs);
            }
        }
        verdicts.append(&mut of_row);
    }
    Ok(verdicts)
}

fn measure(lab: &NetLab, row: &Row, datagrams: u64) -> anyhow::Result<Vec<Verdict>> {
    let datagrams = datagrams.min(row.load.most);
    let (netem, fault) = (through_netem(lab, row, datagrams)?, through_fault(lab, row, datagrams)?);
    let is_timed =
        row.compare.iter().any(|compare| matches!(compare, Compare::Delays | Compare::DelaysApart));
    let ways = if is_timed { Ways::measure(lab)? } else { Ways::default() };
    let verdict = |compare: &Compare| {
        let (saw, result) = judge(*compare, ways, &netem, &fault);
        Verdict {
            netem: row.netem_options(),
            fault: row.options(),
            what: compare.what(),
            saw,
            differs: result.err(),
        }
    };
    Ok(row.compare.iter().map(verdict).collect())
}

/// What a way takes by itself, beyond the delay that it was asked for, in nanoseconds.
///
/// An emulated machine needs longer for one than for the other, and not always as long: half a millisecond is a tenth of a
/// distribution that begins steeply. It is measured beside each row that is about delays, and taken off.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    netem_ns: u64,
    fault_ns: u64,
}

impl Ways {
    /// Medians of a few hundred datagrams each.
    fn measure(lab: &NetLab) -> anyhow::Result<Self> {
        const DATAGRAMS: u64 = 300;
        let beyond = |sequence: Sequence| median(&sequence.delays_ns(1)).saturating_sub(CONSTANT_NS);
        Ok(Self {
            netem_ns: beyond(through_netem(lab, &CONSTANT, DATAGRAMS)?),
            fault_ns: beyond(through_fault(lab, &CONSTANT, DATAGRAMS)?),
        })
    }
}

/// Rank correlation of each delay with the one before, of many that were asked to have one: what was asked for, what netem's
/// were, and `fault`'s.
///
/// # Errors
/// When it could not be measured.
pub fn correlations(datagrams: u64) -> anyhow::Result<(f64, f64, f64)> {
    let lab = NetLab::new("succession")?;
    let (row, asked) = CORRELATED;
    let netem = through_netem(&lab, &row, datagrams)?.succession();
    Ok((asked, netem, through_fault(&lab, &row, datagrams)?.succession()))
}

/// The table of docs/parity-netem.md.
#[must_use]
pub fn table(verdicts: &[Verdict]) -> String {
    let mut text =
        String::from("| netem | fault | compared | netem | fault | same? |\n|---|---|---|---|---|---|\n");
    for Verdict { netem, fault, what, saw, differs } in verdicts {
        let same = if differs.is_none() { "yes" } else { "**no**" };
        text += &format!("| {netem} | {fault} | {what} | {} | {} | {same} |\n", saw.0, saw.1);
    }
    text
}

impl Row {
    /// As the table shows it.
    fn netem_options(&self) -> String {
        let of = if self.load.can_mark { " of packets that can be marked" } else { "" };
        format!("`{}`{of}", self.netem)
    }

    /// As the table shows it.
    fn options(&self) -> String {
        match self.except {
            "" => format!("`{}`", self.fault),
            except => format!("`{}`, `--except '{except}'`", self.fault),
        }
    }
}

/// Writes a distribution that is none of the usual: two in three are a little early, the others late and far apart.
fn write_own() -> anyhow::Result<()> {
    let numbers = (0..3000).map(|n| if n < 2000 { n * 2 - 8000 } else { (n - 2000) * 12 + 1000 });
    let lines: Vec<String> = numbers.map(|number| number.to_string()).collect();
    let path = std::path::Path::new(OWN);
    std::fs::create_dir_all(path.parent().context(OWN)?)?;
    std::fs::write(path, format!("# two modes\n{}\n", lines.join("\n"))).context(OWN)
}

/// A sender that waits, and its counter.
fn pair(lab: &NetLab, row: &Row, datagrams: u64) -> anyhow::Result<(Process, Process)> {
    let (program, to, linger_ms) = (victim()?, format!("{PEER_V4}:9000"), row.load.linger_ms.to_string());
    let counter = Process::start_until(
        lab.in_peer(&program).args(["udp-count", &to, "--numbers", "--marks", "--idle-ms", &linger_ms]),
        "ready",
    )?;
    let mut sender = lab.in_target(&program);
    let numbers = [datagrams, row.load.pause_us, row.load.size].map(|number| number.to_string());
    sender.args(["udp-send", &to, "--wait", "--stamps", "--count", &numbers[0]]);
    sender.args(["--pause-us", &numbers[1], "--size", &numbers[2], "--linger-ms", &linger_ms]);
    sender.args(["--burst", "1000000"]);
    if row.load.can_mark {
        sender.arg("--can-mark");
    }
    Ok((Process::start_until(&mut sender, "ready")?, counter))
}

fn sent(mut sender: Process, counter: Process, datagrams: u64) -> anyhow::Result<Sequence> {
    sender.release()?;
    let sent: Sent = sender.report()?;
    ensure!(sent.sent == datagrams, "{} sent, {:?}", sent.sent, sent.errors);
    let counted: Counted = counter.report()?;
    Sequence::new(&sent, &counted)
}

fn through_netem(lab: &NetLab, row: &Row, datagrams: u64) -> anyhow::Result<Sequence> {
    let (sender, counter) = pair(lab, row, datagrams)?;
    // Where tc looks for distributions; those of its own are where they were installed.
    let directory = OWN.trim_end_matches("/own.dist");
    let place = if row.fault.contains(OWN) { format!("env TC_LIB_DIR={directory} ") } else { String::new() };
    let qdisc = |verb: &str, what: &str| {
        sh(&format!("{place}tc -n {} qdisc {verb} dev {TARGET_IFACE} root netem {what}", lab.target))
    };
    // The default queue holds a thousand packets and loses the rest.
    let limit = if row.netem.contains("limit") { "" } else { " limit 100000" };
    qdisc("add", &format!("{}{limit}", row.netem)).context(row.netem)?;
    let counted = sent(sender, counter, datagrams);
    qdisc("del", "")?;
    counted
}

fn through_fault(lab: &NetLab, row: &Row, datagrams: u64) -> anyhow::Result<Sequence> {
    let (sender, counter) = pair(lab, row, datagrams)?;
    let (pid, spec) = (sender.pid(), format!("{} out udp", row.fault));
    let except = format!("{} out udp", row.except);
    let mut options = vec!["--pid", &pid, "--net", &spec];
    if !row.except.is_empty() {
        options.extend(["--except", &except]);
    }
    let injection = Injection::start(&options)?;
    let counted = sent(sender, counter, datagrams)?;
    injection.wait()?;
    Ok(counted)
}

type Judged = ((String, String), Result<(), String>);

/// What both saw, and whether that can be told apart.
fn judge(compare: Compare, ways: Ways, netem: &Sequence, fault: &Sequence) -> Judged {
    let what = compare.what();
    let delays = |one_in| {
        let off =
            |delays: Vec<u64>, way_ns| delays.into_iter().map(|delay| delay.saturating_sub(way_ns)).collect();
        let (netem, fault): (Vec<_>, Vec<_>) =
            (off(netem.delays_ns(one_in), ways.netem_ns), off(fault.delays_ns(one_in), ways.fault_ns));
        times(&what, &netem, &fault)
    };
    let shares = |of: &dyn Fn(&Sequence) -> (u64, u64)| {
        let (a, b) = (of(netem), of(fault));
        ((percent(a), percent(b)), two_proportions(&what, a, b))
    };
    let runs = |fate, one_in| {
        let (first, second) = (
            shares(&|sequence: &Sequence| sequence.after(fate, true, one_in)),
            shares(&|sequence: &Sequence| sequence.after(fate, false, one_in)),
        );
        let (a, b) = (first.0, second.0);
        ((format!("{}, {}", a.0, b.0), format!("{}, {}", a.1, b.1)), first.1.and(second.1))
    };
    match compare {
        Compare::Delays => delays(1),
        Compare::DelaysApart => delays(16),
        Compare::LateOnes => {
            let (a, b) = (netem.late_ns(), fault.late_ns());
            let share = |late: &[u64], of: &Sequence| (late.len() as u64, of.sent());
            let shares = two_proportions(&what, share(&a, netem), share(&b, fault));
            let mean = |late: &[u64], of: &Sequence| {
                let ms = late.iter().sum::<u64>() as f64 / 1e6 / late.len().max(1) as f64;
                format!("{}, {ms:.1} ms", percent(share(late, of)))
            };
            ((mean(&a, netem), mean(&b, fault)), shares)
        }
        Compare::Share(fate) => shares(&|sequence| (sequence.count(fate), sequence.sent())),
        Compare::Runs(fate) => runs(fate, 1),
        Compare::RunsApart(fate) => runs(fate, 16),
        Compare::Distances(fate) => numbers(&what, &netem.distances(fate), &fault.distances(fate)),
        Compare::GroupTimes => {
            let starts = |sequence: &Sequence| {
                let groups = sequence.groups();
                groups.windows(2).map(|pair| pair[1].0 - pair[0].0).collect::<Vec<_>>()
            };
            times(&what, &starts(netem), &starts(fault))
        }
        Compare::GroupSizes => {
            let sizes = |sequence: &Sequence| sequence.groups().into_iter().map(|(_, size)| size).collect();
            let (a, b): (Vec<_>, Vec<_>) = (sizes(netem), sizes(fault));
            numbers(&what, &a, &b)
        }
    }
}

fn percent((hits, trials): (u64, u64)) -> String {
    format!("{:.1} % of {trials}", hits as f64 * 100.0 / trials.max(1) as f64)
}

/// Mean and 99th percentile of both, and whether they come from one distribution.
fn times(what: &str, netem: &[u64], fault: &[u64]) -> Judged {
    let describe = |delays: &[u64]| {
        let mean = delays.iter().sum::<u64>() as f64 / delays.len().max(1) as f64 / 1e6;
        format!("{mean:.1} ms, 99 % below {:.1} ms", quantile(delays, 0.99) as f64 / 1e6)
    };
    let seconds = |delays: &[u64]| delays.iter().map(|delay| *delay as f64 / 1e9).collect::<Vec<_>>();
    ((describe(netem), describe(fault)), two_sample_ks(what, &seconds(netem), &seconds(fault)))
}

/// The same of counts. Where many are equal the test is more forgiving than it says.
fn numbers(what: &str, netem: &[u64], fault: &[u64]) -> Judged {
    let describe = |counts: &[u64]| {
        let mean = counts.iter().sum::<u64>() as f64 / counts.len().max(1) as f64;
        let most = counts.iter().max().copied().unwrap_or_default();
        format!("{mean:.2} of {}, at most {most}", counts.len())
    };
    let floats = |counts: &[u64]| counts.iter().map(|count| *count as f64).collect::<Vec<_>>();
    ((describe(netem), describe(fault)), two_sample_ks(what, &floats(netem), &floats(fault)))
}
