//! Databases people trust, on a disk that fails or limps: what was acknowledged is there, and neighbours notice nothing.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use super::{Lane, Test};
use crate::{
    disk_lab::{FileSystem, forget_cached},
    driver::Injection,
    postgres_lab::{self, Postgres},
    process::{Ended, Process},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "databases::postgres_survives_a_failed_fsync",
        on: Lane::tests_disks_in_detail,
        run: failed_fsync,
    },
    Test {
        name: "databases::postgres_with_no_room_for_its_log",
        on: Lane::tests_disks_in_detail,
        run: full_log,
    },
    Test { name: "databases::postgres_reads_late", on: Lane::tests_disks_in_detail, run: late_reads },
    Test {
        name: "databases::sqlite_rolls_back_a_failed_fsync",
        on: Lane::tests_disks_in_detail,
        run: sqlite,
    },
];

/// Inserts of one row each, which tell the row once it is committed.
fn inserts(rows: std::ops::Range<u32>) -> String {
    rows.map(|row| format!("insert into t values ({row}, repeat('x', 200)) returning n;\n")).collect()
}

fn numbers(text: &str) -> anyhow::Result<BTreeSet<u32>> {
    text.split_whitespace().map(|word| word.parse().with_context(|| word.to_owned())).collect()
}

const TABLE: &str = "create table t(n integer, s text);\n";

/// Two servers on the same disk, each with an empty table.
fn with_table(files: &FileSystem) -> anyhow::Result<Vec<Postgres>> {
    let mut servers = postgres_lab::make(Path::new(&files.mount_point()), 2)?;
    for server in &mut servers {
        server.start()?;
        let ended = server.sql(TABLE)?;
        ensure!(ended.status.success(), "{ended:?}");
    }
    Ok(servers)
}

/// Every row that was acknowledged is there after a crash.
fn nothing_lost(server: &mut Postgres, acknowledged: &BTreeSet<u32>) -> anyhow::Result<()> {
    // From the disk, not from what memory still believes.
    server.crash()?;
    forget_cached()?;
    server.start()?;
    let there = numbers(&server.sql("select n from t;\n")?.stdout)?;
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    Ok(())
}

/// PostgreSQL since 11.2 takes the whole server down when fsync(2) fails, and recovers from its log: the kernel has told its
/// one time, and a second fsync that succeeds would prove nothing (`data_sync_retry`, and the log never was different).
fn failed_fsync(_: Lane) -> anyhow::Result<()> {
    let files = FileSystem::new()?;
    let mut servers = with_table(&files)?;
    let [target, bystander] = servers.as_mut_slice() else { unreachable!("two were asked for") };
    let mut acknowledged = numbers(&target.sql(&inserts(0..20))?.stdout)?;
    ensure!(acknowledged.len() == 20, "{acknowledged:?}");
    let spec = format!("error nth 5 write on {}", files.mount_point());
    let injection = Injection::start(&["--pid", &target.pid()?, "--disk", &spec])?;
    let broken = target.sql(&inserts(100..140))?;
    let others = numbers(&bystander.sql(&inserts(0..40))?.stdout)?;
    ensure!(others.len() == 40, "the bystander acknowledged {others:?}");
    let before = numbers(&broken.stdout)?;
    ensure!(!broken.status.success() && before.len() < 40, "nothing broke: {broken:?}");
    acknowledged.extend(before);
    target.answers()?;
    acknowledged.extend(numbers(&target.sql(&inserts(200..220))?.stdout)?);
    let report = injection.heal()?;
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    let log = target.log()?;
    for words in ["PANIC:  could not f", "Input/output error", "redo starts at", "reinitializing"] {
        ensure!(log.contains(words), "no `{words}` in the log: {log}");
    }
    ensure!(!bystander.log()?.contains("PANIC"), "the bystander: {}", bystander.log()?);
    nothing_lost(target, &acknowledged)?;
    // The 20 before, the 20 after the recovery, and those in between that were told.
    ensure!(acknowledged.len() >= 40, "{} were acknowledged", acknowledged.len());
    Ok(())
}

/// A log that cannot be written is the end of the server that cannot (it panics, and recovers), and nothing that was
/// acknowledged goes: the table's own files are never refused, nor is the neighbour's log on the same disk.
fn full_log(_: Lane) -> anyhow::Result<()> {
    let files = FileSystem::new()?;
    let mut servers = with_table(&files)?;
    let [target, bystander] = servers.as_mut_slice() else { unreachable!("two were asked for") };
    let log = target.directory().join("pg_wal");
    let spec = format!("error ENOSPC nth 6 write file \"{}/*\"", log.display());
    let injection = Injection::start(&["--pid", &target.pid()?, "--file", &spec])?;
    let broken = target.sql(&inserts(0..40))?;
    let others = numbers(&bystander.sql(&inserts(0..40))?.stdout)?;
    ensure!(others.len() == 40, "the bystander acknowledged {others:?}");
    let mut acknowledged = numbers(&broken.stdout)?;
    ensure!(!broken.status.success() && acknowledged.len() < 40, "nothing broke: {broken:?}");
    target.answers()?;
    acknowledged.extend(numbers(&target.sql(&inserts(200..220))?.stdout)?);
    let report = injection.heal()?;
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    let told = target.log()?;
    for words in ["PANIC:  could not write to log file", "No space left on device", "redo starts at"] {
        ensure!(told.contains(words), "no `{words}` in the log: {told}");
    }
    ensure!(!bystander.log()?.contains("PANIC"), "the bystander: {}", bystander.log()?);
    nothing_lost(target, &acknowledged)?;
    ensure!(acknowledged.len() >= 20, "{} were acknowledged", acknowledged.len());
    Ok(())
}

