//! The interfaces of a network namespace, and the ones that come and go while a session lives.

use std::{collections::VecDeque, io};

use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    devices,
    error::{NetError, Result},
    netlink::{self, Netlink, attribute, string, u32_at},
    netns::NetnsHandle,
};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTNLGRP_LINK: u32 = 1;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// What lies in front of the network header of a packet at this interface's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// An Ethernet header (`ARPHRD_ETHER`, and the all-zero one of `lo`): what the lane's devices have too.
    Ethernet,
    /// Nothing, or something else (`tun`, `wireguard`, `ppp`): the given `ARPHRD_*` number.
    Other(u16),
}

/// One interface of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Index, unique in the namespace, from 1.
    pub index: u32,
    /// Name, at most 15 bytes; other names (`altname`) are not known here.
    pub name: String,
    /// Kind of a software device (`veth`, `vlan`, `bridge`…); none for hardware and `lo`.
    pub kind: Option<String>,
    /// What packets start with.
    pub layer: LinkLayer,
    /// Whether this is `lo`.
    pub loopback: bool,
    /// Whether the interface is administratively up.
    pub up: bool,
}

impl Interface {
    fn parse(payload: &[u8]) -> Option<Self> {
        let hardware = payload.get(2..4).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))?;
        let flags = u32_at(payload, 8)? as i32;
        let attributes = payload.get(LINK_HEADER..)?;
        let loopback = flags & libc::IFF_LOOPBACK != 0;
        Some(Self {
            index: u32_at(payload, 4)?,
            name: string(&attribute(attributes, IFLA_IFNAME)?),
            kind: attribute(attributes, IFLA_LINKINFO)
                .and_then(|info| attribute(&info, IFLA_INFO_KIND))
                .map(|kind| string(&kind)),
            layer: match hardware {
                ARPHRD_ETHER | ARPHRD_LOOPBACK => LinkLayer::Ethernet,
                other => LinkLayer::Other(other),
            },
            loopback,
            up: flags & libc::IFF_UP != 0,
        })
    }

    /// Whether this interface belongs to the lane or the cutter of some session: never to be hooked.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        devices::are_ours(&self.name, self.kind.as_deref())
    }
}

/// All interfaces of `netns`, by index, without those of sessions.
///
/// # Errors
/// When the namespace cannot be entered or the kernel refuses the list.
pub fn list(netns: &NetnsHandle) -> Result<Vec<Interface>> {
    let mut all = list_all(&mut Netlink::open(netns)?)?;
    all.retain(|interface| !interface.is_ours());
    Ok(all)
}

