//! A page of five services, one of which is slow and then dead; with time-outs and without.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::ensure;

use super::{
    Scenario, Story,
    record::Phase,
    service::{Services, local},
    stage::Stage,
};
use crate::victim::{
    http,
    report::{Sample, now_ns},
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "slow-dependency",
    number: "4",
    story: Story {
        title: "One slow downstream of many",
        lead: "A page put together from five services. One of them is slow, with a long tail, and then dead. Without time-outs \
               the page is as slow as the slowest part; with them it stays flat, and lacks a part.",
        production: "The latency of a whole page follows that of its slowest part, far from where the graph of that part is \
                     looked at. When the part is dead, requests pile up in the page's workers: memory and threads grow, CPU \
                     does not.",
        look_for: "Without time-outs the dots climb and scatter as the slow service does, and when it is dead there are only \
                   crosses at the user's own patience of 3 s. With a time-out of 500 ms for each part, no page is later than \
                   that in either phase. A third page is not the target, and asks the same services: none of them is slow in \
                   truth.",
        who: "PLAIN and GUARDED are the PIDs of the pages without and with time-outs.",
    },
    run,
};

const PARTS: [(&str, u16); 5] =
    [("header", 8270), ("article", 8271), ("prices", 8272), ("reviews", 8273), ("advertising", 8274)];
const SLOW: u16 = 8273;
/// Series, port of the page, how long it waits for a part.
const PAGES: [(&str, u16, &str); 3] =
    [("without time-outs", 8275, "0"), ("with time-outs", 8276, "0.5"), ("no target", 8277, "0")];
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_NS: u64 = 3_000_000_000;
const MARGIN_NS: u64 = 300_000_000;

/// How many parts a page has: `5 parts`. A page that lacks some is still a page.
fn parts(answer: &http::Answer) -> (String, bool) {
    let page: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let parts =
        page["parts"].as_array().map_or(0, |parts| parts.iter().filter(|part| part.is_string()).count());
    (format!("{parts} parts"), parts > 0)
}

/// Users of all three pages until `over`.
fn users(over: &AtomicBool) -> Vec<Sample> {
    thread::scope(|scope| {
        let users: Vec<_> = PAGES
            .iter()
            .flat_map(|page| [page; 2])
            .map(|(who, port, _)| {
                scope.spawn(move || {
                    let mut samples = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        samples.push(http::look(who, local(*port), "/", PATIENCE, parts));
                        thread::sleep(Duration::from_millis(800));
                    }
                    samples
                })
            })
            .collect();
        users.into_iter().flat_map(|user| user.join().unwrap_or_default()).collect()
    })
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    stage.runs("python3")?;
    let each_s: u64 = stage.pace.of(10, 20);
    let services = Services::new()?;
    let parts = PARTS.map(|(name, port)| ("shop.py", vec![name.to_owned(), port.to_string()]));
    let _parts = services.start_all(&parts)?;
    let ports: Vec<String> = PARTS.iter().map(|(_, port)| port.to_string()).collect();
    let pages = PAGES.map(|(_, port, patience)| {
        ("page.py", [vec![port.to_string(), patience.to_owned()], ports.clone()].concat())
    });
    let pages = services.start_all(&pages)?;
    ensure!(pages.len() == PAGES.len(), "a page is missing");

    let over = AtomicBool::new(false);
    let (samples, phases) = thread::scope(|scope| {
        let asking = scope.spawn(|| users(&over));
        let phases = phases(stage, each_s, &pages[0].pid(), &pages[1].pid());
        over.store(true, Ordering::Relaxed);
        (asking.join().unwrap_or_default(), phases)
    });
    stage.record.phases = phases?;
    let begin_ns = stage.record.phases[0].begin_ns;
    stage.record.samples = samples.into_iter().filter(|sample| sample.at_ns >= begin_ns).collect();
    stage.record.samples.sort_by_key(|sample| sample.at_ns);
    judge(stage)
}

