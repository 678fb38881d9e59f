//! Redis behind a pool of connections, some of which stop answering after accept.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{
    Scenario, Story,
    service::Redis,
    stage::{Stage, Table},
};
use crate::victim::{http, report::Sample};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "accepts-then-nothing",
    number: "6",
    story: Story {
        title: "Accepts, then nothing",
        lead: "Redis behind a pool. All connections are accepted; some of them never answer.",
        production: "Latencies are either normal or exactly the time-out, with nothing in between, and the share of the bad \
                     ones stays the same: it is that of connections of the pool, not of requests that are hard. Checks that \
                     connect are green. Restarting the client helps for a while, or makes it worse.",
        look_for: "Two lines and nothing between them: answers in their usual time, and crosses at the client's time-out of \
                   1 s. Every connection is on one side for the whole phase. The health check, which opens a socket and \
                   closes it, is up throughout. After the fault, TCP sends again what was lost, and the same connections \
                   answer; the answers to requests that had timed out come first, so a client that keeps a connection after a \
                   time-out has to match answers with requests.",
        who: "REDIS is the PID of redis-server.",
    },
    run,
};

const PORT: u16 = 8230;
const OTHER_PORT: u16 = 8231;
const PATIENCE: Duration = Duration::from_secs(1);
/// From one request on a connection to the next.
const EVERY: Duration = Duration::from_millis(1100);
/// How long TCP may take to try again what was lost.
const SETTLING: Duration = Duration::from_secs(30);
const SHARE: f64 = 0.4;

/// One connection of the pool. It is kept after a time-out, as many clients of Redis do.
struct Connection {
    stream: BufReader<TcpStream>,
    number: usize,
    asked: usize,
}

impl Connection {
    fn open(to: SocketAddr, number: usize) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect_timeout(&to, Duration::from_secs(10)).context("connecting to Redis")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), number, asked: 0 })
    }

    fn local(&self) -> anyhow::Result<u16> {
        Ok(self.stream.get_ref().local_addr()?.port())
    }

    /// `ECHO` of something only this request says; answers to earlier ones are passed over.
    fn echo(&mut self, patience: Duration) -> std::io::Result<()> {
        let deadline = Instant::now() + patience;
        self.asked += 1;
        let word = format!("{}-{}", self.number, self.asked);
        self.stream.get_mut().write_all(format!("ECHO {word}\r\n").as_bytes())?;
        let mut line = String::new();
        while line.trim_end() != word {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.get_ref().set_read_timeout(Some(left))?;
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn ask(&mut self, who: &str, patience: Duration) -> Sample {
        let what = self.number.to_string();
        Sample::timed(who, &what, || match self.echo(patience) {
            Ok(()) => ("answered".to_owned(), true),
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                ("timed out".to_owned(), false)
            }
            Err(error) => (error.to_string(), false),
        })
    }
}

fn pool(to: SocketAddr, size: usize) -> anyhow::Result<Vec<Connection>> {
    (0..size).map(|number| Connection::open(to, number)).collect()
}

/// `rounds` requests on each connection, all connections at once, while the health check looks at `address`.
fn everybody(
    who: &str,
    pool: &mut [Connection],
    rounds: usize,
    address: SocketAddr,
) -> anyhow::Result<((), Vec<Sample>)> {
    let samples = thread::scope(|scope| {
        let asking: Vec<_> = pool
            .iter_mut()
            .map(|connection| {
                scope.spawn(move || -> Vec<Sample> {
                    // Not all in the same instant.
                    thread::sleep(Duration::from_millis(7 * connection.number as u64));
                    let one = |_| {
                        let begin = Instant::now();
                        let sample = connection.ask(who, PATIENCE);
                        thread::sleep(EVERY.saturating_sub(begin.elapsed()));
                        sample
                    };
                    (0..rounds).map(one).collect()
                })
            })
            .collect();
        let checks = scope.spawn(move || -> Vec<Sample> {
            (0..rounds)
                .map(|_| {
                    thread::sleep(EVERY);
                    http::check(&format!("health check of {who}"), address, PATIENCE)
                })
                .collect()
        });
        asking.into_iter().chain([checks]).map(thread::ScopedJoinHandle::join).collect::<Result<Vec<_>, _>>()
    });
    Ok(((), samples.map_err(|_| anyhow::anyhow!("a user panicked"))?.concat()))
}

/// Until every connection answers again.
fn settle(pool: &mut [Connection]) -> anyhow::Result<(Duration, Vec<Sample>)> {
    let begin = Instant::now();
    let mut samples = Vec::new();
    for connection in pool {
        let sample = connection.ask("redis", SETTLING);
        ensure!(sample.good, "connection {} never answered again: {}", connection.number, sample.outcome);
        samples.push(sample);
    }
    Ok((begin.elapsed(), samples))
}

