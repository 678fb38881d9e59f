//! dm-delay, dm-flakey, dm-dust, `strace --inject` and `fault` side by side: the same reads in the same run, which of them
//! fail or are late, and whether a bystander that reads the same device at the same time is hit, too.

use std::process::Command;

use anyhow::Context as _;

use crate::{
    disk_lab::BARE,
    dm_lab::DmDevice,
    driver::{Injection, victim},
    process::Process,
    stats::{median, quantile, two_sample_ks},
    victim::report::Timed,
};

const MS: u64 = 1_000_000;
/// A read that takes longer was held, whatever else the emulated machine does: more than half of the 50 ms that rows ask for.
const LATE_NS: u64 = 30 * MS;

/// Who else can do it.
#[derive(Clone, Copy)]
enum Other {
    /// A target of device-mapper under the reader, with its arguments.
    Dm { target: &'static str, arguments: &'static str },
    /// dm-dust, with these sectors bad.
    Dust { first: u64, end: u64 },
    /// strace(1), attached to the reader, with `-e inject=pread64:…`.
    Strace(&'static str),
}

/// What is compared.
#[derive(Clone, Copy)]
enum Compare {
    /// Which reads fail: the same ones.
    Failed,
    /// Which reads are late: the same ones.
    Late,
    /// Every one is late, by so many milliseconds, and how late they are: Kolmogorov–Smirnov at 99.9 %.
    Delays(u64),
    /// How often all is well and then fails, or the other way round, and how long it stays so.
    Phases,
}

/// What one of the others does, and what says the same to `fault`.
pub struct Row {
    other: Other,
    /// After `--disk`.
    fault: &'static str,
    reads: u64,
    pause_us: u64,
    compare: Compare,
}

const fn row(other: Other, fault: &'static str, reads: u64, compare: Compare) -> Row {
    Row { other, fault, reads, pause_us: 0, compare }
}

/// Everything they do to reads that `fault` does, too.
pub const ROWS: &[Row] = &[
    row(Other::Dm { target: "delay", arguments: "50" }, "delay 50ms read", 100, Compare::Delays(50)),
    Row {
        other: Other::Dm { target: "flakey", arguments: "2 2" },
        // dm-flakey begins well.
        fault: "error read cycle 2s/2s after 2s",
        // Eight to ten seconds of them: four changes.
        reads: 420,
        pause_us: 20_000,
        compare: Compare::Phases,
    },
    row(Other::Dust { first: 80, end: 168 }, "error read sectors 80..168 until-written", 60, Compare::Failed),
    row(Other::Strace("error=EIO:when=5"), "error read nth 5", 40, Compare::Failed),
    row(Other::Strace("error=EIO:when=4+4"), "error read every 4", 40, Compare::Failed),
    row(Other::Strace("error=EIO:when=1..6"), "error read first 6", 40, Compare::Failed),
    row(Other::Strace("delay_enter=50000:when=3+3"), "delay 50ms read every 3", 40, Compare::Late),
    row(Other::Strace("delay_enter=50000"), "delay 50ms read", 100, Compare::Delays(50)),
];

/// What came of one comparison.
pub struct Verdict {
    /// Who else.
    pub other: String,
    /// `fault`'s words.
    pub fault: &'static str,
    /// What was compared.
    pub what: &'static str,
    /// What the readers saw.
    pub saw: (String, String),
    /// How many of the bystanders' reads were hit.
    pub bystanders: (usize, usize),
    /// What it comes to.
    pub outcome: Outcome,
}

/// What a comparison comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They cannot be told apart.
    Same,
    /// They can be, because `fault` is nearer to what was asked for.
    Nearer,
    /// `fault` does something else.
    Differs(String),
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Self::Differs, |()| Self::Same)
    }
}

/// Compares every row.
///
/// # Errors
/// When something could not be measured at all.
pub fn compare() -> anyhow::Result<Vec<Verdict>> {
    ROWS.iter().map(one).collect()
}

fn one(row: &Row) -> anyhow::Result<Verdict> {
    let other = through_other(row).with_context(|| row.other.words())?;
    let ours = through_fault(row).context(row.fault)?;
    let (saw, outcome) = judge(row.compare, &other.0, &ours.0);
    Ok(Verdict {
        other: row.other.words(),
        fault: row.fault,
        what: row.compare.what(),
        saw,
        bystanders: (hit(&other.1), hit(&ours.1)),
        outcome,
    })
}

impl Other {
    fn words(self) -> String {
        match self {
            Self::Dm { target, arguments } => format!("dm-{target} … {arguments}"),
            Self::Dust { first, end } => format!("dm-dust, sectors {first}..{end}"),
            Self::Strace(what) => format!("strace -e inject=pread64:{what}"),
        }
    }
}

impl Compare {
    const fn what(self) -> &'static str {
        match self {
            Self::Failed => "which reads fail",
            Self::Late => "which reads are late",
            Self::Delays(_) => "how late (KS)",
            Self::Phases => "phases, and their length",
        }
    }
}

/// A reader that waits, and a bystander that does the same.
fn readers(row: &Row, path: &str) -> anyhow::Result<(Process, Process)> {
    let program = victim()?;
    let numbers = [row.reads, row.pause_us].map(|number| number.to_string());
    let start = || {
        let mut command = Command::new(&program);
        command.args(["pread", path, "--wait", "--count", &numbers[0], "--pause-us", &numbers[1]]);
        Process::start_until(&mut command, "open")
    };
    Ok((start()?, start()?))
}

