//! What a bio pays that is not hit: a bystander's, while somebody else's are failed or delayed, and the target's own that are spared.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{
    Setting,
    bpf::Program,
    figure::{Figure, Target},
};
use crate::{driver::Injection, process::Process};

/// A disk that takes no time at all.
const DISK: &str = "/dev/nullb0";
const ROUNDS: usize = 12;

/// What is armed, and against whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Armed {
    Nothing,
    /// Not `fault`: a program that does nothing, in front of the function that ours are in front of.
    Empty,
    Error,
    Delay,
    Kprobe,
    /// The reader is the target, and its reads are elsewhere on the disk.
    ElsewhereOnDisk,
    /// The reader is the target, and its reads are let go by a decision.
    LetGo,
}

impl Armed {
    const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Empty,
        Self::Error,
        Self::Delay,
        Self::Kprobe,
        Self::ElsewhereOnDisk,
        Self::LetGo,
    ];

    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Nothing | Self::Empty => &[],
            Self::Error => &["--disk", "error read", "--block-backend", "fmod_ret"],
            Self::Delay => &["--disk", "delay 10ms read", "--block-backend", "fmod_ret"],
            Self::Kprobe => &["--disk", "error read", "--block-backend", "kprobe"],
            Self::ElsewhereOnDisk => {
                &["--disk", "error read on /dev/nullb0 sectors 0..8", "--block-backend", "fmod_ret"]
            }
            Self::LetGo => &["--disk", "error 0.0001% read", "--block-backend", "fmod_ret"],
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Empty => "for comparison: an empty program by fmod_ret",
            Self::Error => "`error` (fmod_ret)",
            Self::Delay => "`delay` (fmod_ret and parkers)",
            Self::Kprobe => "`error` (kprobe)",
            Self::ElsewhereOnDisk => "spared by `sectors`",
            Self::LetGo => "spared by decision",
        }
    }

    const fn reader(self) -> Reader {
        match self {
            Self::Nothing | Self::Empty | Self::Error | Self::Delay | Self::Kprobe => Reader::Bystander,
            Self::ElsewhereOnDisk | Self::LetGo => Reader::Target,
        }
    }
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// Somebody else is the target.
    Bystander,
    /// It is the target, and spared.
    Target,
}

impl Reader {
    const fn word(self) -> &'static str {
        match self {
            Self::Bystander => "bystander",
            Self::Target => "target",
        }
    }

    /// The part of its rate that it must keep.
    const fn bound(self) -> f64 {
        match self {
            Self::Bystander => 0.97,
            Self::Target => 0.90,
        }
    }
}

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let elsewhere = Process::start(Command::new("sleep").arg("10000"))?;
    let mut figures = Vec::new();
    for (engine, depth) in [("psync", "1"), ("libaio", "8")] {
        let mut samples: [Vec<f64>; Armed::ALL.len()] = Default::default();
        for round in 0..ROUNDS {
            // Each round starts with another, so that a drift favours nobody.
            for step in 0..Armed::ALL.len() {
                let index = (round + step) % Armed::ALL.len();
                let rate = reads_a_second(Armed::ALL[index], &elsewhere, engine, depth)?;
                eprintln!("  {engine}, {}: {rate:.0}", Armed::ALL[index].words());
                samples[index].push(rate);
            }
        }
        let [without, with @ ..] = &samples;
        for (armed, rates) in Armed::ALL[1..].iter().zip(with) {
            // Of the same round: what else the machine does changes from one round to the next.
            let ratios: Vec<f64> = rates.iter().zip(without).map(|(with, without)| with / without).collect();
            let reader = armed.reader();
            let what = format!("{}'s IOPS, {engine}, {}, with / without", reader.word(), armed.words());
            let figure = Figure::ratio(what, &ratios);
            figures.push(match armed {
                Armed::Empty => figure,
                _ => figure.target(Target::AtLeast(reader.bound())),
            });
        }
        for (armed, rates) in Armed::ALL.iter().zip(&samples) {
            figures.push(Figure::median(format!("  {engine}, {}", armed.words()), "IOPS", rates));
        }
    }
    Ok(figures)
}

/// Of fio on the null disk, in a shell that waits until everything is armed.
fn reads_a_second(armed: Armed, elsewhere: &Process, engine: &str, depth: &str) -> anyhow::Result<f64> {
    let job = format!(
        "read x; exec fio --name=j --filename={DISK} --readonly --rw=randread --bs=4k --direct=1 --norandommap \
         --thread --time_based --ramp_time=200ms --runtime=1 --ioengine={engine} --iodepth={depth} \
         --continue_on_error=read --output-format=json"
    );
    let mut fio = Process::start(Command::new("sh").args(["-c", &job]))?;
    let reader = armed.reader();
    let target = match reader {
        Reader::Bystander => elsewhere.pid(),
        Reader::Target => fio.pid(),
    };
    let empty = match armed {
        Armed::Empty => Some(Program::before("should_fail_bio")?),
        _ => None,
    };
    let injection = match armed {
        Armed::Nothing | Armed::Empty => None,
        _ => Some(Injection::start(&[&["--pid", &target], armed.options()].concat())?),
    };
    fio.release()?;
    let json: serde_json::Value = fio.report()?;
    drop(empty);
    match (reader, injection) {
        // One of its reads in a million may fail.
        (Reader::Target, Some(injection)) => drop(injection.wait()?),
        (_, injection) => {
            ensure!(json["jobs"][0]["total_err"] == 0, "{json}");
            if let Some(injection) = injection {
                let report = injection.heal()?;
                ensure!(report.rule(0, "injected")? == 0, "the bystander was hit: {}", report.json);
            }
        }
    }
    json["jobs"][0]["read"]["iops"].as_f64().context("IOPS in fio's report")
}
