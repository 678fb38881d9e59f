//! SQLite and PostgreSQL on a disk of which some sectors hang and then fail.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, ensure};

use super::{
    Scenario, Story,
    checks::Checks,
    record::View,
    service::Services,
    stage::{Pace, Stage, Table},
};
use crate::{
    cgroup_lab::CgroupLab,
    disk_lab::{BARE, Extent, FileSystem, Kind, forget_cached, forget_file},
    postgres_lab::{self, Postgres},
    process::Ended,
    victim::report::Sample,
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "failing-disk",
    number: "8",
    story: Story {
        title: "A disk that is failing, not failed",
        lead: "SQLite and PostgreSQL on ext4. Reads of a few sectors hang for three seconds and then fail; all else is fine.",
        production: "A few queries take seconds and end with an error of the disk (PostgreSQL: `could not read block`; SQLite, \
                     which is wrong about it: `database disk image is malformed`); they are always about the same rows. \
                     Everything else is in time, writes among it, so averages and health checks look well. Tasks are in state D for seconds.",
        look_for: "The crosses of reads, in a line above three seconds: exactly the rows that lie on the sectors, and no \
                   others. (Six where the kernel asks the disk twice.) Dots go on below: other rows, and \
                   all writes. Two more databases on the same disk, one of each kind, notice nothing. After a crash and a restart every row that was acknowledged is there.",
        who: "POSTGRES is the PID of the server's first process, LEDGERS a cgroup with the program that uses SQLite, TABLE and \
              FILE sectors within the table's file and the database's.",
    },
    run,
};

const DISK: &str = BARE;
const STALL_NS: u64 = 3_000_000_000;
/// Bad in each file: 16 KiB, two pages of PostgreSQL, four of SQLite.
const BAD: u64 = 32;
/// Rows so near to a bad one are not asked for: the kernel may read ahead into what is bad, and hang, and not fail. It reads
/// 128 KiB ahead, which are less than a hundred rows.
const NEAR: u32 = 200;
/// Where new rows begin.
const NEW: u32 = 100_000;

/// How many there are before anything happens: enough to have some that are not near.
const fn rows(pace: Pace) -> u32 {
    pace.of(1000, 3000)
}

/// Where a ledger keeps its rows.
#[derive(Clone)]
enum Store {
    Sqlite(String),
    Postgres(String),
}

impl Store {
    fn arguments(&self) -> [&str; 2] {
        match self {
            Self::Sqlite(file) => ["sqlite", file],
            Self::Postgres(directory) => ["postgres", directory],
        }
    }
}

/// Has a ledger do these lines; in `cgroup`, if one is given.
fn ledger(
    services: &Services,
    cgroup: Option<&CgroupLab>,
    store: &Store,
    who: &str,
    lines: &str,
) -> anyhow::Result<Vec<Sample>> {
    let mut command = match cgroup {
        Some(cgroup) => cgroup.command(Services::python()),
        None => Command::new(Services::python()),
    };
    command.arg(services.path("ledger.py")).args(store.arguments());
    let ended = Ended::with_input(&mut command, lines.as_bytes())?;
    ensure!(ended.status.success(), "{who}: {ended:?}");
    let samples: Vec<Sample> = serde_json::from_str(&ended.stdout).with_context(|| ended.stdout.clone())?;
    Ok(samples.into_iter().map(|one| Sample { who: format!("{who}: {}", one.who), ..one }).collect())
}

/// The bad sectors of a file, as `A..B` of its disk, and the rows that lie on them.
fn bad(file: &Path) -> anyhow::Result<(String, BTreeSet<u32>)> {
    let path = file.to_string_lossy().into_owned();
    let extent = Extent::longest(&path)?;
    // In its middle, at a page of 16 KiB.
    let logical = (extent.logical + extent.length / 2).next_multiple_of(BAD);
    ensure!(logical + BAD <= extent.logical + extent.length, "{path} lies in too small pieces: {extent:?}");
    let physical = extent.physical + (logical - extent.logical);
    let mut bytes = vec![0; BAD as usize * 512];
    File::open(file)?.read_exact_at(&mut bytes, logical * 512)?;
    let text = String::from_utf8_lossy(&bytes);
    let rows: BTreeSet<u32> =
        text.split("row-").skip(1).filter_map(|rest| rest.get(..6)?.parse().ok()).collect();
    ensure!(rows.len() >= 4, "{rows:?} in the middle of {path}");
    Ok((format!("{physical}..{}", physical + BAD), rows))
}

