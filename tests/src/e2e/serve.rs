//! The service: sessions from their beginning to their end, and that nothing is left however it or its clients end.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    Lane, Test,
    disk::reader,
    pair::{Pair, untouched},
};
use crate::{
    disk_lab::BARE,
    net_lab::{NetLab, PEER_V4},
    process::Process,
    residue::Picture,
    service_lab::{PATIENCE, Service},
    victim::report::Timed,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "serve::a_session_from_create_to_report",
        on: Lane::tests_the_controller,
        run: whole_session,
    },
    Test { name: "serve::any_change_works_without_a_gap", on: Lane::tests_the_controller, run: any_change },
    Test { name: "serve::leases_expire", on: Lane::tests_the_controller, run: leases_expire },
    Test {
        name: "serve::the_connection_is_the_lease",
        on: Lane::tests_the_controller,
        run: connection_lease,
    },
    Test { name: "serve::death_and_signals_heal", on: Lane::tests_the_controller, run: death },
    Test { name: "serve::events_are_streamed", on: Lane::tests_the_controller, run: events },
    Test {
        name: "serve::disks_are_changed_without_a_gap",
        on: Lane::tests_disks_in_detail,
        run: disk_changes,
    },
];

/// Datagrams, of which all arrive or none.
const FEW: u64 = 200;

fn whole_session(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("serve")?;
    let service = Service::start(&[])?;
    let (target, bystander) = (Pair::new(&lab, PEER_V4, 9000, FEW)?, Pair::new(&lab, PEER_V4, 9001, FEW)?);
    let later = Pair::new(&lab, PEER_V4, 9002, FEW)?;
    let pids: Vec<u32> =
        [&target, &later].iter().map(|pair| pair.sender.pid().parse()).collect::<Result<_, _>>()?;
    let id = service.create(&json!({"pid": pids, "net": ["drop 100% out udp"], "seed": 7}))?;
    let path = format!("/v1/sessions/{id}");
    let (sent, counted) = target.run()?;
    let (bystander_sent, bystander_counted) = bystander.run()?;
    ensure!(sent.sent == FEW && counted.received == 0, "{sent:?}, {} arrived", counted.received);
    untouched("bystander", &bystander_sent, &bystander_counted, FEW)?;
    let view = service.json("GET", &path, None, 200)?;
    ensure!(view["seed"] == 7 && view["rules"][0]["injected"] == FEW, "{view}");
    let (_, metrics) = service.ask("GET", "/metrics", None)?;
    let line = format!(
        r#"fault_rule_injected_total{{session="{id}",rule="0",layer="net",spec="drop 100% out udp"}} {FEW}"#
    );
    ensure!(metrics.contains(&line) && metrics.ends_with("# EOF\n"), "{metrics}");

    // Refused faults leave the old ones in force.
    let faults = format!("{path}/faults");
    let error = service.json("PUT", &faults, Some(&json!({"net": ["dorp"]})), 422)?;
    ensure!(error["error"]["next"].as_str().is_some_and(|next| next.contains("`drop`")), "{error}");
    ensure!(service.json("GET", &path, None, 200)?["rules"][0]["injected"] == FEW, "the faults are gone");
    let changed = service.json("PUT", &faults, Some(&json!({"net": ["drop 100% out tcp"]})), 200)?;
    ensure!(changed["replaced"][0]["injected"] == FEW && changed["rules"][0]["injected"] == 0, "{changed}");
    let (_, counted) = later.run()?;
    ensure!(counted.received == FEW, "{} of {FEW} arrived", counted.received);

    // The target may be gone by now, and the session healed by itself: the report is the same.
    let report = service.json("DELETE", &path, None, 200)?;
    ensure!(report["rules"][0]["injected"] == 0, "{report}");
    service.json("DELETE", &path, None, 404)?;
    service.end()
}

