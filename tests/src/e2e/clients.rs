//! Faults driven from test code: the crate's guard and the Python module.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use fault_user::client::{Faults, Inject, InjectError, Refusal};
use nix::sys::signal::Signal;

use super::{
    Lane, Test,
    pair::{Pair, untouched},
};
use crate::{
    driver::{binary, victim},
    net_lab::{NetLab, PEER_V4},
    process::{Ended, Process, descendants},
    residue::Picture,
    victim::report::{Counted, Sent},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "clients::a_guard_heals_and_reports", on: Lane::tests_the_controller, run: guard },
    Test { name: "clients::a_panic_heals", on: Lane::tests_the_controller, run: panics },
    Test { name: "clients::refusals_are_values", on: Lane::tests_the_controller, run: refusals },
    Test { name: "clients::a_guard_in_a_runtime", on: Lane::tests_the_controller, run: in_a_runtime },
    Test { name: "clients::python", on: Lane::tests_the_controller, run: python },
    Test { name: "clients::python_is_killed", on: Lane::tests_the_controller, run: python_is_killed },
];

const MANY: u64 = 300;

fn faults() -> Faults {
    Faults::new().controller_at(binary())
}

fn pid(process: &Process) -> anyhow::Result<u32> {
    Ok(process.pid().parse()?)
}

/// Nothing of it arrived, and the sender noticed nothing.
fn all_lost(sent: &Sent, counted: &Counted) -> anyhow::Result<()> {
    ensure!(sent.sent == MANY && sent.errors.is_empty(), "sending was noticed: {sent:?}");
    ensure!(counted.received == 0, "{} of {MANY} arrived", counted.received);
    Ok(())
}

fn guard(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("client")?;
    let (target, bystander) = (Pair::new(&lab, PEER_V4, 9000, MANY)?, Pair::new(&lab, PEER_V4, 9001, MANY)?);
    let injected = Inject::new(faults().net("drop out udp").seed(7)).pid(pid(&target.sender)?).start()?;
    let (sent, counted) = target.run()?;
    all_lost(&sent, &counted)?;
    let (sent, counted) = bystander.run()?;
    untouched("bystander", &sent, &counted, MANY)?;
    let report = injected.heal()?;
    let rule = report.rules.first().context("no rules")?;
    ensure!(rule.injected == MANY && rule.spared == 0 && rule.layer == "net", "{rule:?}");
    ensure!(report.json["session"]["seed"] == 7, "{}", report.json);
    // The target lived no longer than its datagrams: whoever ended the session first, it is said.
    let reason = report.json["session"]["exit"]["reason"].as_str().unwrap_or_default();
    ensure!(["released", "target_gone"].contains(&reason), "{}", report.json);
    // A command of its own, under the faults.
    let counter = super::pair::counter(&lab, PEER_V4, 9002)?;
    let run = faults().net("drop out udp").command(victim()?)?;
    let mut command = lab.in_target(&run.get_program().to_string_lossy());
    command.args(run.get_args()).args(["udp-send", &format!("{PEER_V4}:9002"), "--count", &MANY.to_string()]);
    let sent: Sent = Process::start(&mut command)?.report()?;
    all_lost(&sent, &counter.report()?)
}

fn panics(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("client-p")?;
    let target = Pair::new(&lab, PEER_V4, 9000, MANY)?;
    let before = Picture::take()?;
    let injected = Inject::new(faults().net("drop out udp")).pid(pid(&target.sender)?).start()?;
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(move || {
        let _injected = injected;
        panic!("a test that fails");
    }));
    std::panic::set_hook(quiet);
    ensure!(result.is_err(), "it did not panic");
    before.must_return()?;
    let (sent, counted) = target.run()?;
    untouched("the target, afterwards", &sent, &counted, MANY)
}

