//! A shop of three services, one of which is cut off after another has committed.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::ensure;

use super::{
    Scenario, Story,
    record::Phase,
    service::{Services, local},
    stage::{Stage, Table},
};
use crate::{
    process::Ended,
    victim::{
        http,
        report::{Sample, now_ns},
    },
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "partition-after-commit",
    number: "10",
    story: Story {
        title: "Cut off after the commit",
        lead: "Web, billing and inventory, the latter two over SQLite. Inventory is cut off from web: orders are billed and \
               nothing is put aside. The two databases differ until they are reconciled.",
        production: "Orders that failed, and bills for them. Nothing is wrong with any of the three services, and when the \
                     network is whole again all orders succeed: the difference stays, and nobody is told.",
        look_for: "The crosses are answers 502 after web's time-out of 1 s. They end with the partition; the rows that are \
                   missing do not come by themselves. The table counts rows of the two databases, by sqlite3, before and after \
                   the reconciliation.",
        who: "WEB is the PID of the web service.",
    },
    run,
};

const WEB: u16 = 8280;
const BILLING: u16 = 8281;
const INVENTORY: u16 = 8282;
const SECOND: u64 = 1_000_000_000;
const MARGIN_NS: u64 = 300_000_000;
/// Web waits a second for the inventory.
const PATIENCE: Duration = Duration::from_secs(20);

fn orders(database: &Path) -> anyhow::Result<BTreeSet<String>> {
    let ended = Ended::of(Command::new("sqlite3").arg(database).arg("select number from orders;"))?;
    ensure!(ended.status.success(), "{ended:?}");
    Ok(ended.stdout.lines().map(str::to_owned).collect())
}

/// Two buyers until `over`.
fn buyers(over: &AtomicBool) -> Vec<Sample> {
    let next = AtomicU32::new(1);
    thread::scope(|scope| {
        let buyers = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut samples = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let order = next.fetch_add(1, Ordering::Relaxed);
                    samples.push(http::post("order", local(WEB), &format!("/buy/{order}"), PATIENCE));
                    thread::sleep(Duration::from_millis(400));
                }
                samples
            })
        });
        buyers.into_iter().flat_map(|buyer| buyer.join().unwrap_or_default()).collect()
    })
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    for package in ["python3", "sqlite3"] {
        stage.runs(package)?;
    }
    let each_s: u64 = stage.pace.of(6, 12);
    let place = tempfile::TempDir::new()?;
    let [bills, things] = ["billing.db", "inventory.db"].map(|name| place.path().join(name));
    let services = Services::new()?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let shop = services.start_all(&[
        ("records.py", vec![BILLING.to_string(), text(&bills)]),
        ("records.py", vec![INVENTORY.to_string(), text(&things)]),
        ("web.py", vec![WEB.to_string(), BILLING.to_string(), INVENTORY.to_string()]),
    ])?;
    ensure!(shop.len() == 3, "a service is missing");

    let over = AtomicBool::new(false);
    let peer = format!("peer=127.0.0.1:{INVENTORY}");
    let [after, lasts, then] = ["after", "for", "then"].map(|name| format!("{name}={each_s}s"));
    let words = ["preset", "partition-after-commit", "--pid", "WEB", &peer, &after, &lasts, &then];
    let (begin, samples) = thread::scope(|scope| {
        let buying = scope.spawn(|| buyers(&over));
        let played = stage.fault(&words, &[("WEB", &shop[2].pid())]).and_then(|playing| {
            let begin = now_ns();
            let report = playing.wait()?;
            ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
            Ok(begin)
        });
        over.store(true, Ordering::Relaxed);
        (played, buying.join().unwrap_or_default())
    });
    let begin_ns = begin?;
    for (number, (name, hurt)) in [("before", false), ("cut", true), ("after", false)].into_iter().enumerate()
    {
        let begin_ns = begin_ns + number as u64 * each_s * SECOND;
        stage.record.phases.push(Phase {
            name: name.to_owned(),
            begin_ns,
            end_ns: begin_ns + each_s * SECOND,
            hurt,
        });
    }
    stage.record.samples = samples;
    judge(stage, &bills, &things)
}

fn judge(stage: &mut Stage, bills: &Path, things: &Path) -> anyhow::Result<()> {
    let (record, checks) = (&stage.record, &mut stage.checks);
    for phase in ["before", "after"] {
        let seen = record.inside("order", phase, MARGIN_NS, SECOND + MARGIN_NS);
        checks.equal(
            &format!("{phase}: orders answered 200, of {}", seen.count()),
            seen.ended("200"),
            seen.count(),
        )?;
        checks.that(format!("{phase}: {} orders", seen.count()), seen.count() >= 8)?;
    }
    let cut = record.inside("order", "cut", MARGIN_NS, SECOND + MARGIN_NS);
    checks.that(format!("cut: {} orders", cut.count()), cut.count() >= 4)?;
    checks.equal(&format!("cut: orders answered 502, of {}", cut.count()), cut.ended("502"), cut.count())?;

    let number = |sample: &Sample| sample.what.trim_start_matches("/buy/").to_owned();
    let all: BTreeSet<String> = record.samples.iter().map(number).collect();
    let failed: BTreeSet<String> = record.samples.iter().filter(|sample| !sample.good).map(number).collect();
    let [billed, put_aside] = [orders(bills)?, orders(things)?];
    let missing: BTreeSet<String> = billed.difference(&put_aside).cloned().collect();
    checks.that(format!("all {} orders are billed", all.len()), billed == all)?;
    let inside: BTreeSet<String> = cut.iter().map(number).collect();
    checks.that(
        format!(
            "the {} orders that are billed and not put aside are among the {} that failed, and hold all {} of the partition",
            missing.len(),
            failed.len(),
            inside.len()
        ),
        missing.is_subset(&failed) && inside.is_subset(&missing),
    )?;
    let reconciled = http::post("reconciliation", local(WEB), "/reconcile", PATIENCE);
    checks.that("the reconciliation succeeds", reconciled.good)?;
    let [billed_then, put_aside_then] = [orders(bills)?, orders(things)?];
    checks.equal(
        "orders that are billed and not put aside, after the reconciliation",
        billed_then.symmetric_difference(&put_aside_then).count(),
        0,
    )?;
    checks.that("and no bill came or went", billed_then == billed)?;
    let row = |when: &str, bills: usize, things: usize| {
        vec![when.to_owned(), bills.to_string(), things.to_string(), (bills - things).to_string()]
    };
    stage.tables.push(Table {
        title: "Rows".to_owned(),
        head: ["when", "billed", "put aside", "difference"].map(str::to_owned).to_vec(),
        rows: vec![
            row("the network is whole again", billed.len(), put_aside.len()),
            row("after the reconciliation", billed_then.len(), put_aside_then.len()),
        ],
    });
    Ok(())
}
