//! Many TCP connections at once: a server that echoes, and a client that holds them, sends on all, and compares.
//!
//! Both look at every connection in turn and rest between two rounds: no connection waits for another.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    report::{Held, errno_name},
    udp::wait_for_line,
};

/// How much is read at once.
const PIECE: usize = 1 << 14;

/// As many descriptors as this process may have.
fn allow_many_descriptors() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of descriptors")
}

/// How many connections are served in a row.
const ROW: usize = 50;

/// A short rest after each row: the kernel's backlog holds a thousand packets (`netdev_max_backlog`) and drops the rest.
fn rest(served: usize, rest_ms: u64) {
    if served % ROW == ROW - 1 {
        std::thread::sleep(Duration::from_micros(rest_ms * 1000 / 20));
    }
}

/// `fault-victim many-echo`.
#[derive(Debug, Args)]
pub struct Echo {
    /// Where to listen.
    on: SocketAddr,
    /// Rest between two rounds, in milliseconds.
    #[arg(long, default_value_t = 20)]
    rest_ms: u64,
}

impl Echo {
    /// Serves for ever. Prints `ready` on stderr when it listens.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn run(&self) -> anyhow::Result<()> {
        allow_many_descriptors()?;
        let socket = Socket::new(Domain::for_address(self.on), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&self.on.into()).context("binding")?;
        socket.listen(4096).context("listening")?;
        let listener: TcpListener = socket.into();
        listener.set_nonblocking(true)?;
        eprintln!("ready");
        let mut connections: Vec<Served> = Vec::new();
        loop {
            while let Ok((stream, _)) = listener.accept() {
                if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_ok() {
                    connections.push(Served { stream, owed: Vec::new() });
                }
            }
            let mut served = 0;
            connections.retain_mut(|one| {
                served += 1;
                rest(served, self.rest_ms);
                one.serve()
            });
            std::thread::sleep(Duration::from_millis(self.rest_ms));
        }
    }
}

/// A connection, and what was read on it and not sent back yet.
struct Served {
    stream: TcpStream,
    owed: Vec<u8>,
}

impl Served {
    /// False when it is over.
    fn serve(&mut self) -> bool {
        let mut buffer = [0u8; PIECE];
        match self.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => self.owed.extend(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        if self.owed.is_empty() {
            return true;
        }
        match self.stream.write(&self.owed) {
            Ok(length) => {
                self.owed.drain(..length);
                true
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// `fault-victim many-hold`.
#[derive(Debug, Args)]
pub struct Hold {
    /// A server that echoes.
    to: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Bytes of one message. The next one is sent when the last one came back.
    #[arg(long, default_value_t = 500)]
    size: usize,
    /// Rest between two rounds, in milliseconds.
    #[arg(long, default_value_t = 50)]
    rest_ms: u64,
    /// Give a connection up on which nothing moved for so long, in milliseconds.
    #[arg(long, default_value_t = 15_000)]
    patience_ms: u64,
    /// Connect all of them, print `connected` on stderr and wait for a line on stdin.
    #[arg(long)]
    wait: bool,
}

/// One of them.
struct One {
    stream: TcpStream,
    /// Of the present message: sent, and come back.
    sent: usize,
    back: usize,
    /// Number of the message, which says what its bytes are.
    message: u64,
    moved: Instant,
}

/// Byte `at` of a message.
const fn byte(message: u64, at: usize) -> u8 {
    (message as usize).wrapping_mul(31).wrapping_add(at ^ at >> 8) as u8
}

impl One {
    fn open(to: SocketAddr) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { stream: socket.into(), sent: 0, back: 0, message: 0, moved: Instant::now() })
    }

    /// Moves what can be moved.
    fn turn(&mut self, size: usize, report: &mut Held) -> std::io::Result<()> {
        let ready = |result: std::io::Result<usize>| match result {
            // What is not connected yet cannot be written to.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
            Ok(length) => Ok(Some(length)),
        };
        let mut buffer = [0u8; PIECE];
        if self.back < self.sent {
            match ready(self.stream.read(&mut buffer))? {
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(length) => {
                    let got = (self.back..).zip(&buffer[..length]);
                    report.wrong += got.filter(|(at, got)| byte(self.message, *at) != **got).count() as u64;
                    report.received += length as u64;
                    self.back += length;
                    self.moved = Instant::now();
                }
                None => {}
            }
        }
        if self.back == size {
            (self.sent, self.back) = (0, 0);
            self.message += 1;
            report.messages += 1;
        }
        if self.sent < size {
            let piece: Vec<u8> = (self.sent..size).map(|at| byte(self.message, at)).collect();
            if let Some(length) = ready(self.stream.write(&piece))? {
                report.sent += length as u64;
                self.sent += length;
                self.moved = Instant::now();
            }
        }
        Ok(())
    }
}

impl Hold {
    /// Holds them.
    ///
    /// # Errors
    /// When the first connections cannot be made.
    pub fn run(&self) -> anyhow::Result<Held> {
        allow_many_descriptors()?;
        let mut held = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            held.push(Some(One::open(self.to).context("connecting")?));
            // The server accepts in rounds of its own.
            std::thread::sleep(Duration::from_micros(200));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while held.iter().flatten().any(|one| one.stream.peer_addr().is_err()) {
            anyhow::ensure!(Instant::now() < deadline, "not all connections could be made");
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.wait {
            eprintln!("connected");
            wait_for_line()?;
        }
        let mut report = Held::default();
        let started = Instant::now();
        for one in held.iter_mut().flatten() {
            one.moved = started;
        }
        let patience = Duration::from_millis(self.patience_ms);
        while started.elapsed() < Duration::from_secs(self.seconds) {
            for (served, place) in held.iter_mut().enumerate() {
                rest(served, self.rest_ms);
                let Some(one) = place else {
                    *place = One::open(self.to).ok();
                    report.reconnected += u64::from(place.is_some());
                    continue;
                };
                if let Err(error) = one.turn(self.size, &mut report) {
                    *report.errors.entry(errno_name(&error)).or_default() += 1;
                    *place = None;
                } else if one.moved.elapsed() > patience {
                    report.given_up += 1;
                    *place = None;
                }
            }
            std::thread::sleep(Duration::from_millis(self.rest_ms));
        }
        report.held = held.iter().flatten().count() as u64;
        Ok(report)
    }
}