fn refusals(_: Lane) -> anyhow::Result<()> {
    let before = Picture::take()?;
    let wrong = Inject::new(faults().net("drop 5%").net("delay 10ms jitter 1s")).pid(1).start();
    let Err(InjectError::Spec(error)) = wrong else { bail!("taken: {wrong:?}") };
    ensure!(error.render(false).contains('^'), "{}", error.render(false));
    let gone = {
        let process = Process::start(&mut Command::new("true"))?;
        let pid = pid(&process)?;
        process.ended()?;
        pid
    };
    let refused = Inject::new(faults().net("drop 5%")).pid(gone).start();
    let Err(InjectError::Refused { why: Refusal::Usage, sentence }) = refused else { bail!("{refused:?}") };
    ensure!(sentence.contains(&gone.to_string()) && sentence.lines().count() == 1, "{sentence}");
    let nowhere = Inject::new(Faults::new().controller_at("/no/such/fault").net("drop 5%")).pid(1).start();
    ensure!(matches!(nowhere, Err(InjectError::Start { .. })), "{nowhere:?}");
    // Without a pipe nobody could ever let go.
    let mut terminal = Command::new(binary());
    terminal
        .args(["inject", "--until-eof", "--comm", "nobody", "--net", "drop"])
        .stdin(std::process::Stdio::null());
    let output = terminal.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && said.contains("--until-eof"), "{}: {said}", output.status);
    before.must_return()
}

fn in_a_runtime(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("client-a")?;
    let target = Pair::new(&lab, PEER_V4, 9000, MANY)?;
    let inject = Inject::new(faults().net("drop out udp")).pid(pid(&target.sender)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async move {
        let injected = inject.start_async().await?;
        let (sent, counted) = target.run()?;
        all_lost(&sent, &counted)?;
        anyhow::Ok(injected.heal_async().await?)
    })?;
    ensure!(report.rules[0].injected == MANY, "{}", report.json);
    Ok(())
}

/// Python with the module on its path.
fn python_with(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]);
    command.env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/python"));
    command.env("FAULT", binary()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A socket of its own, to itself: what is sent is read back unless it is lost. Prints what came of it.
const SCRIPT: &str = r#"
import fault, os, socket, sys
def echoed(many):
    there, here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    there.bind(("127.0.0.1", 0))
    there.settimeout(0.5)
    for number in range(many):
        here.sendto(b"x", there.getsockname())
    got = 0
    try:
        while got < many:
            there.recv(10)
            got += 1
    except socket.timeout:
        pass
    return got
me = os.getpid()
with fault.inject(pid=me, net="drop out udp", seed=3) as session:
    print("during", echoed(50))
print("after", echoed(50), session.report["rules"][0]["injected"], session.report["session"]["seed"])
try:
    with fault.inject(pid=me, net=["drop out udp"], lasting=60):
        raise KeyError("mine")
except KeyError as error:
    print("raised", error, echoed(50))
try:
    fault.inject(pid=me, net="dorp 5%")
except fault.Refused as error:
    print("refused", error.status, "did you mean `drop`" in str(error))
print("run", fault.run(["sh", "-c", "exit 7"], net="drop 1%").returncode)
"#;

fn python(_: Lane) -> anyhow::Result<()> {
    let ended = Ended::of(&mut python_with(SCRIPT))?;
    let expected = "during 0\nafter 50 50 3\nraised 'mine' 50\nrefused 2 True\nrun 7\n";
    ensure!(ended.status.success() && ended.stdout == expected, "{ended:?}");
    Ok(())
}

fn python_is_killed(_: Lane) -> anyhow::Result<()> {
    let target = Process::start(&mut Command::new("cat"))?;
    let before = Picture::take()?;
    let script = format!(
        "import fault, sys, time\n\
         session = fault.inject(pid={}, net=['drop 50%', 'duplicate 5%'])\n\
         print('ready', file=sys.stderr, flush=True)\n\
         time.sleep(300)\n",
        target.pid()
    );
    let client = Process::start_until(&mut python_with(&script), "ready")?;
    ensure!(!descendants(pid(&client)?).is_empty(), "there is no controller");
    client.signal(Signal::SIGKILL)?;
    client.ended()?;
    before.must_return()
}
