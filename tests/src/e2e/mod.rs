//! The end-to-end tests. Each ends with a residue check and a look at the kernel log.

mod asynchronous;
mod bad_sectors;
mod calls;
mod clients;
mod comforts;
mod connections;
mod containers;
mod corrupt;
mod crowd;
mod cycle;
mod databases;
mod death;
mod delay;
mod disk;
mod disk_delay;
mod disk_files;
mod disk_gone;
mod disk_kinds;
mod disk_rate;
mod docs;
mod doctor;
mod echoes;
mod file_delay;
mod file_errors;
mod file_patterns;
mod file_system;
mod gallery;
mod host;
mod jitter;
mod lane;
mod loss;
mod machines;
mod mptcp;
mod names;
mod netem;
mod open_delay;
mod pair;
mod parked;
mod part;
mod pause;
mod places;
mod play;
mod play_ends;
mod presets;
mod programs;
mod refusals;
mod run;
mod serve;
mod serve_clients;
mod service_unit;
mod targets;
mod timed_calls;
mod top;
mod top_terminal;
mod units;
mod verbs;
mod wire;

use std::{
    fs::File,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

pub use lane::Lane;
use libtest_mimic::{Arguments, Failed, Trial};
pub use part::{Part, Rooms, Shard};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    kernel_log::KernelLog,
    offspring,
    process::{descendants, proc_file},
    residue::Picture,
};

/// Held while tests run.
const LOCK: &str = "/run/fault-e2e.lock";
/// A test that takes longer is stuck. The slowest takes two minutes on a slow emulated machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// For [`Test::on`].
fn everywhere(_: Lane) -> bool {
    true
}

/// One test.
#[derive(Clone, Copy)]
pub struct Test {
    /// `room::what_must_hold`.
    pub name: &'static str,
    /// Where it applies.
    pub on: fn(Lane) -> bool,
    /// What it does.
    pub run: fn(Lane) -> anyhow::Result<()>,
}

