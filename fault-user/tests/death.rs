//! What is left when a controller dies at any instant: nothing, and COMMAND lives on where it would have been.
//!
//! Every test starts this very program again as a controller (`controller STAGE …`), because a keeper must be forked
//! before there are threads, and kills it. Needs root and a cgroup v2 hierarchy; makes only cgroups of its own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, ChildStdout, Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fault_user::{
    session::{
        keeper::Keeper,
        residue::{self, Leftover, Residue},
    },
    target::{
        Target,
        cgroup::{self, Cgroup},
        command::Held,
        pid,
        run::Transient,
    },
};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getsid},
};

/// The promise is "normal again within a second". On an emulated CPU that others use as well a second is little, so
/// what is checked here is that it comes to pass; how long it took is printed.
const PATIENCE: Duration = Duration::from_secs(20);

/// From SIGKILL to the end of the keeper, the slowest so far.
static SLOWEST_MS: AtomicU64 = AtomicU64::new(0);

type Test = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "controller") {
        return controller(&arguments[1], &arguments[2..]);
    }
    let tests: [(&str, Test); _] = [
        ("killed_before_anything_is_made", || killed_at("forked", &[])),
        ("killed_between_announcement_and_creation", || killed_at("announced", &[])),
        ("killed_with_an_empty_cgroup", || killed_at("made", &[])),
        ("killed_while_command_is_held", killed_while_command_is_held),
        ("killed_while_command_runs", killed_while_command_runs),
        ("killed_while_command_has_cgroups_of_its_own", killed_while_command_has_cgroups_of_its_own),
        ("killed_while_command_forks", killed_while_command_forks),
        ("killed_at_random_instants", killed_at_random_instants),
        ("command_goes_home_to_the_cgroup_it_would_have_had", command_goes_home),
        ("the_keeper_is_detached", the_keeper_is_detached),
        ("a_dead_keeper_is_noticed", a_dead_keeper_is_noticed),
        ("what_even_the_keeper_could_not_undo_is_found", what_even_the_keeper_could_not_undo_is_found),
        ("controllers_for_writeback_are_put_back", controllers_for_writeback_are_put_back),
        ("status_is_the_commands_own", status_is_the_commands_own),
        ("background_processes_outlive_the_session", background_processes_outlive_the_session),
        ("sigint_while_held_is_the_commands_end", sigint_while_held),
        ("a_target_never_holds_the_controller", a_target_never_holds_the_controller),
        ("levels_are_the_kernels_even_in_a_cgroup_namespace", levels_in_a_namespace),
    ];
    let trials = tests.map(|(name, test)| Trial::test(name, test)).into();
    // They count processes and cgroups of the whole machine: one at a time.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let conclusion = libtest_mimic::run(&arguments, trials);
    println!("after a death everything was back to normal within {} ms", SLOWEST_MS.load(Ordering::Relaxed));
    conclusion.exit_code()
}

// ---- the controller ----

