//! Operations on files fail: with which error, whose, and how often.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{Lane, Test};
use crate::{
    disk_lab::forget_cached,
    driver::{Injection, Report, fault, refused},
    process::{Ended, Process},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "file_errors::each_operation_on_contents",
        on: Lane::tests_files_in_detail,
        run: on_contents,
    },
    Test { name: "file_errors::each_operation_on_names", on: Lane::tests_files_in_detail, run: on_names },
    Test { name: "file_errors::exactly_the_third_write", on: Lane::tests_files, run: third_write },
    Test {
        name: "file_errors::a_bystander_notices_nothing",
        on: Lane::tests_files_in_detail,
        run: bystander,
    },
    Test { name: "file_errors::sqlite_says_full_and_survives", on: Lane::tests_files_in_detail, run: sqlite },
    Test { name: "file_errors::an_open_is_one_operation", on: Lane::tests_files_in_detail, run: one_open },
    Test {
        name: "file_errors::no_more_descriptors",
        on: Lane::tests_files_in_detail,
        run: no_more_descriptors,
    },
    Test { name: "file_errors::events_tell_path_and_errno", on: Lane::tests_files, run: events },
    Test { name: "file_errors::sigkill_leaves_nothing", on: Lane::tests_files, run: sigkill },
    Test { name: "file_errors::a_killed_controller_lets_go_at_once", on: Lane::tests_files, run: lets_go },
    Test { name: "file_errors::fsync", on: Lane::has_block, run: fsync },
    Test { name: "file_errors::fsync_is_refused", on: Lane::refuses_fsync, run: fsync_is_refused },
    Test { name: "file_errors::io_uring", on: Lane::tests_files_in_detail, run: io_uring },
];

/// A directory with `in/` and `out/`, and a file `a` of 5 bytes in each.
pub(super) struct Tree {
    _owner: tempfile::TempDir,
    path: PathBuf,
}

impl Tree {
    pub(super) fn new() -> anyhow::Result<Self> {
        let owner = tempfile::TempDir::new()?;
        let path = owner.path().canonicalize()?;
        let tree = Self { _owner: owner, path };
        for directory in ["in", "out"] {
            fs::create_dir(tree.path.join(directory))?;
            fs::write(tree.path.join(directory).join("a"), "hello")?;
        }
        Ok(tree)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// `SPEC file …/in/**`.
    pub(super) fn spec(&self, spec: &str) -> String {
        format!("{spec} file {}/in/**", self.path.display())
    }

    /// `script` in the tree.
    pub(super) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&self.path);
        command
    }

    /// What `script` says under `specs`, in one session (attaching and detaching takes its time), and the report.
    pub(super) fn run(&self, specs: &[String], script: &str) -> anyhow::Result<(Ended, Report)> {
        let json = self.path.join("report.json");
        let mut command = fault(&["run", "--json"]);
        command.arg(&json);
        for spec in specs {
            command.args(["--file", spec]);
        }
        let ended = Ended::of(command.args(["--", "sh", "-c", script]).current_dir(&self.path))?;
        let text = fs::read_to_string(&json).with_context(|| format!("{specs:?}: {ended:?}"))?;
        let json = serde_json::from_str(&text)?;
        Ok((
            Ended { stderr: ended.stderr.clone(), ..ended },
            Report { status: ended.status, json, stderr: ended.stderr },
        ))
    }

    /// Makes directories with a file `a` of 5 bytes in each.
    pub(super) fn directories<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
        for name in names {
            fs::create_dir_all(self.path.join(name))?;
            fs::write(self.path.join(name).join("a"), "hello")?;
        }
        Ok(())
    }

    /// Names, links and contents of all below `in`.
    fn picture(&self) -> anyhow::Result<String> {
        let list = "find in -printf '%p %y %n %s\\n' | sort; find in -type f | sort | xargs cat";
        Process::start(&mut self.shell(list))?.text()
    }
}

/// A directory of its own (`D`), the operation, the error, a program that does it, and what that says.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

