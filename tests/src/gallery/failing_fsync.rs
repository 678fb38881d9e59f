//! PostgreSQL whose fsync fails once: of its log by the call alone, of its log by the disk, of a table at a checkpoint.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::{Context as _, ensure};

use super::{
    Scenario, Story,
    record::{Phase, Record},
    service::Services,
    stage::{Stage, Table},
};
use crate::{
    disk_lab::{FileSystem, forget_cached},
    postgres_lab::{self, Postgres},
    process::Ended,
    victim::report::{Sample, now_ns},
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "failing-fsync",
    number: "8",
    story: Story {
        title: "An fsync that fails once",
        lead: "PostgreSQL on ext4. Once, its log or a table does not get to the disk, and fsync says so. The server takes itself \
               down on purpose, recovers from its log within seconds, and loses nothing; one that is told to try again instead \
               goes on, and loses rows that it had acknowledged.",
        production: "`PANIC: could not fsync file …: Input/output error` (`fdatasync` for the log) in the server's log, all \
                     connections gone at once, and `the database system is in recovery mode` for some seconds: one failed \
                     write out of millions. It looks like a crash, and is the cure: the kernel tells a failed write once and \
                     then takes the page for clean, so that a second fsync succeeds and proves nothing. That is what was \
                     found out in 2018 (\"fsyncgate\"). PostgreSQL has not tried again since 11.2; `data_sync_retry = on` \
                     brings the old ways back.",
        look_for: "In each of the three phases with a fault, dots until the first fsync (of the next commit, or of the \
                   checkpoint), then crosses of reads and writes alike while the server recovers, then dots again. Reads take no \
                   fsync, and are answered until then. The dots of another server on the same disk go on through all of it. \
                   A write that ended with an error may be there all the same (see the table): an error of a commit is no \
                   answer.",
        who: "POSTGRES and RETRYING are the PIDs of the first processes of two servers, of which RETRYING has \
              `data_sync_retry = on`; LOG is `pg_wal/*` of the first, TABLE and OTHER the file of a table of each.",
    },
    run,
};

const TARGET: &str = "PostgreSQL";
const BYSTANDER: &str = "another PostgreSQL";
const PHASES: [&str; 5] = ["before", "log, the call", "log, the disk", "table, the disk", "after"];
/// What the log of a server says when it goes down, in the order of the phases.
const PANICS: [&str; 3] = ["could not fdatasync file", "could not fdatasync file", "could not fsync file"];
/// Those with a fault.
const HURT: [&str; 3] = [PHASES[1], PHASES[2], PHASES[3]];
/// Between the beginning of the last fault and the checkpoint.
const REST_NS: u64 = 2_000_000_000;
/// What we may be late to learn that `fault` has begun.
const LATE_NS: u64 = 100_000_000;
/// How the requests of those end who were connected, or want to be, while the server recovers.
const GONE: [&str; 6] = [
    "terminating connection",
    "server closed the connection",
    "in recovery mode",
    "starting up",
    "not yet accepting",
    "Connection refused",
];
/// Rows of the server that tries again: as many on the disk before the fault as acknowledged during it. All fit in one page,
/// so that the one write that fails is that of all of them.
const ROWS: u32 = 20;

fn succeeds(server: &Postgres, sql: &str) -> anyhow::Result<String> {
    let ended = server.sql(sql)?;
    ensure!(ended.status.success() && !ended.stderr.contains("ERROR"), "{sql}: {ended:?}");
    Ok(ended.stdout.trim().to_owned())
}

/// Rows, each in a transaction of its own.
fn rows(numbers: std::ops::Range<u32>) -> String {
    numbers.map(|n| format!("insert into ledger values ({n}, repeat('x', 100)) returning n;\n")).collect()
}

fn table(server: &Postgres) -> anyhow::Result<String> {
    let file = succeeds(server, "select pg_relation_filepath('ledger');\n")?;
    Ok(server.directory().join(file).to_string_lossy().into_owned())
}

/// Three servers on one disk.
struct Servers {
    target: Postgres,
    bystander: Postgres,
    retrying: Postgres,
    // After the servers: they have files open in it.
    _files: FileSystem,
}

