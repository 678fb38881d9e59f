//! `--proc 'pause D'`: everybody of the target stands still, and goes on whatever becomes of the controller.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Lane, Test, play};
use crate::{
    cgroup_lab::{self, CgroupLab},
    driver::{Injection, Report, fault, refused, refused_by},
    process::{Ended, Process, descendants, proc_file},
    residue::Picture,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "pause::stands_still_and_goes_on", on: on_native_and_oldest, run: stands_still },
    Test { name: "pause::of_a_cgroup_and_what_is_below", on: Lane::tests_the_controller, run: subtree },
    Test { name: "pause::of_a_process_by_itself", on: Lane::tests_the_controller, run: process },
    Test { name: "pause::two_at_once", on: Lane::tests_the_controller, run: two_at_once },
    Test { name: "pause::again_and_again", on: Lane::tests_the_controller, run: again },
    Test { name: "pause::forgotten_by_all_is_swept", on: Lane::tests_the_controller, run: forgotten },
    Test { name: "pause::ends_with_the_session", on: Lane::tests_the_controller, run: healed },
    Test { name: "pause::ends_with_the_controller", on: on_native_and_oldest, run: killed },
    Test {
        name: "pause::ends_although_the_controller_is_stopped",
        on: Lane::tests_the_controller,
        run: stopped,
    },
    Test { name: "pause::what_cannot_be_paused", on: Lane::tests_the_controller, run: refusals },
];

fn on_native_and_oldest(lane: Lane) -> bool {
    matches!(lane, Lane::Native | Lane::Debian61)
}

/// Looks at the clock every 5 ms for so many seconds (0: until a line comes), and prints the steps of more than so many:
/// those in which nothing ran.
const CLOCK: &str = "
import select, sys, time
lasts, longest = map(float, sys.argv[1:])
last = time.monotonic()
end = last + lasts
print('ready', file=sys.stderr, flush=True)
while last < end if lasts else not select.select([0], [], [], 0)[0]:
    time.sleep(0.005)
    now = time.monotonic()
    if now - last > longest:
        print(now - last)
    last = now
";

/// Longer than any test waits.
const LONG: &str = "pause 60s";

fn clock(mut command: Command, lasts: &str, longest: &str) -> Command {
    command.args(["-c", CLOCK, lasts, longest]);
    command
}

fn steps(text: &str) -> anyhow::Result<Vec<f64>> {
    text.lines().map(|line| line.parse().with_context(|| line.to_owned())).collect()
}

fn stands_still(_: Lane) -> anyhow::Result<()> {
    // The clock of the command starts when Python has started, which takes seconds on a busy emulated machine: well before
    // the pause, and the pause well before its end.
    const SECONDS: &str = "14";
    let bystander = Process::start_until(&mut clock(Command::new("python3"), SECONDS, "1.3"), "ready")?;
    let report = tempfile::NamedTempFile::new()?;
    let path = report.path().to_string_lossy();
    let arguments = ["run", "--json", &path, "--proc", "pause 1500ms after 10s", "--", "python3"];
    let ended = Ended::of(&mut clock(fault(&arguments), SECONDS, "1.3"))?;
    ensure!(ended.status.success(), "{ended:?}");
    let stood = steps(&ended.stdout)?;
    // It cannot be shorter by its own clock; how much longer is the machine's business, but not that of another pause.
    ensure!(matches!(stood.as_slice(), [still] if (1.5..3.0).contains(still)), "{stood:?}: {}", ended.stderr);
    let others = bystander.text()?;
    ensure!(others.is_empty(), "the bystander stood still, too: {others}");
    let json = serde_json::from_str(&fs::read_to_string(report.path())?)?;
    let report = Report { status: ended.status, json, stderr: ended.stderr };
    ensure!(report.rule(0, "injected")? == 1 && report.rule(0, "matched")? == 1, "{}", report.json);
    ensure!((1_500_000_000..3_000_000_000).contains(&report.rule(0, "delay_ns")?), "{}", report.json);
    Ok(())
}