fn on_contents(_: Lane) -> anyhow::Result<()> {
    each(&[
        ("open", "open", "EACCES", "cat D/a", "Permission denied"),
        ("open-new", "open", "EMFILE", ": > D/new", "Too many open files"),
        ("read", "read", "EIO", "cat D/a", "Input/output error"),
        (
            "write",
            "write",
            "ENOSPC",
            "dd if=/etc/passwd of=D/a conv=notrunc status=none",
            "No space left on device",
        ),
        ("allocate", "write", "EDQUOT", "fallocate -l 4096 D/a", "Disk quota exceeded"),
        ("truncate", "truncate", "EFBIG", "truncate -s 1 D/a", "File too large"),
        (
            "mmap",
            "mmap",
            "ENOMEM",
            "/usr/bin/python3 -c 'import mmap; f = open(\"D/a\"); mmap.mmap(f.fileno(), 5, prot=1)'",
            "Cannot allocate",
        ),
    ])
}

fn on_names(_: Lane) -> anyhow::Result<()> {
    each(&[
        ("create", "create", "ENFILE", ": > D/new", "Too many open files in system"),
        ("fifo", "create", "EPERM", "mkfifo D/pipe", "Operation not permitted"),
        ("unlink", "unlink", "EROFS", "rm -f D/a", "Read-only file system"),
        ("rmdir", "rmdir", "EBUSY", "rmdir D/d", "busy"),
        ("mkdir", "mkdir", "EMLINK", "mkdir D/new", "Too many links"),
        ("rename", "rename", "EPERM", "mv D/a D/b", "Operation not permitted"),
        ("rename-in", "rename", "ENOTEMPTY", "mv out/a D/b", "Directory not empty"),
        ("link", "link", "EPERM", "ln D/a out/b", "Operation not permitted"),
        ("link-in", "link", "EPERM", "ln out/a D/b", "Operation not permitted"),
        ("symlink", "symlink", "EPERM", "ln -s a D/s", "Operation not permitted"),
    ])
}

fn each(cases: &[Case]) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let directory = |name: &str| format!("in/{name}");
    let names: Vec<_> = cases.iter().map(|(name, ..)| directory(name)).collect();
    tree.directories(names.iter().map(String::as_str))?;
    if let Some(rmdir) = names.iter().find(|name| name.ends_with("rmdir")) {
        fs::create_dir(tree.path().join(rmdir).join("d"))?;
    }
    let specs: Vec<_> = cases
        .iter()
        .map(|(name, op, errno, ..)| format!("error {errno} {op} file {}/in/{name}/*", tree.path().display()))
        .collect();
    // The same where no pattern leads: nothing is wrong with the programs.
    let free = "mkdir out/d && mv out/a out/b && ln out/b out/c && : > out/new && rm out/b out/new && mv out/c out/a && rmdir out/d";
    let script: String = cases
        .iter()
        .map(|(name, _, _, command, _)| {
            let command = command.replace('D', &directory(name));
            format!("({command}) 2>out/err && echo '{name} was done'; echo \"{name}: $(tr '\\n' ' ' < out/err)\"; ")
        })
        .collect();
    let before = tree.picture()?;
    let (ended, report) = tree.run(&specs, &format!("{script} {free} || exit 8"))?;
    ensure!(ended.status.success() && !ended.stdout.contains("was done"), "{ended:?} {}", report.json);
    for (id, (name, .., says)) in cases.iter().enumerate() {
        let line =
            ended.stdout.lines().find(|line| line.starts_with(&format!("{name}:"))).context("a line")?;
        ensure!(line.contains(says), "{line}");
        let counted = (report.rule(id, "matched")?, report.rule(id, "injected")?);
        ensure!(counted == (1, 1), "{name}: {counted:?} {line}");
    }
    let after = tree.picture()?;
    ensure!(after == before, "{before} became {after}");
    Ok(())
}

