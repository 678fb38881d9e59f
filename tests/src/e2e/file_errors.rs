//! Operations on files fail: with which error, whose, and how often.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
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
    Test { name: "file_errors::each_operation", on: Lane::has_files, run: each_operation },
    Test { name: "file_errors::exactly_the_third_write", on: Lane::has_files, run: third_write },
    Test { name: "file_errors::a_bystander_notices_nothing", on: Lane::has_files, run: bystander },
    Test { name: "file_errors::sqlite_says_full_and_survives", on: Lane::has_files, run: sqlite },
    Test { name: "file_errors::an_open_is_one_operation", on: Lane::has_files, run: one_open },
    Test { name: "file_errors::no_more_descriptors", on: Lane::has_files, run: no_more_descriptors },
    Test { name: "file_errors::events_tell_path_and_errno", on: Lane::has_files, run: events },
    Test { name: "file_errors::sigkill_leaves_nothing", on: Lane::has_files, run: sigkill },
    Test { name: "file_errors::fsync", on: Lane::has_block, run: fsync },
    Test { name: "file_errors::fsync_is_refused", on: Lane::refuses_fsync, run: fsync_is_refused },
    Test { name: "file_errors::io_uring", on: Lane::has_files, run: io_uring },
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

    /// What `script` says under `spec`, and the report.
    pub(super) fn run(&self, spec: &str, script: &str) -> anyhow::Result<(Ended, Report)> {
        let json = self.path.join("report.json");
        let report = json.to_string_lossy().into_owned();
        let arguments = ["run", "--json", &report, "--file", spec, "--", "sh", "-c", script];
        let ended = Ended::of(fault(&arguments).current_dir(&self.path))?;
        let text = fs::read_to_string(&json).with_context(|| format!("{spec}: {ended:?}"))?;
        let report =
            Report { status: ended.status, json: serde_json::from_str(&text)?, stderr: ended.stderr.clone() };
        Ok((ended, report))
    }

    /// Names, lengths and contents.
    pub(super) fn picture(&self) -> anyhow::Result<Vec<(String, u64, String)>> {
        let mut picture = Vec::new();
        for directory in ["in", "out"] {
            for entry in fs::read_dir(self.path.join(directory))? {
                let entry = entry?;
                let contents = fs::read_to_string(entry.path()).unwrap_or_default();
                let name = format!("{directory}/{}", entry.file_name().to_string_lossy());
                picture.push((name, entry.metadata()?.nlink(), contents));
            }
        }
        picture.sort();
        Ok(picture)
    }
}

