//! The part of a controller: what `fault run` does, one stage at a time.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use fault_user::{
    session::{keeper::Keeper, residue::Leftover},
    target::{Target, cgroup::Cgroup, command::Held, pid, run::Transient},
};
use nix::{
    sys::signal::{SigHandler, Signal, kill, signal},
    unistd::Pid,
};

/// Prints one line for each thing the tests want to know, then waits to be killed.
pub fn main(stage: &OsString, command: &[OsString]) -> ExitCode {
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
    if stage == "interrupted" {
        // A script's background job ignores SIGINT, and so would COMMAND: a signal that is ignored stays so over execve(2).
        // SAFETY: no handler is installed.
        unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.unwrap();
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