/// Prints one line for each thing the tests want to know, then waits to be killed.
fn controller(stage: &OsString, command: &[OsString]) -> ExitCode {
    let stage = stage.to_str().unwrap();
    if stage == "level" {
        let named = Cgroup::resolve(Path::new(&command[0])).unwrap();
        println!("{} {}", named.id, named.level);
        return ExitCode::SUCCESS;
    }
    let keeper = Arc::new(Keeper::fork().unwrap());
    say("keeper", keeper.pid());
    if stage == "forked" {
        wait_for_death();
    }
    if stage == "announced" {
        let path = Cgroup::root().unwrap().path.join("fault-never-made");
        keeper.announce(&Leftover::Cgroup { path, home: "/".into() }).unwrap();
        wait_for_death();
    }
    if stage == "keeper-killed" {
        kill(Pid::from_raw(keeper.pid() as i32), Signal::SIGKILL).unwrap();
        while pid::is_alive(keeper.pid()) {
            thread::sleep(Duration::from_millis(1));
        }
        say("error", Transient::create(&keeper).unwrap_err());
        return ExitCode::SUCCESS;
    }
    let mut transient = Transient::create(&keeper).unwrap();
    say("cgroup", transient.cgroup().path.display());
    if stage == "writeback" {
        say("attributed", transient.attribute_writeback().unwrap());
        say("ready", transient.cgroup().level);
        let mut line = String::new();
        io::stdin().read_line(&mut line).unwrap();
        return finish(transient, &keeper, 0);
    }
    if stage == "made" {
        wait_for_death();
    }
    let held = match Held::spawn(command, &transient.cgroup().path) {
        Ok(held) => held,
        Err(error) => return finish(transient, &keeper, error.status()),
    };
    say("held", held.pid());
    if stage == "held" {
        wait_for_death();
    }
    if stage == "target" {
        let mut target = Target::nobody([keeper.pid()]);
        target.add_pid(nix::unistd::getppid().as_raw() as u32).unwrap();
        target.add_cgroup(&transient.cgroup().path).unwrap();
        let snapshot = target.snapshot().unwrap();
        say("exempt", format!("{:?}", target.exempt));
        say("tasks", format!("{:?}", snapshot.tasks));
        say("members", format!("{:?}", snapshot.members));
        say("netns", snapshot.netns.len());
    }
    if stage == "interrupted" {
        kill(Pid::from_raw(held.pid() as i32), Signal::SIGINT).unwrap();
    }
    let running = match held.release() {
        Ok(running) => running,
        Err(error) => {
            say("error", &error);
            return finish(transient, &keeper, error.status());
        }
    };
    say("running", running.pid());
    if stage == "running" {
        wait_for_death();
    }
    let status = if stage == "async" {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(running.ended()).unwrap().status()
    } else {
        running.wait().unwrap().status()
    };
    finish(transient, &keeper, status)
}

fn finish(transient: Transient, keeper: &Keeper, status: u8) -> ExitCode {
    say("left", transient.heal().unwrap());
    keeper.dismiss();
    ExitCode::from(status)
}

fn say(what: &str, value: impl std::fmt::Display) {
    println!("{what} {value}");
    io::stdout().flush().unwrap();
}

fn wait_for_death() -> ! {
    loop {
        thread::park();
    }
}

// ---- its observer ----

/// A controller and what it said.
struct Controller {
    child: Child,
    lines: BufReader<ChildStdout>,
    said: BTreeMap<String, String>,
    keeper: u32,
    cgroup: Option<PathBuf>,
}

impl Controller {
    fn start(stage: &str, command: &[&str]) -> Self {
        Self::start_in(None, stage, command)
    }

