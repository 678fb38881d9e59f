//! One bit of the packet tag per session and namespace, claimed so that it frees itself on death.
//!
//! The claim is an abstract unix socket bound inside the target's namespace: names there are unique, need no
//! file system, and vanish with the last descriptor. `grep fault/session /proc/net/unix` in the namespace
//! shows who is at work. (Anybody in the namespace may bind these names; that can only keep sessions away.)

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use fault_common::limits::MAX_SESSIONS_PER_NETNS;

use super::{
    error::{NetError, Result},
    netns::NetnsHandle,
};

/// Abstract name of the claim of bit N, without the leading NUL.
const NAME: &str = "fault/session/";

/// A bit of the packet tag ([`fault_common::tag`]) that is ours while this value lives.
#[derive(Debug)]
pub struct SessionBit {
    bit: u32,
    _claim: OwnedFd,
}

impl SessionBit {
    /// Claims the lowest free bit in `netns`.
    ///
    /// # Errors
    /// [`NetError::TooManySessions`] when all are taken; when the namespace cannot be entered.
    pub fn claim(netns: &NetnsHandle) -> Result<Self> {
        netns.run_in(|| {
            for bit in 0..MAX_SESSIONS_PER_NETNS {
                let name = format!("{NAME}{bit}");
                let bound = SocketAddr::from_abstract_name(&name)
                    .and_then(|address| UnixDatagram::bind_addr(&address));
                match bound {
                    Ok(socket) => return Ok(Self { bit, _claim: socket.into() }),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                    Err(error) => return Err(NetError::os("claim", format!("@{name} in {netns}"), error)),
                }
            }
            Err(NetError::TooManySessions { sessions: MAX_SESSIONS_PER_NETNS, netns: netns.inode() })
        })
    }

    /// The bit, 0 to [`MAX_SESSIONS_PER_NETNS`] - 1.
    #[must_use]
    pub const fn bit(&self) -> u32 {
        self.bit
    }

    /// Bits claimed in `netns` now, by anybody: bit N of the result is session N.
    ///
    /// # Errors
    /// When the namespace cannot be entered or `/proc` is not mounted.
    pub fn claimed(netns: &NetnsHandle) -> Result<u32> {
        let table = netns.run_in(|| {
            fs::read_to_string("/proc/thread-self/net/unix")
                .map_err(|error| NetError::os("list unix sockets of", netns.to_string(), error))
        })?;
        Ok(table
            .lines()
            .filter_map(|line| line.rsplit_once(" @")?.1.strip_prefix(NAME)?.parse::<u32>().ok())
            .filter(|bit| *bit < MAX_SESSIONS_PER_NETNS)
            .fold(0, |bits, bit| bits | 1 << bit))
    }
}
