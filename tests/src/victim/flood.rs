//! Datagrams as many as possible, or for a given time, and who counts them without remembering each.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;

use super::{
    report::{Flooded, Sunk, cpu_ns, errno_name, now_ns},
    udp::{end_of_input, observer, wait_for_line},
};

/// `fault-victim udp-flood`.
#[derive(Debug, Args)]
pub struct Flood {
    /// Where to.
    to: SocketAddr,
    /// No more than so many.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// No longer than so many seconds.
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
    /// Bytes each, at least 16.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Pause between two, in microseconds; 0 is none.
    #[arg(long, default_value_t = 0)]
    pause_us: u64,
    /// Be no more than so many ahead of what `udp-sink --acknowledge` has said; 0 is as far as it goes.
    #[arg(long, default_value_t = 0)]
    window: u64,
    /// Print `ready` on stderr and wait for a line on stdin before sending.
    #[arg(long)]
    wait: bool,
}

impl Flood {
    /// Sends.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn run(&self) -> anyhow::Result<Flooded> {
        let any: SocketAddr = match self.to {
            SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).context("binding the sender")?;
        socket.connect(self.to).context("connecting the sender")?;
        if self.wait {
            eprintln!("ready");
            wait_for_line()?;
        }
        let mut report = Flooded::default();
        let mut datagram = vec![0u8; self.size.max(16)];
        let (begin, cpu) = (now_ns(), cpu_ns());
        let end = Duration::from_secs(self.seconds);
        let started = Instant::now();
        let mut acknowledged = 0;
        for number in 0..self.count {
            // Asking for the time costs as much as a tenth of a datagram: only if somebody wants to know.
            if self.seconds != u64::MAX && started.elapsed() >= end {
                break;
            }
            datagram[..8].copy_from_slice(&number.to_le_bytes());
            match socket.send(&datagram) {
                Ok(_) => report.sent += 1,
                Err(error) => *report.errors.entry(errno_name(&error)).or_default() += 1,
            }
            if self.pause_us > 0 {
                std::thread::sleep(Duration::from_micros(self.pause_us));
            }
            while self.window != 0 && report.sent >= acknowledged + self.window {
                acknowledged = acknowledgment(&socket)?.max(acknowledged);
            }
        }
        (report.wall_ns, report.cpu_ns) = (now_ns() - begin, cpu_ns() - cpu);
        Ok(report)
    }
}

/// How many have arrived, by the next acknowledgment.
fn acknowledgment(socket: &UdpSocket) -> anyhow::Result<u64> {
    let mut count = [0u8; 8];
    let length = socket.recv(&mut count).context("waiting for an acknowledgment")?;
    anyhow::ensure!(length == count.len(), "an acknowledgment of {length} bytes");
    Ok(u64::from_le_bytes(count))
}

/// `fault-victim udp-sink`.
#[derive(Debug, Args)]
pub struct Sink {
    /// Where to listen.
    on: SocketAddr,
    /// Once stdin has ended: stop when nothing came for this long, in milliseconds.
    #[arg(long, default_value_t = 600)]
    idle_ms: u64,
    /// Tell the sender after so many how many there were; 0 is never.
    #[arg(long, default_value_t = 0)]
    acknowledge: u64,
}

impl Sink {
    /// Counts. Prints `ready` on stderr when it listens.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn run(&self) -> anyhow::Result<Sunk> {
        let socket = observer(self.on, 256 << 20)?;
        let all_sent = end_of_input();
        eprintln!("ready");
        let mut report = Sunk::default();
        let mut seen: Vec<u64> = Vec::new();
        let mut buffer = [0u8; 65536];
        let (mut first, mut silent_since) = (None, None);
        loop {
            let Ok((length, sender)) = socket.recv_from(&mut buffer) else {
                let since = *silent_since.get_or_insert_with(Instant::now);
                if !all_sent.load(std::sync::atomic::Ordering::Relaxed) {
                    silent_since = None;
                } else if since.elapsed() >= Duration::from_millis(self.idle_ms) {
                    break;
                }
                continue;
            };
            silent_since = None;
            let now = now_ns();
            report.span_ns = now - *first.get_or_insert(now);
            report.received += 1;
            if self.acknowledge != 0 && report.received.is_multiple_of(self.acknowledge) {
                socket.send_to(&report.received.to_le_bytes(), sender).context("acknowledging")?;
            }
            let Some(Ok(number)) = buffer[..length].get(..8).map(<[u8; 8]>::try_from) else { continue };
            let number = u64::from_le_bytes(number);
            let word = usize::try_from(number / 64).context("sequence number")?;
            if seen.len() <= word {
                seen.resize(word + 1, 0);
            }
            let bit = 1 << (number % 64);
            if seen[word] & bit == 0 {
                seen[word] |= bit;
                report.distinct += 1;
            }
        }
        Ok(report)
    }
}