fn subtree(_: Lane) -> anyhow::Result<()> {
    let (target, other) = (CgroupLab::new("pause")?, CgroupLab::new("pause-not")?);
    let below = target.child("below")?;
    let started = [&target, &below, &other]
        .map(|cgroup| Process::start_until(&mut clock(cgroup.command("python3"), "0", "0.5"), "ready"));
    let injection = Injection::start(&["--cgroup", &target.path(), "--proc", "pause 600ms after 200ms"])?;
    let path = target.path();
    wait_until(Path::new(&path), true)?;
    wait_until(Path::new(&path), false)?;
    for (process, pauses) in started.into_iter().zip([1, 1, 0]) {
        let mut process = process?;
        process.release()?;
        let stood = steps(&process.text()?)?;
        ensure!(stood.len() == pauses, "{stood:?}, {pauses} expected");
    }
    let report = injection.heal()?;
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    Ok(())
}

fn process(_: Lane) -> anyhow::Result<()> {
    let cgroup = CgroupLab::new("pause")?;
    let mut alone = Process::start_until(&mut clock(cgroup.command("python3"), "0", "0.5"), "ready")?;
    let injection = Injection::start(&["--pid", &alone.pid(), "--proc", "pause 600ms after 200ms"])?;
    let path = cgroup.path();
    wait_until(Path::new(&path), true)?;
    wait_until(Path::new(&path), false)?;
    alone.release()?;
    let stood = steps(&alone.text()?)?;
    let report = injection.wait()?;
    ensure!(stood.len() == 1, "{stood:?}: {}", report.json);
    // Together with somebody who is not meant.
    let start = || Process::start_until(&mut clock(cgroup.command("python3"), "0", "0.9"), "ready");
    let (one, two) = (start()?, start()?);
    let said = refused(&["inject", "--pid", &one.pid(), "--proc", "pause 1s"], 2)?;
    ensure!(said.contains("it shares cgroup") && said.contains(&two.pid()), "{said}");
    for mut process in [one, two] {
        process.release()?;
        let stood = process.text()?;
        ensure!(stood.is_empty(), "refused, and paused: {stood}");
    }
    Ok(())
}

/// The end of the shorter one is not the end of the longer one, neither for the controller nor, 1.5 s later, for the keeper.
fn two_at_once(_: Lane) -> anyhow::Result<()> {
    let cgroup = CgroupLab::new("pause")?;
    let mut process = Process::start_until(&mut clock(cgroup.command("python3"), "0", "0.5"), "ready")?;
    let path = cgroup.path();
    let injection =
        Injection::start(&["--cgroup", &path, "--proc", "pause 1s", "--proc", "pause 4s after 200ms"])?;
    wait_until(Path::new(&path), true)?;
    wait_until(Path::new(&path), false)?;
    process.release()?;
    let stood = steps(&process.text()?)?;
    let report = injection.heal()?;
    ensure!(matches!(stood.as_slice(), [still] if *still >= 4.0), "{stood:?}: {}", report.json);
    for (id, least) in [(0, 1_000_000_000), (1, 4_000_000_000)] {
        ensure!(
            report.rule(id, "injected")? == 1 && report.rule(id, "delay_ns")? >= least,
            "{}",
            report.json
        );
    }
    ensure!(report.rule(0, "delay_ns")? < 3_000_000_000, "{}", report.json);
    Ok(())
}

/// Three pauses, by the phases of a scenario.
fn again(_: Lane) -> anyhow::Result<()> {
    let scenario = play::file(
        "[[phase]]\nat = '1500ms'\nfor = '700ms'\nevery = '900ms'\nrepeat = 3\n\
         faults = [{ proc = 'pause 400ms', expect = 'injected == 3' }]\n[[phase]]\nfor = '30s'\n",
    )?;
    let ended =
        Ended::of(&mut clock(fault(&["play", &play::path(&scenario), "--", "python3"]), "6", "0.35"))?;
    let stood = steps(&ended.stdout)?;
    ensure!(ended.status.success() && stood.len() == 3, "{ended:?}");
    Ok(())
}

