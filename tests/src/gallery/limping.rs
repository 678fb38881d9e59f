//! Hardware that limps: a NIC and a disk at a fraction of their speed, and a disk that stops for five seconds.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::{
    Scenario, Story,
    record::Phase,
    service::Redis,
    stage::{Stage, Table},
};
use crate::{
    cgroup_lab::CgroupLab,
    disk_lab::{BARE, FORMATTED, FileSystem, Kind},
    process::{Ended, Process},
    victim::report::{Sample, now_ns},
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "limping-hardware",
    number: "9",
    story: Story {
        title: "Hardware that limps",
        lead: "iperf3 on a network card at 10 Mbit/s, fio on a disk at 1 MB/s, and Redis with an append-only file on a disk that \
               stops for five seconds.",
        production: "Throughput that is a hundredth of what it was, and no error. A disk whose firmware pauses is seen as one \
                     spike of latency that hits everybody at once: Redis answers nobody while it waits for fsync(2), and its own \
                     latency monitor says so (`LATENCY LATEST`: `aof-fsync-always`).",
        look_for: "One request of each client climbs to five seconds, and none is lost: they wait in line. The Redis on the other \
                   disk goes on. The table compares the rates that were asked for with what iperf3 and fio measured, and with \
                   what they measured before and after.",
        who: "LIMPING is a cgroup in which iperf3's client and fio run, REDIS the PID of redis-server.",
    },
    run,
};

const PORT: u16 = 8290;
const OTHER_PORT: u16 = 8291;
const IPERF: u16 = 8292;
const CLIENTS: usize = 4;
/// Bytes a second that are asked for, of the network card and of the disk.
const NIC: f64 = 1_250_000.0;
const DISK: f64 = 1_000_000.0;
const SECOND: u64 = 1_000_000_000;
const PAUSE_S: u64 = 5;

/// Bytes a second that iperf3 receives from a client in `cgroup`.
fn iperf(cgroup: &CgroupLab) -> anyhow::Result<f64> {
    let port = IPERF.to_string();
    let server = Process::start(Command::new("iperf3").args(["-s", "-1", "-p", &port, "-B", "127.0.0.1"]))?;
    // It has no word for being ready, and takes one client only.
    thread::sleep(Duration::from_secs(2));
    let mut client = cgroup.command("iperf3");
    let ended = Ended::of(client.args(["-c", "127.0.0.1", "-p", &port, "-t", "8", "-O", "2", "-J"]))?;
    server.text()?;
    let told: serde_json::Value =
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    let bits =
        told["end"]["sum_received"]["bits_per_second"].as_f64().with_context(|| ended.stdout.clone())?;
    Ok(bits / 8.0)
}

/// Bytes a second that fio reads in `cgroup`.
fn fio(cgroup: &CgroupLab) -> anyhow::Result<f64> {
    let mut command = cgroup.command("fio");
    command.args(["--name=limping", &format!("--filename={BARE}"), "--direct=1", "--rw=read", "--bs=64k"]);
    command.args(["--size=512m", "--time_based", "--runtime=8", "--output-format=json"]);
    let ended = Ended::of(&mut command)?;
    let told: serde_json::Value =
        serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    told["jobs"][0]["read"]["bw_bytes"].as_f64().with_context(|| ended.stdout.clone())
}