impl Servers {
    fn start() -> anyhow::Result<Self> {
        let files = FileSystem::new()?;
        let made = postgres_lab::make(Path::new(&files.mount_point()), 3)?;
        let Ok([target, bystander, retrying]) = <[Postgres; 3]>::try_from(made) else {
            anyhow::bail!("three were asked for")
        };
        let mut servers = Self { target, bystander, retrying, _files: files };
        servers.target.start()?;
        servers.bystander.start()?;
        // Only we say when it writes its table.
        servers.retrying.start_with(&["data_sync_retry=on", "checkpoint_timeout=1h"])?;
        for server in [&servers.target, &servers.bystander, &servers.retrying] {
            succeeds(server, "create table ledger(n integer, s text);\n")?;
        }
        succeeds(&servers.retrying, &rows(0..ROWS))?;
        for server in [&servers.target, &servers.bystander, &servers.retrying] {
            succeeds(server, "checkpoint;\n")?;
        }
        Ok(servers)
    }
}

/// What became of the server that tries again.
struct Retried {
    acknowledged: usize,
    checkpoints: Ended,
}

/// Rows are acknowledged and read, and then a checkpoint fails, and the next one does not; both are asked for on one
/// connection.
fn retry(server: &Postgres) -> anyhow::Result<Retried> {
    let acknowledged = succeeds(server, &rows(ROWS..2 * ROWS))?.lines().count();
    // The first look at rows writes down that they are visible: afterwards, nothing makes the page dirty again.
    succeeds(server, "select n from ledger;\n")?;
    let checkpoints = server.sql("checkpoint;\nselect 'connected';\ncheckpoint;\n")?;
    Ok(Retried { acknowledged, checkpoints })
}

fn sleep_until(at_ns: u64) {
    std::thread::sleep(Duration::from_nanos(at_ns.saturating_sub(now_ns())));
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    for package in ["postgresql-15", "python3-psycopg2", "e2fsprogs"] {
        stage.runs(package)?;
    }
    let mut servers = Servers::start()?;
    let services = Services::new()?;
    let mut clients = Vec::new();
    for (who, server) in [(TARGET, &servers.target), (BYSTANDER, &servers.bystander)] {
        clients.push((who, services.start("commits.py", &[&server.directory().to_string_lossy()])?));
    }

    let each_s: u64 = stage.pace.of(12, 20);
    let each = format!("each={each_s}s");
    let known = [
        ("POSTGRES", servers.target.pid()?),
        ("RETRYING", servers.retrying.pid()?),
        ("LOG", servers.target.directory().join("pg_wal/*").to_string_lossy().into_owned()),
        ("TABLE", table(&servers.target)?),
        ("OTHER", table(&servers.retrying)?),
    ];
    let known: Vec<(&str, &str)> = known.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let words = ["play", "scenarios/failing-fsync.toml", "--pid", "POSTGRES", "--pid", "RETRYING"];
    let words = [&words[..], &["log=LOG", "table=TABLE", "other=OTHER", &each]].concat();
    let playing = stage.fault(&words, &known)?;
    let begin_ns = now_ns();
    let phase_ns = |number: usize| begin_ns + number as u64 * each_s * 1_000_000_000;

    // Commits meet the faults of the log by themselves.
    sleep_until(phase_ns(3) + REST_NS);
    let asked_ns = now_ns();
    let [broken, unhurt] = [&servers.target, &servers.bystander].map(|server| server.sql("checkpoint;\n"));
    let retried = retry(&servers.retrying)?;
    let report = playing.wait()?;
    for (who, mut client) in clients {
        client.release()?;
        let samples: Vec<Sample> = client.report()?;
        // What came before the scenario is of no phase.
        let samples = samples.into_iter().filter(|sample| end(sample) >= begin_ns);
        let rename = |sample: Sample| Sample { who: format!("{who}: {}", sample.who), ..sample };
        stage.record.samples.extend(samples.map(rename));
    }
    for (number, name) in PHASES.into_iter().enumerate() {
        stage.record.phases.push(Phase {
            name: name.to_owned(),
            begin_ns: with_pending(&stage.record, phase_ns(number)),
            end_ns: with_pending(&stage.record, phase_ns(number + 1)),
            hurt: (1..=3).contains(&number),
        });
    }
    let checks = &mut stage.checks;
    // The file says so of each: it fails otherwise.
    ensure!(report.status.success(), "{}", report.stderr);
    checks.that("each of the four faults hit one operation", true)?;
    checks.that("PostgreSQL's checkpoint ended with its connection", !broken?.status.success())?;
    checks.that(format!("that of {BYSTANDER} at the same time succeeded"), unhurt?.status.success())?;
    judge(stage, asked_ns)?;
    what_it_did(stage, &mut servers)?;
    retried_in_vain(stage, &mut servers.retrying, &retried)
}