/// Waits until `cgroup` stands still (or no longer), as the kernel says.
fn wait_until(cgroup: &Path, frozen: bool) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let wanted = format!("frozen {}", u8::from(frozen));
    while !fs::read_to_string(cgroup.join("cgroup.events"))?.lines().any(|line| line == wanted) {
        ensure!(begin.elapsed() < Duration::from_secs(20), "{} is not `{wanted}`", cgroup.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(begin.elapsed())
}

/// A process that stands still, in a cgroup of its own.
fn standing(cgroup: &CgroupLab, spec: &str) -> anyhow::Result<(Process, Injection)> {
    let process = Process::start_until(&mut clock(cgroup.command("python3"), "0.5", "0.3"), "ready")?;
    let injection = Injection::start(&["--cgroup", &cgroup.path(), "--proc", spec])?;
    wait_until(Path::new(&cgroup.path()), true)?;
    Ok((process, injection))
}

fn healed(_: Lane) -> anyhow::Result<()> {
    let cgroup = CgroupLab::new("pause")?;
    let (process, injection) = standing(&cgroup, LONG)?;
    let report = injection.heal()?;
    wait_until(Path::new(&cgroup.path()), false)?;
    process.text()?;
    let stood = report.rule(0, "delay_ns")?;
    ensure!(report.rule(0, "injected")? == 1 && stood > 0 && stood < 60_000_000_000, "{}", report.json);
    Ok(())
}

fn killed(_: Lane) -> anyhow::Result<()> {
    let cgroup = CgroupLab::new("pause")?;
    let before = Picture::take()?;
    let (process, injection) = standing(&cgroup, LONG)?;
    injection.sigkill()?;
    let thawed = wait_until(Path::new(&cgroup.path()), false)?;
    ensure!(thawed < Duration::from_secs(10), "{thawed:?} after SIGKILL");
    process.text()?;
    before.must_return()
}

/// Nobody is left who knows: `fault sweep` finds it, and tells it from what somebody else froze.
fn forgotten(_: Lane) -> anyhow::Result<()> {
    let (cgroup, others) = (CgroupLab::new("pause")?, CgroupLab::new("pause-not")?);
    let before = Picture::take()?;
    fs::write(Path::new(&others.path()).join("cgroup.freeze"), "1")?;
    let (process, injection) = standing(&cgroup, LONG)?;
    let keeper = descendants(injection.pid().as_raw() as u32)
        .into_iter()
        .find(|pid| proc_file(*pid, "comm").is_ok_and(|comm| comm.trim() == "fault-keeper"))
        .context("the keeper")?;
    kill(Pid::from_raw(keeper as i32), Signal::SIGKILL)?;
    injection.sigkill()?;
    let said = Ended::of(&mut fault(&["sweep", "--dry-run"]))?;
    ensure!(said.stdout.contains(&cgroup.path()), "{said:?}");
    ensure!(!said.stdout.contains(&others.path()), "{said:?}");
    let swept = Ended::of(&mut fault(&["sweep"]))?;
    ensure!(swept.stdout.contains("frozen cgroup"), "{swept:?}");
    wait_until(Path::new(&cgroup.path()), false)?;
    process.text()?;
    fs::write(Path::new(&others.path()).join("cgroup.freeze"), "0")?;
    before.must_return()
}

/// The keeper has a clock of its own.
fn stopped(_: Lane) -> anyhow::Result<()> {
    let cgroup = CgroupLab::new("pause")?;
    let (process, injection) = standing(&cgroup, "pause 2s")?;
    injection.signal(Signal::SIGSTOP)?;
    wait_until(Path::new(&cgroup.path()), false)?;
    process.text()?;
    injection.signal(Signal::SIGCONT)?;
    injection.heal()?;
    Ok(())
}

fn refusals(_: Lane) -> anyhow::Result<()> {
    let said = refused(&["inject", "--host", "--yes", "--proc", "pause 1s"], 2)?;
    ensure!(said.contains("the whole machine cannot be paused"), "{said}");
    let cgroup = CgroupLab::new("pause")?;
    let path = cgroup.path();
    let mut inside = cgroup.command(&crate::driver::binary().to_string_lossy());
    let said = refused_by(inside.args(["inject", "--cgroup", &path, "--proc", "pause 1s"]), 2)?;
    ensure!(said.contains("fault itself lives there"), "{said}");
    let freeze = Path::new(&path).join("cgroup.freeze");
    fs::write(&freeze, "1")?;
    let said = refused(&["inject", "--cgroup", &path, "--proc", "pause 1s"], 2)?;
    ensure!(said.contains("frozen already, by somebody else"), "{said}");
    ensure!(fs::read_to_string(&freeze)?.trim() == "1", "thawed what somebody else froze");
    fs::write(&freeze, "0")?;
    for (spec, words) in [
        ("pause", "needs a duration"),
        ("pause 1s 5%", "chooses among operations"),
        ("pause 1s nth 3", "chooses among operations"),
        ("pause 2h", "1h"),
        ("stop 1s", "unknown verb"),
    ] {
        let said = refused(&["inject", "--cgroup", &path, "--proc", spec], 2)?;
        ensure!(said.contains(words), "{spec}: {said}");
    }
    ensure!(cgroup_lab::root()?.is_dir());
    Ok(())
}