fn third_write(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let dd = |to: &str| format!("dd if=/dev/zero of={to} bs=4096 count=10 status=none");
    // Whatever the trigger: the same arithmetic as everywhere.
    let triggers = [
        ("every 4 times 1", "4\n", 10, 1),
        ("first 2", "1\n2\n", 10, 2),
        ("0%", "", 10, 0),
        ("after 1h", "", 0, 0),
    ];
    let mut specs = vec![format!("error EIO nth 3 write file {}/in/new", tree.path().display())];
    let mut script = format!("{}; {}; ", dd("in/new"), dd("out/new"));
    for (number, (trigger, ..)) in triggers.iter().enumerate() {
        tree.directories([format!("in/{number}").as_str()])?;
        specs.push(format!("error EIO open {trigger} file {}/in/{number}/*", tree.path().display()));
        script +=
            &format!("for i in 1 2 3 4 5 6 7 8 9 10; do (: < in/{number}/a) 2> /dev/null || echo $i; done; ");
    }
    let (ended, report) = tree.run(&specs, &script)?;
    ensure!(ended.status.success() && ended.stderr.contains("Input/output error"), "{ended:?}");
    let length = |name: &str| fs::metadata(tree.path().join(name)).map(|file| file.len());
    ensure!(length("in/new")? == 2 * 4096 && length("out/new")? == 10 * 4096, "{}", report.json);
    ensure!((report.rule(0, "matched")?, report.rule(0, "injected")?) == (3, 1), "{}", report.json);
    let expected: String = triggers.iter().map(|(_, failed, ..)| *failed).collect();
    ensure!(ended.stdout == expected, "{ended:?}");
    for (id, (trigger, _, matched, injected)) in (1..).zip(triggers) {
        let counted = (report.rule(id, "matched")?, report.rule(id, "injected")?);
        ensure!(counted == (matched, injected), "{trigger}: {}", report.json);
    }
    Ok(())
}

/// A shell that waits for what it is to do.
fn shell(tree: &Tree) -> anyhow::Result<Process> {
    Process::start(Command::new("sh").current_dir(tree.path()))
}

fn bystander(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let (mut target, mut other) = (shell(&tree)?, shell(&tree)?);
    let injection =
        Injection::start(&["--pid", &target.pid(), "--file", "error EROFS create unlink rename"])?;
    for process in [&mut target, &mut other] {
        let name = process.pid();
        process.say(&format!(
            "for i in 1 2 3; do touch in/{name}.$i && mv in/{name}.$i out/ && rm out/{name}.$i; done"
        ))?;
    }
    let (target, other) = (target.ended()?, other.ended()?);
    let report = injection.wait()?;
    ensure!(target.stderr.matches("Read-only file system").count() == 3, "{target:?}");
    ensure!(other.status.success() && other.stderr.is_empty(), "{other:?}");
    ensure!((report.rule(0, "matched")?, report.rule(0, "injected")?) == (3, 3), "{}", report.json);
    Ok(())
}

fn sqlite(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let fill = "create table t(n); insert into t values(1);";
    for name in ["in/db", "out/db"] {
        Process::start(&mut tree.shell(&format!("sqlite3 {name} '{fill}'")))?.text()?;
    }
    let insert = "insert into t values(2)";
    let script = format!("sqlite3 in/db '{insert}' && exit 7; sqlite3 out/db '{insert}'");
    let (ended, report) = tree.run(&[tree.spec("error ENOSPC write")], &script)?;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(ended.stderr.contains("full"), "{ended:?}");
    ensure!(report.rule(0, "injected")? >= 1, "{}", report.json);
    let check = "for db in in out; do sqlite3 $db/db 'pragma integrity_check; select count(*) from t;'; done";
    let checked = Ended::of(&mut tree.shell(check))?;
    ensure!(checked.stdout == "ok\n1\nok\n2\n", "{checked:?}");
    Ok(())
}