fn each_operation(_: Lane) -> anyhow::Result<()> {
    // Operation, error, a program that does it where faults are, the same where there are none, what it says, its undoing.
    let cases = [
        ("open", "EACCES", "cat in/a", "cat out/a", "Permission denied", ""),
        ("open", "EMFILE", ": > in/new", ": > out/new", "Too many open files", "rm -f out/new"),
        ("read", "EIO", "cat in/a", "cat out/a", "Input/output error", ""),
        (
            "write",
            "ENOSPC",
            "dd if=/dev/zero of=in/a bs=1 count=1 conv=notrunc status=none",
            "dd if=/dev/zero of=/dev/null bs=1 count=1 status=none",
            "No space left on device",
            "",
        ),
        ("write", "EDQUOT", "fallocate -l 4096 in/a", "true", "Disk quota exceeded", ""),
        (
            "create",
            "ENOSPC",
            ": > in/new",
            ": > out/new; cat in/a",
            "No space left on device",
            "rm -f out/new",
        ),
        ("create", "EPERM", "mkfifo in/pipe", "mkfifo out/pipe", "Operation not permitted", "rm -f out/pipe"),
        ("unlink", "EROFS", "rm -f in/a", "cat in/a", "Read-only file system", ""),
        ("mkdir", "EDQUOT", "mkdir in/new", "mkdir out/new", "Disk quota exceeded", "rmdir out/new"),
        ("rename", "EXDEV", "mv -T in/a in/b", "mv out/a out/b", "", "mv out/b out/a"),
        ("rename", "EIO", "mv out/a in/b", "mv out/a out/b", "Input/output error", "mv out/b out/a"),
        ("link", "EMLINK", "ln out/a in/b", "ln out/a out/b", "Too many links", "rm out/b"),
        ("link", "EMLINK", "ln in/a out/b", "ln out/a out/b", "Too many links", "rm out/b"),
        ("symlink", "ENOSPC", "ln -s a in/s", "ln -s a out/s", "No space left on device", "rm out/s"),
        ("truncate", "EFBIG", "truncate -s 1 in/a", "truncate -s 5 out/a", "File too large", ""),
        ("truncate", "EFBIG", "echo x > in/a", "truncate -s 5 out/a", "File too large", ""),
        (
            "mmap",
            "ENOMEM",
            "python3 -c 'import mmap; mmap.mmap(open(\"in/a\").fileno(), 5, prot=1)'",
            "python3 -c 'import mmap; mmap.mmap(open(\"out/a\").fileno(), 5, prot=1)'",
            "Cannot allocate memory",
            "",
        ),
    ];
    let tree = Tree::new()?;
    let before = tree.picture()?;
    for (operation, errno, hit, spared, says, undo) in cases {
        let spec = tree.spec(&format!("error {errno} {operation}"));
        // `mv` copies where it cannot rename.
        if errno == "EXDEV" {
            let (_, report) = tree.run(&spec, &format!("{hit}; {spared}"))?;
            ensure!(report.rule(0, "injected")? >= 1, "{spec}: {}", report.json);
            ensure!(Ended::of(&mut tree.shell(&format!("mv in/b in/a; {undo}")))?.status.success(), "{spec}");
            continue;
        }
        let (ended, report) = tree.run(&spec, &format!("({hit}) && exit 7; {spared} || exit 8"))?;
        ensure!(ended.status.success(), "{spec}: {hit}: {ended:?} {}", report.json);
        ensure!(ended.stderr.contains(says), "{spec}: {hit}: {ended:?}");
        ensure!(report.rule(0, "injected")? == 1, "{spec}: {hit}: {}", report.json);
        ensure!(Ended::of(&mut tree.shell(undo))?.status.success(), "{undo}");
        let after = tree.picture()?;
        ensure!(after == before, "{spec}: {hit}: {before:?} became {after:?}");
    }
    // A directory that is there.
    fs::create_dir(tree.path().join("in/d"))?;
    let (ended, report) = tree.run(&tree.spec("error EBUSY rmdir"), "rmdir in/d && exit 7; true")?;
    ensure!(ended.status.success() && ended.stderr.contains("busy"), "{ended:?}");
    ensure!(report.rule(0, "injected")? == 1 && tree.path().join("in/d").is_dir(), "{}", report.json);
    Ok(())
}

fn third_write(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let dd = |to: &str| format!("dd if=/dev/zero of={to} bs=4096 count=10 status=none");
    let script = format!("{}; {}", dd("in/new"), dd("out/new"));
    let (ended, report) = tree.run(&tree.spec("error EIO nth 3 write"), &script)?;
    ensure!(ended.status.success() && ended.stderr.contains("Input/output error"), "{ended:?}");
    let length = |name: &str| fs::metadata(tree.path().join(name)).map(|file| file.len());
    ensure!(length("in/new")? == 2 * 4096 && length("out/new")? == 10 * 4096, "{}", report.json);
    ensure!((report.rule(0, "matched")?, report.rule(0, "injected")?) == (3, 1), "{}", report.json);
    // Whatever the trigger: the same arithmetic as everywhere.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do cat in/a > /dev/null 2>&1 || echo $i; done";
    for (trigger, failed, matched, injected) in [
        ("every 4 times 1", "4\n", 10, 1),
        ("first 2", "1\n2\n", 10, 2),
        ("0%", "", 10, 0),
        ("after 1h", "", 0, 0),
    ] {
        let (ended, report) = tree.run(&tree.spec(&format!("error EIO open {trigger}")), script)?;
        ensure!(ended.stdout == failed, "{trigger}: {ended:?}");
        let counted = (report.rule(0, "matched")?, report.rule(0, "injected")?);
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
        ensure!(
            Ended::of(tree.shell(&format!("sqlite3 {name} '{fill}'")).env("HOME", "/"))?.status.success()
        );
    }
    let insert = "insert into t values(2)";
    let script = format!("sqlite3 in/db '{insert}' && exit 7; sqlite3 out/db '{insert}'");
    let (ended, report) = tree.run(&tree.spec("error ENOSPC write"), &script)?;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(ended.stderr.contains("full"), "{ended:?}");
    ensure!(report.rule(0, "injected")? >= 1, "{}", report.json);
    let check = "for db in in out; do sqlite3 $db/db 'pragma integrity_check; select count(*) from t;'; done";
    let checked = Ended::of(&mut tree.shell(check))?;
    ensure!(checked.stdout == "ok\n1\nok\n2\n", "{checked:?}");
    Ok(())
}