/// Milliseconds that psql says the one query took.
fn cold_query(server: &Postgres) -> anyhow::Result<f64> {
    forget_cached()?;
    let ended = server.sql("\\timing on\nselect sum(length(s)) from t;\n")?;
    ensure!(ended.stdout.lines().next() == Some("1000000"), "{ended:?}");
    let time = ended.stdout.lines().find_map(|line| line.strip_prefix("Time: ")?.split(' ').next());
    Ok(time.with_context(|| format!("{ended:?}"))?.parse()?)
}

fn late_reads(_: Lane) -> anyhow::Result<()> {
    let files = FileSystem::new()?;
    let mut servers = postgres_lab::make(Path::new(&files.mount_point()), 2)?;
    for server in &mut servers {
        server.start()?;
        let fill = format!(
            "{TABLE}insert into t select n, repeat('x', 1000) from generate_series(1, 1000) n;\ncheckpoint;\n"
        );
        let ended = server.sql(&fill)?;
        ensure!(ended.status.success(), "{ended:?}");
        // The first look at rows writes down that they are visible.
        ensure!(server.sql("vacuum freeze t;\ncheckpoint;\n")?.status.success());
    }
    let [target, bystander] = servers.as_slice() else { unreachable!("two were asked for") };
    let usual = cold_query(target)?;
    let spec = format!("delay 200ms read on {}", files.mount_point());
    let injection = Injection::start(&["--pid", &target.pid()?, "--disk", &spec])?;
    let (late, neighbours) = (cold_query(target)?, cold_query(bystander)?);
    let report = injection.heal()?;
    let after = cold_query(target)?;
    let told =
        format!("{usual} ms before, {late} ms during, the neighbour {neighbours} ms, {after} ms after");
    eprintln!("{told}: {}", report.json["rules"][0]["injected"]);
    let injected = report.rule(0, "injected")?;
    ensure!(injected > 0, "{}", report.json);
    // At least one read is the query's own; the rest is what it takes to look the table up.
    ensure!(late >= 200.0, "{told}");
    // The table is eight reads or more, with read-ahead; the machine is emulated, and not alone.
    let longest = usual.max(neighbours).max(after);
    ensure!(longest * 2.0 < late, "{told}");
    Ok(())
}

/// Inserts rows, each a transaction; prints those that were committed, and what became of the others.
const SQLITE: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('pragma synchronous=full')
db.execute('create table if not exists t(n integer primary key, s text)')
print('ready', file=sys.stderr, flush=True)
sys.stdin.readline()
for n in range(40):
    try:
        db.execute('insert into t values (?, ?)', (n, 'x' * 500))
        print(n)
    except sqlite3.OperationalError as error:
        print(error)
";

/// SQLite rolls a transaction back whose fsync failed, says so, and goes on.
fn sqlite(_: Lane) -> anyhow::Result<()> {
    let files = FileSystem::new()?;
    let start = |name: &str| {
        let database = files.path(name).display().to_string();
        let mut command = Command::new("python3");
        command.args(["-c", SQLITE, &database]);
        Process::start_until(&mut command, "ready").map(|process| (process, database))
    };
    let ((mut target, database), (mut other, other_database)) = (start("target.db")?, start("other.db")?);
    let spec = format!("error nth 9 write on {}", files.mount_point());
    let injection = Injection::start(&["--pid", &target.pid(), "--disk", &spec])?;
    target.release()?;
    other.release()?;
    let (target, other) = (target.ended()?, other.ended()?);
    let report = injection.wait()?;
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    ensure!(target.stdout.matches("disk I/O error\n").count() == 1, "one transaction must fail: {target:?}");
    forget_cached()?;
    for (ended, database, rows) in [(target, database, 39), (other, other_database, 40)] {
        let acknowledged = numbers(&ended.stdout.replace("disk I/O error\n", ""))?;
        ensure!(acknowledged.len() == rows, "{ended:?}");
        let check =
            Ended::of(Command::new("sqlite3").args([&database, "pragma integrity_check; select n from t;"]))?;
        let check = check.stdout;
        let there = check.strip_prefix("ok\n").with_context(|| check.clone())?;
        ensure!(numbers(there)? == acknowledged, "acknowledged {acknowledged:?}, there are {there}");
    }
    Ok(())
}
