//! What is left when a controller dies at any instant: nothing, and COMMAND lives on where it would have been.
//!
//! Every test starts this very program again as a controller (`controller STAGE …`), because a keeper must be forked
//! before there are threads, and kills it. Needs root and a cgroup v2 hierarchy; makes only cgroups of its own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod controller;
mod observer;

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    io::BufRead,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Command, ExitCode},
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use fault_user::{
    session::residue::{self, Leftover, Residue},
    target::{
        cgroup::{self, Cgroup},
        pid,
    },
};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getsid},
};
use observer::{Controller, SLOWEST_MS, cgroup_of, end, eventually, nothing_left};

type Test = fn() -> Result<(), Failed>;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "controller") {
        return controller::main(&arguments[1], &arguments[2..]);
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
    end(running)?;
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
        end(pid)?;
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
    end(running)?;
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
                    end(*pid)?;
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
    end(running)?;
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
    end(controller.keeper)?;
    controller.child.kill()?;
    controller.child.wait()?;
    let found: Vec<_> = residue::find().residue.into_iter().filter(ours).collect();
    let expected = Leftover::Cgroup { path: path.clone(), home: path.parent().unwrap().into() };
    assert_eq!(found, [Residue::Leftover(expected)]);
    residue::remove(&found[0])?;
    residue::remove(&found[0])?;
    assert_eq!(cgroup_of(running), cgroup_of(process::id()));
    end(running)?;
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
    end(background)?;
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
