//! The live view in a terminal: its keys, and that the terminal is as it was.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};

use super::{
    Lane, Test,
    pair::Pair,
    top::{FEW, PATIENCE, session_of, survivor, until},
};
use crate::{
    driver::{Injection, binary},
    net_lab::{NetLab, PEER_V4},
    process::Ended,
};

/// The tests of this file.
pub const TESTS: &[Test] =
    &[Test { name: "top_terminal::keys", on: Lane::tests_the_controller, run: in_a_terminal }];

/// A terminal of 80×24 with a shell in it.
struct Terminal {
    directory: tempfile::TempDir,
}

impl Terminal {
    fn open() -> anyhow::Result<Self> {
        let terminal = Self { directory: tempfile::TempDir::new()? };
        let shell = ["new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=prompt: ", "sh"];
        terminal.tmux(&[&["-f", "/dev/null"], &shell[..]].concat())?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let socket = self.directory.path().join("tmux");
        let mut command = Command::new("tmux");
        command.arg("-S").arg(socket).args(arguments).env_remove("TMUX").env("TERM", "xterm-256color");
        let ended = Ended::of(command.env("LC_ALL", "C.UTF-8"))?;
        ensure!(ended.status.success(), "tmux {arguments:?}: {ended:?}");
        Ok(ended.stdout)
    }

    fn keys(&self, keys: &[&str]) -> anyhow::Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    fn screen(&self) -> anyhow::Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen shows `words`, and returns it.
    fn shows(&self, words: &str) -> anyhow::Result<String> {
        let start = Instant::now();
        loop {
            let screen = self.screen()?;
            if screen.contains(words) {
                return Ok(screen);
            }
            if start.elapsed() > PATIENCE {
                bail!("no {words:?} on the screen:\n{screen}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What a program could leave behind: alternate screen, hidden cursor, modes of the line discipline.
    fn state(&self) -> anyhow::Result<String> {
        let flags = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag} #{pane_tty}"])?;
        let tty = flags.split_whitespace().nth(2).context("a terminal")?.to_owned();
        let modes = Ended::of(Command::new("stty").args(["-F", &tty, "-a"]))?;
        ensure!(modes.status.success(), "{modes:?}");
        Ok(flags + &modes.stdout)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The server and everything in it; it may be gone already.
        drop(self.tmux(&["kill-server"]));
    }
}

fn in_a_terminal(_: Lane) -> anyhow::Result<()> {
    let terminal = Terminal::open()?;
    terminal.shows("prompt:")?;
    let before = terminal.state()?;
    ensure!(before.starts_with("0 1 "), "{before}");
    let lab = NetLab::new("tty")?;
    let survivor = survivor(&lab)?;
    // The one session on the screen may be below those of others on this machine: it is looked for by its spec.
    let victim = Pair::new(&lab, PEER_V4, 9000, FEW)?;
    let injection = Injection::start(&[
        "--pid",
        &victim.sender.pid(),
        "--pid",
        &survivor.pid(),
        "--net",
        "drop out udp local-port 1-65000",
    ])?;
    let pid = injection.pid();
    let is = |state: &str| Ok(session_of(pid)?["state"] == state);
    victim.run()?;
    let top = format!("{} top", binary().display());
    terminal.keys(&[&top, "Enter"])?;
    let screen = terminal.shows("drop out udp local-port")?;
    ensure!(
        screen.starts_with(" fault top ") && screen.contains(&format!("{pid} inject  active")),
        "{screen}"
    );
    ensure!(terminal.state()? != before, "no screen of its own");
    // Down to the session: its number is marked.
    until("it is selected", || {
        if terminal.screen()?.contains(&format!("▶{pid}")) {
            return Ok(true);
        }
        terminal.keys(&["Down"])?;
        thread::sleep(Duration::from_millis(300));
        Ok(false)
    })?;
    let shown = terminal.shows(&format!("{FEW} matched, {FEW} hit"))?;
    ensure!(shown.contains("the session"), "{shown}");
    terminal.keys(&["p"])?;
    until("paused by a key", || is("paused"))?;
    terminal.shows(&format!("▶{pid} inject  paused"))?;
    terminal.keys(&["p"])?;
    until("resumed by a key", || is("active"))?;
    terminal.keys(&["h"])?;
    terminal.shows(&format!("y heals the session of {pid}"))?;
    terminal.keys(&["n"])?;
    terminal.shows("q quit")?;
    ensure!(is("active")?, "healed without a yes");
    terminal.keys(&["h", "y"])?;
    let report = injection.wait()?;
    ensure!(report.status.success() && report.json["session"]["exit"]["reason"] == "healed", "{report:?}");
    terminal.keys(&["q"])?;
    terminal.shows("prompt:")?;
    until("the terminal is as it was", || Ok(terminal.state()? == before))?;
    // Also when it is told to end from outside.
    let copy = format!("sh -c 'echo $$ > {}/pid; exec {top}'", terminal.directory.path().display());
    terminal.keys(&[&copy, "Enter"])?;
    terminal.shows(" fault top ")?;
    until("its number", || {
        Ok(terminal.directory.path().join("pid").metadata().is_ok_and(|file| file.len() > 1))
    })?;
    let number: i32 = fs::read_to_string(terminal.directory.path().join("pid"))?.trim().parse()?;
    until("it draws", || Ok(terminal.state()? != before))?;
    nix::sys::signal::kill(Pid::from_raw(number), Signal::SIGTERM)?;
    until("the terminal is as it was, after SIGTERM", || Ok(terminal.state()? == before))?;
    terminal.keys(&["echo status $?", "Enter"])?;
    terminal.shows("status 0")?;
    ensure!(survivor.ended()?.status.success(), "the survivor did not");
    // And when the terminal is closed, whatever it notices first: it would be found among what is left.
    drop(terminal);
    for _ in 0..8 {
        let terminal = Terminal::open()?;
        terminal.shows("prompt:")?;
        terminal.keys(&[&top, "Enter"])?;
        terminal.shows("q quit")?;
    }
    Ok(())
}