fn one_open(_: Lane) -> anyhow::Result<()> {
    // `>>` opens with O_CREAT: the kernel asks whether the file may be made before it has looked whether it is there.
    const CASES: [(&str, &str, u64); 5] = [
        ("there", ": >> D/a", 1),
        ("new", ": >> D/new", 1),
        ("twice", ": < D/a; : < D/a", 2),
        ("new-and-again", ": > D/new; : >> D/new", 2),
        ("directory", "ls D/d", 1),
    ];
    let tree = Tree::new()?;
    for (name, ..) in CASES {
        tree.directories([format!("in/{name}").as_str()])?;
    }
    fs::create_dir(tree.path().join("in/directory/d"))?;
    let mut specs: Vec<_> = CASES
        .iter()
        .map(|(name, ..)| format!("error EIO nth 9 open file {}/in/{name}/*", tree.path().display()))
        .collect();
    // And one that is hit, although it was there.
    tree.directories(["in/hit"])?;
    specs.push(format!("error EIO open file {}/in/hit/*", tree.path().display()));
    let script: String =
        CASES.iter().map(|(name, script, _)| script.replace('D', &format!("in/{name}")) + "; ").collect();
    forget_cached()?;
    let (ended, report) = tree.run(&specs, &format!("{script} (: >> in/hit/a) && exit 7; true"))?;
    ensure!(ended.status.success(), "{ended:?}");
    for (id, (name, _, operations)) in CASES.iter().enumerate() {
        ensure!(report.rule(id, "matched")? == *operations, "{name}: {}", report.json);
    }
    let last = CASES.len();
    ensure!((report.rule(last, "matched")?, report.rule(last, "injected")?) == (1, 1), "{}", report.json);
    Ok(())
}

fn no_more_descriptors(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let errnos = ["EMFILE", "ENFILE", "ENOMEM"];
    tree.directories(errnos)?;
    let script = "import errno
for name in ['EMFILE', 'ENFILE', 'ENOMEM']:
    for i in range(6):
        try:
            open(name + '/a').close()
            print('ok', end=' ')
        except OSError as error:
            print(errno.errorcode[error.errno], end=' ')
";
    let specs =
        errnos.map(|errno| format!("error {errno} every 3 open file {}/{errno}/*", tree.path().display()));
    let (ended, report) = tree.run(&specs, &format!("exec /usr/bin/python3 -c \"{script}\""))?;
    let expected = errnos.map(|errno| format!("ok ok {errno} ok ok {errno} ")).concat();
    ensure!(ended.stdout == expected, "{ended:?}");
    for id in 0..errnos.len() {
        ensure!((report.rule(id, "matched")?, report.rule(id, "injected")?) == (6, 2), "{}", report.json);
    }
    Ok(())
}

fn events(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let spec = tree.spec("error ENOSPC create mkdir write");
    let events = tree.path().join("events.jsonl");
    let to = events.to_string_lossy().into_owned();
    let long = "d".repeat(200);
    let script =
        format!("mkdir in/x; true > in/new; echo x >> in/a; mkdir out/{long}; mkdir out/{long}/y; true");
    let arguments = ["run", "--quiet", "--events", &to, "--file", &spec, "--", "sh", "-c", &script];
    let ended = Ended::of(fault(&arguments).current_dir(tree.path()))?;
    ensure!(ended.status.success(), "{ended:?}");
    let text = fs::read_to_string(&events)?;
    let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let path = |name: &str| tree.path().join(name).to_string_lossy().into_owned();
    let expected = [("mkdir", "mkdir", "in/x"), ("sh", "open create", "in/new"), ("sh", "write", "in/a")];
    ensure!(lines.len() == expected.len(), "{text}");
    for (line, (comm, ops, name)) in lines.iter().zip(expected) {
        let told: Vec<_> = line["ops"].as_array().context("ops")?.iter().filter_map(Value::as_str).collect();
        ensure!(line["layer"] == "file" && line["errno"] == "ENOSPC" && line["comm"] == comm, "{line}");
        // Where it is mounted here: the temporary directory may be reached by several mounts.
        let told_path = line["path"].as_str().or(line["inner_path"].as_str()).context("a path")?;
        ensure!(told.join(" ") == ops && told_path.ends_with(name), "{line} is not {}", path(name));
    }
    Ok(())
}

