//! One nginx through five states by one scenario file.

use anyhow::ensure;

use super::{
    Scenario, Story,
    record::Phase,
    service::Nginx,
    stage::{Stage, Table},
};
use crate::{
    driver::victim,
    process::Process,
    victim::report::{Sample, now_ns},
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "five-states",
    number: "11",
    story: Story {
        title: "The five states of a service",
        lead: "One nginx is healthy, degraded, overloaded, unresponsive, crashed, and healthy again. A health check that only \
               opens a socket says \"up\" in four of the five.",
        production: "First the latency rises. Then some requests end at the time-out, then all of them, and at last all of \
                     them at once: that is the first moment at which such a health check turns red.",
        look_for: "The crosses of users climb to their time-out of 2 s and stay there, and fall to almost nothing when \
                   connections are refused. The dots of the health check go on through all of it until then: late when nginx \
                   is late, but up.",
        who: "USERS is the PID of the program that asks; the health check is one of its threads, and suffers the same.",
    },
    run,
};

const PORT: u16 = 8240;
const PATIENCE_NS: u64 = 2_000_000_000;
/// Changes of phases are in time to 5 ms; nobody here is that exact.
const MARGIN_NS: u64 = 300_000_000;
/// Of connections, in `scenarios/five-states.toml`.
const OVERLOADED: f64 = 0.4;
const STATES: [&str; 6] = ["healthy", "degraded", "overloaded", "unresponsive", "crashed", "healthy again"];

/// Users and a check, as a process that faults are aimed at, or nobody's aim.
fn users(port: u16, users: u32) -> anyhow::Result<Process> {
    let mut command = std::process::Command::new(victim()?);
    command.args(["ask", &format!("127.0.0.1:{port}"), "--path", "/page", "--users", &users.to_string()]);
    command.args(["--pause-ms", "150", "--patience-ms", &(PATIENCE_NS / 1_000_000).to_string()]);
    Process::start_until(&mut command, "ready")
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    stage.runs("nginx-light")?;
    let each_s: u64 = stage.pace.of(5, 10);
    let _nginx = Nginx::start(PORT, "")?;
    let (mut target, mut bystander) = (users(PORT, stage.pace.of(8, 10))?, users(PORT, 1)?);
    let (peer, each) = (format!("peer=127.0.0.1:{PORT}"), format!("each={each_s}s"));
    let playing = stage.fault_with(
        &["play", "scenarios/five-states.toml", "--pid", "USERS", &peer, &each],
        &[("USERS", &target.pid())],
        &["--seed", "1"],
    )?;
    let begin_ns = now_ns();
    let report = playing.wait()?;
    ensure!(report.status.success(), "{}", report.stderr);
    target.release()?;
    bystander.release()?;
    let samples: Vec<Sample> = target.report()?;
    let others: Vec<Sample> = bystander.report()?;
    ensure!(!samples.is_empty(), "nobody asked");
    for (number, name) in STATES.into_iter().enumerate() {
        let begin_ns = begin_ns + number as u64 * each_s * 1_000_000_000;
        let end_ns = begin_ns + each_s * 1_000_000_000;
        stage.record.phases.push(Phase {
            name: name.to_owned(),
            begin_ns,
            end_ns,
            hurt: (1..=4).contains(&number),
        });
    }
    // What came before the scenario is of no phase.
    let first = begin_ns.saturating_sub(2_000_000_000);
    stage.record.samples.extend(samples.into_iter().filter(|sample| sample.at_ns >= first));
    let rename = |sample: Sample| Sample { who: format!("{} that is no target", sample.who), ..sample };
    stage.record.samples.extend(others.into_iter().filter(|sample| sample.at_ns >= first).map(rename));
    judge(stage)
}

fn judge(stage: &mut Stage) -> anyhow::Result<()> {
    let record = &stage.record;
    let users = |phase| record.inside("user", phase, MARGIN_NS, PATIENCE_NS + MARGIN_NS);
    let health = |phase| record.inside("health check", phase, MARGIN_NS, PATIENCE_NS + MARGIN_NS);
    let checks = &mut stage.checks;
    let mut rows = Vec::new();
    for phase in STATES {
        let (users, health) = (users(phase), health(phase));
        checks.that(
            format!("{phase}: {} requests and {} health checks", users.count(), health.count()),
            users.count() >= 8 && health.count() >= 2,
        )?;
        let up = health.good() == health.count();
        checks.that(
            format!(
                "{phase}: the health check says {}, {} of {}",
                if up { "up" } else { "down" },
                health.good(),
                health.count()
            ),
            if phase == "crashed" { health.good() == 0 } else { up },
        )?;
        rows.push(vec![
            phase.to_owned(),
            format!("{} of {}", users.good(), users.count()),
            format!("{:.0} ms", users.median_ms()),
            (if up { "up" } else { "down" }).to_owned(),
        ]);
    }
    let healthy = users("healthy");
    for phase in ["healthy", "healthy again", "degraded"] {
        let seen = users(phase);
        checks.equal(
            &format!("{phase}: requests answered, of {}", seen.count()),
            seen.ended("200"),
            seen.count(),
        )?;
    }
    // The handshake and the answer, each 50 ms late.
    let (usual, late) = (healthy.median_ms(), users("degraded").median_ms());
    checks.that(
        format!("degraded: median {late:.0} ms, at least 60 ms more than the {usual:.0} ms of healthy"),
        late >= usual + 60.0,
    )?;
    let overloaded = users("overloaded");
    checks.binomial(
        "overloaded: requests that timed out",
        overloaded.ended("timed out"),
        overloaded.count(),
        OVERLOADED,
    )?;
    checks.equal(
        "overloaded: the others were answered",
        overloaded.ended("200"),
        overloaded.count() - overloaded.ended("timed out"),
    )?;
    let unresponsive = users("unresponsive");
    checks.equal(
        "unresponsive: requests that timed out, all",
        unresponsive.ended("timed out"),
        unresponsive.count(),
    )?;
    let crashed = users("crashed");
    checks.equal("crashed: requests that were refused, all", crashed.ended("refused"), crashed.count())?;
    checks.that(
        format!("crashed: at once, the slowest within {:.0} ms", crashed.worst_ms()),
        crashed.worst_ms() < PATIENCE_NS as f64 / 1e6,
    )?;
    for who in ["user that is no target", "health check that is no target"] {
        let all: Vec<_> = STATES.iter().map(|phase| record.of(who, phase)).collect();
        let (good, count) = all.iter().fold((0, 0), |sum, view| (sum.0 + view.good(), sum.1 + view.count()));
        checks.equal(&format!("{who}: good in all states, of {count}"), good, count)?;
    }
    let up = rows.iter().take(5).filter(|row| row.last().is_some_and(|word| word == "up")).count();
    checks.equal("states of five in which the health check says up", up, 4)?;
    stage.tables.push(Table {
        title: "States".to_owned(),
        head: ["state", "requests answered", "median", "health check"].map(str::to_owned).to_vec(),
        rows,
    });
    Ok(())
}
