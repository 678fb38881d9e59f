//! One TCP connection that carries a known stream of bytes one way.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use super::{
    report::{Streamed, errno_name, now_ns},
    udp::wait_for_line,
};

/// Byte `at` of every stream: no part of it is like another nearby.
const fn byte(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 16) as u8
}

/// `fault-victim stream-send`.
#[derive(Debug, Args)]
pub struct Send {
    /// Who takes it.
    to: SocketAddr,
    /// How much.
    #[arg(long, default_value_t = 10_000_000)]
    bytes: u64,
    /// Wait for a line on stdin after connecting.
    #[arg(long)]
    wait: bool,
    /// Wait for a line on stdin before connecting.
    #[arg(long)]
    wait_first: bool,
    /// Write in pieces of so many bytes, and rest after each.
    #[arg(long)]
    piece: Option<usize>,
    /// How long the rest is, in milliseconds.
    #[arg(long, default_value_t = 5)]
    rest_ms: u64,
    /// Give up when nothing moves for so long, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    timeout_ms: u64,
}

impl Send {
    /// Sends, and waits until the other side has closed.
    ///
    /// # Errors
    /// When it cannot wait for its release.
    pub fn run(&self) -> anyhow::Result<Streamed> {
        if self.wait_first {
            eprintln!("ready");
            wait_for_line()?;
        }
        let mut report = Streamed::default();
        let begin = now_ns();
        let result = TcpStream::connect(self.to).and_then(|stream| {
            if self.wait {
                eprintln!("connected");
                wait_for_line().map_err(std::io::Error::other)?;
            }
            let sent = self.send(&stream, &mut report);
            report.sent_again = sent_again(&stream);
            sent
        });
        report.error = result.err().map(|error| errno_name(&error));
        report.wall_ns = now_ns() - begin;
        Ok(report)
    }

    fn send(&self, mut stream: &TcpStream, report: &mut Streamed) -> std::io::Result<()> {
        let timeout = Some(Duration::from_millis(self.timeout_ms));
        stream.set_read_timeout(timeout)?;
        stream.set_write_timeout(timeout)?;
        let size = self.piece.unwrap_or(1 << 16) as u64;
        while report.bytes < self.bytes {
            let length = size.min(self.bytes - report.bytes);
            let piece: Vec<u8> = (report.bytes..report.bytes + length).map(byte).collect();
            stream.write_all(&piece)?;
            report.bytes += length;
            if self.piece.is_some() {
                std::thread::sleep(Duration::from_millis(self.rest_ms));
            }
        }
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// `fault-victim stream-take`.
#[derive(Debug, Args)]
pub struct Take {
    /// Where to listen.
    on: SocketAddr,
    /// Give up when nothing more comes for so long, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    timeout_ms: u64,
}

/// How long the first byte may take: whoever sends may have to wait until the fault is armed.
const PATIENCE: Duration = Duration::from_secs(60);

impl Take {
    /// Takes one connection's stream to its end and compares it. Prints `ready` on stderr when it listens.
    ///
    /// # Errors
    /// When it cannot listen, or nobody connects.
    pub fn run(&self) -> anyhow::Result<Streamed> {
        let listener = TcpListener::bind(self.on).context("listening")?;
        eprintln!("ready");
        let (mut stream, _) = listener.accept().context("accepting")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut report = Streamed::default();
        let begin = now_ns();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    let wrong =
                        (report.bytes..).zip(&buffer[..length]).filter(|(at, got)| byte(*at) != **got);
                    report.wrong += wrong.count() as u64;
                    if report.bytes == 0 {
                        stream.set_read_timeout(Some(Duration::from_millis(self.timeout_ms)))?;
                    }
                    report.bytes += length as u64;
                }
                Err(error) => {
                    report.error = Some(errno_name(&error));
                    break;
                }
            }
        }
        report.wall_ns = now_ns() - begin;
        Ok(report)
    }
}

/// Segments that the kernel sent again on this connection (tcp(7), `TCP_INFO`).
fn sent_again(stream: &TcpStream) -> u64 {
    // SAFETY: `tcp_info` is plain data; all zeroes is a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes to `info`.
    let failed = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if failed == 0 { u64::from(info.tcpi_total_retrans) } else { 0 }
}