fn both((mut target, mut bystander): (Process, Process)) -> anyhow::Result<(Timed, Timed)> {
    target.release()?;
    bystander.release()?;
    Ok((target.report()?, bystander.report()?))
}

fn through_other(row: &Row) -> anyhow::Result<(Timed, Timed)> {
    match row.other {
        Other::Dm { target, arguments } => {
            let device = DmDevice::new("parity", target, BARE, arguments)?;
            both(readers(row, &device.path)?)
        }
        Other::Dust { first, end } => {
            let device = DmDevice::new("parity", "dust", BARE, "512")?;
            for sector in first..end {
                device.tell(&format!("addbadblock {sector}"))?;
            }
            device.tell("enable")?;
            both(readers(row, &device.path)?)
        }
        Other::Strace(what) => {
            let readers = readers(row, BARE)?;
            let mut strace = Command::new("strace");
            // Attached: the loader of the program calls pread(2), too, and would count.
            strace.args([
                "-f",
                "-e",
                "trace=pread64",
                "-e",
                &format!("inject=pread64:{what}"),
                "-o",
                "/dev/null",
            ]);
            let strace = Process::start_until(strace.args(["-p", &readers.0.pid()]), "strace: Process")?;
            let timed = both(readers)?;
            strace.ended()?;
            Ok(timed)
        }
    }
}

fn through_fault(row: &Row) -> anyhow::Result<(Timed, Timed)> {
    let readers = readers(row, BARE)?;
    let spec = format!("{} on {BARE}", row.fault);
    let injection = Injection::start(&["--pid", &readers.0.pid(), "--disk", &spec])?;
    let timed = both(readers)?;
    injection.wait()?;
    Ok(timed)
}

/// Reads that failed or were late.
fn hit(timed: &Timed) -> usize {
    timed.failed.len() + late(timed).len()
}

fn late(timed: &Timed) -> Vec<usize> {
    (0..).zip(&timed.latencies_ns).filter(|(_, took)| **took >= LATE_NS).map(|(index, _)| index).collect()
}

type Judged = ((String, String), Outcome);

fn judge(compare: Compare, other: &Timed, ours: &Timed) -> Judged {
    match compare {
        Compare::Failed => same(list(&other.failed), list(&ours.failed)),
        Compare::Late => same(list(&late(other)), list(&late(ours))),
        Compare::Delays(asked_ms) => {
            let words = |timed: &Timed| {
                let at = |q| quantile(&timed.latencies_ns, q) as f64 / 1e6;
                format!("{:.1} ms, 99 % below {:.1} ms", at(0.5), at(0.99))
            };
            let seconds =
                |timed: &Timed| timed.latencies_ns.iter().map(|ns| *ns as f64 / 1e9).collect::<Vec<_>>();
            let result = two_sample_ks(compare.what(), &seconds(other), &seconds(ours));
            let asked = asked_ms * MS;
            let (its, our) = (quantile(&other.latencies_ns, 0.5), quantile(&ours.latencies_ns, 0.5));
            let early = ours.latencies_ns.iter().filter(|took| **took < asked).count();
            let outcome = match result {
                _ if early > 0 => Outcome::Differs(format!("{early} reads are not late enough")),
                Err(_) if our < its => Outcome::Nearer,
                result => result.into(),
            };
            ((words(other), words(ours)), outcome)
        }
        Compare::Phases => {
            let (other, ours) = (phases(other), phases(ours));
            let words = |phases: &[u64]| {
                format!("{} changes, {:.2} s between them", phases.len() + 1, median(phases) as f64 / 1e9)
            };
            // A tick of dm-flakey's clock, and a read with its pause at either end.
            let apart = median(&other).abs_diff(median(&ours));
            let result = if other.len() == ours.len() && apart <= 60 * MS {
                Ok(())
            } else {
                Err(format!("{other:?} against {ours:?}"))
            };
            ((words(&other), words(&ours)), result.into())
        }
    }
}

fn same(other: String, ours: String) -> Judged {
    let result = if other == ours { Ok(()) } else { Err(format!("{other} against {ours}")) };
    ((other, ours), result.into())
}

fn list<N: std::fmt::Display>(numbers: &[N]) -> String {
    let shown: Vec<_> = numbers.iter().take(6).map(ToString::to_string).collect();
    let rest = if numbers.len() > 6 { format!(" … ({})", numbers.len()) } else { String::new() };
    if shown.is_empty() { "none".to_owned() } else { shown.join(" ") + &rest }
}

/// Nanoseconds between the changes from reads that succeed to reads that fail, and back.
fn phases(timed: &Timed) -> Vec<u64> {
    let good = timed.began_ns.iter().map(|at| (*at, true));
    let mut all: Vec<_> = good.chain(timed.failed_began_ns.iter().map(|at| (*at, false))).collect();
    all.sort_unstable();
    let changes: Vec<u64> =
        all.windows(2).filter(|pair| pair[0].1 != pair[1].1).map(|pair| pair[1].0).collect();
    changes.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// The table of docs/parity-disk.md.
#[must_use]
pub fn table(verdicts: &[Verdict]) -> String {
    let mut text = String::from(
        "| other | fault | compared | other saw | fault saw | same? | bystander's reads hit |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for Verdict { other, fault, what, saw, bystanders, outcome } in verdicts {
        let same = match outcome {
            Outcome::Same => "yes",
            Outcome::Nearer => "nearer to what was asked for",
            Outcome::Differs(_) => "**no**",
        };
        text += &format!(
            "| `{other}` | `{fault}` | {what} | {} | {} | {same} | {}, {} |\n",
            saw.0, saw.1, bystanders.0, bystanders.1
        );
    }
    text
}
