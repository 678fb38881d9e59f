//! Calls that a script times and prints, one on a line: the file, the call, nanoseconds, error number.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::file_errors::Tree;
use crate::{
    driver::{Injection, Report},
    process::{Process, proc_file},
};

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    pub file: String,
    pub call: String,
    pub took_ns: u64,
    pub errno: i32,
}

/// The calls that were printed.
pub(super) fn calls(text: &str) -> anyhow::Result<Vec<Call>> {
    let read = |line: &str| -> anyhow::Result<Call> {
        let mut words = line.split(' ');
        let mut next = || words.next().context("a word is missing");
        let (file, call) = (next()?.to_owned(), next()?.to_owned());
        Ok(Call { file, call, took_ns: next()?.parse()?, errno: next()?.parse()? })
    };
    text.lines().map(|line| read(line).with_context(|| line.to_owned())).collect()
}

/// How many there are of a kind.
pub(super) fn count(calls: &[Call], is: impl Fn(&Call) -> bool) -> usize {
    calls.iter().filter(|call| is(call)).count()
}

/// A Python `script` that says when it is ready, waits for a line, and times its calls.
pub(super) fn caller(tree: &Tree, script: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new("python3");
    command.args(["-c", script]).args(arguments).current_dir(tree.path());
    Process::start_until(&mut command, "ready")
}

/// What it felt under `specs`, and the report.
pub(super) fn under(mut target: Process, specs: &[&str]) -> anyhow::Result<(Vec<Call>, Report)> {
    let mut options = vec!["--pid".to_owned(), target.pid()];
    options.extend(specs.iter().flat_map(|spec| ["--file".to_owned(), (*spec).to_owned()]));
    let injection = Injection::start(&options.iter().map(String::as_str).collect::<Vec<_>>())?;
    target.release()?;
    let felt = calls(&target.text()?)?;
    Ok((felt, injection.wait()?))
}

/// Waits until so many threads of the process sit in the system call.
pub(super) fn until_threads_are_in(pid: &str, call: libc::c_long, threads: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    let inside = format!("{call} ");
    let number = pid.parse()?;
    loop {
        let tasks = fs::read_dir(format!("/proc/{number}/task"))?.flatten();
        let calls = tasks.filter_map(|task| fs::read_to_string(task.path().join("syscall")).ok());
        if calls.filter(|call| call.starts_with(&inside)).count() >= threads {
            return Ok(());
        }
        ensure!(begin.elapsed().as_secs() < 60, "{pid} waits for nothing: {}", proc_file(number, "status")?);
        thread::sleep(Duration::from_millis(20));
    }
}