    /// In a cgroup other than ours.
    fn start_in(cgroup: Option<PathBuf>, stage: &str, command: &[&str]) -> Self {
        let mut program = Command::new(env::current_exe().unwrap());
        program.arg("controller").arg(stage).args(command).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(cgroup) = cgroup {
            let procs = cgroup.join("cgroup.procs");
            // SAFETY: this program has one thread beside the harness's, and a write is all that happens.
            unsafe { program.pre_exec(move || fs::write(&procs, "0")) };
        }
        let mut child = program.spawn().unwrap();
        STARTED.lock().unwrap().insert(child.id());
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, said: BTreeMap::new(), keeper: 0, cgroup: None }
    }

    /// The value of `what`: said already (it and COMMAND speak in any order), or the next to be said.
    fn until(&mut self, what: &str) -> String {
        loop {
            if let Some(value) = self.said.get(what) {
                return value.clone();
            }
            let mut line = String::new();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "the controller ended before it said {what:?}"
            );
            let (name, value) = line.trim().split_once(' ').unwrap();
            match name {
                "keeper" => self.keeper = value.parse().unwrap(),
                "cgroup" => self.cgroup = Some(value.into()),
                _ => {}
            }
            self.said.insert(name.into(), value.into());
        }
    }

    /// SIGKILL; then nothing may be left.
    fn kill(self) -> Result<(), Failed> {
        let cgroup = self.cgroup.clone();
        self.kill_one()?;
        match cgroup {
            Some(path) if path.exists() => Err(format!("{path:?} is still there").into()),
            _ => nothing_left(),
        }
    }

    /// SIGKILL while others of our controllers live.
    fn kill_one(mut self) -> Result<(), Failed> {
        let killed = Instant::now();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let keeper = self.keeper;
        eventually(|| (!pid::is_alive(keeper)).then_some(()).ok_or("the keeper is still there".into()))?;
        SLOWEST_MS.fetch_max(killed.elapsed().as_millis() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn eventually<T>(mut check: impl FnMut() -> Result<T, String>) -> Result<T, Failed> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Every controller this program has started. Others may be at work on the machine.
static STARTED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// No cgroup and no keeper of our controllers is anywhere.
fn nothing_left() -> Result<(), Failed> {
    let started = STARTED.lock().unwrap();
    let ours = |name: &str| {
        name.strip_prefix("fault-")
            .and_then(|rest| rest.split_once('-')?.0.parse().ok())
            .is_some_and(|pid: u32| started.contains(&pid))
    };
    let mut open = vec![Cgroup::root().unwrap().path];
    while let Some(directory) = open.pop() {
        if directory.file_name().is_some_and(|name| ours(name.to_str().unwrap())) {
            return Err(format!("{directory:?} is left").into());
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        open.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()),
        );
    }
    let own = env::current_exe().unwrap();
    for process in procfs::process::all_processes().unwrap().flatten() {
        let keeper = process.stat().is_ok_and(|stat| stat.comm == "fault-keeper" && stat.state != 'Z');
        if keeper && process.exe().is_ok_and(|exe| exe == own) {
            return Err(format!("process {} is a keeper", process.pid).into());
        }
    }
    Ok(())
}

fn cgroup_of(pid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().into()
}

fn end(pid: u32) {
    // It may be on its way out already.
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).ok();
}

// ---- the tests ----

fn killed_at(stage: &str, command: &[&str]) -> Result<(), Failed> {
    let mut controller = Controller::start(stage, command);
    controller.until(if stage == "made" { "cgroup" } else { "keeper" });
    controller.kill()
}

fn killed_while_command_is_held() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let ran = directory.path().join("ran");
    let mut controller = Controller::start("held", &["touch", ran.to_str().unwrap()]);
    let held: u32 = controller.until("held").parse()?;
    assert_eq!(cgroup_of(held), cgroup_path(controller.cgroup.as_ref().unwrap()));
    controller.kill()?;
    eventually(|| (!pid::is_alive(held)).then_some(()).ok_or("the held process is still there".into()))?;
    assert!(!ran.exists(), "COMMAND ran although nothing was armed");
    Ok(())
}

/// As `/proc/PID/cgroup` has it.
fn cgroup_path(directory: &Path) -> String {
    let root = Cgroup::root().unwrap().path;
    format!("/{}", directory.strip_prefix(root).unwrap().display())
}

fn killed_while_command_runs() -> Result<(), Failed> {
    let mut controller = Controller::start("running", &["sleep", "1000"]);
    let running: u32 = controller.until("running").parse()?;
    assert_eq!(cgroup_of(running), cgroup_path(controller.cgroup.as_ref().unwrap()));
    controller.kill()?;
    assert!(pid::is_alive(running), "COMMAND died with its controller");
    assert_eq!(cgroup_of(running), cgroup_of(process::id()));
    end(running);
    Ok(())
}

fn killed_while_command_has_cgroups_of_its_own() -> Result<(), Failed> {
    let script = "own=$(sed -n s/^0:://p /proc/self/cgroup); cd \"$0/$own\"; mkdir -p a/b a/c; \
                  sleep 1000 & echo $! > a/b/cgroup.procs; echo $$ > a/c/cgroup.procs; \
                  echo placed $!; exec sleep 1000";
    let root = Cgroup::root()?.path;
    let mut controller = Controller::start("running", &["sh", "-c", script, root.to_str().unwrap()]);
    let running: u32 = controller.until("running").parse()?;
    let nested: u32 = controller.until("placed").parse()?;
    let all = cgroup::processes(controller.cgroup.as_ref().unwrap())?;
    assert_eq!(all, BTreeSet::from([running, nested]));
    controller.kill()?;
    for pid in [running, nested] {
        assert_eq!(cgroup_of(pid), cgroup_of(process::id()));
        end(pid);
    }
    Ok(())
}