/// What a ledger does in a phase: reads of rows on the sectors, reads of others, writes.
fn lines(pace: Pace, bad: &BTreeSet<u32>, phase: u32) -> String {
    let (first, last) = (bad.first().copied().unwrap_or(0), bad.last().copied().unwrap_or(0));
    let hit = bad.iter().take(pace.of(2, 4)).map(|row| format!("read {row}\n"));
    // All over the table, and in no order that the kernel could foresee.
    let rows = rows(pace);
    let others = (0..rows)
        .map(|step| step * 1021 % rows)
        .filter(|row| row + NEAR < first || *row > last + NEAR)
        .take(pace.of(60, 400));
    let written = pace.of(6, 40);
    let others = others.map(|row| format!("read {row}\n"));
    let writes = (0..written).map(|count| format!("write {}\n", NEW + phase * 1000 + count));
    // The bad ones first: by the end of a phase, no cache of the server has them.
    hit.chain(others).chain(writes).collect()
}

/// Where a server keeps the ledger.
fn table(server: &Postgres) -> anyhow::Result<PathBuf> {
    let ended = server.sql("select pg_relation_filepath('ledger');\n")?;
    Ok(server.directory().join(ended.stdout.trim()))
}

/// The four databases of the disk.
struct Databases {
    services: Services,
    ledgers: CgroupLab,
    servers: Vec<Postgres>,
    // After the servers: they have files open in it.
    files: FileSystem,
    sqlite: [Store; 2],
    postgres: [Store; 2],
}

impl Databases {
    fn new(rows: u32) -> anyhow::Result<Self> {
        let files = FileSystem::on_disk(DISK, Kind::Ext4, tempfile::TempDir::new()?)?;
        let mut servers = postgres_lab::make(Path::new(&files.mount_point()), 2)?;
        for server in &mut servers {
            // As little memory as there can be: what is read in one phase must come from the disk in the next.
            server.start_with(&["shared_buffers=128kB"])?;
        }
        let sqlite = ["target.db", "bystander.db"]
            .map(|name| Store::Sqlite(files.path(name).to_string_lossy().into_owned()));
        let directory =
            |number: usize| Store::Postgres(servers[number].directory().to_string_lossy().into_owned());
        let postgres = [directory(0), directory(1)];
        let databases = Self {
            services: Services::new()?,
            files,
            ledgers: CgroupLab::new("ledgers")?,
            servers,
            sqlite,
            postgres,
        };
        databases.fill(rows)?;
        Ok(databases)
    }

    fn fill(&self, rows: u32) -> anyhow::Result<()> {
        // By the databases' own programs: an interpreter for each would take longer than all of the rows.
        let filling = "x".repeat(1400);
        // The first look at rows writes down that they are visible: `vacuum freeze` does so now.
        let in_postgres = format!(
            "create table ledger(n integer primary key, s text);\n\
             insert into ledger select n, 'row-' || lpad(n::text, 6, '0') || ' {filling}' \
             from generate_series(0, {rows} - 1) n;\nvacuum freeze ledger;\ncheckpoint;\n"
        );
        for server in &self.servers {
            let ended = server.sql(&in_postgres)?;
            ensure!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
        }
        let in_sqlite = format!(
            "create table ledger(n integer primary key, s text); \
             with recursive count(n) as (select 0 union all select n + 1 from count where n + 1 < {rows}) \
             insert into ledger select n, printf('row-%06d ', n) || '{filling}' from count;"
        );
        let [file, copy] = ["target.db", "bystander.db"].map(|name| self.files.path(name));
        let ended = Ended::of(Command::new("sqlite3").arg(&file).arg(&in_sqlite))?;
        ensure!(ended.status.success(), "{ended:?}");
        std::fs::copy(&file, &copy)?;
        Ok(())
    }

