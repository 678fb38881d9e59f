//! Making and removing the lane's devices.
//!
//! Everything is set while the devices are down, so that they come up silent and with fq in place.

use std::{
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::fd::OwnedFd,
    path::Path,
    process,
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage, MacVlanFlags, MacVlanMode,
    },
};

use super::super::{
    error::{NetError, Result},
    netlink::{Netlink, Refusal, u32_at},
    netns::NetnsHandle,
};
use super::{GROUP, NAME_PREFIX, fq, tap};

/// The largest a tap can have: what goes through the lane was made to fit another device.
const MTU: u32 = 65521;

/// A device as the rest of the lane needs it.
#[derive(Debug)]
pub(super) struct Device {
    pub index: u32,
    pub name: String,
}

/// The two devices.
#[derive(Debug)]
pub(super) struct Pair {
    pub entry: Device,
    pub base: Device,
    /// Closing it removes both.
    pub owner: OwnedFd,
}

/// Makes E and C in `netns` (behind `netlink`).
pub(super) fn create(netlink: &mut Netlink, netns: &NetnsHandle) -> Result<Pair> {
    let (owner, stem) = create_tap(netns)?;
    // From here on `owner` is all it takes to undo it.
    let base = find(netlink, format!("{stem}c"))?;
    let label = LinkAttribute::IfAlias(format!("fault lane of process {}", process::id()));
    let settings = vec![
        LinkAttribute::Address(hardware_address()),
        LinkAttribute::Mtu(MTU),
        LinkAttribute::Group(GROUP),
        label.clone(),
    ];
    configure(netlink, &base, settings)?;
    create_macvlan(netlink, format!("{stem}e"), &base)?;
    let entry = find(netlink, format!("{stem}e"))?;
    configure(netlink, &entry, vec![label])?;
    fq::add(netlink, entry.index)?;
    netns.run_in(|| {
        silence_ipv6(&base.name);
        silence_ipv6(&entry.name);
        Ok(())
    })?;
    for device in [&base, &entry] {
        set(netlink, device, LinkFlags::Up, Vec::new())
            .map_err(|refusal| refusal.into_error("bring up", &device.name))?;
    }
    Ok(Pair { entry, base, owner })
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

/// C, under a free name; what both names begin with.
fn create_tap(netns: &NetnsHandle) -> Result<(OwnedFd, String)> {
    const ATTEMPTS: u32 = 64;
    for _ in 0..ATTEMPTS {
        let stem = format!("{NAME_PREFIX}{:04x}", random() as u16);
        if let Some(owner) = tap::create(netns, &format!("{stem}c"))? {
            return Ok((owner, stem));
        }
    }
    Err(NetError::Occupied {
        operation: "make",
        object: format!("a tap device in {netns}"),
        occupant: format!("an interface for every name tried ({NAME_PREFIX}????c)"),
    })
}

fn create_macvlan(netlink: &mut Netlink, name: String, base: &Device) -> Result<()> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name),
        LinkAttribute::Link(base.index),
        LinkAttribute::Group(GROUP),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::MacVlan),
            // Alone on C and with its hardware address: any other mode would put C into promiscuous mode,
            // which the kernel logs and audits.
            LinkInfo::Data(InfoData::MacVlan(vec![
                InfoMacVlan::Mode(MacVlanMode::Passthrough),
                InfoMacVlan::Flags(MacVlanFlags::NoPromisc),
            ])),
        ]),
    ];
    netlink.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).map_err(|refusal| {
        match refusal.errno {
            libc::EOPNOTSUPP => NetError::Missing {
                what: "macvlan device",
                module: "macvlan",
                config: "CONFIG_MACVLAN",
                remedy: "delays need it: `modprobe macvlan`, or install the package with the kernel's extra \
                         modules, or use a kernel that has it"
                    .to_owned(),
                source: io::Error::from_raw_os_error(refusal.errno),
            },
            _ => refusal.into_error("make", "a macvlan device for the lane"),
        }
    })
}

/// Keeps IPv6 off a device of the calling thread's namespace: no address, no route, no router solicitation.
///
/// Where this cannot be written (a read-only `/proc/sys`), [`configure`] has switched off the address at least.
fn silence_ipv6(device: &str) {
    let path = Path::new("/proc/sys/net/ipv6/conf").join(device).join("disable_ipv6");
    drop(fs::write(path, "1"));
}

/// Sets attributes of a device that is down, and that it makes no IPv6 address.
fn configure(netlink: &mut Netlink, device: &Device, attributes: Vec<LinkAttribute>) -> Result<()> {
    let silent = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
        In6AddrGenMode::None,
    )])]);
    let with_silence = attributes.iter().cloned().chain([silent]).collect();
    let result = match set(netlink, device, LinkFlags::empty(), with_silence) {
        // A kernel without IPv6. Attributes are checked before any is set.
        Err(Refusal { errno: libc::EAFNOSUPPORT, .. }) => {
            set(netlink, device, LinkFlags::empty(), attributes)
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

/// A locally administered address. That it was set by somebody keeps udev from setting another.
fn hardware_address() -> Vec<u8> {
    let random = random().to_ne_bytes();
    vec![0x02, 0xfa, random[0], random[1], random[2], random[3]]
}

/// Randomly keyed hashers are the standard library's source of randomness.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
