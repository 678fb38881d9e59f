//! PostgreSQL and a replica whose stream limps.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::{
    Scenario, Story,
    service::Services,
    stage::{Stage, Table},
};
use crate::{
    postgres_lab::{self, Postgres},
    process::Process,
    victim::report::Sample,
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "replica-lag",
    number: "5",
    story: Story {
        title: "A replica that falls behind",
        lead: "PostgreSQL and a streaming replica. The stream limps at 64 KiB/s, less than what is written: the replica answers \
               in time, with what was true some time ago.",
        production: "Users who do not find what they have just saved. Both servers are up, connected (`pg_stat_replication` \
                     says `streaming`) and log nothing; reads of the replica are as fast as ever. The distance between \
                     `pg_current_wal_lsn()` and `replay_lsn` grows.",
        look_for: "The dots of reads and writes stay where they were. The crosses are answers that lack something which had been \
                   acknowledged before the question; their age climbs for as long as the link limps, and falls to nothing when \
                   the link is whole.",
        who: "REPLICA is the PID of the replica's first process.",
    },
    run,
};

const PORT: u16 = 5432;
const RATE: f64 = 65536.0;
/// How long the replica may take to catch up, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Told {
    samples: Vec<Sample>,
    stream: Vec<Moment>,
}

/// Bytes of log.
#[derive(Clone, Copy, Deserialize)]
struct Moment {
    at_ns: u64,
    written: u64,
    received: u64,
}

impl Moment {
    fn behind(self) -> u64 {
        self.written.saturating_sub(self.received)
    }
}

struct Pair {
    services: Services,
    primary: Postgres,
    replica: Postgres,
}

impl Pair {
    fn start(place: &std::path::Path) -> anyhow::Result<Self> {
        let mut primary = postgres_lab::make(place, 1)?.pop().context("one was asked for")?;
        primary.start_with(&["listen_addresses=127.0.0.1", &format!("port={PORT}")])?;
        let mut replica = primary.replica(PORT)?;
        replica.start()?;
        Ok(Self { services: Services::new()?, primary, replica })
    }

    fn readers(&self, seconds: u64) -> anyhow::Result<Process> {
        let [primary, replica] =
            [&self.primary, &self.replica].map(|server| server.directory().to_string_lossy().into_owned());
        self.services.start("readers.py", &[&primary, &replica, &seconds.to_string()])
    }

    fn caught_up(&self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let written = self.primary.sql("select pg_current_wal_flush_lsn();\n")?;
        let query = format!("select pg_last_wal_replay_lsn() >= '{}';\n", written.stdout.trim());
        while self.replica.sql(&query)?.stdout.trim() != "t" {
            ensure!(begin.elapsed() < PATIENCE, "the replica does not catch up: {}", self.replica.log()?);
        }
        Ok(begin.elapsed())
    }
}

