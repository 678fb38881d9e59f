//! fio and sqlite3 on a real ext4 file system.

use anyhow::{Context as _, ensure};

use super::{Scene, net::plain_shell, shell::Shell};
use crate::disk_lab::{Extent, FORMATTED, FileSystem, forget_cached};

/// Late reads, and a range of sectors that cannot be read.
pub(super) fn scenes() -> anyhow::Result<Vec<Scene>> {
    // A name that reads well in the command line that is shown.
    let directory = tempfile::Builder::new().prefix("data").rand_bytes(0).tempdir_in("/mnt")?;
    let disk = FileSystem::on(directory)?;
    let mount = disk.mount_point();
    let mut sides = [plain_shell()?, plain_shell()?];
    disk.file("data", 16 << 20)?;
    let spec = format!("delay 30ms read on {mount}");
    let late =
        Scene::play("reads 30 ms late", "fio, 50 reads: median", "--disk", &spec, &mut sides, |shell| {
            fio(shell, &format!("{mount}/data"))
        })?;

    let database = format!("{mount}/books.db");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 20000) \
                SELECT i, hex(randomblob(40)) FROM n";
    let made = sides[1].run(&format!("sqlite3 {database} 'CREATE TABLE book AS {rows}'"))?;
    ensure!(made.is_empty(), "sqlite3: {made}");
    let (start, end) = sectors(&database)?;
    let spec = format!("error read on {FORMATTED} sectors {start}..{end}");
    let failing = Scene::play(
        "half of a database on sectors that cannot be read",
        "sqlite3: sum over the table",
        "--disk",
        &spec,
        &mut sides,
        |shell| {
            forget_cached()?;
            sqlite(shell, &database)
        },
    )?;
    Ok(vec![late, failing])
}

fn fio(shell: &mut Shell, file: &str) -> anyhow::Result<String> {
    let text = shell.run(&format!(
        "fio --name=r --filename={file} --rw=randread --bs=4k --direct=1 --ioengine=psync --number_ios=50 \
         --output-format=json"
    ))?;
    let json: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("fio printed {text}"))?;
    let median = json["jobs"][0]["read"]["clat_ns"]["percentile"]["50.000000"]
        .as_f64()
        .with_context(|| format!("fio's median in {text}"))?;
    Ok(format!("{:.1} ms", median / 1e6))
}

fn sqlite(shell: &mut Shell, database: &str) -> anyhow::Result<String> {
    let text = shell.run(&format!("sqlite3 {database} 'SELECT sum(i) FROM book'"))?;
    let last = text.lines().last().unwrap_or_default();
    Ok(last.trim_start_matches("Error: ").trim_start_matches("stepping, ").to_owned())
}

/// The second half of a file, in sectors of its disk.
fn sectors(file: &str) -> anyhow::Result<(u64, u64)> {
    let extent = Extent::longest(file)?;
    Ok((extent.physical + extent.length / 2, extent.physical + extent.length))
}
