//! What of a TCP stream arrives, packet by packet: looked at as tcpdump(8) does, before the receiver puts it together.

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use socket2::{Domain, Protocol, Socket, Type};

use super::report::Arrived;

/// `fault-victim segments`.
#[derive(Debug, Args)]
pub struct Segments {
    /// Port that the stream is sent to.
    port: u16,
    /// Stop when nothing has come for so long after the first packet, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    linger_ms: u64,
}

/// `ETH_P_ALL`.
const ALL: i32 = 0x0003;
/// Length of an Ethernet header.
const ETHERNET: usize = 14;
const IPPROTO_TCP: u8 = 6;
/// Large enough for whatever comes faster than it is looked at.
const BUFFER: usize = 64 << 20;
/// How long to wait for the first packet.
const PATIENCE: Duration = Duration::from_secs(60);

impl Segments {
    /// Watches all interfaces of the namespace. Prints `ready` on stderr when it does.
    ///
    /// # Errors
    /// Without CAP_NET_RAW.
    pub fn run(&self) -> anyhow::Result<Arrived> {
        let protocol = Protocol::from(i32::from((ALL as u16).to_be()));
        let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).context("AF_PACKET")?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &BUFFER)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        eprintln!("ready");
        let mut arrived = Arrived::default();
        let mut next = None;
        let mut last = Instant::now();
        let mut frame = vec![0; 1 << 17];
        loop {
            let patience =
                if arrived.packets == 0 { PATIENCE } else { Duration::from_millis(self.linger_ms) };
            if last.elapsed() > patience {
                return Ok(arrived);
            }
            let Ok(length) = socket.read(&mut frame) else { continue };
            if let Some((sequence, payload)) = self.payload(&frame[..length]) {
                last = Instant::now();
                note(&mut arrived, &mut next, sequence, payload);
            }
        }
    }

    /// Sequence number and length of the payload of a packet of the stream that has any.
    fn payload(&self, frame: &[u8]) -> Option<(u32, u32)> {
        let half = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
        let (transport, end) = match half(12)? {
            0x0800 if frame.get(ETHERNET + 9) == Some(&IPPROTO_TCP) => {
                let header = usize::from(frame[ETHERNET] & 0xf) * 4;
                (ETHERNET + header, ETHERNET + usize::from(half(ETHERNET + 2)?))
            }
            0x86dd if frame.get(ETHERNET + 6) == Some(&IPPROTO_TCP) => {
                (ETHERNET + 40, ETHERNET + 40 + usize::from(half(ETHERNET + 4)?))
            }
            _ => return None,
        };
        let data = transport + usize::from(*frame.get(transport + 12)? >> 4) * 4;
        let length = end.checked_sub(data)?;
        (half(transport + 2)? == self.port && length != 0).then_some((word(transport + 4)?, length as u32))
    }
}

/// Adds a packet; `next` is the byte after the furthest one that has come.
fn note(arrived: &mut Arrived, next: &mut Option<u32>, sequence: u32, length: u32) {
    arrived.packets += 1;
    arrived.largest = arrived.largest.max(length);
    let end = sequence.wrapping_add(length);
    let Some(furthest) = *next else {
        *next = Some(end);
        return;
    };
    let ahead = sequence.wrapping_sub(furthest) as i32;
    if ahead > 0 {
        arrived.holes.push(ahead.unsigned_abs());
    }
    if (end.wrapping_sub(furthest) as i32) > 0 {
        *next = Some(end);
    } else {
        arrived.again += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_what_is_skipped() {
        let (mut arrived, mut next) = (Arrived::default(), None);
        // 0 10 [20] 30 20 [40 50] 60 60, across the end of the numbers.
        for offset in [0u32, 10, 30, 20, 60, 60] {
            note(&mut arrived, &mut next, offset.wrapping_sub(25), 10);
        }
        assert_eq!((arrived.packets, arrived.again, arrived.largest), (6, 2, 10));
        assert_eq!(arrived.holes, [10, 20]);
    }
}
