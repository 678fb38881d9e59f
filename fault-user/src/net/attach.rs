//! Hooking programs into the packets of an interface: tcx links, or clsact filters where there is no tcx.
//!
//! Ours come **first** in both directions: a program that ends the chain (`TC_ACT_OK`) in front of ours would
//! hide packets from us. For the same reason ours must pass with `TC_ACT_UNSPEC` (-1, the same number as
//! `TCX_NEXT`), never with `TC_ACT_OK`: whoever comes after must still see the packet.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use fault_common::rule::net::Direction;

use super::{
    bpf,
    clsact::{self, ClsactFilter},
    error::{NetError, Result},
    interfaces::Interface,
    leftover::Leftover,
    netlink::Netlink,
    netns::NetnsHandle,
};

/// How a program is held at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A link, owned by a file descriptor of ours (Linux 6.6).
    Tcx,
    /// A direct-action filter (Linux 4.5). It outlives us: see [`Hook::leftover`].
    Clsact,
}

/// What to attach where.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// On this interface of the namespace.
    pub interface: &'a Interface,
    /// Its way out or its way in.
    pub direction: Direction,
    /// A program of type `BPF_PROG_TYPE_SCHED_CLS`.
    pub program: BorrowedFd<'a>,
}

/// A program attached to an interface; dropping it detaches.
#[derive(Debug)]
pub struct Hook {
    interface: u32,
    direction: Direction,
    owner: Owner,
}

#[derive(Debug)]
enum Owner {
    Link { _link: OwnedFd },
    Filter { filter: ClsactFilter, netns: NetnsHandle },
    Nobody,
}

impl Hook {
    /// Index of the interface.
    #[must_use]
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// Which way of the interface.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// How it is held.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self.owner {
            Owner::Link { .. } => Method::Tcx,
            Owner::Filter { .. } | Owner::Nobody => Method::Clsact,
        }
    }

    /// What would outlive us if we died now; none when a descriptor owns it.
    #[must_use]
    pub fn leftover(&self) -> Option<Leftover> {
        match &self.owner {
            Owner::Filter { filter, .. } => Some(Leftover::ClsactFilter(filter.clone())),
            Owner::Link { .. } | Owner::Nobody => None,
        }
    }

    /// Detaches, and says so when that fails. (A link is detached by closing it, which cannot fail.)
    ///
    /// # Errors
    /// When the filter cannot be removed. That it or its interface is gone is not an error.
    pub fn detach(mut self) -> Result<()> {
        self.release()
    }

    fn release(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.owner, Owner::Nobody) {
            Owner::Filter { filter, netns } => filter.remove(&mut Netlink::open(&netns)?),
            Owner::Link { .. } | Owner::Nobody => Ok(()),
        }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        // What cannot be removed here is left for the keeper and `fault sweep`, who know it by `leftover`.
        drop(self.release());
    }
}

/// Attaches programs in `netns`, for the session that claimed bit `session` there: all or none.
///
/// Tries tcx first and falls back to clsact when the kernel does not know it. `announce` is told of everything that
/// would outlive us (see [`Hook::leftover`]) *before* it is made.
///
/// # Errors
/// When the kernel has neither, when an interface is gone, without CAP_NET_ADMIN and CAP_BPF; what `announce` fails
/// with.
pub fn attach<E: From<NetError>>(
    netns: &NetnsHandle,
    session: u32,
    requests: &[Request<'_>],
    announce: impl FnMut(&Leftover) -> Result<(), E>,
) -> Result<Vec<Hook>, E> {
    match attach_tcx(netns, requests) {
        // Attach types the kernel does not know are answered with EINVAL.
        Err(error) if error.errno() == Some(libc::EINVAL) => {
            attach_clsact(netns, session, requests, announce)
        }
        result => Ok(result?),
    }
}

/// As [`attach`], by tcx only.
///
/// # Errors
/// As [`attach`]; EINVAL when the kernel has no tcx.
pub fn attach_tcx(netns: &NetnsHandle, requests: &[Request<'_>]) -> Result<Vec<Hook>> {
    netns.run_in(|| requests.iter().map(|request| link(netns, request)).collect())
}

/// As [`attach`], by clsact only.
///
/// # Errors
/// As [`attach`].
pub fn attach_clsact<E: From<NetError>>(
    netns: &NetnsHandle,
    session: u32,
    requests: &[Request<'_>],
    mut announce: impl FnMut(&Leftover) -> Result<(), E>,
) -> Result<Vec<Hook>, E> {
    let mut netlink = Netlink::open(netns)?;
    let mut announce = |filter: &ClsactFilter| announce(&Leftover::ClsactFilter(filter.clone()));
    requests
        .iter()
        .map(|request| {
            let filter = clsact::add(&mut netlink, netns.inode(), session, request, &mut announce)?;
            Ok(Hook {
                interface: request.interface.index,
                direction: request.direction,
                owner: Owner::Filter { filter, netns: netns.clone() },
            })
        })
        .collect()
}

fn link(netns: &NetnsHandle, request: &Request<'_>) -> Result<Hook> {
    let attach_type = match request.direction {
        Direction::Out => bpf::BPF_TCX_EGRESS,
        Direction::In => bpf::BPF_TCX_INGRESS,
    };
    let index = request.interface.index;
    let link = bpf::link_tcx(request.program, index, attach_type, bpf::BPF_F_BEFORE)
        .map_err(|error| refused(netns, request, error))?;
    Ok(Hook { interface: index, direction: request.direction, owner: Owner::Link { _link: link } })
}

fn refused(netns: &NetnsHandle, request: &Request<'_>, error: io::Error) -> NetError {
    NetError::os("attach a program to", format!("{} in {netns}", request.interface.name), error)
}