fn killed_while_command_forks() -> Result<(), Failed> {
    // Bounded, should nobody be left to end it.
    let script = "echo started 0; n=0; while [ $n -lt 5000 ]; do n=$((n + 1)); (sleep 0.01 &) ; done";
    let mut controller = Controller::start("running", &["sh", "-c", script]);
    let running: u32 = controller.until("running").parse()?;
    controller.until("started");
    let result = controller.kill();
    let home = cgroup_of(running);
    end(running);
    result?;
    assert_eq!(home, cgroup_of(process::id()));
    Ok(())
}

fn killed_at_random_instants() -> Result<(), Failed> {
    const ROUNDS: u64 = 40;
    let mut ran = BTreeSet::new();
    for round in 0..ROUNDS {
        // A duration nobody else sleeps for.
        let marker = format!("1000.{:07}{round:02}", process::id());
        let mut controller = Controller::start("running", &["sleep", &marker]);
        controller.until("keeper");
        // From here to COMMAND it takes some milliseconds: spread the deaths over them, more of them early.
        thread::sleep(Duration::from_micros(round * round * 20));
        controller.child.kill()?;
        controller.child.wait()?;
        let keeper = controller.keeper;
        eventually(|| {
            (!pid::is_alive(keeper)).then_some(()).ok_or(format!("round {round}: the keeper is still there"))
        })?;
        nothing_left()?;
        // A child that was let go may not have become COMMAND yet; one that was not is about to exit.
        eventually(|| {
            let left = bearers(&marker);
            for (pid, command) in &left {
                if command == "sleep" {
                    assert_eq!(cgroup_of(*pid), cgroup_of(process::id()), "round {round}");
                    end(*pid);
                    ran.insert(*pid);
                }
            }
            if left.is_empty() { Ok(()) } else { Err(format!("round {round}: {left:?}")) }
        })?;
    }
    println!("COMMAND ran in {} of {ROUNDS} rounds", ran.len());
    Ok(())
}

/// Living processes with `marker` as their last argument, and their programs.
fn bearers(marker: &str) -> Vec<(u32, String)> {
    let all = procfs::process::all_processes().unwrap().flatten();
    all.filter_map(|process| Some((process.pid as u32, process.cmdline().ok()?)))
        .filter(|(_, line)| line.last().is_some_and(|last| last == marker))
        .map(|(pid, line)| (pid, line[0].clone()))
        .collect()
}

fn command_goes_home() -> Result<(), Failed> {
    let home = own_cgroup("home");
    let mut controller = Controller::start_in(Some(home.0.clone()), "running", &["sleep", "1000"]);
    let running: u32 = controller.until("running").parse()?;
    assert_eq!(controller.cgroup.as_ref().unwrap().parent(), Some(home.0.as_path()));
    controller.kill()?;
    assert_eq!(cgroup_of(running), cgroup_path(&home.0));
    end(running);
    eventually(|| (!pid::is_alive(running)).then_some(()).ok_or(String::new()))?;

    // When home is gone, its parent takes them. A directory with children cannot go, so: straight to the undoing.
    let gone = own_cgroup("gone");
    let inner = gone.0.join("fault-inner");
    fs::create_dir(&inner)?;
    let mut sleeper = Command::new("sleep").arg("1000").spawn()?;
    fs::write(inner.join("cgroup.procs"), sleeper.id().to_string())?;
    Leftover::Cgroup { path: inner.clone(), home: gone.0.join("never") }.undo()?;
    assert!(!inner.exists());
    assert_eq!(cgroup_of(sleeper.id()), cgroup_path(&gone.0));
    // Twice is as good as once.
    Leftover::Cgroup { path: inner, home: gone.0.clone() }.undo()?;
    sleeper.kill()?;
    sleeper.wait()?;
    Ok(())
}

/// A cgroup of this test, removed with its processes moved out.
struct OwnCgroup(PathBuf);