/// Healthy, slow, dead, healthy.
fn phases(stage: &mut Stage, each_s: u64, plain: &str, guarded: &str) -> anyhow::Result<Vec<Phase>> {
    let second = 1_000_000_000;
    // The first requests of everybody are over.
    thread::sleep(Duration::from_secs(1));
    let before = now_ns();
    thread::sleep(Duration::from_secs(each_s));
    let armed_from = now_ns();
    let (peer, slow, dead) =
        (format!("peer=127.0.0.1:{SLOW}"), format!("slow={each_s}s"), format!("dead={each_s}s"));
    let words =
        ["play", "scenarios/slow-then-dead.toml", "--pid", "PLAIN", "--pid", "GUARDED", &peer, &slow, &dead];
    let playing = stage.fault_with(&words, &[("PLAIN", plain), ("GUARDED", guarded)], &["--seed", "1"])?;
    let active = now_ns();
    let report = playing.wait()?;
    ensure!(report.status.success(), "{}", report.stderr);
    // Requests that began when the service was dead end by the user's patience.
    let after = now_ns() + PATIENCE_NS;
    thread::sleep(PATIENCE + Duration::from_secs(each_s));
    let phase = |name: &str, begin_ns, end_ns, hurt| Phase { name: name.to_owned(), begin_ns, end_ns, hurt };
    Ok(vec![
        phase("before", before, armed_from, false),
        phase("slow", active, active + each_s * second, true),
        phase("dead", active + each_s * second, active + 2 * each_s * second, true),
        phase("after", after, now_ns(), false),
    ])
}

fn judge(stage: &mut Stage) -> anyhow::Result<()> {
    let (record, checks) = (&stage.record, &mut stage.checks);
    let [plain, guarded, other] = PAGES.map(|(who, ..)| who);
    let seen = |who, phase| record.inside(who, phase, MARGIN_NS, PATIENCE_NS + MARGIN_NS);
    for phase in ["before", "slow", "dead", "after"] {
        for who in [plain, guarded, other] {
            if (who, phase) == (plain, "dead") || (who, phase) == (plain, "slow") {
                continue;
            }
            let pages = seen(who, phase);
            checks.that(format!("{who}, {phase}: {} pages", pages.count()), pages.count() >= 4)?;
            checks.equal(
                &format!("{who}, {phase}: pages that came, of {}", pages.count()),
                pages.good(),
                pages.count(),
            )?;
        }
    }
    let usual = seen(guarded, "before").median_ms();
    for phase in ["slow", "dead"] {
        let median = seen(guarded, phase).median_ms();
        checks.that(
            format!("{guarded}, {phase}: median {median:.0} ms, no more than the {usual:.0} ms before and the time-out, twice at most (connecting, reading)"),
            median < usual * 1.5 + 2.0 * 500.0,
        )?;
        let others = seen(other, phase).median_ms();
        checks.that(
            format!(
                "{other}, {phase}: median {others:.0} ms, less than twice the {usual:.0} ms before and 20 ms"
            ),
            others < 2.0 * usual + 20.0,
        )?;
    }
    // Not than before: how long a page takes on an emulated machine depends on how many are made at once.
    let (slow, others) = (seen(plain, "slow"), seen(other, "slow").median_ms());
    checks.that(
        format!(
            "{plain}, slow: median {:.0} ms, at least 700 ms more than the {others:.0} ms of who is no target, then",
            slow.median_ms()
        ),
        slow.median_ms() > others + 700.0,
    )?;
    let dead = seen(guarded, "dead");
    checks.equal(
        &format!("{guarded}, dead: pages that lack one part of five, of {}", dead.count()),
        dead.ended("4 parts"),
        dead.count(),
    )?;
    for phase in ["slow", "dead"] {
        let whole = seen(other, phase);
        checks.equal(
            &format!("{other}, {phase}: whole pages, of {}", whole.count()),
            whole.ended("5 parts"),
            whole.count(),
        )?;
    }
    let dead = seen(plain, "dead");
    checks.equal(
        &format!("{plain}, dead: users who gave up, of {}", dead.count()),
        dead.ended("timed out"),
        dead.count(),
    )
}
