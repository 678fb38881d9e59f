//! `--comm`: processes that bear a name, took it later, were born with it, gave it up, or only have a thread of it.

use std::os::unix::fs::symlink;

use anyhow::{Context as _, ensure};

use super::{Lane, Test, pair::counter};
use crate::{
    driver::{Injection, refused, victim},
    net_lab::{NetLab, PEER_V4},
    process::Process,
    victim::report::Counted,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "names::present_and_future", on: Lane::tests_packets_in_detail, run: present_and_future },
    Test { name: "names::born_into_it", on: Lane::tests_packets_in_detail, run: born_into_it },
    Test { name: "names::given_up", on: Lane::tests_packets_in_detail, run: given_up },
    Test { name: "names::that_no_process_can_bear", on: Lane::tests_packets, run: impossible },
];

/// Datagrams of each sender.
const FEW: u64 = 100;

/// Carries out its arguments one after the other: `open PORT` makes a socket, `send PORT` sends through it, `wait` is for a
/// line, `name NAME` takes a name (of the whole process), `thread NAME` gives one to a thread that stays, `fork N` has a child
/// carry out the next N and waits for it, `sleep S` sleeps.
const ACTOR: &str = r#"
import os, socket, struct, sys, threading, time
sockets, steps = {}, sys.argv[1:]
def named(name, task):
    open(f"/proc/self/task/{task}/comm", "w").write(name)
def a_thread(name, ready):
    named(name, threading.get_native_id())
    ready.set()
    time.sleep(1000)
def act(what, argument):
    if what == "open":
        sockets[argument] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif what == "send":
        if argument not in sockets:
            act("open", argument)
        for number in range(100):
            datagram = struct.pack("<QQ", number, time.monotonic_ns())
            sockets[argument].sendto(datagram, ("10.77.0.2", int(argument)))
            time.sleep(0.001)
    elif what == "wait":
        print("ready", file=sys.stderr, flush=True)
        sys.stdin.readline()
    elif what == "name":
        named(argument, os.getpid())
    elif what == "thread":
        ready = threading.Event()
        threading.Thread(target=a_thread, args=(argument, ready), daemon=True).start()
        ready.wait()
    elif what == "sleep":
        time.sleep(float(argument))
while steps:
    what, _, argument = steps.pop(0).partition(" ")
    if what == "fork":
        mine, steps = steps[:int(argument)], steps[int(argument):]
        child = os.fork()
        if child == 0:
            steps = mine
        else:
            os.waitpid(child, 0)
    else:
        act(what, argument)
os._exit(0)
"#;

/// An [`ACTOR`] in the target's namespace that has reached its `wait`.
fn actor(lab: &NetLab, steps: &[&str]) -> anyhow::Result<Process> {
    Process::start_until(lab.in_target("python3").args(["-c", ACTOR]).args(steps), "ready")
}

