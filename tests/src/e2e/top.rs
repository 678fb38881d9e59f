//! The live view: it sees every session, counts as the far end does, pauses, heals, and leaves the terminal as it was.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixStream},
    },
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};

use super::{
    Lane, Test,
    pair::{Pair, untouched},
};
use crate::{
    driver::{ACTIVE, Injection, binary, fault, refused_by},
    net_lab::{NetLab, PEER_V4},
    process::{Ended, Process},
    stats::binomial,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "top::counts_as_the_far_end_does", on: Lane::tests_the_controller, run: counts },
    Test { name: "top::tells_who_looks", on: Lane::tests_the_controller, run: told_to_who_looks },
    Test { name: "top::pause_resume_heal", on: Lane::tests_the_controller, run: pause_resume_heal },
    Test { name: "top::run_and_play_are_healed", on: Lane::tests_the_controller, run: run_and_play },
    Test { name: "top::sessions_of_a_service", on: Lane::tests_the_controller, run: service },
    Test {
        name: "top::killed_and_stopped_controllers",
        on: Lane::tests_the_controller,
        run: killed_and_stopped,
    },
    Test { name: "top::strangers", on: Lane::tests_the_controller, run: strangers },
];

/// Debian's own: the first one on the path may lie where only root may look.
const PYTHON: &str = "/usr/bin/python3";
/// Datagrams that show whether all arrive or none.
pub(super) const FEW: u64 = 200;
/// Datagrams whose loss is counted.
const MANY: u64 = 5_000;
/// How long something may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const NOBODY: &str = "65534";

/// `fault top --json`.
fn snapshot() -> anyhow::Result<Value> {
    let ended = Ended::of(&mut fault(&["top", "--json"]))?;
    ensure!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    serde_json::from_str(&ended.stdout).with_context(|| ended.stdout)
}

/// The sessions of a controller, as `fault top --json` has them; others may run on this machine.
fn sessions_of(pid: Pid) -> anyhow::Result<Vec<Value>> {
    let all = snapshot()?;
    let controllers = all["controllers"].as_array().context("controllers")?;
    let ours = controllers.iter().find(|controller| controller["pid"] == pid.as_raw());
    Ok(ours.and_then(|controller| controller["sessions"].as_array().cloned()).unwrap_or_default())
}

pub(super) fn session_of(pid: Pid) -> anyhow::Result<Value> {
    let mut sessions = sessions_of(pid)?;
    ensure!(sessions.len() == 1, "{sessions:?}");
    sessions.pop().context("no session")
}

/// Asks a controller, as any program might.
fn ask(pid: Pid, request: &Value) -> anyhow::Result<Value> {
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(format!("fault/{pid}"))?)?;
    writeln!(stream, "{request}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    serde_json::from_str(&answer).with_context(|| answer)
}

fn told(pid: Pid, what: &str, session: &Value) -> anyhow::Result<()> {
    let answer = ask(pid, &json!({"ask": what, "session": session["id"]}))?;
    ensure!(answer["answer"] == "done", "{what}: {answer}");
    Ok(())
}