fn end(sample: &Sample) -> u64 {
    sample.at_ns + sample.took_ns
}

/// A phase begins with the oldest request that was under way when it did: that may be what meets the fault.
fn with_pending(record: &Record, at_ns: u64) -> u64 {
    let at_ns = at_ns - LATE_NS;
    let pending = record.samples.iter().filter(|sample| (sample.at_ns..=end(sample)).contains(&at_ns));
    pending.map(|sample| sample.at_ns).fold(at_ns, u64::min)
}

/// Reads and writes of one in a phase, in the order of time.
fn requests(record: &Record, who: &str, phase: &str) -> Vec<Sample> {
    let mut all: Vec<Sample> = Vec::new();
    for what in ["read", "write"] {
        all.extend(record.of(&format!("{who}: {what}"), phase).iter().cloned());
    }
    all.sort_by_key(|sample| sample.at_ns);
    all
}

/// Everything succeeded.
fn whole(stage: &mut Stage, who: &str, phase: &str) -> anyhow::Result<()> {
    for what in ["read", "write"] {
        let all = stage.record.of(&format!("{who}: {what}"), phase);
        stage.checks.that(
            format!("{who}, {phase}: {what}s that succeeded, of {}: {}", all.count(), all.good()),
            all.count() > 3 && all.good() == all.count(),
        )?;
    }
    Ok(())
}

fn judge(stage: &mut Stage, asked_ns: u64) -> anyhow::Result<()> {
    whole(stage, TARGET, "before")?;
    let mut calm = 0;
    for phase in HURT {
        let all = requests(&stage.record, TARGET, phase);
        let checks = &mut stage.checks;
        let failed: Vec<&Sample> = all.iter().filter(|sample| !sample.good).collect();
        let first =
            failed.iter().map(|sample| end(sample)).min().with_context(|| format!("{phase}: none failed"))?;
        calm += all.iter().filter(|sample| sample.who.ends_with("read") && end(sample) < first).count();
        if phase == HURT[2] {
            let early: Vec<&Sample> = all.iter().filter(|sample| end(sample) < asked_ns).collect();
            let good = early.iter().filter(|sample| sample.good).count();
            checks.equal(
                &format!("{phase}: requests before the checkpoint that succeeded, of {}", early.len()),
                good,
                early.len(),
            )?;
        }
        for what in ["read", "write"] {
            let of: Vec<&Sample> = all.iter().filter(|sample| sample.who.ends_with(what)).collect();
            let count = of.iter().filter(|sample| !sample.good).count();
            checks.that(format!("{phase}: {what}s failed, {count} of {}", of.len()), count > 0)?;
            checks.that(
                format!("{phase}: the last {what} succeeded"),
                of.last().is_some_and(|sample| sample.good),
            )?;
        }
        let gone = |sample: &&Sample| GONE.iter().any(|words| sample.outcome.contains(words));
        let told: Vec<&str> =
            failed.iter().filter(|sample| !gone(sample)).map(|sample| sample.outcome.as_str()).collect();
        checks.that(
            format!(
                "{phase}: of those that failed, {} by a connection that was gone or not to be had, {} by an error of the disk",
                failed.len() - told.len(),
                told.len()
            ),
            told.len() <= 1 && told.iter().all(|outcome| outcome.starts_with(PANICS[0])),
        )?;
    }
    stage.checks.that(
        format!("reads that were answered with a fault in force, before the first fsync met it: {calm}"),
        calm > 0,
    )?;
    whole(stage, TARGET, "after")?;
    for phase in PHASES {
        whole(stage, BYSTANDER, phase)?;
    }
    Ok(())
}