/// Runs `part` of the tests that apply to `lane`, one after the other, and returns the exit status.
#[must_use]
pub fn main(lane: Lane, part: Part, mut arguments: Arguments) -> std::process::ExitCode {
    // Tests share one machine: pictures of it before and after would see each other, in other processes as well.
    arguments.test_threads = Some(1);
    offspring::mark();
    let _alone = match alone() {
        Ok(lock) => lock,
        Err(error) => {
            eprintln!("{LOCK}: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let applies = tests().filter(|(test, _)| (test.on)(lane));
    let trials = part.of(applies).map(|test| Trial::test(test.name, move || guarded(&test, lane))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !arguments.list {
        eprint!("{}", slowest(TIMES.lock().unwrap_or_else(PoisonError::into_inner).clone()));
    }
    conclusion.exit_code()
}

/// How long each test took, with its pictures of the machine.
static TIMES: Mutex<Vec<(&str, Duration)>> = Mutex::new(Vec::new());

/// Where the time went: the tests that took longest, and the sum of all.
fn slowest(mut times: Vec<(&str, Duration)>) -> String {
    times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    let sum: Duration = times.iter().map(|(_, time)| *time).sum();
    let longest = times.iter().take(12).map(|(name, time)| format!("{:7.1} s  {name}\n", time.as_secs_f64()));
    format!(
        "slowest of {} tests in {:.0} s:\n{}",
        times.len(),
        sum.as_secs_f64(),
        longest.collect::<String>()
    )
}

/// Waits until no other end-to-end tests run on this machine.
pub(crate) fn alone() -> std::io::Result<File> {
    let file = File::create(LOCK)?;
    if file.try_lock().is_err() {
        eprintln!("waiting for other end-to-end tests on this machine ({LOCK})");
        file.lock()?;
    }
    Ok(file)
}

fn tests() -> impl Iterator<Item = (Test, Rooms)> {
    let all = [
        (docs::TESTS, Rooms::Patient),
        (doctor::TESTS, Rooms::Patient),
        (comforts::TESTS, Rooms::Patient),
        (loss::TESTS, Rooms::Patient),
        (targets::TESTS, Rooms::Patient),
        (units::TESTS, Rooms::Patient),
        (names::TESTS, Rooms::Patient),
        (host::TESTS, Rooms::Patient),
        (containers::TESTS, Rooms::Patient),
        (machines::TESTS, Rooms::Patient),
        (run::TESTS, Rooms::Patient),
        (programs::TESTS, Rooms::Patient),
        (delay::TESTS, Rooms::Timed),
        (jitter::TESTS, Rooms::Timed),
        (verbs::TESTS, Rooms::Timed),
        (netem::TESTS, Rooms::Timed),
        (wire::TESTS, Rooms::Patient),
        (wire::TIMED, Rooms::Timed),
        (corrupt::TESTS, Rooms::Patient),
        (connections::TESTS, Rooms::Patient),
        (connections::TIMED, Rooms::Timed),
        (places::TESTS, Rooms::Patient),
        (mptcp::TESTS, Rooms::Patient),
        (calls::TESTS, Rooms::Patient),
        (cycle::TESTS, Rooms::Patient),
        (play::TESTS, Rooms::Timed),
        (play_ends::TESTS, Rooms::Patient),
        (presets::TESTS, Rooms::Timed),
        (clients::TESTS, Rooms::Patient),
        (disk::TESTS, Rooms::Patient),
        (disk_delay::TESTS, Rooms::Timed),
        (asynchronous::TESTS, Rooms::Timed),
        (disk_files::TESTS, Rooms::Patient),
        (disk_gone::TESTS, Rooms::Patient),
        (disk_kinds::TESTS, Rooms::Patient),
        (disk_rate::TESTS, Rooms::Timed),
        (parked::TESTS, Rooms::Timed),
        (pause::TESTS, Rooms::Patient),
        (bad_sectors::TESTS, Rooms::Patient),
        (file_system::TESTS, Rooms::Patient),
        (databases::TESTS, Rooms::Timed),
        (file_delay::TESTS, Rooms::Patient),
        (open_delay::TESTS, Rooms::Patient),
        (file_errors::TESTS, Rooms::Patient),
        (file_patterns::TESTS, Rooms::Patient),
        (gallery::TESTS, Rooms::Timed),
        (death::TESTS, Rooms::Patient),
        (serve::TESTS, Rooms::Patient),
        (serve_clients::TESTS, Rooms::Patient),
        (crowd::TESTS, Rooms::Patient),
        (service_unit::TESTS, Rooms::Patient),
        (top::TESTS, Rooms::Patient),
        (top_terminal::TESTS, Rooms::Patient),
        // The last of these asks `fault sweep` whether all of the above left anything.
        (refusals::TESTS, Rooms::Patient),
    ];
    all.into_iter().flat_map(|(tests, rooms)| tests.iter().map(move |test| (*test, rooms)))
}

/// What is wrong after a test.
enum Wrong {
    /// The machine was harmed: residue, a complaint of the kernel, somebody stuck. Once is too often.
    Damage(anyhow::Error),
    /// The test's own verdict.
    Verdict(anyhow::Error),
}

/// Runs a test and keeps how long it took.
fn guarded(test: &Test, lane: Lane) -> Result<(), Failed> {
    let start = Instant::now();
    let verdict = forgiving(test, lane);
    TIMES.lock().unwrap_or_else(PoisonError::into_inner).push((test.name, start.elapsed()));
    verdict
}

/// Runs a test, and once more when only its verdict is bad: each statistical check rejects a correct
/// implementation once in a thousand, and a run over all lanes makes several hundred of them. What is broken is
/// broken the second time too. Both verdicts are printed.
fn forgiving(test: &Test, lane: Lane) -> Result<(), Failed> {
    let first = match attempt(test, lane) {
        Ok(()) => return Ok(()),
        Err(Wrong::Damage(error)) => return Err(Failed::from(format!("{error:#}"))),
        Err(Wrong::Verdict(error)) => error,
    };
    eprintln!("{}: once more, after: {first:#}", test.name);
    attempt(test, lane).map_err(|(Wrong::Damage(second) | Wrong::Verdict(second))| {
        Failed::from(format!("{second:#}\nand the first time: {first:#}"))
    })
}

fn attempt(test: &Test, lane: Lane) -> Result<(), Wrong> {
    let before = Picture::take().map_err(Wrong::Damage)?;
    let mut log = KernelLog::from_now().map_err(Wrong::Damage)?;
    let (done, over) = channel();
    let watchdog = thread::spawn(move || watch(&over));
    let verdict = (test.run)(lane);
    drop(done);
    let stuck = watchdog.join().ok().flatten();
    let residue = before.must_return();
    let splats = log.must_be_clean();
    stuck
        .map_or(Ok(()), |stuck| Err(anyhow::anyhow!(stuck)))
        .and(splats)
        .and(residue)
        .map_err(|damage| match &verdict {
            Ok(()) => Wrong::Damage(damage),
            Err(verdict) => Wrong::Damage(damage.context(format!("{verdict:#}"))),
        })
        .and(verdict.map_err(Wrong::Verdict))
}

/// Kills everything a stuck test has started, so that it fails and the next one runs; says what it was. What ends when it is
/// asked to, waited for something that did not happen; what does not, is stuck itself.
fn watch(over: &Receiver<()>) -> Option<String> {
    /// Longer than a session takes to heal.
    const LAST_CHANCE: Duration = Duration::from_secs(20);
    let Err(RecvTimeoutError::Timeout) = over.recv_timeout(PATIENCE) else { return None };
    let mut stuck = format!("stuck after {PATIENCE:?}:");
    for pid in descendants(std::process::id()) {
        if proc_file(pid, "comm").is_ok_and(|comm| comm.trim() == "fault") {
            stuck += &format!("\n{pid} was asked to end");
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
        }
    }
    let Err(RecvTimeoutError::Timeout) = over.recv_timeout(LAST_CHANCE) else {
        return Some(stuck + ", and with that the test did");
    };
    for pid in descendants(std::process::id()) {
        let about = |file| proc_file(pid, file).unwrap_or_default();
        let state = about("status").lines().find_map(|line| line.strip_prefix("State:")).map(str::to_owned);
        let (command, state) = (about("cmdline").replace('\0', " "), state.unwrap_or_default());
        stuck += &format!("\n{pid} {command} {}\n{}", state.trim(), about("stack"));
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
    Some(stuck)
}
