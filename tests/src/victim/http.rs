//! Users of a service over HTTP, and a health check that only opens a socket.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::report::Sample;

/// What a service answered.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// What came behind the head.
    pub body: String,
}

/// How a request or a connection failed, in a word or two.
fn named(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timed out".to_owned(),
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::ConnectionReset => "reset".to_owned(),
        _ => error.to_string(),
    }
}

/// What is left until `deadline`; an error when that is over.
fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Asks for `path` on a connection of its own; all of it within `patience`.
///
/// # Errors
/// When there is no answer in time, or something that is not HTTP.
pub fn request(method: &str, to: SocketAddr, path: &str, patience: Duration) -> std::io::Result<Answer> {
    let deadline = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&to, left(deadline)?)?;
    stream.set_write_timeout(Some(left(deadline)?))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {to}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            length => bytes.extend_from_slice(&buffer[..length]),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    Ok(Answer { status, body: body.to_owned() })
}

/// The same as a user feels it: status 2xx is good.
#[must_use]
pub fn ask(who: &str, to: SocketAddr, path: &str, patience: Duration) -> Sample {
    felt(who, "GET", to, path, patience)
}

/// The same of a user who wants something done.
#[must_use]
pub fn post(who: &str, to: SocketAddr, path: &str, patience: Duration) -> Sample {
    felt(who, "POST", to, path, patience)
}

fn felt(who: &str, method: &str, to: SocketAddr, path: &str, patience: Duration) -> Sample {
    let judge = |answer: &Answer| (answer.status.to_string(), (200..300).contains(&answer.status));
    Sample::timed(who, path, || judged(request(method, to, path, patience), judge))
}

/// Asks as a user who looks at what comes: `judge` says what it is, and whether it is good.
pub fn look(
    who: &str,
    to: SocketAddr,
    path: &str,
    patience: Duration,
    judge: impl FnOnce(&Answer) -> (String, bool),
) -> Sample {
    Sample::timed(who, path, || judged(request("GET", to, path, patience), judge))
}

fn judged(answer: std::io::Result<Answer>, judge: impl FnOnce(&Answer) -> (String, bool)) -> (String, bool) {
    match answer {
        Ok(answer) => judge(&answer),
        Err(error) => (named(&error), false),
    }
}

/// A health check of the simplest kind: is there somebody who takes the connection?
#[must_use]
pub fn check(who: &str, to: SocketAddr, patience: Duration) -> Sample {
    Sample::timed(who, "connect", || match TcpStream::connect_timeout(&to, patience) {
        Ok(_) => ("up".to_owned(), true),
        Err(error) => (named(&error), false),
    })
}

/// Users that ask again and again, and one health check, until a line comes on stdin or it ends.
#[derive(Debug, clap::Args)]
pub struct Ask {
    /// Address and port of the service.
    to: SocketAddr,
    /// What they ask for.
    #[arg(long, default_value = "/")]
    path: String,
    /// How many users.
    #[arg(long, default_value_t = 4)]
    users: u32,
    /// Milliseconds from the end of a request to the next one.
    #[arg(long, default_value_t = 200)]
    pause_ms: u64,
    /// Milliseconds until a user, or the check, gives up.
    #[arg(long, default_value_t = 2000)]
    patience_ms: u64,
}

impl Ask {
    /// Runs until told to stop; every request in the order they ended.
    ///
    /// # Errors
    /// When stdin cannot be read.
    pub fn run(&self) -> anyhow::Result<Vec<Sample>> {
        let over = AtomicBool::new(false);
        let samples = Mutex::new(Vec::new());
        let (pause, patience) =
            (Duration::from_millis(self.pause_ms), Duration::from_millis(self.patience_ms));
        let again = |ask: &dyn Fn() -> Sample| {
            while !over.load(Ordering::Relaxed) {
                let sample = ask();
                samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                thread::sleep(pause);
            }
        };
        let mut line = String::new();
        thread::scope(|scope| {
            for _ in 0..self.users {
                scope.spawn(|| again(&|| ask("user", self.to, &self.path, patience)));
                // Not all in the same instant.
                thread::sleep(pause / self.users);
            }
            scope.spawn(|| again(&|| check("health check", self.to, patience)));
            eprintln!("ready");
            let read = std::io::stdin().read_line(&mut line);
            over.store(true, Ordering::Relaxed);
            read
        })?;
        Ok(samples.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