    /// The next reads of the ledgers are reads of the disk.
    fn forget(&self) -> anyhow::Result<()> {
        for server in &self.servers {
            forget_file(&table(server)?)?;
        }
        ["target.db", "bystander.db"].iter().try_for_each(|name| forget_file(&self.files.path(name)))
    }

    /// All four at once; what the targets felt, and the bystanders.
    fn work(&self, pace: Pace, bad: &[BTreeSet<u32>; 2], phase: u32) -> anyhow::Result<((), Vec<Sample>)> {
        let done = thread::scope(|scope| {
            let all = [
                ("SQLite", &self.sqlite[0], Some(&self.ledgers), &bad[0]),
                ("PostgreSQL", &self.postgres[0], None, &bad[1]),
                ("another SQLite", &self.sqlite[1], None, &bad[0]),
                ("another PostgreSQL", &self.postgres[1], None, &bad[1]),
            ];
            let working = all.map(|(who, store, cgroup, bad)| {
                scope.spawn(move || ledger(&self.services, cgroup, store, who, &lines(pace, bad, phase)))
            });
            working.map(thread::ScopedJoinHandle::join)
        });
        let mut samples = Vec::new();
        for one in done {
            samples.extend(one.map_err(|_| anyhow::anyhow!("a ledger panicked"))??);
        }
        samples.sort_by_key(|sample| sample.at_ns);
        Ok(((), samples))
    }
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    for package in ["postgresql-15", "python3", "e2fsprogs"] {
        stage.runs(package)?;
    }
    let version = Ended::of(
        Command::new(Services::python()).args(["-c", "import sqlite3; print(sqlite3.sqlite_version)"]),
    )?;
    stage.versions.push(("SQLite, as Python has it".to_owned(), version.stdout.trim().to_owned()));
    let pace = stage.pace;
    let mut databases = Databases::new(rows(pace))?;
    let (file, rows_of_file) = bad(&databases.files.path("target.db"))?;
    let (table, rows_of_table) = bad(&table(&databases.servers[0])?)?;
    let bad = [rows_of_file, rows_of_table];
    databases.forget()?;

    stage.phase("before", || databases.work(pace, &bad, 0))?;
    let device = format!("device={DISK}");
    let known = [("POSTGRES", databases.servers[0].pid()?), ("LEDGERS", databases.ledgers.path())];
    let known: Vec<(&str, &str)> = known
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .chain([("TABLE", table.as_str()), ("FILE", file.as_str())])
        .collect();
    databases.forget()?;
    let injection = stage.fault(
        &[
            "play",
            "scenarios/bad-sectors.toml",
            "--pid",
            "POSTGRES",
            "--cgroup",
            "LEDGERS",
            &device,
            "table=TABLE",
            "file=FILE",
        ],
        &known,
    )?;
    stage.hurt("during", || databases.work(pace, &bad, 1))?;
    let report = injection.heal()?;
    ensure!(report.status.success(), "{}", report.stderr);
    databases.forget()?;
    stage.phase("after", || databases.work(pace, &bad, 2))?;
    judge(stage, &bad)?;
    nothing_lost(stage, &mut databases)
}