/// Its log agrees, and after a crash what was acknowledged is there: from the disk, not from what memory believes.
fn what_it_did(stage: &mut Stage, servers: &mut Servers) -> anyhow::Result<()> {
    let log = servers.target.log()?;
    let panics: Vec<&str> =
        log.lines().filter_map(|line| Some(line.split_once("PANIC:")?.1.trim())).collect();
    let checks = &mut stage.checks;
    checks.equal("PANICs in PostgreSQL's log", panics.len(), 3)?;
    checks.equal("recoveries in its log", log.matches("redo done at").count(), 3)?;
    let names = panics.iter().zip(PANICS).filter(|(panic, words)| panic.starts_with(words)).count();
    checks.equal("PANICs that name the call and the error", names, 3)?;
    for (who, server) in [(BYSTANDER, &servers.bystander), ("the one that tries again", &servers.retrying)] {
        checks.equal(&format!("PANICs in the log of {who}"), server.log()?.matches("PANIC").count(), 0)?;
    }

    servers.target.crash()?;
    forget_cached()?;
    servers.target.start()?;
    let there = succeeds(&servers.target, "select n from ledger;\n")?;
    let there: BTreeSet<&str> = there.split_whitespace().collect();
    let writes = stage.record.samples.iter().filter(|sample| sample.who == format!("{TARGET}: write"));
    let acknowledged: Vec<&Sample> = writes.filter(|sample| sample.good).collect();
    let lost = acknowledged.iter().filter(|sample| !there.contains(sample.what.as_str())).count();
    checks.equal(
        &format!(
            "PostgreSQL: rows lost after another crash, of {} that were acknowledged",
            acknowledged.len()
        ),
        lost,
        0,
    )?;

    let mut rows = Vec::new();
    for (phase, panic) in HURT.into_iter().zip(&panics) {
        let all = requests(&stage.record, TARGET, phase);
        let failed = || all.iter().filter(|sample| !sample.good);
        let down_ns = failed().map(end).min().unwrap_or(0);
        let mut writes = all.iter().filter(|sample| sample.who.ends_with("write"));
        let up_ns = writes.find(|sample| sample.good && end(sample) > down_ns).map_or(u64::MAX, end);
        let sent: Vec<&Sample> = failed().filter(|sample| !sample.what.is_empty()).collect();
        let found = sent.iter().filter(|sample| there.contains(sample.what.as_str())).count();
        rows.push(vec![
            phase.to_owned(),
            format!("`PANIC: {panic}`"),
            format!("{:.1} s", up_ns.saturating_sub(down_ns) as f64 / 1e9),
            sent.len().to_string(),
            found.to_string(),
        ]);
    }
    stage.tables.push(Table {
        title: "What PostgreSQL did".to_owned(),
        head: [
            "phase",
            "its log",
            "until the next commit",
            "commits that were sent and failed",
            "there all the same",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    });
    Ok(())
}

/// The second checkpoint said that all is well. After a crash, it is not.
fn retried_in_vain(stage: &mut Stage, server: &mut Postgres, retried: &Retried) -> anyhow::Result<()> {
    server.crash()?;
    forget_cached()?;
    server.start()?;
    let there = succeeds(server, "select n from ledger;\n")?;
    let there: BTreeSet<u32> = there.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let of = |numbers: std::ops::Range<u32>| numbers.filter(|n| there.contains(n)).count();
    let (old, new) = (of(0..ROWS), of(ROWS..2 * ROWS));
    let checks = &mut stage.checks;
    let said = &retried.checkpoints;
    checks.that(
        "`data_sync_retry = on`: the first of two checkpoints failed, the connection went on, the second succeeded",
        said.stderr.matches("ERROR").count() == 1
            && said.stderr.contains("checkpoint request failed")
            && said.stdout.trim() == "connected"
            && said.status.success(),
    )?;
    checks.equal(
        "`data_sync_retry = on`: rows acknowledged meanwhile",
        retried.acknowledged,
        ROWS as usize,
    )?;
    checks.equal(
        "`data_sync_retry = on`: of these lost after a crash",
        ROWS as usize - new,
        ROWS as usize,
    )?;
    checks.equal("`data_sync_retry = on`: of older rows lost", ROWS as usize - old, 0)?;
    stage.tables.push(Table {
        title: "The same write of a table fails, with `data_sync_retry = on`".to_owned(),
        head: [
            "first checkpoint",
            "second checkpoint",
            "rows acknowledged before them",
            "there after a crash",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: vec![vec![
            "failed".to_owned(),
            "succeeded".to_owned(),
            retried.acknowledged.to_string(),
            new.to_string(),
        ]],
    });
    Ok(())
}