/// All interfaces behind `netlink`, those of sessions included.
pub(super) fn list_all(netlink: &mut Netlink) -> Result<Vec<Interface>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answers =
        netlink.dump(&request).map_err(|refusal| refusal.into_error("list", "network interfaces"))?;
    let mut interfaces = answers
        .iter()
        .filter(|answer| answer.kind == RTM_NEWLINK)
        .map(|answer| {
            Interface::parse(&answer.payload).ok_or_else(|| NetError::Protocol {
                operation: "list",
                object: "network interfaces".to_owned(),
                detail: "a link without index or name".to_owned(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// Finds the interfaces that `iface NAME` means, over all namespaces of the target.
///
/// Returns the position of the namespace in `namespaces` with each match.
///
/// # Errors
/// [`NetError::NoSuchInterface`] when no namespace has one of that name.
pub fn named<'a>(name: &str, namespaces: &'a [Vec<Interface>]) -> Result<Vec<(usize, &'a Interface)>> {
    let found: Vec<_> = namespaces
        .iter()
        .enumerate()
        .flat_map(|(position, interfaces)| interfaces.iter().map(move |interface| (position, interface)))
        .filter(|(_, interface)| interface.name == name)
        .collect();
    if found.is_empty() {
        let mut known: Vec<_> = namespaces.iter().flatten().map(|interface| interface.name.clone()).collect();
        known.sort();
        known.dedup();
        return Err(NetError::NoSuchInterface { name: name.to_owned(), known });
    }
    Ok(found)
}

/// Something happened to the interfaces of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface appeared, or one we may know already changed (name, up or down).
    Present(Interface),
    /// The interface with this index is gone (deleted, or moved to another namespace).
    Gone(u32),
    /// Messages were lost: list again and compare.
    Lost,
}

/// Reports changes of the interfaces of one namespace. Lanes of sessions are left out.
///
/// Make the watcher *before* listing, then nothing that appears in between is missed.
#[derive(Debug)]
pub struct Watcher {
    socket: AsyncFd<Socket>,
    pending: VecDeque<Change>,
}

impl Watcher {
    /// Starts watching `netns`. Must be called within a tokio runtime with I/O enabled.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn new(netns: &NetnsHandle) -> Result<Self> {
        let wrong = |error| NetError::os("watch the interfaces of", netns.to_string(), error);
        let socket = netns.run_in(|| {
            let subscribe = || -> io::Result<Socket> {
                let mut socket = Socket::new(NETLINK_ROUTE)?;
                socket.bind(&SocketAddr::new(0, 0))?;
                socket.add_membership(RTNLGRP_LINK)?;
                socket.set_non_blocking(true)?;
                Ok(socket)
            };
            subscribe().map_err(wrong)
        })?;
        // SAFETY: the socket keeps the one descriptor it has, open, for as long as it lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(|error| wrong(error.into_parts().1))?;
        Ok(Self { socket, pending: VecDeque::new() })
    }

    /// Waits for the next change. Cancel safe.
    ///
    /// # Errors
    /// When the socket fails, which ends the watch.
    pub async fn next(&mut self) -> Result<Change> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Ok(change);
            }
            let received = self.socket.async_io(Interest::READABLE, |socket| socket.recv_from_full()).await;
            match received {
                Ok((datagram, _)) => self.pending.extend(changes(&datagram)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Change::Lost),
                Err(error) => return Err(NetError::os("watch", "network interfaces", error)),
            }
        }
    }
}

fn changes(datagram: &[u8]) -> impl Iterator<Item = Change> {
    netlink::messages(datagram).filter_map(|(header, payload)| {
        let interface = Interface::parse(payload)?;
        match header.kind {
            _ if interface.is_ours() => None,
            RTM_NEWLINK => Some(Change::Present(interface)),
            // The bridge reports a port that leaves it with its own family: the interface itself stays.
            RTM_DELLINK if payload.first() == Some(&0) => Some(Change::Gone(interface.index)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            kind: None,
            layer: LinkLayer::Ethernet,
            loopback: false,
            up: true,
        }
    }

    #[test]
    fn a_filter_finds_its_interface_in_every_namespace_that_has_it() {
        let namespaces = [vec![interface(1, "lo"), interface(2, "eth0")], vec![interface(7, "eth0")]];
        let found = named("eth0", &namespaces).unwrap();
        let found: Vec<_> = found.into_iter().map(|(netns, interface)| (netns, interface.index)).collect();
        assert_eq!(found, [(0, 2), (1, 7)]);
    }

    #[test]
    fn an_unknown_interface_is_refused_with_the_names_there_are() {
        let namespaces = [vec![interface(1, "lo"), interface(2, "eth0")], vec![interface(1, "lo")]];
        let error = named("eht0", &namespaces).unwrap_err().to_string();
        assert_eq!(
            error,
            "no interface is named 'eht0' in the target's network namespace (there are: eth0, lo)"
        );
    }

    #[test]
    fn our_devices_are_told_by_name_and_kind() {
        let mut ours = interface(3, "flt00fae");
        assert!(!ours.is_ours(), "hardware that happens to be called so");
        ours.kind = Some("macvlan".to_owned());
        assert!(ours.is_ours());
    }
}