/// Ports of the clients whose packets were hit, as `fault` tells in its events.
fn hit(events: &str) -> anyhow::Result<BTreeSet<u16>> {
    let port = |line: &str| -> anyhow::Result<u16> {
        let event: serde_json::Value = serde_json::from_str(line)?;
        let remote = event["remote"].as_str().with_context(|| line.to_owned())?;
        Ok(remote.rsplit(':').next().unwrap_or_default().parse()?)
    };
    events.lines().map(port).collect()
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    stage.runs("redis-server")?;
    let (size, rounds) = (stage.pace.of(40, 60), stage.pace.of(3, 8));
    let directory = tempfile::TempDir::new()?;
    let redis = Redis::start(PORT, directory.path(), &["--save", ""])?;
    let other = Redis::start(OTHER_PORT, directory.path(), &["--save", ""])?;

    let mut before = pool(redis.address, size)?;
    stage.phase("before", || everybody("redis", &mut before, rounds, redis.address))?;
    drop(before);
    let events = tempfile::NamedTempFile::new()?;
    let share = format!("share={:.0}%", SHARE * 100.0);
    let port = format!("port={PORT}");
    let injection = stage.fault_with(
        &["preset", "accepts-then-nothing", "--pid", "REDIS", &port, &share, "for=5m"],
        &[("REDIS", &redis.pid())],
        &["--events", &events.path().to_string_lossy()],
    )?;
    // Every one of them connects, or this fails.
    let (mut connections, mut others) = (pool(redis.address, size)?, pool(other.address, size / 4)?);
    stage.hurt("during", || {
        let mut samples = thread::scope(|scope| -> anyhow::Result<Vec<Sample>> {
            let bystander = scope.spawn(|| everybody("another redis", &mut others, rounds, other.address));
            let (_, mut samples) = everybody("redis", &mut connections, rounds, redis.address)?;
            match bystander.join() {
                Ok(others) => samples.extend(others?.1),
                Err(_) => bail!("the bystander panicked"),
            }
            Ok(samples)
        })?;
        samples.sort_by_key(|sample| sample.at_ns);
        Ok(((), samples))
    })?;
    injection.heal()?;
    let settled = stage.phase("settling", || settle(&mut connections))?;
    stage.phase("after", || everybody("redis", &mut connections, rounds, redis.address))?;

    let hit_ports = hit(&std::fs::read_to_string(events.path())?)?;
    let (record, checks) = (&stage.record, &mut stage.checks);
    for phase in ["before", "after"] {
        checks.equal(
            &format!("requests answered {phase}, of {}", size * rounds),
            record.of("redis", phase).ended("answered"),
            size * rounds,
        )?;
    }
    checks.equal("connections that were accepted during the fault", connections.len(), size)?;
    let during = record.of("redis", "during");
    let silent: BTreeSet<&str> =
        during.iter().filter(|sample| !sample.good).map(|sample| sample.what.as_str()).collect();
    let mut silent_ports = BTreeSet::new();
    for connection in &connections {
        if silent.contains(connection.number.to_string().as_str()) {
            silent_ports.insert(connection.local()?);
        }
    }
    checks.binomial("connections that stopped answering", silent.len(), size, SHARE)?;
    checks.that(
        format!(
            "the {} connections that stopped answering are those that `fault` names as hit",
            silent.len()
        ),
        silent_ports.is_subset(&hit_ports) && hit_ports.len() == silent_ports.len(),
    )?;
    let (hanging, all) = (during.ended("timed out"), during.count());
    checks.that(
        format!(
            "the share of requests that hang is that of connections that were hit: {hanging} of {all} requests, {} of {size} \
             connections",
            silent.len()
        ),
        hanging == silent.len() * rounds && all == size * rounds,
    )?;
    checks.equal("requests that were answered", during.ended("answered"), all - hanging)?;
    let health = record.of("health check of redis", "during");
    checks.equal(&format!("health checks that said up, of {rounds}"), health.good(), rounds)?;
    let others = record.of("another redis", "during");
    checks.equal(
        "requests to another Redis that were answered",
        others.ended("answered"),
        size / 4 * rounds,
    )?;
    stage.tables.push(Table {
        title: "Connections".to_owned(),
        head: ["opened", "accepted", "silent", "requests", "that hang", "until all answer again"]
            .map(str::to_owned)
            .to_vec(),
        rows: vec![vec![
            size.to_string(),
            size.to_string(),
            silent.len().to_string(),
            all.to_string(),
            hanging.to_string(),
            format!("{:.1} s", settled.as_secs_f64()),
        ]],
    });
    Ok(())
}
