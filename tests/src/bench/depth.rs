//! Asynchronous reads that are late, at several depths: through `fault`, and through dm-delay on the same disk.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{
    Setting,
    figure::{Figure, Target, median},
};
use crate::{disk_lab::BARE, dm_lab::DmDevice, driver::Injection, process::Process};

const ROUNDS: usize = 3;

/// How fio asks.
struct Shape {
    engine: &'static str,
    depth: u64,
    /// More options.
    more: &'static str,
    /// What part of dm-delay's rate there must be.
    target: Option<f64>,
}

const fn shape(engine: &'static str, depth: u64, more: &'static str, target: Option<f64>) -> Shape {
    Shape { engine, depth, more, target }
}

/// io_uring is bounded by its workers (4 for each CPU), so there is no bound to hold it to beyond those.
const SHAPES: &[Shape] = &[
    shape("libaio", 1, "", Some(0.9)),
    shape("libaio", 8, "", Some(0.9)),
    shape("libaio", 32, "", Some(0.9)),
    shape("libaio", 32, "--iodepth_batch_submit=8 --iodepth_batch_complete_min=8", Some(0.9)),
    shape("libaio", 8, "--numjobs=4", Some(0.9)),
    shape("io_uring", 1, "", Some(0.9)),
    shape("io_uring", 8, "", Some(0.9)),
    shape("io_uring", 32, "", None),
    shape("io_uring", 32, "--iodepth_batch_submit=8 --iodepth_batch_complete_min=8", None),
];

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for shape in SHAPES {
        let (mut ratios, mut ours) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Who comes first changes, so that a drift favours nobody.
            let (dm, fault) = if round % 2 == 0 {
                let dm = through_dm(shape)?;
                (dm, through_fault(shape)?)
            } else {
                let fault = through_fault(shape)?;
                (through_dm(shape)?, fault)
            };
            ratios.push(fault / dm);
            ours.push(fault);
        }
        let Shape { engine, depth, more, target } = shape;
        let what = format!("{engine}, depth {depth} {more}: IOPS under `delay 20ms read` / on dm-delay 20");
        let figure = Figure::median(what.replace(" :", ":"), "×", &ratios);
        figures.push(match target {
            Some(bound) => figure.target(Target::AtLeast(*bound)),
            None => figure,
        });
        figures.push(Figure::median("  IOPS", "", &[median(&ours)]));
    }
    Ok(figures)
}

fn through_dm(shape: &Shape) -> anyhow::Result<f64> {
    let device = DmDevice::new("depth", "delay", BARE, "20")?;
    let mut fio = fio(shape, &device.path)?;
    fio.release()?;
    rate(fio)
}

fn through_fault(shape: &Shape) -> anyhow::Result<f64> {
    let mut fio = fio(shape, BARE)?;
    let injection =
        Injection::start(&["--pid", &fio.pid(), "--disk", &format!("delay 20ms read on {BARE}")])?;
    fio.release()?;
    let rate = rate(fio)?;
    let report = injection.wait()?;
    // Reapers beyond one for each CPU come back early (docs/block-io.md): then the rate is higher than it should be.
    let early = report.counter("park_overflow")?;
    if early > 0 {
        eprintln!("{} depth {} {}: {early} reapers came back early", shape.engine, shape.depth, shape.more);
    }
    Ok(rate)
}

/// fio for three seconds, in a shell that waits for a line.
fn fio(shape: &Shape, path: &str) -> anyhow::Result<Process> {
    let Shape { engine, depth, more, .. } = shape;
    let job = format!(
        "read x; exec fio --name=j --filename={path} --readonly --direct=1 --rw=randread --bs=4k --randseed=1 \
         --ioengine={engine} --iodepth={depth} {more} --time_based --runtime=3 --size=512M --thread \
         --group_reporting --output-format=json"
    );
    Process::start(Command::new("sh").args(["-c", &job]))
}

fn rate(fio: Process) -> anyhow::Result<f64> {
    let json: serde_json::Value = fio.report()?;
    ensure!(json["jobs"][0]["error"] == 0, "{json}");
    json["jobs"][0]["read"]["iops"].as_f64().context("fio says no IOPS")
}
