//! Numbered datagrams: a sender that notices errors, a receiver that counts at the far end.

use std::{
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::report::{Counted, Sent, errno_name, now_ns};

/// ECT(0) and CE: the last two bits of the type of service (RFC 3168, 5).
const ECT: u32 = 2;
const CE: u8 = 3;

/// `fault-victim udp-send`.
#[derive(Debug, Args)]
pub struct Send {
    /// Where to.
    to: SocketAddr,
    /// How many.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Bytes each, at least 16.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Pause between two, in microseconds; 0 is none.
    #[arg(long, default_value_t = 0)]
    pause_us: u64,
    /// Pause for a millisecond after this many, so that no receive buffer overflows.
    #[arg(long, default_value_t = 50)]
    burst: u64,
    /// connect(2) first.
    #[arg(long)]
    connect: bool,
    /// Local port; 0 is any.
    #[arg(long, default_value_t = 0)]
    local_port: u16,
    /// Keep the socket open for this long after the last one, in milliseconds.
    #[arg(long, default_value_t = 0)]
    linger_ms: u64,
    /// Print `ready` on stderr and wait for a line on stdin before sending: the socket exists before the fault does.
    #[arg(long)]
    wait: bool,
    /// Report when each one was sent.
    #[arg(long)]
    stamps: bool,
    /// Say that marks are understood: ECT(0) of RFC 3168. IPv4.
    #[arg(long)]
    can_mark: bool,
}

impl Send {
    /// Sends.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn run(&self) -> anyhow::Result<Sent> {
        let any: SocketAddr = match self.to {
            SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, self.local_port).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, self.local_port).into(),
        };
        let socket = UdpSocket::bind(any).context("binding the sender")?;
        if self.can_mark {
            SockRef::from(&socket).set_tos_v4(ECT).context("setting the type of service")?;
        }
        if self.connect {
            socket.connect(self.to).context("connecting the sender")?;
        }
        if self.wait {
            eprintln!("ready");
            wait_for_line()?;
        }
        let mut report = Sent::default();
        let mut datagram = vec![0u8; self.size.max(16)];
        for number in 0..self.count {
            datagram[..8].copy_from_slice(&number.to_le_bytes());
            let now = now_ns();
            datagram[8..16].copy_from_slice(&now.to_le_bytes());
            if self.stamps {
                report.stamps_ns.push(now);
            }
            let result =
                if self.connect { socket.send(&datagram) } else { socket.send_to(&datagram, self.to) };
            match result {
                Ok(_) => report.sent += 1,
                Err(error) => *report.errors.entry(errno_name(&error)).or_default() += 1,
            }
            if self.pause_us > 0 {
                thread::sleep(Duration::from_micros(self.pause_us));
            } else if (number + 1) % self.burst.max(1) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        thread::sleep(Duration::from_millis(self.linger_ms));
        Ok(report)
    }
}

/// How often a counter that receives nothing asks whether there is more to come.
const LOOK: Duration = Duration::from_millis(100);

/// A socket that waits for datagrams, with room for `buffer` bytes of them.
///
/// # Errors
/// When it cannot be bound.
pub(super) fn observer(on: SocketAddr, buffer: libc::c_int) -> anyhow::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(on), Type::DGRAM, Some(Protocol::UDP))?;
    // Beyond rmem_max only as root, which end-to-end tests are: the observer must lose nothing itself.
    // SAFETY: plain setsockopt with an int.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const buffer).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
    socket.bind(&on.into()).context("binding the counter")?;
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

/// Becomes true when stdin ends.
pub(super) fn end_of_input() -> Arc<AtomicBool> {
    let ended = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&ended);
    thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tell.store(true, Ordering::Relaxed);
    });
    ended
}

/// Blocks until a line arrives on stdin.
pub(super) fn wait_for_line() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("waiting for a line on stdin")?;
    Ok(())
}

/// `fault-victim udp-count`.
#[derive(Debug, Args)]
pub struct Count {
    /// Where to listen.
    on: SocketAddr,
    /// Stop after this many.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Once stdin has ended, which says that everything was sent: stop when nothing came for this long, in
    /// milliseconds. Longer than anything may be delayed.
    #[arg(long, default_value_t = 600)]
    idle_ms: u64,
    /// Report the number of each that arrived.
    #[arg(long)]
    numbers: bool,
    /// Report the number of each that arrived marked. IPv4.
    #[arg(long)]
    marks: bool,
}

impl Count {
    /// Counts. Prints `ready` on stderr when it listens.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn run(&self) -> anyhow::Result<Counted> {
        let socket = observer(self.on, 64 << 20)?;
        if self.marks {
            SockRef::from(&socket).set_recv_tos_v4(true).context("asking for marks")?;
        }
        let all_sent = end_of_input();
        eprintln!("ready");
        let mut report = Counted::default();
        let mut seen: Vec<bool> = Vec::new();
        let mut highest = None;
        let mut buffer = [0u8; 65536];
        let mut silent_since = None;
        let mut first = None;
        while report.received < self.count {
            let Ok((length, is_marked)) = self.receive(&socket, &mut buffer) else {
                let since = silent_since.get_or_insert_with(Instant::now);
                if !all_sent.load(Ordering::Relaxed) {
                    silent_since = None;
                } else if since.elapsed() >= Duration::from_millis(self.idle_ms) {
                    break;
                }
                continue;
            };
            let now = now_ns();
            silent_since = None;
            report.span_ns = now - *first.get_or_insert(now);
            let (Some(Ok(number)), Some(Ok(sent))) = (
                buffer[..length].get(..8).map(<[u8; 8]>::try_from),
                buffer[..length].get(8..16).map(<[u8; 8]>::try_from),
            ) else {
                continue;
            };
            let (number, sent) = (u64::from_le_bytes(number), u64::from_le_bytes(sent));
            report.received += 1;
            if self.numbers {
                report.numbers.push(number);
            }
            if is_marked {
                report.marked.push(number);
            }
            report.delays_ns.push(now.saturating_sub(sent));
            let index = usize::try_from(number).context("sequence number")?;
            if seen.len() <= index {
                seen.resize(index + 1, false);
            }
            if !std::mem::replace(&mut seen[index], true) {
                report.distinct += 1;
            }
            if highest > Some(number) {
                report.reordered += 1;
            }
            highest = highest.max(Some(number));
        }
        report.missing = (0u64..).zip(&seen).filter(|(_, seen)| !**seen).map(|(n, _)| n).take(1000).collect();
        Ok(report)
    }

    /// One datagram: its length, and whether it is marked, if that is asked for.
    fn receive(&self, socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<(usize, bool)> {
        if !self.marks {
            return Ok((socket.recv(buffer)?, false));
        }
        let mut space = nix::cmsg_space!(u8);
        let mut buffers = [IoSliceMut::new(buffer)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::empty())?;
        let is_mark = |control| matches!(control, ControlMessageOwned::Ipv4Tos(tos) if tos & CE == CE);
        Ok((message.bytes, message.cmsgs()?.any(is_mark)))
    }
}