fn own_cgroup(name: &str) -> OwnCgroup {
    let path = Cgroup::own().unwrap().path.join(format!("test-{name}-{}", process::id()));
    fs::create_dir(&path).unwrap();
    OwnCgroup(path)
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        cgroup::evacuate(&self.0, self.0.parent().unwrap()).unwrap();
    }
}

fn the_keeper_is_detached() -> Result<(), Failed> {
    let mut controller = Controller::start("made", &[]);
    controller.until("cgroup");
    let keeper = controller.keeper;
    let pid = Pid::from_raw(keeper as i32);
    assert_eq!(getsid(Some(pid))?, pid, "it shares the controller's session");
    assert_eq!(fs::read_link(format!("/proc/{keeper}/cwd"))?, Path::new("/"));
    let descriptors: Vec<_> = fs::read_dir(format!("/proc/{keeper}/fd"))?
        .flatten()
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), fs::read_link(entry.path()).unwrap_or_default())
        })
        .collect();
    assert_eq!(descriptors.len(), 5, "{descriptors:?}");
    for (number, file) in &descriptors {
        let expected = if number.parse::<u32>()? < 3 { "/dev/null" } else { "" };
        assert!(file.to_str().unwrap().starts_with(expected), "{descriptors:?}");
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGPIPE] {
        kill(pid, signal)?;
    }
    assert!(pid::is_alive(keeper));
    // Nobody but the controller and us holds the pipe: its end is the end of the controller.
    controller.child.kill()?;
    let mut line = String::new();
    assert_eq!(controller.lines.read_line(&mut line)?, 0);
    controller.kill()
}

fn a_dead_keeper_is_noticed() -> Result<(), Failed> {
    let mut controller = Controller::start("keeper-killed", &[]);
    let error = controller.until("error");
    assert!(error.contains("the keeper") && error.contains("is gone"), "{error}");
    assert!(controller.child.wait()?.success());
    nothing_left()
}

fn what_even_the_keeper_could_not_undo_is_found() -> Result<(), Failed> {
    let mut controller = Controller::start("running", &["sleep", "1000"]);
    let running: u32 = controller.until("running").parse()?;
    let path = controller.cgroup.clone().unwrap();
    let ours = |residue: &Residue| match residue {
        Residue::Leftover(Leftover::Cgroup { path: found, .. }) => *found == path,
        Residue::Helper { pid, .. } => *pid == controller.keeper,
        _ => false,
    };
    assert!(!residue::find().residue.iter().any(ours), "a living session is not residue");
    end(controller.keeper);
    controller.child.kill()?;
    controller.child.wait()?;
    let found: Vec<_> = residue::find().residue.into_iter().filter(ours).collect();
    let expected = Leftover::Cgroup { path: path.clone(), home: path.parent().unwrap().into() };
    assert_eq!(found, [Residue::Leftover(expected)]);
    residue::remove(&found[0])?;
    residue::remove(&found[0])?;
    assert_eq!(cgroup_of(running), cgroup_of(process::id()));
    end(running);
    nothing_left()
}

fn controllers_for_writeback_are_put_back() -> Result<(), Failed> {
    let root = Cgroup::root()?.path;
    let handed_out = || cgroup::controllers(&root, "cgroup.subtree_control");
    let needed = BTreeSet::from(["io".to_owned(), "memory".to_owned()]);
    let available = needed.is_subset(&cgroup::controllers(&root, "cgroup.controllers"));
    let before = handed_out();
    let start = || {
        let mut controller = Controller::start_in(Some(root.clone()), "writeback", &[]);
        assert_eq!(controller.until("attributed"), available.to_string());
        controller.until("ready");
        controller
    };
    let check = |expected: bool| {
        assert_eq!(needed.is_subset(&handed_out()), available && expected || needed.is_subset(&before));
    };

    // Two sessions: the first to end leaves them to the second, however it ends.
    let (first, mut second) = (start(), start());
    check(true);
    first.kill_one()?;
    check(true);
    drop(second.child.stdin.take());
    assert!(second.child.wait()?.success());
    check(false);
    assert_eq!(handed_out(), before);
    // And one that dies.
    start().kill()?;
    assert_eq!(handed_out(), before);
    Ok(())
}

