//! Making and removing the lane's devices.
//!
//! Everything is set while the devices are down, so that they come up silent and with fq in place. The far end
//! comes up first: without carrier the kernel would put off activating fq.

use std::{
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::fd::AsRawFd,
    path::Path,
    process,
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoMacVlan, InfoVeth, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
    },
};

use super::super::{
    error::{NetError, Result},
    netlink::{Netlink, Refusal, u32_at},
    netns::NetnsHandle,
};
use super::{GROUP, NAME_PREFIX, fq};

/// The largest there is: what goes through the lane was made to fit another device.
const MTU: u32 = 65535;
/// Name of C' in its own namespace.
const FAR: &str = "far";

/// A device as the rest of the lane needs it.
#[derive(Debug)]
pub(super) struct Device {
    pub index: u32,
    pub name: String,
}

/// The two devices in the target's namespace.
#[derive(Debug)]
pub(super) struct Pair {
    pub entry: Device,
    pub near: Device,
}

/// Makes E and C in `netns` (behind `netlink`) and C' in `far`.
pub(super) fn create(netlink: &mut Netlink, netns: &NetnsHandle, far: &NetnsHandle) -> Result<Pair> {
    far.run_in(|| {
        silence_ipv6("default");
        Ok(())
    })?;
    let near = create_veth(netlink, far)?;
    let result = furnish(netlink, netns, &near);
    match result {
        Ok(entry) => Ok(Pair { entry, near }),
        Err(error) => {
            // E goes with C.
            drop(delete(netlink, near.index));
            Err(error)
        }
    }
}

/// Removes the device with this index, and what is on top of it. That it is gone is not an error.
pub(in super::super) fn delete(netlink: &mut Netlink, index: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    match netlink.request(RouteNetlinkMessage::DelLink(message), 0) {
        Err(refusal) if refusal.errno != libc::ENODEV => {
            Err(refusal.into_error("remove", format!("lane device {index}")))
        }
        _ => Ok(()),
    }
}

/// C and C', under a free name. C' is up already.
fn create_veth(netlink: &mut Netlink, far: &NetnsHandle) -> Result<Device> {
    const ATTEMPTS: u32 = 64;
    let mut attempt = 0;
    loop {
        let random = RandomState::new().build_hasher().finish();
        let name = format!("{NAME_PREFIX}{:04x}c", random as u16);
        let mut peer = LinkMessage::default();
        peer.header.flags = LinkFlags::Up;
        peer.header.change_mask = LinkFlags::Up;
        peer.attributes =
            vec![LinkAttribute::IfName(FAR.to_owned()), LinkAttribute::NetNsFd(far.as_raw_fd())];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.clone()),
            LinkAttribute::Mtu(MTU),
            LinkAttribute::Address(hardware_address(random)),
            LinkAttribute::Group(GROUP),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        match netlink.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => return find(netlink, name),
            Err(Refusal { errno: libc::EEXIST, .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(refusal) => return Err(missing_kind(refusal, "veth device", "veth", "CONFIG_VETH")),
        }
    }
}

/// E on top of `near`, both silent, with fq, and up.
fn furnish(netlink: &mut Netlink, netns: &NetnsHandle, near: &Device) -> Result<Device> {
    let name = format!("{}e", near.name.strip_suffix('c').unwrap_or(&near.name));
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.clone()),
        LinkAttribute::Link(near.index),
        LinkAttribute::Address(hardware_address(RandomState::new().build_hasher().finish())),
        LinkAttribute::Group(GROUP),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            // Private: never to another macvlan on C, of which there is none anyway.
            LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Private)])),
        ]),
    ];
    netlink
        .request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
        .map_err(|refusal| missing_kind(refusal, "macvlan device", "macvlan", "CONFIG_MACVLAN"))?;
    let entry = find(netlink, name)?;
    fq::add(netlink, entry.index)?;
    netns.run_in(|| {
        silence_ipv6(&near.name);
        silence_ipv6(&entry.name);
        Ok(())
    })?;
    for device in [near, &entry] {
        label(netlink, device)?;
        set(netlink, device, LinkFlags::Up, Vec::new())
            .map_err(|refusal| refusal.into_error("bring up", &device.name))?;
    }
    Ok(entry)
}

/// Keeps IPv6 off a device of the calling thread's namespace: no address, no route, no router solicitation.
///
/// Where this cannot be written (a read-only `/proc/sys`), [`label`] has switched off the address at least.
fn silence_ipv6(device: &str) {
    let path = Path::new("/proc/sys/net/ipv6/conf").join(device).join("disable_ipv6");
    drop(fs::write(path, "1"));
}

/// Says whose the device is, and that it makes no IPv6 address.
fn label(netlink: &mut Netlink, device: &Device) -> Result<()> {
    let alias = || LinkAttribute::IfAlias(format!("fault lane of process {}", process::id()));
    let silent = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])]);
    let result = match set(netlink, device, LinkFlags::empty(), vec![alias(), silent]) {
        // A kernel without IPv6.
        Err(Refusal { errno: libc::EAFNOSUPPORT, .. }) => {
            set(netlink, device, LinkFlags::empty(), vec![alias()])
        }
        result => result,
    };
    result.map_err(|refusal| refusal.into_error("configure", &device.name))
}

fn set(
    netlink: &mut Netlink,
    device: &Device,
    flags: LinkFlags,
    attributes: Vec<LinkAttribute>,
) -> Result<(), Refusal> {
    let mut message = LinkMessage::default();
    message.header.index = device.index;
    message.header.flags = flags;
    message.header.change_mask = flags;
    message.attributes = attributes;
    netlink.request(RouteNetlinkMessage::SetLink(message), 0)
}

fn find(netlink: &mut Netlink, name: String) -> Result<Device> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.clone())];
    let answer = netlink
        .get(RouteNetlinkMessage::GetLink(message))
        .map_err(|refusal| refusal.into_error("find", &name))?;
    let index = answer.and_then(|answer| u32_at(&answer.payload, 4));
    match index {
        Some(index) => Ok(Device { index, name }),
        None => Err(NetError::Protocol { operation: "find", object: name, detail: "no answer".to_owned() }),
    }
}

/// A locally administered address, marked as set by somebody, which udev respects.
fn hardware_address(random: u64) -> Vec<u8> {
    let random = random.to_ne_bytes();
    vec![0x02, 0xfa, random[2], random[3], random[4], random[5]]
}

fn missing_kind(
    refusal: Refusal,
    what: &'static str,
    module: &'static str,
    config: &'static str,
) -> NetError {
    match refusal.errno {
        libc::EOPNOTSUPP => NetError::Missing {
            what,
            module,
            config,
            remedy: format!(
                "delays need it: `modprobe {module}`, or install the package with the kernel's extra modules, \
                 or use a kernel that has it"
            ),
            source: io::Error::from_raw_os_error(refusal.errno),
        },
        _ => refusal.into_error("make", format!("a {what} for the lane")),
    }
}
