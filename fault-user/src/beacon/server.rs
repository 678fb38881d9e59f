//! The thread that answers. It owns nothing of any session, so that it can hold none up and be held up by none.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::Arc,
    thread,
    time::Duration,
};

use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};

use super::{
    BeaconError, PREFIX,
    message::{Answer, LONGEST_REQUEST, Request},
    registry::Registry,
};

/// How long whoever asks may take for each piece of it, and for reading the answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two attempts to accept a connection when descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);
/// Processes of several PID namespaces that share a network namespace may have one number.
const NAMESAKES: u32 = 16;
/// It formats a few numbers.
const STACK: usize = 512 << 10;

/// Starts it.
pub(super) fn start(registry: Arc<Registry>) -> Result<(), BeaconError> {
    let listener = listen().map_err(BeaconError::Listen)?;
    let verb = verb();
    thread::Builder::new()
        .name("beacon".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            loop {
                match listener.accept() {
                    // Whoever went away in the middle of it needs no answer.
                    Ok((stream, _)) => drop(attend(&stream, &registry, &verb)),
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        })
        .map_err(BeaconError::Thread)?;
    Ok(())
}

fn listen() -> io::Result<UnixListener> {
    let pid = std::process::id();
    let mut result = bind(&format!("{PREFIX}{pid}"));
    for number in 1..NAMESAKES {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                result = bind(&format!("{PREFIX}{pid}-{number}"));
            }
            Ok(_) | Err(_) => break,
        }
    }
    result
}

fn bind(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// The subcommand that this process is; of a program that uses the library its name.
fn verb() -> String {
    let mut arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let program = arguments.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    match arguments.next() {
        Some(verb) if name == "fault" => verb,
        _ => name.to_owned(),
    }
}

/// One question, one answer.
fn attend(stream: &UnixStream, registry: &Registry, verb: &str) -> io::Result<()> {
    let uid = getsockopt(stream, PeerCredentials)?.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST_REQUEST)).read_line(&mut line)?;
    let done = |result: Result<(), String>| match result {
        Ok(()) => Answer::Done,
        Err(why) => Answer::Refused { why },
    };
    let answer = match serde_json::from_str(&line) {
        Ok(Request::Snapshot) => Answer::Snapshot(registry.snapshot(verb)),
        Ok(Request::Pause { session }) => done(registry.pause(session)),
        Ok(Request::Resume { session }) => done(registry.resume(session)),
        Ok(Request::Heal { session }) => done(registry.heal(session)),
        Err(error) => Answer::Refused { why: format!("this version does not know the request: {error}") },
    };
    let mut answer = serde_json::to_vec(&answer)?;
    answer.push(b'\n');
    let mut stream = stream;
    stream.write_all(&answer)
}