fn one_open(lane: Lane) -> anyhow::Result<()> {
    // `>>` opens with O_CREAT: the kernel asks whether the file may be made before it has looked whether it is there.
    let tree = Tree::new()?;
    for (script, operations) in
        [(": >> in/a", 1), (": >> in/new", 1), ("cat in/a; cat in/a", 2), (": < in/a; ls in", 2)]
    {
        let _ = fs::remove_file(tree.path().join("in/new"));
        if lane != Lane::Native {
            forget_cached()?;
        }
        // `in` itself is not below `in`.
        let spec =
            format!("error EIO nth 100 open file {0}/in**", tree.path().display()).replace("in**", "**");
        let spec = if script.contains("ls") { spec } else { tree.spec("error EIO nth 100 open") };
        let (ended, report) = tree.run(&spec, script)?;
        ensure!(ended.status.success(), "{script}: {ended:?}");
        ensure!(report.rule(0, "matched")? == operations, "{script}: {}", report.json);
        forget_cached()?;
        let (ended, report) = tree.run(&tree.spec("error EIO open"), &format!("{script} && exit 7; true"))?;
        if !script.contains("ls") {
            ensure!(ended.status.success() && report.rule(0, "injected")? >= 1, "{script}: {ended:?}");
        }
    }
    Ok(())
}

fn no_more_descriptors(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let script = "import errno
seen = []
for i in range(6):
    try:
        open('in/a').close()
        seen.append('ok')
    except OSError as error:
        seen.append(errno.errorcode[error.errno])
print(' '.join(seen))";
    for errno in ["EMFILE", "ENFILE", "ENOMEM"] {
        let spec = tree.spec(&format!("error {errno} every 3 open"));
        let (ended, report) = tree.run(&spec, &format!("exec python3 -c \"{script}\""))?;
        ensure!(ended.stdout == format!("ok ok {errno} ok ok {errno}\n"), "{ended:?}");
        ensure!((report.rule(0, "matched")?, report.rule(0, "injected")?) == (6, 2), "{}", report.json);
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
        format!("mkdir in/x; : > in/new; echo x >> in/a; mkdir out/{long}; mkdir out/{long}/y; true");
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

fn fsync(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let dd = |to: &str, how: &str| format!("dd if=/dev/zero of={to} bs=4096 count=1 conv={how} status=none");
    for how in ["fsync", "fdatasync"] {
        let script = format!("{} && exit 7; {}", dd("in/a", how), dd("out/a", how));
        let (ended, report) = tree.run(&tree.spec("error EIO fsync"), &script)?;
        ensure!(ended.status.success(), "{how}: {ended:?}");
        ensure!(ended.stderr.contains("Input/output error"), "{how}: {ended:?}");
        ensure!((report.rule(0, "matched")?, report.rule(0, "injected")?) == (1, 1), "{}", report.json);
    }
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
    // fio is installed for the tests of disks.
    let tree = Tree::new()?;
    let fio = |extra: &str| {
        format!(
            "fio --name=x --filename=in/f --size=64k --bs=4k --rw=write --ioengine=io_uring --fallocate=none \
             --minimal --aux-path=out {extra} > out/log 2>&1"
        )
    };
    ensure!(
        Ended::of(&mut tree.shell(&fio("")))?.status.success(),
        "fio itself: {}",
        fs::read_to_string(tree.path().join("out/log"))?
    );
    let (_, report) = tree.run(&tree.spec("error ENOSPC times 1 write"), &fio(""))?;
    let log = fs::read_to_string(tree.path().join("out/log"))?;
    ensure!(log.contains("No space left") || log.contains("error=28"), "{log} {}", report.json);
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    if lane.has_block() {
        // Said, and not silently missed.
        let (_, report) = tree.run(&tree.spec("error EIO fsync"), &fio("--fsync=4 --end_fsync=0"))?;
        ensure!(report.counter("uring_sync")? > 0, "{}", report.json);
        ensure!(report.stderr.contains("by way of io_uring"), "{}", report.stderr);
    }
    Ok(())
}
