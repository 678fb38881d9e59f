//! Which files a pattern means: as they come, go and are renamed, by whatever way one gets there.

use std::{fs, process::Command};

use anyhow::ensure;

use super::{Lane, Test, file_errors::Tree};
use crate::{
    driver::{Injection, fault, refused},
    process::{Ended, Process},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "file_patterns::full_for_one_directory",
        on: Lane::tests_files,
        run: full_for_one_directory,
    },
    Test { name: "file_patterns::stars_and_question_marks", on: Lane::tests_files_in_detail, run: stars },
    Test { name: "file_patterns::follow_renames", on: Lane::tests_files_in_detail, run: follow_renames },
    Test { name: "file_patterns::directories_made_again", on: Lane::tests_files_in_detail, run: made_again },
    Test {
        name: "file_patterns::other_ways_to_the_same_file",
        on: Lane::tests_files_in_detail,
        run: other_ways,
    },
    Test { name: "file_patterns::mounts_below", on: Lane::tests_files_in_detail, run: mounts_below },
    Test { name: "file_patterns::nothing_matches_yet", on: Lane::tests_files_in_detail, run: nothing_yet },
    Test { name: "file_patterns::wrong_ones_are_refused", on: Lane::tests_files, run: wrong_ones },
];

/// A line of a script: `NAME ok` or `NAME no`.
fn attempt(name: &str, command: &str) -> String {
    format!("({command}) 2>/dev/null && echo {name} ok || echo {name} no; ")
}

fn full_for_one_directory(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let copy = |to: &str| attempt(to, &format!("cp /etc/passwd {to}"));
    let script = format!("mkdir in/later; {}{}{}", copy("in/new"), copy("out/new"), copy("in/later/new"));
    let (ended, report) = tree.run(&[tree.spec("error ENOSPC write")], &script)?;
    ensure!(ended.stdout == "in/new no\nout/new ok\nin/later/new no\n", "{ended:?}");
    ensure!(report.rule(0, "injected")? == 2, "{}", report.json);
    ensure!(!ended.stderr.contains(" yet"), "there is a file: {ended:?}");
    ensure!(fs::read(tree.path().join("out/new"))? == fs::read("/etc/passwd")?, "the neighbour is whole");
    for name in ["in/new", "in/later/new"] {
        ensure!(fs::metadata(tree.path().join(name))?.len() == 0, "{name} is not empty");
    }
    Ok(())
}

fn stars(_: Lane) -> anyhow::Result<()> {
    // A tree of its own for each pattern.
    let cases = [
        ("/*.log", vec!["1.log", "12.log", "\u{e9}.log"]),
        ("/?.log", vec!["1.log", "\u{e9}.log"]),
        ("/**/1.log", vec!["1.log", "x/1.log", "x/y/1.log"]),
        ("/*/1.log", vec!["x/1.log"]),
        ("/x/**", vec!["x/1.log", "x/y/1.log"]),
        ("/x/*", vec!["x/1.log"]),
        ("/a", vec!["a"]),
    ];
    let names = ["a", "1.log", "12.log", "x/1.log", "x/y/1.log", "\u{e9}.log"];
    let tree = Tree::new()?;
    let (mut specs, mut script) = (Vec::new(), String::new());
    for (number, (pattern, _)) in cases.iter().enumerate() {
        fs::create_dir_all(tree.path().join(format!("{number}/x/y")))?;
        specs.push(format!("error EIO open file {}/{number}{pattern}", tree.path().display()));
        for name in names {
            let name = format!("{number}/{name}");
            fs::write(tree.path().join(&name), "")?;
            script += &attempt(&name, &format!(": < {name}"));
        }
    }
    let (ended, report) = tree.run(&specs, &script)?;
    let failed: Vec<_> = ended.stdout.lines().filter_map(|line| line.strip_suffix(" no")).collect();
    for (number, (pattern, hit)) in cases.iter().enumerate() {
        let own = format!("{number}/");
        let failed: Vec<_> = failed.iter().filter_map(|name| name.strip_prefix(&own)).collect();
        ensure!(failed == *hit, "{pattern}: {failed:?} {ended:?}");
        ensure!(report.rule(number, "injected")? == hit.len() as u64, "{pattern}: {}", report.json);
    }
    Ok(())
}