fn judge(stage: &mut Stage, bad: &[BTreeSet<u32>; 2]) -> anyhow::Result<()> {
    let (record, checks) = (&stage.record, &mut stage.checks);
    let mut rows = Vec::new();
    for (who, bad) in [("SQLite", &bad[0]), ("PostgreSQL", &bad[1])] {
        let (reads, writes) =
            (record.of(&format!("{who}: read"), "during"), record.of(&format!("{who}: write"), "during"));
        let number = |sample: &Sample| sample.what.parse::<u32>().unwrap_or(u32::MAX);
        let asked = reads.only(|sample| bad.contains(&number(sample)));
        let others = reads.only(|sample| !bad.contains(&number(sample)));
        checks.equal(
            &format!("{who} during: reads of rows on the sectors that failed, of {}", asked.count()),
            asked.count() - asked.good(),
            asked.count(),
        )?;
        checks.that(
            format!(
                "{who} during: each of them after 3 s or more (the first after {:.1} s)",
                asked.least_ms() / 1e3
            ),
            asked.least_ms() >= STALL_NS as f64 / 1e6,
        )?;
        checks.equal(
            &format!("{who} during: reads of other rows, of {}, that were right", others.count()),
            others.good(),
            others.count(),
        )?;
        in_time(checks, &format!("{who} during: reads of other rows"), &others)?;
        checks.equal(
            &format!("{who} during: writes that were acknowledged, of {}", writes.count()),
            writes.good(),
            writes.count(),
        )?;
        let outcome = asked.iter().next().map(|sample| sample.outcome.clone()).unwrap_or_default();
        rows.push(vec![
            who.to_owned(),
            format!("{} of {}", asked.count() - asked.good(), asked.count()),
            format!("`{outcome}`"),
            format!("{} of {}", others.count() - others.good(), others.count()),
        ]);
    }
    for who in ["SQLite", "PostgreSQL", "another SQLite", "another PostgreSQL"] {
        for phase in ["before", "during", "after"] {
            if phase == "during" && !who.starts_with("another") {
                continue;
            }
            for what in ["read", "write"] {
                let all = record.of(&format!("{who}: {what}"), phase);
                checks.equal(
                    &format!("{who} {phase}: {what}s that were right, of {}", all.count()),
                    all.good(),
                    all.count(),
                )?;
                in_time(checks, &format!("{who} {phase}: {what}s"), &all)?;
            }
        }
    }
    stage.tables.push(Table {
        title: "Reads during the fault".to_owned(),
        head: ["database", "on the sectors, failed", "how", "elsewhere, failed"].map(str::to_owned).to_vec(),
        rows,
    });
    Ok(())
}

/// They did not wait for the sectors. A busy emulated machine may keep one waiting for reasons of its own, of many one in a
/// hundred.
fn in_time(checks: &mut Checks, what: &str, all: &View<'_>) -> anyhow::Result<()> {
    let late = all.only(|sample| sample.took_ns >= STALL_NS).count();
    checks.that(
        format!("{what} that took 3 s or more: {late} of {}, at most one and one in a hundred", all.count()),
        late <= 1 + all.count() / 100,
    )
}

/// After a crash, what was acknowledged is there: from the disk, not from what memory believes.
fn nothing_lost(stage: &mut Stage, databases: &mut Databases) -> anyhow::Result<()> {
    databases.servers[0].crash()?;
    forget_cached()?;
    databases.servers[0].start()?;
    let in_postgres = databases.servers[0].sql(&format!("select n from ledger where n >= {NEW};\n"))?;
    let Store::Sqlite(file) = &databases.sqlite[0] else { unreachable!("it is made as one") };
    let query = format!("pragma integrity_check; select n from ledger where n >= {NEW};");
    let in_sqlite = Ended::of(Command::new("sqlite3").args([file, &query]))?;
    let whole = in_sqlite.stdout.strip_prefix("ok\n").with_context(|| format!("{in_sqlite:?}"))?;
    for (who, there) in [("PostgreSQL", in_postgres.stdout.as_str()), ("SQLite", whole)] {
        let there: BTreeSet<&str> = there.split_whitespace().collect();
        let acknowledged: BTreeSet<&str> = stage
            .record
            .samples
            .iter()
            .filter(|sample| sample.who == format!("{who}: write") && sample.good)
            .map(|sample| sample.what.as_str())
            .collect();
        ensure!(!acknowledged.is_empty(), "{who} acknowledged nothing");
        let lost = acknowledged.difference(&there).count();
        stage.checks.equal(
            &format!(
                "{who}: rows lost after a crash and a restart, of {} that were acknowledged",
                acknowledged.len()
            ),
            lost,
            0,
        )?;
    }
    Ok(())
}