fn status_is_the_commands_own() -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let (plain, data) = (file("script", "exit 7\n", 0o755), file("data", "", 0o644));
    let cases: [(&str, &[&str], i32); _] = [
        ("wait", &["true"], 0),
        ("wait", &["sh", "-c", "exit 42"], 42),
        ("async", &["sh", "-c", "exit 42"], 42),
        ("wait", &["sh", "-c", "kill -9 $$"], 128 + 9),
        ("async", &["sh", "-c", "kill -TERM $$"], 128 + 15),
        // Signals are as they would be without us: SIGPIPE ends it.
        ("wait", &["sh", "-c", "kill -PIPE $$; exit 3"], 128 + 13),
        ("wait", &["no-such-command-anywhere"], 127),
        ("wait", &["/no/such/command"], 127),
        ("wait", &[&data], 126),
        ("wait", &["/"], 126),
        // No interpreter line: a shell script, as execvp(3) has it.
        ("wait", &[&plain], 7),
        ("wait", &[], 2),
    ];
    for (stage, command, expected) in cases {
        let mut controller = Controller::start(stage, command);
        let status = controller.child.wait()?;
        assert_eq!(status.code(), Some(expected), "{command:?}");
        nothing_left()?;
    }
    Ok(())
}

fn background_processes_outlive_the_session() -> Result<(), Failed> {
    let mut controller = Controller::start("wait", &["sh", "-c", "sleep 1000 & echo background $!"]);
    let background: u32 = controller.until("background").parse()?;
    assert_eq!(controller.until("left"), "1");
    assert!(controller.child.wait()?.success());
    assert_eq!(cgroup_of(background), cgroup_of(process::id()));
    end(background);
    nothing_left()
}

fn sigint_while_held() -> Result<(), Failed> {
    let mut controller = Controller::start("interrupted", &["true"]);
    assert_eq!(controller.child.wait()?.code(), Some(128 + 2));
    nothing_left()
}

fn a_target_never_holds_the_controller() -> Result<(), Failed> {
    let mut controller = Controller::start("target", &["sleep", "0"]);
    let held: u32 = controller.until("held").parse()?;
    let set = |text: String| -> BTreeSet<u32> {
        text.trim_matches(['{', '}']).split(", ").map(|number| number.parse().unwrap()).collect()
    };
    assert_eq!(set(controller.until("exempt")), BTreeSet::from([controller.child.id(), controller.keeper]));
    // `--pid` of this program: its child, the controller, and the controller's children are not meant.
    assert_eq!(set(controller.until("tasks")), BTreeSet::from([process::id()]));
    assert_eq!(set(controller.until("members")), BTreeSet::from([process::id(), held]));
    assert_eq!(controller.until("netns"), "1");
    controller.child.wait()?;
    nothing_left()
}

fn levels_in_a_namespace() -> Result<(), Failed> {
    let outer = own_cgroup("level");
    let inner = outer.0.join("a");
    fs::create_dir(&inner)?;
    let outside = Cgroup::resolve(&inner)?;
    let depth = inner.strip_prefix(Cgroup::root()?.path)?.components().count();
    assert_eq!(outside.level as usize, depth);
    // The root of a new namespace is the cgroup its first process is in; levels must not start there.
    let seen = |script: &str, argument: &Path| -> String {
        let mut program = Command::new("unshare");
        program
            .args(["--cgroup", "--mount", "sh", "-ec", script])
            .arg(env::current_exe().unwrap())
            .arg(argument);
        let procs = inner.join("cgroup.procs");
        // SAFETY: as in `start_in`.
        unsafe { program.pre_exec(move || fs::write(&procs, "0")) };
        let output = program.output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let expected = format!("{} {}\n", outside.id, outside.level);
    assert_eq!(seen("\"$0\" controller level \"$1\"", &inner), expected, "with the old mount");
    let point = tempfile::tempdir()?;
    let script = "mount -t cgroup2 none \"$1\"; \"$0\" controller level \"$1\"";
    assert_eq!(seen(script, point.path()), expected, "with a mount of its own");
    Ok(())
}