/// Changes that the session was not armed for, back and forth while the target sends: what all of the faults lose never
/// arrives.
fn any_change(_: Lane) -> anyhow::Result<()> {
    const MANY: u64 = 1500;
    let lab = NetLab::new("srvch")?;
    let service = Service::start(&[])?;
    let pair = Pair::with(&lab, PEER_V4, 9000, MANY, &["--pause-us", "4000"])?;
    // A descendant whose ancestor is about to end belongs to the target all the same.
    let script = "sleep 60 < /dev/null > /dev/null 2>&1 & read go";
    let mut parent = Process::start(Command::new("sh").args(["-c", script]))?;
    let pids = [&pair.sender, &parent].map(|process| process.pid().parse::<u32>());
    let pids = pids.into_iter().collect::<Result<Vec<_>, _>>()?;
    let id = service.create(&json!({"pid": pids, "net": ["drop out udp"], "events": true}))?;
    let (path, faults) = (format!("/v1/sessions/{id}"), format!("/v1/sessions/{id}/faults"));
    let hits = |rules: &Value| -> u64 {
        rules.as_array().into_iter().flatten().filter_map(|rule| rule["injected"].as_u64()).sum()
    };
    parent.release()?;
    let (mut injected, mut changes) = (0, 0);
    let (sent, counted) = thread::scope(|scope| -> anyhow::Result<_> {
        let run = scope.spawn(move || pair.run());
        while !run.is_finished() {
            let others = match changes % 3 {
                0 => json!({"net": ["drop udp"]}),
                1 => json!({"net": ["refuse port 1", "drop out udp"]}),
                _ => json!({"net": ["drop out udp"]}),
            };
            let changed = service.json("PUT", &faults, Some(&others), 200)?;
            injected += hits(&changed["replaced"]);
            changes += 1;
            // Neither is there a gap when one is refused.
            let wrong = json!({"net": ["drop iface none9", "refuse port 1"]});
            let error = service.json("PUT", &faults, Some(&wrong), 422)?;
            ensure!(error["error"]["code"] == "refused", "{error}");
        }
        run.join().map_err(|_| anyhow::anyhow!("the sender"))?
    })?;
    let arrived = counted.received;
    ensure!(sent.sent == MANY && arrived == 0, "{sent:?}, {arrived} arrived in {changes} changes");
    ensure!(changes >= 2, "only {changes} changes");
    parent.ended()?;
    injected += hits(&service.json("PUT", &faults, Some(&json!({"net": ["drop"]})), 200)?["replaced"]);
    ensure!(injected >= MANY, "{injected} of {MANY} were hit");
    service.json("PUT", &faults, Some(&json!({"net": ["refuse"]})), 200)?;
    // Longer than it takes to find out that nobody is left.
    thread::sleep(Duration::from_secs(3));
    let view = service.json("GET", &path, None, 200)?;
    ensure!(view["state"] == "active" && view["rules"][0]["spec"] == "refuse", "{view}");
    let report = service.json("DELETE", &path, None, 200)?;
    ensure!(report["troubles"].is_null(), "{report}");
    service.end()
}

fn leases_expire(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&[])?;
    let target = Process::start(Command::new("sleep").arg("60"))?;
    let pid: u32 = target.pid().parse()?;
    let id = service.create(&json!({"pid": [pid], "net": ["drop"], "lease": "3s"}))?;
    let renew = format!("/v1/sessions/{id}/lease");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        let (status, body) = service.ask("POST", &renew, None)?;
        ensure!(status == 204, "after {:?}: {status} {body}", start.elapsed());
        thread::sleep(Duration::from_millis(200));
    }
    let report = service.healed(&id)?;
    ensure!(report["session"]["exit"]["reason"] == "lease_expired", "{report}");
    ensure!(start.elapsed() > Duration::from_secs(7), "expired although renewed");
    ensure!(service.ask("POST", &renew, None)?.0 == 409, "a healed session was renewed");
    service.end()
}

fn connection_lease(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&[])?;
    let target = Process::start(Command::new("sleep").arg("90"))?;
    let body =
        json!({"pid": [target.pid().parse::<u32>()?], "net": ["drop"], "lease": "connection"}).to_string();
    let mut client = UnixStream::connect(service.socket())?;
    write!(client, "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let start = Instant::now();
    let session = loop {
        let sessions = service.json("GET", "/v1/sessions", None, 200)?;
        if sessions["sessions"][0]["state"] == "active" {
            break sessions["sessions"][0].clone();
        }
        ensure!(start.elapsed() < PATIENCE, "{sessions}");
        thread::sleep(Duration::from_millis(50));
    };
    let id = session["id"].as_str().context("no id")?;
    // Longer than a connection may be silent that is no lease.
    thread::sleep(Duration::from_secs(12));
    let view = service.json("GET", &format!("/v1/sessions/{id}"), None, 200)?;
    ensure!(view["state"] == "active", "{view}");
    drop(client);
    let report = service.healed(id)?;
    ensure!(report["session"]["exit"]["reason"] == "lease_expired", "{report}");
    service.end()
}

fn death(_: Lane) -> anyhow::Result<()> {
    let target = Process::start(Command::new("sleep").arg("60"))?;
    let request = json!({"pid": [target.pid().parse::<u32>()?], "net": ["drop", "refuse"]});
    let before = Picture::take()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let service = Service::start(&[])?;
        service.create(&request)?;
        service.create(&request)?;
        ensure!(Picture::take()? != before, "nothing was armed");
        match signal {
            Signal::SIGKILL => {
                service.process.signal(signal)?;
                service.process.ended()?;
            }
            signal => {
                service.process.signal(signal)?;
                ensure!(service.process.ended()?.status.success(), "{signal}");
            }
        }
        before.must_return().with_context(|| signal.to_string())?;
    }
    Ok(())
}

