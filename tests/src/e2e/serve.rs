//! The service: what clients ask of it, what it refuses, and that nothing is left however it or they end.

use std::{
    fs::Permissions,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{
    Lane, Test,
    pair::{Pair, untouched},
};
use crate::{
    driver::{fault, refused},
    net_lab::{NetLab, PEER_V4},
    process::{Ended, Process, proc_file},
    residue::Picture,
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
    Test { name: "serve::wrong_requests_are_refused", on: Lane::tests_the_controller, run: refusals },
    Test { name: "serve::other_users_are_refused", on: Lane::tests_the_controller, run: other_users },
    Test { name: "serve::slow_requests_are_closed", on: Lane::tests_the_controller, run: slow_requests },
    Test {
        name: "serve::two_hundred_clients_at_once",
        on: Lane::tests_the_controller,
        run: two_hundred_clients,
    },
    Test { name: "serve::events_are_streamed", on: Lane::tests_the_controller, run: events },
    Test { name: "serve::over_tcp_with_a_token_only", on: Lane::tests_the_controller, run: over_tcp },
    Test { name: "serve::the_description_is_complete", on: Lane::tests_the_controller, run: description },
    Test { name: "serve::python_client", on: Lane::tests_the_controller, run: python_client },
];

/// Datagrams, of which all arrive or none.
const FEW: u64 = 200;
/// How long something may take on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service and its socket.
struct Service {
    process: Process,
    directory: tempfile::TempDir,
}

/// What a service holds.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    /// Bytes.
    resident: u64,
}

