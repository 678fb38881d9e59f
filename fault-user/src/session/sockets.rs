//! Sockets that were open before the session.

use std::collections::BTreeSet;

use fault_common::{
    shared::SharedU64,
    who::{Connection, PORT_WORDS, SocketState, Stream},
};

use super::error::SessionError;
use crate::{
    kernel::{
        control::Mapped,
        load::{Loaded, find},
    },
    net::sockets::Adopter,
    target::Snapshot,
};
use std::os::fd::{AsFd as _, OwnedFd};

/// Adopts the sockets of processes that join the target by other ways than fork(2): into its cgroup.
pub(super) struct Sockets {
    storage: OwnedFd,
    ports: Mapped<SharedU64>,
    seen: BTreeSet<u32>,
}

impl Sockets {
    /// Adopts the sockets of everybody in `snapshot`.
    pub(super) fn adopt(loaded: &Loaded, snapshot: &Snapshot) -> Result<Self, SessionError> {
        let storage = find(&loaded.ebpf, "SOCKETS")?
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| SessionError::Open { path: "the eBPF map SOCKETS".to_owned(), source })?;
        let ports = find(&loaded.ebpf, "LOCAL_PORTS")?;
        let ports = Mapped::new("LOCAL_PORTS", ports.fd().as_fd(), PORT_WORDS as usize)
            .map_err(crate::kernel::load::LoadError::from)?;
        let mut sockets = Self { storage, ports, seen: BTreeSet::new() };
        sockets.add(&snapshot.members)?;
        Ok(sockets)
    }

    /// As [`Sockets::add`], of members beside those seen already.
    pub(super) fn add_more(&mut self, members: &BTreeSet<u32>) -> Result<usize, SessionError> {
        let all = &self.seen | members;
        self.add(&all)
    }

    /// Adopts the sockets of members not seen before. How many single sockets could not be.
    pub(super) fn add(&mut self, members: &BTreeSet<u32>) -> Result<usize, SessionError> {
        let new: Vec<u32> = members.difference(&self.seen).copied().collect();
        let template = SocketState {
            member: 1,
            tgid: 0,
            cgroup: 0,
            listening: 0,
            _pad: 0,
            cookie: 0,
            departure_ns: [0; 2],
            // Numbered by the programs, in order of first use.
            streams: [Stream::new(0), Stream::new(0)],
            connection: Connection::new(0),
        };
        let adoption = Adopter::new(self.storage.as_fd(), &self.ports, template).adopt(new)?;
        self.seen.clone_from(members);
        Ok(adoption.failures.len())
    }
}
