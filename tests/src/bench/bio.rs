//! What a bystander's bio pays while somebody else's are failed or delayed.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{
    Setting,
    figure::{Figure, Target, median},
};
use crate::{
    driver::Injection,
    process::{Ended, Process},
};

/// A disk that takes no time at all.
const DISK: &str = "/dev/nullb0";
const ROUNDS: usize = 12;
const SECONDS: &str = "1";

/// What is armed for another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Armed {
    Nothing,
    Error,
    Delay,
    Kprobe,
}

impl Armed {
    const ALL: [Self; 4] = [Self::Nothing, Self::Error, Self::Delay, Self::Kprobe];

    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Error => &["--disk", "error read", "--block-backend", "fmod_ret"],
            Self::Delay => &["--disk", "delay 10ms read", "--block-backend", "fmod_ret"],
            Self::Kprobe => &["--disk", "error read", "--block-backend", "kprobe"],
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Error => "`error` (fmod_ret)",
            Self::Delay => "`delay` (fmod_ret and parkers)",
            Self::Kprobe => "`error` (kprobe)",
        }
    }
}

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let victim = Process::start(Command::new("sleep").arg("10000"))?;
    let mut figures = Vec::new();
    for (engine, depth) in [("psync", "1"), ("libaio", "8")] {
        let mut samples: [Vec<f64>; 4] = Default::default();
        for round in 0..ROUNDS {
            // Each round starts with another, so that a drift favours nobody.
            for step in 0..Armed::ALL.len() {
                let index = (round + step) % Armed::ALL.len();
                let rate = reads_a_second(Armed::ALL[index], &victim, engine, depth)?;
                eprintln!("  {engine}, {}: {rate:.0}", Armed::ALL[index].words());
                samples[index].push(rate);
            }
        }
        let [without, with @ ..] = &samples;
        for (armed, rates) in Armed::ALL[1..].iter().zip(with) {
            let ratio = median(rates) / median(without);
            let what = format!("bystander's IOPS, {engine}, {}, with / without", armed.words());
            figures.push(Figure::median(what, "×", &[ratio]).target(Target::AtLeast(0.97)));
        }
        for (armed, rates) in Armed::ALL.iter().zip(&samples) {
            figures.push(Figure::median(format!("  {engine}, {}", armed.words()), "IOPS", rates));
        }
    }
    Ok(figures)
}

/// Of fio, a bystander, on the null disk.
fn reads_a_second(armed: Armed, victim: &Process, engine: &str, depth: &str) -> anyhow::Result<f64> {
    let injection = match armed {
        Armed::Nothing => None,
        _ => Some(Injection::start(&[&["--pid", &victim.pid()], armed.options()].concat())?),
    };
    let mut fio = Command::new("fio");
    fio.args(["--name=bystander", "--rw=randread", "--bs=4k", "--direct=1", "--norandommap", "--thread"])
        .args(["--time_based", "--ramp_time=200ms", "--output-format=json"])
        .arg(format!("--runtime={SECONDS}"))
        .arg(format!("--filename={DISK}"))
        .arg(format!("--ioengine={engine}"))
        .arg(format!("--iodepth={depth}"));
    let ended = Ended::of(&mut fio)?;
    ensure!(ended.status.success(), "fio: {} {}", ended.status, ended.stderr);
    if let Some(injection) = injection {
        let report = injection.heal()?;
        ensure!(report.rule(0, "injected")? == 0, "the bystander was hit: {}", report.json);
    }
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).context("fio's report")?;
    json["jobs"][0]["read"]["iops"].as_f64().context("IOPS in fio's report")
}