/// Lets all actors go, waits for their ends, and compares what arrived at each counter.
fn play(
    actors: Vec<Process>,
    counters: Vec<(&'static str, anyhow::Result<Process>, u64)>,
) -> anyhow::Result<()> {
    let mut actors = actors;
    for actor in &mut actors {
        actor.release()?;
    }
    for actor in actors {
        actor.text()?;
    }
    for (who, counter, arrive) in counters {
        let counted: Counted = counter?.report()?;
        ensure!(counted.received == arrive, "{who}: {} of {FEW} instead of {arrive}", counted.received);
    }
    Ok(())
}

fn present_and_future(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("name")?;
    let at = |port| counter(&lab, PEER_V4, port);
    let counters = vec![
        ("bears the name", at(9000), 0),
        ("takes it, with a socket from before", at(9001), 0),
        ("becomes a program of that name", at(9002), 0),
        ("begins with the name", at(9003), FEW),
        ("has a thread of that name", at(9004), FEW),
        ("started in the session", at(9005), 0),
        ("its child of another name", at(9006), 0),
    ];
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("e2e-aim");
    symlink(victim()?, &program)?;
    let program = program.to_str().context("a path of letters")?;
    let send = |port: &str| format!("{program} udp-send {PEER_V4}:{port} --count {FEW}");
    let becomes = format!("echo ready >&2; read x; exec {}", send("9002"));
    let actors = vec![
        actor(&lab, &["name e2e-aim", "open 9000", "wait", "send 9000"])?,
        actor(&lab, &["open 9001", "wait", "name e2e-aim", "sleep 3", "send 9001"])?,
        Process::start_until(lab.in_target("sh").args(["-c", &becomes]), "ready")?,
        actor(&lab, &["name e2e-aims", "wait", "send 9003"])?,
        actor(&lab, &["thread e2e-aim", "wait", "send 9004"])?,
    ];
    let injection = Injection::start(&["--comm", "e2e-aim", "--net", "drop out udp"])?;
    Process::start(lab.in_target("sh").args(["-c", &send("9005")]))?.text()?;
    actor(&lab, &["name e2e-aim", "wait", "fork 2", "name other", "send 9006"])?.text()?;
    play(actors, counters)?;
    let report = injection.heal()?;
    ensure!(report.rule(0, "injected")? == 5 * FEW, "{}", report.json);
    Ok(())
}

fn born_into_it(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("born")?;
    let at = |port| counter(&lab, PEER_V4, port);
    let counters = vec![
        ("the server", at(9000), FEW),
        ("its worker of that name", at(9001), 0),
        ("a child with the name of its parent", at(9002), 0),
        ("the server, when workers have come and gone", at(9003), FEW),
    ];
    let server = ["wait", "send 9000", "fork 2", "name e2e-worker", "send 9001", "send 9003"];
    let actors =
        vec![actor(&lab, &server)?, actor(&lab, &["name e2e-worker", "wait", "fork 1", "send 9002"])?];
    // Without descendants: a child belongs to the target because it is born with the name.
    let injection = Injection::start(&["--comm", "e2e-worker", "--only", "--net", "drop out udp"])?;
    play(actors, counters)?;
    injection.heal()?;
    Ok(())
}

fn given_up(_: Lane) -> anyhow::Result<()> {
    for (only, arrive) in [(false, 0), (true, FEW)] {
        let lab = NetLab::new("up")?;
        let at = |port| counter(&lab, PEER_V4, port);
        let counters = vec![
            ("a socket made under the name", at(9000), 0),
            ("a socket made under another", at(9001), arrive),
            ("named by its number as well", at(9002), 0),
        ];
        let renamed = ["wait", "name e2e-aim", "open 9000", "name other", "send 9000", "send 9001"];
        let actors =
            vec![actor(&lab, &renamed)?, actor(&lab, &["name e2e-aim", "wait", "name other", "send 9002"])?];
        let pid = actors[1].pid();
        let mut arguments = vec!["--comm", "e2e-aim", "--pid", &pid, "--net", "drop out udp"];
        arguments.extend(only.then_some("--only"));
        let injection = Injection::start(&arguments)?;
        play(actors, counters)?;
        injection.heal()?;
    }
    Ok(())
}

fn impossible(_: Lane) -> anyhow::Result<()> {
    for (name, said) in [("postgresql-server", "\"postgresql-serv\""), ("", "--comm")] {
        let answer = refused(&["inject", "--comm", name, "--net", "drop"], 2)?;
        ensure!(answer.contains(said) && answer.trim().lines().count() == 1, "{name}: {answer}");
    }
    // Nobody yet is no mistake, but said.
    let report = Injection::start(&["--comm", "e2e-nobody", "--net", "drop", "--for", "100ms"])?.wait()?;
    let said = report.stderr.contains("no process is named e2e-nobody yet");
    ensure!(report.status.success() && said, "{}", report.stderr);
    Ok(())
}
