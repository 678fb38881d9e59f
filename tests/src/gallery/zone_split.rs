//! Redis and clients in two zones, one of which does not reach it, both ways or one way.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    thread,
};

use anyhow::Context as _;

use super::{
    Scenario, Story,
    service::{Redis, Services},
    stage::{Stage, Table},
};
use crate::{process::Process, victim::report::Sample};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "zone-split",
    number: "7",
    story: Story {
        title: "A zone that does not reach the cache",
        lead: "Redis and six clients in two zones. Zone B does not reach it, first both ways, then one way: in the second case \
               the server does the work and the client never learns.",
        production: "Half of the clients are slow by exactly their time-out for the cache, and the load of the origin rises by \
                     their requests. The cache is healthy and its other clients are. In the one-way case the cache also counts \
                     commands that nobody had an answer to.",
        look_for: "Zone A stays on its line throughout. Zone B is answered by the origin, later by its time-out of 0.5 s (a \
                   cross: not from the cache). Both splits look the same to it; the table shows in which of them Redis \
                   executed its commands.",
        who: "ZONE_B is the PID of the program with zone B's three clients.",
    },
    run,
};

const CACHE: u16 = 8260;
const ORIGIN: u16 = 8261;
const CLIENTS: usize = 3;

/// What a zone has counted in Redis.
fn hits(redis: &Redis, zone: &str) -> anyhow::Result<usize> {
    let mut stream = BufReader::new(TcpStream::connect(redis.address)?);
    stream.get_mut().write_all(format!("EXISTS hits:{zone}\r\nGET hits:{zone}\r\n").as_bytes())?;
    let mut line = || -> anyhow::Result<String> {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    if line()? == ":0" {
        return Ok(0);
    }
    // The length, and the value.
    line()?;
    line()?.parse().context("a number")
}

fn zones(services: &Services, requests: usize) -> anyhow::Result<[Process; 2]> {
    let start = |zone: &str| {
        let zone = zone.to_owned();
        ("cached.py", vec![zone, CACHE.to_string(), ORIGIN.to_string(), requests.to_string()])
    };
    let zones = services.start_all(&[start("zone-A"), start("zone-B")])?;
    zones.try_into().map_err(|_| anyhow::anyhow!("two zones"))
}

fn ask(zones: [Process; 2]) -> anyhow::Result<((), Vec<Sample>)> {
    let asking = zones.map(|mut zone| {
        thread::spawn(move || -> anyhow::Result<Vec<Sample>> {
            zone.release()?;
            zone.report()
        })
    });
    let mut samples = Vec::new();
    for zone in asking {
        samples.extend(zone.join().map_err(|_| anyhow::anyhow!("a zone panicked"))??);
    }
    samples.sort_by_key(|sample| sample.at_ns);
    Ok(((), samples))
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    for package in ["redis-server", "python3"] {
        stage.runs(package)?;
    }
    let requests = stage.pace.of(6, 16);
    let all = CLIENTS * requests;
    let directory = tempfile::TempDir::new()?;
    let redis = Redis::start(CACHE, directory.path(), &["--save", ""])?;
    let services = Services::new()?;
    let _origin = services.start("shop.py", &["origin", &ORIGIN.to_string()])?;
    let mut rows = Vec::new();
    let zone = format!("zone=127.0.0.1:{CACHE}");
    // Phase, the way that is cut, and how many of zone B's commands the server executes.
    let phases: [(&str, Option<&str>, usize); 5] = [
        ("before", None, all),
        ("split", Some("in out"), 0),
        ("whole", None, all),
        ("split one way", Some("in"), all),
        ("after", None, all),
    ];
    for (phase, way, executed) in phases {
        let before = [hits(&redis, "zone-A")?, hits(&redis, "zone-B")?];
        let zones = zones(&services, requests)?;
        let answered = if let Some(way) = way {
            let way = format!("way={way}");
            let injection = stage.fault(
                &["preset", "zone-split", "--pid", "ZONE_B", &zone, &way, "for=5m"],
                &[("ZONE_B", &zones[1].pid())],
            )?;
            stage.hurt(phase, || ask(zones))?;
            injection.heal()?;
            0
        } else {
            stage.phase(phase, || ask(zones))?;
            all
        };
        let now = [hits(&redis, "zone-A")?, hits(&redis, "zone-B")?];
        let (record, checks) = (&stage.record, &mut stage.checks);
        let [a, b] = ["zone-A", "zone-B"].map(|zone| record.of(zone, phase));
        checks.equal(
            &format!("{phase}: zone A's requests that the cache answered, of {all}"),
            a.ended("cache"),
            all,
        )?;
        checks.equal(
            &format!("{phase}: zone B's requests that the cache answered, of {all}"),
            b.ended("cache"),
            answered,
        )?;
        checks.equal(
            &format!("{phase}: zone B's requests that fell through to the origin"),
            b.ended("origin"),
            all - answered,
        )?;
        checks.equal(&format!("{phase}: zone A's commands that Redis executed"), now[0] - before[0], all)?;
        checks.equal(
            &format!("{phase}: zone B's commands that Redis executed"),
            now[1] - before[1],
            executed,
        )?;
        rows.push(vec![
            phase.to_owned(),
            format!("{all} of {all}"),
            format!("{answered} of {all}"),
            (now[0] - before[0]).to_string(),
            (now[1] - before[1]).to_string(),
        ]);
    }
    stage.tables.push(Table {
        title: "Who was answered by the cache, and what it did".to_owned(),
        head: ["phase", "zone A answered", "zone B answered", "executed for A", "executed for B"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    });
    Ok(())
}