/// What `measure` says before, while `preset` is in force, and after.
fn throughput(
    stage: &mut Stage,
    cgroup: &CgroupLab,
    what: &str,
    preset: &[&str],
    asked: f64,
    measure: fn(&CgroupLab) -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<String>> {
    let before = measure(cgroup)?;
    let words = [&["preset", preset[0], "--cgroup", "LIMPING"], &preset[1..]].concat();
    let injection = stage.fault(&words, &[("LIMPING", &cgroup.path())])?;
    let during = measure(cgroup)?;
    let report = injection.heal()?;
    let after = measure(cgroup)?;
    let megabytes = |rate: f64| format!("{:.2} MB/s", rate / 1e6);
    stage.checks.that(
        format!("{what}: {} during, {} asked for, to 5 %", megabytes(during), megabytes(asked)),
        (during / asked - 1.0).abs() <= 0.05,
    )?;
    stage.checks.that(
        format!(
            "{what}: {} before and {} after, more than five times that",
            megabytes(before),
            megabytes(after)
        ),
        before.min(after) > 5.0 * asked,
    )?;
    stage.checks.that(format!("{what}: `fault` delayed something"), report.rule(0, "injected")? > 0)?;
    Ok(vec![what.to_owned(), megabytes(asked), megabytes(before), megabytes(during), megabytes(after)])
}

/// Sets a key on a connection of its own until `over`.
fn client(who: &str, to: SocketAddr, number: usize, over: &AtomicBool) -> anyhow::Result<Vec<Sample>> {
    let mut stream = BufReader::new(TcpStream::connect(to)?);
    stream.get_ref().set_nodelay(true)?;
    let mut samples = Vec::new();
    while !over.load(Ordering::Relaxed) {
        samples.push(Sample::timed(who, &number.to_string(), || {
            let mut line = String::new();
            let asked = stream.get_mut().write_all(format!("SET key:{number} value\r\n").as_bytes());
            match asked.and_then(|()| stream.read_line(&mut line)) {
                Ok(_) if line.trim_end() == "+OK" => ("OK".to_owned(), true),
                Ok(_) => (line.trim_end().to_owned(), false),
                Err(error) => (error.to_string(), false),
            }
        }));
        thread::sleep(Duration::from_millis(100));
    }
    Ok(samples)
}

fn cli(redis: &Redis, words: &[&str]) -> anyhow::Result<String> {
    let port = redis.address.port().to_string();
    let ended = Ended::of(Command::new("redis-cli").args(["-p", &port]).args(words))?;
    ensure!(ended.status.success(), "{words:?}: {ended:?}");
    Ok(ended.stdout)
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    for package in ["iperf3", "fio", "redis-server", "redis-tools"] {
        stage.runs(package)?;
    }
    let cgroup = CgroupLab::new("limping")?;
    let nic =
        throughput(stage, &cgroup, "iperf3 received", &["limping-nic", "rate=10mbit", "for=5m"], NIC, iperf)?;
    let disk = format!("device={BARE}");
    let read =
        throughput(stage, &cgroup, "fio read", &["limping-disk", &disk, "rate=1MB/s", "for=5m"], DISK, fio)?;
    stage.tables.push(Table {
        title: "Throughput".to_owned(),
        head: ["what", "asked for", "before", "during", "after"].map(str::to_owned).to_vec(),
        rows: vec![nic, read],
    });
    pause(stage)
}

/// The disk stops for five seconds under Redis.
fn pause(stage: &mut Stage) -> anyhow::Result<()> {
    let place = FileSystem::on_disk(BARE, Kind::Ext4, tempfile::TempDir::new()?)?;
    let other_place = FileSystem::on_disk(FORMATTED, Kind::Ext4, tempfile::TempDir::new()?)?;
    let options = [
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--latency-monitor-threshold",
        "100",
    ];
    let start = |port, place: &FileSystem| Redis::start(port, place.mount_point().as_ref(), &options);
    let (redis, other) = (start(PORT, &place)?, start(OTHER_PORT, &other_place)?);
    let device = format!("device={BARE}");
    let pause = format!("pause={PAUSE_S}s");
    let words = ["preset", "firmware-pause", "--pid", "REDIS", &device, &pause, "every=20s", "times=1"];

    let over = AtomicBool::new(false);
    let (played, told) = thread::scope(|scope| {
        let (over, redis, other) = (&over, &redis, &other);
        let asking: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client("redis", redis.address, number, over)))
            .chain([scope.spawn(move || client("redis on another disk", other.address, 0, over))])
            .collect();
        // What comes before the pause is what it is compared with.
        thread::sleep(Duration::from_secs(4));
        let played = stage.fault(&words, &[("REDIS", &redis.pid())]).and_then(|playing| {
            let begin = now_ns();
            Ok((begin, playing.wait()?))
        });
        over.store(true, Ordering::Relaxed);
        let told: Vec<_> = asking.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (played, told)
    });
    let (begin_ns, report) = played?;
    for samples in told {
        stage.record.samples.extend(samples.map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    stage.record.samples.sort_by_key(|sample| sample.at_ns);
    let first = stage.record.samples.first().context("no requests")?.at_ns;
    // The preset is healthy for a second, then the disk stops, then it goes on for as long.
    let pause_ns = begin_ns + SECOND;
    let end_ns = pause_ns + PAUSE_S * SECOND;
    for (name, begin_ns, end_ns, hurt) in [
        ("before", first, pause_ns, false),
        ("pause", pause_ns, end_ns, true),
        ("after", end_ns, end_ns + PAUSE_S * SECOND, false),
    ] {
        stage.record.phases.push(Phase { name: name.to_owned(), begin_ns, end_ns, hurt });
    }
    ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
    judge(stage, &redis, &other)
}

fn judge(stage: &mut Stage, redis: &Redis, other: &Redis) -> anyhow::Result<()> {
    let (record, checks) = (&stage.record, &mut stage.checks);
    for who in ["redis", "redis on another disk"] {
        let all = record.samples.iter().filter(|sample| sample.who == who);
        let (good, count) = all.fold((0, 0), |sum, sample| (sum.0 + usize::from(sample.good), sum.1 + 1));
        checks.equal(&format!("{who}: SETs answered OK, of {count}"), good, count)?;
    }
    let waited = |sample: &&Sample| sample.took_ns >= (PAUSE_S - 1) * SECOND;
    let long = record.samples.iter().filter(waited).filter(|sample| sample.who == "redis").count();
    checks.that(
        format!("SETs that waited for 4 s and more: {long}, at least one and at most one of each of the {CLIENTS} clients"),
        (1..=CLIENTS).contains(&long),
    )?;
    let others = record.samples.iter().filter(waited).filter(|sample| sample.who != "redis").count();
    checks.equal("SETs on the other disk that did", others, 0)?;
    // Event, time, latest, longest; milliseconds.
    let latest = cli(redis, &["LATENCY", "LATEST"])?;
    let lines: Vec<&str> = latest.lines().map(str::trim).collect();
    let longest = lines
        .iter()
        .position(|line| *line == "aof-fsync-always")
        .and_then(|place| lines.get(place + 3)?.parse::<u64>().ok())
        .with_context(|| format!("no aof-fsync-always in {latest}"))?;
    checks.that(
        format!(
            "Redis' latency monitor names it: aof-fsync-always, {longest} ms, for a pause of {PAUSE_S} s"
        ),
        (PAUSE_S * 1000 - 500..PAUSE_S * 1000 + 3000).contains(&longest),
    )?;
    let latest = cli(other, &["LATENCY", "LATEST"])?;
    let seconds = latest.lines().filter_map(|line| line.trim().parse::<u64>().ok());
    // Times of day are in it, too; they are larger.
    let long = seconds.filter(|value| (4000..1_000_000).contains(value)).count();
    checks.equal("events of 4 s and more in the monitor of the other Redis", long, 0)
}
