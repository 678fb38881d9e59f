//! A forking echo server and a client that times it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use nix::{
    sys::signal::{SigHandler, Signal, signal},
    unistd::{ForkResult, fork},
};

use super::{
    report::{Timed, cpu_ns, errno_name, now_ns},
    udp::wait_for_line,
};

/// `fault-victim tcp-echo`.
#[derive(Debug, Args)]
pub struct Echo {
    /// Where to listen.
    on: SocketAddr,
}

impl Echo {
    /// Serves for ever, one forked child per connection. Prints `ready` on stderr when it listens.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn run(&self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.on).context("listening")?;
        // SAFETY: SIG_IGN is no handler; the kernel reaps the children.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
        eprintln!("ready");
        loop {
            let Ok((stream, _)) = listener.accept() else { continue };
            // SAFETY: this program has one thread.
            match unsafe { fork() }.context("fork")? {
                ForkResult::Parent { .. } => {}
                ForkResult::Child => {
                    drop(listener);
                    return echo(stream);
                }
            }
        }
    }
}

fn echo(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0u8; 16384];
    loop {
        // The end of a connection, however it comes, is none of the server's.
        let Ok(length @ 1..) = stream.read(&mut buffer) else { return Ok(()) };
        if stream.write_all(&buffer[..length]).is_err() {
            return Ok(());
        }
    }
}

/// `fault-victim tcp-ping`.
#[derive(Debug, Args)]
pub struct Ping {
    /// An echo server.
    to: SocketAddr,
    /// How many requests.
    #[arg(long, default_value_t = 10)]
    count: u64,
    /// Give up on a request after this long, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    timeout_ms: u64,
    /// Wait for a line on stdin after connecting: the connection exists before the fault does.
    #[arg(long)]
    wait: bool,
    /// A new connection for each request; connecting is part of the time.
    #[arg(long)]
    reconnect: bool,
}

impl Ping {
    /// Asks and times.
    ///
    /// # Errors
    /// When the first connection fails.
    pub fn run(&self) -> anyhow::Result<Timed> {
        let timeout = Duration::from_millis(self.timeout_ms);
        let connect = || -> std::io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&self.to, timeout)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            Ok(stream)
        };
        let mut stream = if self.reconnect { None } else { Some(connect().context("connecting")?) };
        if self.wait {
            eprintln!("connected");
            wait_for_line()?;
        }
        let mut report = Timed::default();
        let (start, cpu) = (now_ns(), cpu_ns());
        for number in 0..self.count {
            let begin = now_ns();
            let result = (|| -> std::io::Result<()> {
                let fresh;
                let stream = match &mut stream {
                    Some(stream) => stream,
                    None => {
                        fresh = connect()?;
                        &mut { fresh }
                    }
                };
                stream.write_all(format!("{number}\n").as_bytes())?;
                let mut line = String::new();
                if BufReader::new(&*stream).read_line(&mut line)? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                Ok(())
            })();
            match result {
                Ok(()) => report.latencies_ns.push(now_ns() - begin),
                Err(error) => {
                    *report.errors.entry(errno_name(&error)).or_default() += 1;
                    report.failed.push(number);
                    report.failed_latencies_ns.push(now_ns() - begin);
                }
            }
        }
        report.wall_ns = now_ns() - start;
        report.cpu_ns = cpu_ns() - cpu;
        Ok(report)
    }
}