fn events(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("srvev")?;
    let service = Service::start(&[])?;
    let pair = Pair::new(&lab, PEER_V4, 9000, FEW)?;
    let pid: u32 = pair.sender.pid().parse()?;
    let id = service.create(&json!({"pid": [pid], "net": ["drop out udp"], "events": true}))?;
    let url = format!("http://fault/v1/sessions/{id}/events");
    let mut listener = service.curl(&["-N", "-D", "/dev/stderr", &url]);
    let listener = Process::start_until(&mut listener, "HTTP/1.1 200")?;
    let mut other = service.curl(&["-N", "-D", "/dev/stderr", "-H", "Accept: text/event-stream", &url]);
    let other = Process::start_until(&mut other, "content-type: text/event-stream")?;
    pair.run()?;
    // The target is gone: so is the session, and with it the stream.
    let server_sent = other.text()?;
    let text = listener.text()?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let dropped = lines.iter().filter(|line| line["action"] == "drop" && line["rule"] == 0).count() as u64;
    let end = &lines.last().context("no lines")?["end"];
    ensure!(end["lost"] == 0 && end["lost_in_kernel"] == 0 && dropped == FEW, "{dropped} dropped; {end}");
    // The same as server-sent events: one block of fields each, numbered.
    let mut blocks: Vec<&str> = server_sent.split_terminator("\n\n").collect();
    let field = |block: &str, name: &str| {
        block
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim_start().to_owned()))
    };
    let end = blocks.pop().context("no events")?;
    ensure!(field(end, "event").as_deref() == Some("end"), "{end}");
    for (number, (block, line)) in blocks.iter().zip(&lines).enumerate() {
        ensure!(field(block, "event").as_deref() == Some("injection"), "{block}");
        ensure!(field(block, "id") == Some(number.to_string()), "{block}");
        let data = field(block, "data").context("no data")?;
        ensure!(serde_json::from_str::<Value>(&data)? == *line, "{block} is not {line}");
    }
    ensure!(blocks.len() + 1 == lines.len(), "{} blocks for {} lines", blocks.len(), lines.len());
    let report = service.healed(&id)?;
    ensure!(report["session"]["exit"]["reason"] == "target_gone", "{report}");
    service.end()
}

/// The same of disks: a read that none of the faults lets pass never succeeds, while sessions with and without parkers, and
/// with packets beside disks, take over from each other.
fn disk_changes(_: Lane) -> anyhow::Result<()> {
    const READS: u64 = 2000;
    let service = Service::start(&[])?;
    let pause = ["--count", &READS.to_string(), "--pause-us", "20000"];
    let (mut victim, mut bystander) = (reader(BARE, &pause)?, reader(BARE, &pause)?);
    let pid: u32 = victim.pid().parse()?;
    let plain = format!("error read on {BARE}");
    let id = service.create(&json!({"pid": [pid], "disk": [plain]}))?;
    let faults = format!("/v1/sessions/{id}/faults");
    victim.release()?;
    bystander.release()?;
    let others = [
        json!({"disk": ["delay 5ms read", plain]}),
        json!({"disk": [plain], "net": ["refuse"]}),
        json!({"disk": ["hang 10ms then error read"]}),
        json!({"disk": [plain]}),
    ];
    let (mut changes, mut injected) = (0, 0);
    let hits = |rules: &Value| -> u64 {
        let rules = rules.as_array().into_iter().flatten();
        rules.filter(|rule| rule["layer"] == "disk").filter_map(|rule| rule["injected"].as_u64()).sum()
    };
    let report = loop {
        let body = others[changes % others.len()].to_string();
        let (status, changed) = service.ask_quickly("PUT", &faults, &body)?;
        if status != 200 {
            // Its target has ended, and so has it, at any point of the change.
            let report = service.healed(&id)?;
            ensure!(report["session"]["exit"]["reason"] == "target_gone", "{status} {changed}: {report}");
            break report;
        }
        injected += hits(&changed["replaced"]);
        changes += 1;
    };
    injected += hits(&report["rules"]);
    let (victim, bystander): (Timed, Timed) = (victim.report()?, bystander.report()?);
    ensure!(bystander.errors.is_empty(), "the bystander saw {:?}", bystander.errors);
    let failed = victim.errors.get("EIO").copied().unwrap_or(0);
    ensure!(failed == READS, "{failed} of {READS} reads failed in {changes} changes: {report}");
    ensure!(injected >= READS, "{injected} hits of {READS} reads");
    // Forth and back; arming takes its time on an emulated machine.
    ensure!(changes >= 3, "only {changes} changes");
    ensure!(report["troubles"].is_null(), "{report}");
    service.end()
}