fn follow_renames(_: Lane) -> anyhow::Result<()> {
    // What counts is the path when the operation is done, of the name by which the file was opened.
    let tree = Tree::new()?;
    let script = [
        "exec 3>>in/a; exec 4>>out/a; ",
        &attempt("opened in, still there", "echo x >&3"),
        "mv in/a out/b; ",
        &attempt("moved out", "echo x >&3"),
        "mv out/a in/c; ",
        &attempt("moved in", "echo x >&4"),
        "ln in/c out/d; ",
        &attempt("by its other name", "echo x >> out/d"),
        &attempt("by the one that counts", "echo x >> in/c"),
        "rm in/c; ",
        &attempt("removed", "echo x >&4"),
        "mkdir out/e; exec 5>>out/e/f; mv out/e in/e; ",
        &attempt("its directory moved in", "echo x >&5"),
    ]
    .concat();
    let (ended, _) = tree.run(&[tree.spec("error ENOSPC write")], &script)?;
    let expected = "opened in, still there no\nmoved out ok\nmoved in no\nby its other name ok\n\
                    by the one that counts no\nremoved no\nits directory moved in no\n";
    ensure!(ended.stdout == expected, "{ended:?}");
    Ok(())
}

fn made_again(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let script = format!(
        "rm -r in; mkdir in; {}cd in; {}",
        attempt("made again", ": > in/new"),
        attempt("from within", ": > new")
    );
    let (ended, _) = tree.run(&[tree.spec("error ENOSPC create")], &script)?;
    ensure!(ended.stdout == "made again no\nfrom within no\n", "{ended:?}");
    Ok(())
}

fn other_ways(_: Lane) -> anyhow::Result<()> {
    // A bind mount elsewhere, a mount namespace, a symbolic link, and a pattern that goes by way of one.
    let tree = Tree::new()?;
    fs::create_dir(tree.path().join("bound"))?;
    std::os::unix::fs::symlink("in", tree.path().join("link"))?;
    let inner = format!(
        "mount --bind in bound; {}{}{}{}",
        attempt("bound", ": > bound/new"),
        attempt("link", ": > link/new"),
        attempt("absolute", &format!(": > {}/in/new", tree.path().display())),
        attempt("upwards", ": > out/../in/new")
    );
    fs::write(tree.path().join("script"), inner)?;
    let spec = format!("error EROFS create file {}/link/**", tree.path().display());
    let (ended, _) = tree.run(&[spec], "unshare --mount sh script")?;
    ensure!(ended.stdout == "bound no\nlink no\nabsolute no\nupwards no\n", "{ended:?}");
    Ok(())
}

fn mounts_below(_: Lane) -> anyhow::Result<()> {
    // The target has a mount namespace of its own, with a file system below the pattern's directory.
    let tree = Tree::new()?;
    let root = tree.path().display();
    fs::create_dir(tree.path().join("in/m"))?;
    let mut target =
        Process::start(Command::new("unshare").args(["--mount", "sh"]).current_dir(tree.path()))?;
    target.say("mount -t tmpfs tmpfs in/m && mkdir in/m/d && touch out/mounted")?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !tree.path().join("out/mounted").exists() {
        ensure!(std::time::Instant::now() < deadline, "the target mounted nothing");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let spec = format!("error EROFS create file {root}/in/**/x?");
    let injection = Injection::start(&["--pid", &target.pid(), "--file", &spec])?;
    let names = ["in/x1", "in/m/x1", "in/m/d/x1", "in/m/d/y1", "out/x1"];
    target.say(&names.iter().map(|name| attempt(name, &format!(": > {name}"))).collect::<String>())?;
    let ended = target.ended()?;
    let report = injection.wait()?;
    let expected = "in/x1 no\nin/m/x1 no\nin/m/d/x1 no\nin/m/d/y1 ok\nout/x1 ok\n";
    ensure!(ended.stdout == expected, "{ended:?}");
    ensure!(report.rule(0, "injected")? == 3, "{}", report.json);
    Ok(())
}

fn nothing_yet(_: Lane) -> anyhow::Result<()> {
    let tree = Tree::new()?;
    let spec = format!("error ENOSPC write file {}/later/**", tree.path().display());
    let (ended, report) =
        tree.run(std::slice::from_ref(&spec), "mkdir later; echo x > later/x && exit 7; true")?;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(ended.stderr.contains("/later/** yet"), "{ended:?}");
    ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    // A dry run arms nothing, and says what it would do.
    let dry = Ended::of(&mut fault(&["run", "--dry-run", "--file", &spec, "--", "false"]))?;
    ensure!(dry.status.success() && dry.stdout.contains(&spec), "{dry:?}");
    Ok(())
}

fn wrong_ones(_: Lane) -> anyhow::Result<()> {
    for (spec, says) in [
        ("error ENOSPACE write", "ENOSPC"),
        ("error write", "the name of an error"),
        ("error EIO write file wal", "absolute"),
        ("error EIO write file /a/**b", "alone between slashes"),
        ("error EIO wrte", "`write`"),
        ("delay 5ms write", "`write` cannot be late: nobody may sleep where the kernel decides"),
    ] {
        let said = refused(&["run", "--file", spec, "--", "true"], 2)?;
        ensure!(said.contains(says), "{spec}: {said}");
    }
    Ok(())
}