impl Service {
    fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::new()?;
        let listen = format!("unix:{}", directory.path().join("socket").display());
        let arguments = [&["serve", "--listen", &listen], arguments].concat();
        let process = Process::start_until(&mut fault(&arguments), "fault: serving")?;
        Ok(Self { process, directory })
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn curl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["-s", "-S", "-m", "60", "--unix-socket"]).arg(self.socket()).args(arguments);
        command
    }

    /// The status and body of an answer.
    fn ask(&self, method: &str, path: &str, body: Option<&str>) -> anyhow::Result<(u16, String)> {
        let url = format!("http://fault{path}");
        let mut command = self.curl(&["-w", "\n%{http_code}", "-X", method, &url]);
        if let Some(body) = body {
            command.args(["--data-binary", "@-"]);
            return Self::answer(Ended::with_input(&mut command, body.as_bytes())?);
        }
        Self::answer(Ended::of(&mut command)?)
    }

    fn answer(ended: Ended) -> anyhow::Result<(u16, String)> {
        ensure!(ended.status.success(), "curl: {}: {}", ended.status, ended.stderr);
        let (body, status) = ended.stdout.rsplit_once('\n').context("no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// The JSON of an answer that must have this status.
    fn json(&self, method: &str, path: &str, body: Option<&Value>, status: u16) -> anyhow::Result<Value> {
        let text = body.map(Value::to_string);
        let (got, body) = self.ask(method, path, text.as_deref())?;
        ensure!(got == status, "{method} {path}: {got} instead of {status}: {body}");
        serde_json::from_str(&body).with_context(|| body)
    }

    fn create(&self, request: &Value) -> anyhow::Result<String> {
        let view = self.json("POST", "/v1/sessions", Some(request), 201)?;
        ensure!(view["state"] == "active", "{view}");
        Ok(view["id"].as_str().context("no id")?.to_owned())
    }

    /// Waits until the session is healed, and returns its report.
    fn healed(&self, id: &str) -> anyhow::Result<Value> {
        let start = Instant::now();
        loop {
            let view = self.json("GET", &format!("/v1/sessions/{id}"), None, 200)?;
            if view["state"] == "healed" {
                return Ok(view["report"].clone());
            }
            ensure!(start.elapsed() < PATIENCE, "not healed: {view}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The status and JSON of an answer, without a process for the question.
    fn ask_quickly(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
        let mut client = UnixStream::connect(self.socket())?;
        client.set_read_timeout(Some(2 * PATIENCE))?;
        let length = body.len();
        write!(
            client,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut text = String::new();
        client.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| text.clone())?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, serde_json::from_str(body).with_context(|| text.clone())?))
    }

    /// What the service holds, once it holds no more than so many descriptors, or as many for a second.
    fn settled(&self, descriptors: usize) -> anyhow::Result<Held> {
        let pid: u32 = self.process.pid().parse()?;
        let (start, mut last, mut same) = (Instant::now(), 0, 0);
        loop {
            let now = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            if (same >= 10 && (descriptors == 0 || now <= descriptors)) || start.elapsed() > PATIENCE {
                let status = proc_file(pid, "status")?;
                let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
                let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
                return Ok(Held { descriptors: now, resident: kib * 1024 });
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn end(self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        let ended = self.process.ended()?;
        ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        ensure!(!self.directory.path().join("socket").exists(), "the socket is left");
        Ok(())
    }
}

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
    let script = "sleep 45 < /dev/null > /dev/null 2>&1 & exec sleep 1";
    let parent = Process::start(Command::new("sh").args(["-c", script]))?;
    let pids = [&pair.sender, &parent].map(|process| process.pid().parse::<u32>());
    let pids = pids.into_iter().collect::<Result<Vec<_>, _>>()?;
    let id = service.create(&json!({"pid": pids, "net": ["drop out udp"], "events": true}))?;
    let (path, faults) = (format!("/v1/sessions/{id}"), format!("/v1/sessions/{id}/faults"));
    let hits = |rules: &Value| -> u64 {
        rules.as_array().into_iter().flatten().filter_map(|rule| rule["injected"].as_u64()).sum()
    };
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

fn refusals(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&["--max-sessions", "1"])?;
    let target = Process::start(Command::new("sleep").arg("60"))?;
    let pid: u32 = target.pid().parse()?;
    let cases = [
        ("POST", "/v1/sessions", r#"{"pid": [1], "nte": ["drop"]}"#.to_owned(), 400, "nte"),
        ("POST", "/v1/sessions", r#"{"pid": ["x"]}"#.to_owned(), 400, "pid[0]"),
        ("POST", "/v1/sessions", "not json".to_owned(), 400, "expected"),
        ("POST", "/v1/sessions", r#"{"net": ["drop"]}"#.to_owned(), 400, "no target"),
        ("POST", "/v1/sessions", format!(r#"{{"pid": [{pid}]}}"#), 400, "no fault"),
        ("POST", "/v1/sessions", r#"{"pid": [4194303], "net": ["drop"]}"#.to_owned(), 422, "4194303"),
        ("POST", "/v1/sessions", r#"{"cgroup": ["/no/such"], "net": ["drop"]}"#.to_owned(), 422, "no/such"),
        ("POST", "/v1/sessions", r#"{"host": true, "net": ["drop"]}"#.to_owned(), 422, "yes"),
        ("POST", "/v1/sessions", format!(r#"{{"pid": [{pid}], "net": ["drop"], "for": "0s"}}"#), 400, "for"),
        ("POST", "/v1/sessions", format!(r#"{{"pid": [{pid}], "net": ["drop iface none9"]}}"#), 422, "none9"),
        ("POST", "/v1/explain", r#"{"spec": "dorp"}"#.to_owned(), 422, "dorp"),
        ("POST", "/v1/explain", r#"{"spec": "drop", "layer": "x"}"#.to_owned(), 400, "layer"),
        ("GET", "/v1/sessions/1", String::new(), 404, "no session"),
        ("GET", "/v2", String::new(), 404, "/v2"),
        ("PATCH", "/v1/sessions", String::new(), 405, "PATCH"),
    ];
    for (method, path, body, status, word) in cases {
        let (got, answer) = service.ask(method, path, Some(&body))?;
        let error: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        let said = error["error"]["message"].as_str().unwrap_or_default();
        ensure!(got == status && said.contains(word), "{method} {path} {body}: {got} {answer}");
        ensure!(error["error"]["next"].as_str().is_some_and(|next| !next.is_empty()), "{answer}");
    }
    let large = json!({"net": ["x".repeat(70_000)]}).to_string();
    ensure!(service.ask("POST", "/v1/sessions", Some(&large))?.0 == 413, "a large body was taken");
    let id = service.create(&json!({"pid": [pid], "net": ["drop"]}))?;
    let error = service.json("POST", "/v1/sessions", Some(&json!({"pid": [pid], "net": ["drop"]})), 503)?;
    ensure!(error["error"]["code"] == "too_many_sessions", "{error}");
    service.json("DELETE", &format!("/v1/sessions/{id}"), None, 200)?;
    let doctor = service.json("GET", "/v1/doctor", None, 200)?;
    ensure!(doctor["features"]["packet_drop"]["ok"] == true, "{doctor}");
    let explained = service.json("POST", "/v1/explain", Some(&json!({"spec": "drop 5%"})), 200)?;
    ensure!(explained[0]["layer"] == "net", "{explained}");
    service.end()
}

fn other_users(_: Lane) -> anyhow::Result<()> {
    const NOBODY: &str = "65534";
    for (allowed, status) in [("12345", "403"), (NOBODY, "200")] {
        let service = Service::start(&["--allow-uid", allowed])?;
        // Everybody may look into it, so that it is the service that refuses.
        std::fs::set_permissions(service.directory.path(), Permissions::from_mode(0o755))?;
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            NOBODY,
            "--clear-groups",
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ]);
        command.arg("--unix-socket").arg(service.socket()).arg("http://fault/v1/sessions");
        let ended = Ended::of(&mut command)?;
        ensure!(ended.stdout == status, "{}: {}{}", ended.status, ended.stdout, ended.stderr);
        service.end()?;
    }
    let service = Service::start(&[])?;
    let mode = std::fs::metadata(service.socket())?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    service.end()
}

fn slow_requests(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&[])?;
    let body = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    for (begun, answer) in [("GET /v1/sessions HTTP/1.1\r\nHost: x\r\nX-", ""), (body, "HTTP/1.1 408 ")] {
        let mut client = UnixStream::connect(service.socket())?;
        client.write_all(begun.as_bytes())?;
        client.set_read_timeout(Some(PATIENCE))?;
        let start = Instant::now();
        let mut got = String::new();
        client.read_to_string(&mut got).with_context(|| format!("still open after {:?}", start.elapsed()))?;
        ensure!(got.starts_with(answer) && (answer.is_empty() == got.is_empty()), "{got}");
        ensure!(start.elapsed() > Duration::from_secs(5), "closed at once");
    }
    service.end()
}

/// Sessions that are made and deleted by clients of which most are told to wait; then the service holds no more descriptors and
/// no more memory than before.
fn two_hundred_clients(_: Lane) -> anyhow::Result<()> {
    const CLIENTS: usize = 200;
    const SESSIONS: usize = 48;
    let service = Service::start(&["--max-sessions", "8"])?;
    let target = Process::start(Command::new("sleep").arg("300"))?;
    let pid: u32 = target.pid().parse()?;
    let (made, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let client = |_| -> anyhow::Result<Vec<String>> {
        let mut ids = Vec::new();
        loop {
            let number = made.load(Ordering::Relaxed);
            if number >= SESSIONS {
                return Ok(ids);
            }
            // Of sessions that drop packets, six fit one network namespace: those have to wait for each other, too.
            let fault = if number.is_multiple_of(4) { "drop port 1" } else { "refuse port 1" };
            let request = json!({"pid": [pid], "net": [fault], "seed": number}).to_string();
            let (status, answer) = service.ask_quickly("POST", "/v1/sessions", &request)?;
            if status == 503 {
                let code = &answer["error"]["code"];
                ensure!(code == "too_many_sessions" || code == "busy", "{answer}");
                refused.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(500));
                continue;
            }
            ensure!(status == 201 && answer["seed"] == number, "{status} {answer}");
            made.fetch_add(1, Ordering::Relaxed);
            let id = answer["id"].as_str().context("no id")?.to_owned();
            let (status, report) = service.ask_quickly("DELETE", &format!("/v1/sessions/{id}"), "")?;
            ensure!(status == 200 && report["session"]["seed"] == number, "{status} {report}");
            ids.push(id);
        }
    };
    let crowd = |clients: usize| -> anyhow::Result<Vec<String>> {
        made.store(0, Ordering::Relaxed);
        let ids = thread::scope(|scope| {
            let clients: Vec<_> = (0..clients).map(|number| scope.spawn(move || client(number))).collect();
            let ended = clients.into_iter().map(|client| client.join());
            ended.map(|ids| ids.map_err(|_| anyhow::anyhow!("a client"))?).collect::<anyhow::Result<Vec<_>>>()
        })?;
        Ok(ids.concat())
    };
    // The same once before: what a service keeps for later is no leak.
    let mut ids = crowd(CLIENTS)?;
    let before = service.settled(0)?;
    ids.extend(crowd(CLIENTS)?);
    let after = service.settled(before.descriptors)?;
    let sum = ids.len();
    let different: std::collections::BTreeSet<_> = ids.into_iter().collect();
    ensure!(sum >= 2 * SESSIONS && different.len() == sum, "{sum} sessions, {} ids", different.len());
    ensure!(refused.load(Ordering::Relaxed) >= CLIENTS, "hardly anybody was told to wait: {refused:?}");
    ensure!(after.descriptors == before.descriptors, "{before:?} before, {after:?} after");
    // One session holds more than a megabyte as long as it lives.
    let grown = after.resident.saturating_sub(before.resident);
    ensure!(grown < SESSIONS as u64 * 512 * 1024, "{before:?} before, {after:?} after");
    ensure!(service.json("GET", "/v1/sessions", None, 200)? == json!({"sessions": []}), "sessions are left");
    service.end()
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

fn over_tcp(_: Lane) -> anyhow::Result<()> {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let directory = tempfile::TempDir::new()?;
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n"))?;
    let file = file.to_str().context("no text")?;
    let tcp = ["serve", "--listen", "tcp:127.0.0.1:0"];
    std::fs::set_permissions(file, Permissions::from_mode(0o644))?;
    for (arguments, word) in [
        (&["serve", "--listen", "tcp:0.0.0.0:0", "--token-file", file][..], "loopback"),
        (&tcp[..], "--token-file"),
        (&[&tcp[..], &["--token-file", "/no/such"]].concat(), "/no/such"),
        (&[&tcp[..], &["--token-file", file]].concat(), "chmod 600"),
    ] {
        let said = refused(arguments, 2)?;
        ensure!(said.contains(word), "{arguments:?}: {said}");
    }
    std::fs::set_permissions(file, Permissions::from_mode(0o600))?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let service = Service::start(&["--listen", &format!("tcp:127.0.0.1:{port}"), "--token-file", file])?;
    let url = format!("http://127.0.0.1:{port}/v1/sessions");
    for (header, status) in [
        (format!("Authorization: Bearer {TOKEN}"), "200"),
        (format!("Authorization: Bearer {TOKEN}0"), "401"),
        (format!("Authorization: Basic {TOKEN}"), "401"),
        ("X-Token: none".to_owned(), "401"),
    ] {
        let mut command = Command::new("curl");
        command.args(["-s", "-S", "-m", "60", "--noproxy", "*", "-w", "\n%{http_code}", "-H", &header, &url]);
        let ended = Ended::of(&mut command)?;
        let (body, got) = ended.stdout.rsplit_once('\n').with_context(|| ended.stderr.clone())?;
        let body: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
        ensure!(
            got == status && (status == "200" || body["error"]["code"] == "no_token"),
            "{header}: {got} {body}"
        );
    }
    // The socket of the file system needs none.
    ensure!(service.json("GET", "/v1/sessions", None, 200)? == json!({"sessions": []}), "sessions");
    service.end()
}

/// Each path answers the methods that are described, and no others.
fn description(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&[])?;
    let document = service.json("GET", "/openapi.json", None, 200)?;
    let mut printed = Command::new("setpriv");
    printed.args(["--reuid", "65534", "--clear-groups"]).arg(fault(&[]).get_program());
    let printed = Ended::of(printed.args(["serve", "--openapi"]))?;
    ensure!(serde_json::from_str::<Value>(&printed.stdout)? == document, "{}", printed.stderr);
    let paths = document["paths"].as_object().context("no paths")?;
    ensure!(paths.len() >= 8, "{paths:?}");
    for (path, methods) in paths {
        // Nothing that is asked here does anything: there is no such session, and no body.
        let asked = path.replace("{id}", "none");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let (status, body) = service.ask(method, &asked, None)?;
            let described = &methods[method.to_lowercase()];
            ensure!((status == 405) == described.is_null(), "{method} {path}: {status} {body}");
            let error = serde_json::from_str::<Value>(&body).unwrap_or_default()["error"]["code"].clone();
            ensure!(error != "no_such_path", "{method} {path} is described and does not exist");
            ensure!(
                described.is_null() || !described["responses"][status.to_string()].is_null(),
                "{method} {path}: {status} is not described"
            );
        }
    }
    let codes = document["components"]["schemas"]["Code"].to_string();
    for code in ["bad_spec", "no_such_session", "too_many_sessions", "no_token"] {
        ensure!(codes.contains(code), "{codes}");
    }
    service.end()
}

fn python_client(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&[])?;
    let target = Process::start(Command::new("sleep").arg("60"))?;
    let directory = tempfile::TempDir::new()?;
    std::fs::write(
        directory.path().join("fault_service.py"),
        include_str!("../../../clients/python/fault_service.py"),
    )?;
    let script = format!(
        "import fault_service as fault\n\
         with fault.inject(pid={pid}, net='drop 10%', seed=3) as session:\n\
         \x20   assert session.get()['state'] == 'active'\n\
         \x20   assert session.change(net=['drop 20%'])['rules'][0]['spec'] == 'drop 20%'\n\
         assert session.report['session']['exit']['reason'] == 'deleted', session.report\n\
         try:\n\
         \x20   fault.inject(pid=4194303, net='drop')\n\
         except fault.FaultError as error:\n\
         \x20   assert (error.status, error.code) == (422, 'bad_target'), error\n\
         else:\n\
         \x20   raise SystemExit('no error')\n\
         fault.inject(pid={pid}, net='drop')\n",
        pid = target.pid()
    );
    let mut python = Command::new("python3");
    python.args(["-B", "-c", &script]).current_dir(directory.path()).env("FAULT_SOCKET", service.socket());
    let ended = Ended::of(&mut python)?;
    ensure!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    // The last session was never healed; its client is gone.
    let sessions = service.json("GET", "/v1/sessions", None, 200)?;
    let id = sessions["sessions"][0]["id"].as_str().context("no session")?;
    let report = service.healed(id)?;
    ensure!(report["session"]["exit"]["reason"] == "lease_expired", "{report}");
    service.end()
}