fn read(mut readers: Process) -> anyhow::Result<(Vec<Moment>, Vec<Sample>)> {
    readers.release()?;
    let told: Told = readers.report()?;
    Ok((told.stream, told.samples))
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    for package in ["postgresql-15", "python3-psycopg2"] {
        stage.runs(package)?;
    }
    let place = tempfile::TempDir::new()?;
    let pair = Pair::start(place.path())?;
    let seconds = stage.pace.of(8, 20);

    let readers = pair.readers(seconds)?;
    pair.caught_up()?;
    stage.phase("before", || read(readers))?;
    let readers = pair.readers(seconds)?;
    pair.caught_up()?;
    let primary = format!("primary=127.0.0.1:{PORT}");
    let injection = stage.fault(
        &["preset", "replica-lag", "--pid", "REPLICA", &primary, "rate=64KiB/s", "for=10m"],
        &[("REPLICA", &pair.replica.pid()?)],
    )?;
    let during = stage.hurt("during", || read(readers))?;
    let report = injection.heal()?;
    let caught_up = stage.phase("catching up", || Ok((pair.caught_up()?, Vec::new())))?;
    let readers = pair.readers(seconds)?;
    stage.phase("after", || read(readers))?;

    stage.checks.that("`fault` counts late packets", report.rule(0, "injected")? > 0)?;
    let lag = judge(stage, &during)?;
    for (who, server) in [("primary", &pair.primary), ("replica", &pair.replica)] {
        let log = server.log()?;
        let bad: Vec<&str> = ["ERROR", "PANIC", "terminat", "could not receive"]
            .into_iter()
            .filter(|word| log.contains(word))
            .collect();
        stage.checks.that(format!("the {who} logged no error and lost no connection"), bad.is_empty())?;
    }
    stage.tables.push(Table {
        title: "The stream".to_owned(),
        head: ["written during the fault", "received", "a second", "behind at the end", "caught up in"]
            .map(str::to_owned)
            .to_vec(),
        rows: vec![[lag, vec![format!("{:.1} s", caught_up.as_secs_f64())]].concat()],
    });
    Ok(())
}

fn judge(stage: &mut Stage, stream: &[Moment]) -> anyhow::Result<Vec<String>> {
    let (record, checks) = (&stage.record, &mut stage.checks);
    for phase in ["before", "during", "after"] {
        for who in ["write to the primary", "read from the replica"] {
            let seen = record.of(who, phase);
            checks.equal(
                &format!("{who} {phase}: without an error, of {}", seen.count()),
                seen.good(),
                seen.count(),
            )?;
        }
    }
    let [usual, during] =
        ["before", "during"].map(|phase| record.of("read from the replica", phase).median_ms());
    checks.that(
        format!("reads during: median {during:.1} ms, less than twice the {usual:.1} ms before and 10 ms"),
        during < 2.0 * usual + 10.0,
    )?;
    // What the queue of the link lets through at once after a rest is over by then.
    let begin = stream
        .iter()
        .find(|moment| moment.at_ns > stream[0].at_ns + 2_000_000_000)
        .context("a short phase")?;
    let end = stream.last().context("no stream")?;
    let seconds = (end.at_ns - begin.at_ns) as f64 / 1e9;
    let (written, received) = (end.written - begin.written, end.received - begin.received);
    let rate = received as f64 / seconds;
    // The queue in front of the link has an end; what finds it full, TCP sends again, and that takes its part of the link.
    checks.that(
        format!(
            "the replica received {:.1} KiB/s of the 64 KiB/s that pass, no less than three quarters",
            rate / 1024.0
        ),
        (0.75 * RATE..=1.02 * RATE).contains(&rate),
    )?;
    let (grown, due) = ((end.behind() - begin.behind()) as f64, written as f64 - RATE * seconds);
    checks.that(
        format!(
            "the lag grew by {:.0} KiB; computed from the rate: {:.0} KiB, to a seventh of what was written",
            grown / 1024.0,
            due / 1024.0
        ),
        (grown - due).abs() < written as f64 / 7.0 && grown > 0.0,
    )?;
    let ages = record.of("age of the answer", "during");
    let half = ages.iter().skip(ages.count() / 2);
    let (stale, count) = half.fold((0, 0), |sum, sample| (sum.0 + usize::from(!sample.good), sum.1 + 1));
    checks.equal(&format!("answers of the second half that were stale, of {count}"), stale, count)?;
    let after = record.of("age of the answer", "after");
    checks.that(
        format!("after: no answer older than 2 s (the oldest {:.0} ms)", after.worst_ms()),
        after.worst_ms() < 2000.0,
    )?;
    Ok(vec![
        format!("{:.0} KiB", written as f64 / 1024.0),
        format!("{:.0} KiB", received as f64 / 1024.0),
        format!("{:.1} KiB", rate / 1024.0),
        format!("{:.0} KiB", end.behind() as f64 / 1024.0),
    ])
}