fn sigkill(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let mut target = shell(&tree)?;
    let injection =
        Injection::start(&["--pid", &target.pid(), "--file", &tree.spec("error EIO open unlink")])?;
    target.say("cat in/a && echo not hit; echo hit > out/done")?;
    let done = tree.path().join("out/done");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !done.exists() {
        ensure!(std::time::Instant::now() < deadline, "the target did nothing");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    injection.sigkill()?;
    target.say("cat in/a && rm in/a && echo well")?;
    let ended = target.ended()?;
    ensure!(ended.stdout == "hellowell\n" && ended.stderr.contains("Input/output"), "{ended:?}");
    Ok(())
}

/// Programs on many functions take seconds to be taken off; until then they must not hit anybody.
fn lets_go(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let me = std::process::id().to_string();
    let spec = tree.spec("error EIO open read unlink rename mkdir truncate");
    let injection = Injection::start(&["--pid", &me, "--only", "--file", &spec])?;
    let path = tree.path().join("in/a");
    let error = fs::File::open(&path).err().and_then(|error| error.raw_os_error());
    ensure!(error == Some(libc::EIO), "it is not hit: {error:?}");
    injection.signal(nix::sys::signal::Signal::SIGKILL)?;
    let killed = std::time::Instant::now();
    while fs::File::open(&path).is_err() {
        ensure!(killed.elapsed() < std::time::Duration::from_secs(1), "still hit after a second");
    }
    injection.sigkill()
}

fn fsync(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let dd = |to: &str, how: &str| format!("dd if=/dev/zero of={to} bs=4096 count=1 conv={how} status=none");
    let script: String = ["fsync", "fdatasync"]
        .iter()
        .map(|how| format!("{} && exit 7; {} || exit 8; ", dd("in/a", how), dd("out/a", how)))
        .collect();
    let (ended, report) = tree.run(&[tree.spec("error EIO fsync")], &script)?;
    ensure!(ended.status.success(), "{ended:?}");
    for call in ["fsync", "fdatasync"] {
        ensure!(ended.stderr.contains(&format!("{call} failed for 'in/a': Input/output error")), "{ended:?}");
    }
    // dd tries fsync when fdatasync has failed.
    ensure!((report.rule(0, "matched")?, report.rule(0, "injected")?) == (3, 3), "{}", report.json);
    Ok(())
}

fn fsync_is_refused(_: Lane) -> anyhow::Result<()> {
    // All operations are asked for, and this is one of them.
    for spec in ["error EIO fsync", "error EIO"] {
        let said = refused(&["run", "--file", spec, "--", "true"], 69)?;
        ensure!(said.trim().lines().count() == 1, "{said}");
        ensure!(said.contains("fsync") && said.contains("CONFIG_FUNCTION_ERROR_INJECTION"), "{said}");
    }
    Ok(())
}

fn io_uring(lane: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let fio = |name: &str, extra: &str| {
        format!(
            "fio --name=x --filename=in/{name} --size=64k --bs=4k --rw=write --ioengine=io_uring --fallocate=none \
             --overwrite=0 --aux-path=out {extra} > out/{name}.log 2>&1; "
        )
    };
    let log = |name: &str| fs::read_to_string(tree.path().join(format!("out/{name}.log")));
    let plain = Ended::of(&mut tree.shell(&fio("plain", "")))?;
    ensure!(plain.status.success(), "fio itself: {plain:?} {}", log("plain")?);
    let path = tree.path().display();
    let mut specs = vec![format!("error ENOSPC times 1 write file {path}/in/full")];
    if lane.has_block() {
        specs.push(format!("error EIO fsync file {path}/in/sync"));
    }
    let script = fio("full", "") + &fio("sync", "--fsync=4 --end_fsync=0");
    let (_, report) = tree.run(&specs, &script)?;
    ensure!(log("full")?.contains("No space left"), "{} {}", log("full")?, report.json);
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    if lane.has_block() {
        // Said, and not silently missed.
        ensure!(report.counter("uring_sync")? > 0, "{}", report.json);
        ensure!(report.stderr.contains("by way of io_uring"), "{}", report.stderr);
    }
    Ok(())
}