pub(super) fn until(what: &str, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// One more victim that does nothing: a session ends when there are none left.
pub(super) fn survivor(lab: &NetLab) -> anyhow::Result<Process> {
    Process::start(&mut lab.in_target("cat"))
}

fn counts(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("top")?;
    let [first, second] = [9000, 9001].map(|port| Pair::new(&lab, PEER_V4, port, MANY));
    let (first, second) = (first?, second?);
    let idle = survivor(&lab)?;
    let survivor = idle.pid();
    let one = Injection::start(&[
        "--pid",
        &first.sender.pid(),
        "--pid",
        &survivor,
        "--net",
        "drop 10% out udp",
        "--for",
        "10m",
    ])?;
    // A name belongs to a network namespace: this one listens in another than we look from.
    let events = tempfile::NamedTempFile::new()?;
    let events = events.path().to_string_lossy().into_owned();
    let other = [
        "--pid",
        &second.sender.pid(),
        "--pid",
        &survivor,
        "--net",
        "drop 40% out udp",
        "--seed",
        "7",
        "--events",
        &events,
    ];
    let other = Injection::start_with(lab.in_target(&binary().to_string_lossy()), &other)?;
    for (injection, pair, share) in [(&one, first, 0.1), (&other, second, 0.4)] {
        let (sent, counted) = pair.run()?;
        let lost = sent.sent - counted.received;
        binomial("datagrams lost", lost, MANY, share).map_err(anyhow::Error::msg)?;
        let session = session_of(injection.pid())?;
        let rule = &session["rules"][0];
        ensure!(rule["matched"] == MANY && rule["injected"] == lost, "{lost} were lost: {session}");
        ensure!(
            session["state"] == "active" && rule["in_force"] == true && rule["layer"] == "net",
            "{session}"
        );
    }
    let (first, second) = (session_of(one.pid())?, session_of(other.pid())?);
    let left = first["left_ns"].as_u64().context("no time left")?;
    ensure!((1..600_000_000_000).contains(&left) && first["events"] == json!([]), "{first}");
    ensure!(second["left_ns"].is_null() && second["seed"] == 7, "{second}");
    // They are written by the session's own thread, which may be a moment behind.
    until("the last events", || {
        let session = session_of(other.pid())?;
        let events = session["events"].as_array().cloned().unwrap_or_default();
        Ok(events.len() == 16 && events.iter().all(|event| event["action"] == "drop" && event["rule"] == 0))
    })?;
    // For people, in a pipe: a table, and nothing else.
    let ended = Ended::of(&mut fault(&["top"]))?;
    ensure!(ended.status.success() && ended.stderr.is_empty() && !ended.stdout.contains('\x1b'), "{ended:?}");
    for words in [format!("{} inject, active after", one.pid()), "net drop 40% out udp".to_owned()] {
        ensure!(ended.stdout.contains(&words), "no {words}: {}", ended.stdout);
    }
    let (one_pid, other_pid) = (one.pid(), other.pid());
    for report in [one.heal()?, other.heal()?] {
        ensure!(report.status.success(), "{report:?}");
    }
    ensure!(idle.ended()?.status.success(), "the survivor did not");
    ensure!(sessions_of(one_pid)?.is_empty() && sessions_of(other_pid)?.is_empty(), "healed and still seen");
    Ok(())
}

/// Without `--events` the programs tell what they do while somebody looks; what they cannot is nobody's loss.
fn told_to_who_looks(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("looks")?;
    let pairs: Result<Vec<_>, _> = [(9000, FEW), (9001, FEW), (9002, MANY)]
        .map(|(port, many)| Pair::new(&lab, PEER_V4, port, many))
        .into_iter()
        .collect();
    let pairs = pairs?;
    let mut arguments = vec!["--net", "drop out udp"];
    let pids: Vec<String> = pairs.iter().map(|pair| pair.sender.pid()).collect();
    arguments.extend(pids.iter().flat_map(|pid| ["--pid", pid]));
    let idle = survivor(&lab)?;
    let survivor = idle.pid();
    arguments.extend(["--pid", &survivor]);
    let injection = Injection::start(&arguments)?;
    for (round, pair) in pairs.into_iter().enumerate() {
        let (sent, counted) = pair.run()?;
        ensure!(sent.sent > 0 && counted.received == 0, "round {round}: {sent:?} {counted:?}");
        let session = session_of(injection.pid())?;
        let events = session["events"].as_array().context("no events")?;
        // The first look is after the first round.
        let told = if round == 0 { 0 } else { 16 };
        ensure!(events.len() == told, "round {round}: {session}");
        for event in events {
            let port = 9000 + round;
            ensure!(event["action"] == "drop" && event["rule"] == 0, "round {round}: {event}");
            let peer = event["remote"].as_str().context("no peer")?;
            ensure!(peer.ends_with(&format!(":{port}")), "round {round}: {event}");
        }
    }
    let report = injection.heal()?;
    ensure!(report.rule(0, "injected")? == 2 * FEW + MANY, "{}", report.json);
    ensure!(report.counter("events_lost")? == 0, "{}", report.json);
    ensure!(idle.ended()?.status.success(), "the survivor did not");
    Ok(())
}

fn pause_resume_heal(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("pause")?;
    let pairs: Result<Vec<_>, _> = (9000..9004).map(|port| Pair::new(&lab, PEER_V4, port, FEW)).collect();
    let mut pairs = pairs?;
    let pids: Vec<String> = pairs.iter().map(|pair| pair.sender.pid()).collect();
    let mut arguments = vec!["--net", "drop out udp"];
    arguments.extend(pids.iter().flat_map(|pid| ["--pid", pid]));
    let injection = Injection::start(&arguments)?;
    let pid = injection.pid();
    let session = session_of(pid)?;
    for (round, what) in [None, Some("pause"), Some("resume")].into_iter().enumerate() {
        if let Some(what) = what {
            told(pid, what, &session)?;
        }
        let (sent, counted) = pairs.remove(0).run()?;
        let (arrive, state) = if what == Some("pause") { (FEW, "paused") } else { (0, "active") };
        ensure!(sent.sent == FEW && counted.received == arrive, "round {round}: {sent:?} {counted:?}");
        ensure!(session_of(pid)?["state"] == state, "round {round}");
    }
    let answer = ask(pid, &json!({"ask": "pause", "session": 4711}))?;
    ensure!(answer["answer"] == "refused" && answer["why"].is_string(), "{answer}");
    let answer = ask(pid, &json!({"ask": "explode"}))?;
    ensure!(answer["answer"] == "refused", "{answer}");
    // One that is paused heals as well.
    told(pid, "pause", &session)?;
    told(pid, "heal", &session)?;
    let report = injection.wait()?;
    ensure!(report.status.success() && report.json["session"]["exit"]["reason"] == "healed", "{report:?}");
    ensure!(report.rule(0, "matched")? == 2 * FEW && report.rule(0, "injected")? == 2 * FEW, "{report:?}");
    ensure!(report.stderr.contains("healed from `fault top`"), "{report:?}");
    let (sent, counted) = pairs.remove(0).run()?;
    untouched("after healing", &sent, &counted, FEW)
}

fn run_and_play(_: Lane) -> anyhow::Result<()> {
    // The command outlives its faults, and its status is that of `fault run`.
    let command = ["run", "--net", "drop 10%", "--", "sh", "-c", "read line; exit 7"];
    let mut process = Process::start_until(&mut fault(&command), ACTIVE)?;
    let pid = Pid::from_raw(process.pid().parse()?);
    let session = session_of(pid)?;
    ensure!(session["target"] == "`sh -c read line; exit 7`", "{session}");
    told(pid, "heal", &session)?;
    until("the session is over", || Ok(sessions_of(pid)?.is_empty()))?;
    process.release()?;
    let ended = process.ended()?;
    ensure!(ended.status.code() == Some(7), "{ended:?}");

    let mut scenario = tempfile::NamedTempFile::new()?;
    scenario.write_all(
        b"[[phase]]\nname = \"calm\"\nfor = \"10m\"\nfaults = [{ net = \"drop 10% out\" }]\n\
          [[phase]]\nname = \"storm\"\nfor = \"10m\"\nfaults = [{ net = \"drop 90% out\" }]\n",
    )?;
    let mut sleeper = Command::new("sleep").arg("600").spawn()?;
    let played = (|| {
        let path = scenario.path().to_string_lossy().into_owned();
        let injection = Injection::play(&[&path, "--pid", &sleeper.id().to_string()])?;
        let session = session_of(injection.pid())?;
        let of = |rule: usize| [&session["rules"][rule]["phase"], &session["rules"][rule]["in_force"]];
        ensure!(
            of(0) == [&json!("calm"), &json!(true)] && of(1) == [&json!("storm"), &json!(false)],
            "{session}"
        );
        told(injection.pid(), "heal", &session)?;
        injection.wait()
    })();
    sleeper.kill()?;
    sleeper.wait()?;
    let report = played?;
    ensure!(report.status.success() && report.json["session"]["exit"]["reason"] == "healed", "{report:?}");
    Ok(())
}

fn service(_: Lane) -> anyhow::Result<()> {
    let directory = tempfile::TempDir::new()?;
    let socket = directory.path().join("socket");
    let listen = format!("unix:{}", socket.display());
    let service = Process::start_until(&mut fault(&["serve", "--listen", &listen]), "fault: serving")?;
    let pid = Pid::from_raw(service.pid().parse()?);
    let own = std::process::id();
    for spec in ["drop 0% out tcp port 1", "drop 0% out udp port 2"] {
        let body = json!({"pid": [own], "net": [spec]}).to_string();
        let mut curl = Command::new("curl");
        curl.args(["-s", "-S", "-f", "-m", "60", "--unix-socket"]).arg(&socket);
        curl.args(["http://fault/v1/sessions", "-X", "POST", "--data-binary", &body]);
        let ended = Ended::of(&mut curl)?;
        ensure!(ended.status.success(), "{ended:?}");
    }
    let sessions = sessions_of(pid)?;
    let specs: Vec<_> = sessions.iter().map(|session| session["rules"][0]["spec"].as_str()).collect();
    ensure!(specs == [Some("drop 0% out tcp port 1"), Some("drop 0% out udp port 2")], "{sessions:?}");
    // One goes, the other stays.
    told(pid, "heal", &sessions[0])?;
    until("one is left", || Ok(sessions_of(pid)?.len() == 1))?;
    ensure!(session_of(pid)?["id"] == sessions[1]["id"], "the wrong one went");
    service.signal(Signal::SIGTERM)?;
    ensure!(service.ended()?.status.success(), "the service failed");
    Ok(())
}

/// Whether the name of a controller is taken.
fn has_name(pid: Pid) -> anyhow::Result<bool> {
    let name = format!("@fault/{pid}");
    Ok(fs::read_to_string("/proc/net/unix")?.lines().any(|line| line.ends_with(&name)))
}

fn killed_and_stopped(_: Lane) -> anyhow::Result<()> {
    let own = std::process::id().to_string();
    let injection = Injection::start(&["--pid", &own, "--net", "drop 0% out udp port 1"])?;
    let pid = injection.pid();
    let is_silent =
        || Ok(snapshot()?["silent"].as_array().is_some_and(|all| all.contains(&json!(pid.as_raw()))));
    ensure!(has_name(pid)? && sessions_of(pid)?.len() == 1 && !is_silent()?, "not seen");
    injection.signal(Signal::SIGSTOP)?;
    until("a stopped controller is silent", is_silent)?;
    injection.signal(Signal::SIGCONT)?;
    until("it speaks again", || Ok(sessions_of(pid)?.len() == 1))?;
    injection.sigkill()?;
    ensure!(!has_name(pid)? && sessions_of(pid)?.is_empty() && !is_silent()?, "still seen");
    Ok(())
}

fn strangers(_: Lane) -> anyhow::Result<()> {
    let as_nobody = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--clear-groups", program]);
        command
    };
    // The binary may lie where only root may look.
    let directory = tempfile::TempDir::new()?;
    let path = directory.path().join("fault");
    fs::copy(binary(), &path)?;
    let open = |path| fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755));
    open(directory.path()).and_then(|()| open(&path))?;
    for arguments in [&["top"][..], &["top", "--json"]] {
        let said = refused_by(as_nobody(&path.to_string_lossy()).args(arguments), 77)?;
        ensure!(said.contains("needs root") && said.lines().count() == 1, "{said}");
    }
    let own = std::process::id().to_string();
    let injection = Injection::start(&["--pid", &own, "--net", "drop 0% out udp port 1"])?;
    // A question that root gets an answer to.
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0fault/' + sys.argv[1])\n\
                  try:\n s.sendall(b'{\"ask\": \"snapshot\"}\\n')\n print(len(s.recv(1)))\n\
                  except (BrokenPipeError, ConnectionResetError):\n print(0)";
    for (mut command, length) in [(as_nobody(PYTHON), "0"), (Command::new(PYTHON), "1")] {
        let ended = Ended::of(command.args(["-c", script, &injection.pid().to_string()]))?;
        ensure!(ended.stdout.trim() == length, "{ended:?}");
    }
    // Whoever takes such a name without being root is not believed.
    let script = "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0fault/impostor')\ns.listen()\n\
                  import sys; print('ready', file=sys.stderr, flush=True); sys.stdin.read()";
    let impostor = Process::start_until(as_nobody(PYTHON).args(["-c", script]), "ready")?;
    let all = snapshot()?;
    let pid: u32 = impostor.pid().parse()?;
    let silent = all["silent"].as_array().context("silent")?;
    ensure!(!silent.contains(&json!(pid)), "{all}");
    impostor.ended()?;
    ensure!(injection.heal()?.status.success(), "healing failed");
    Ok(())
}
