//! Devices of our own in the namespace of a target: a tap, which *is* a file descriptor and dies with it, and one on top.
//!
//! Everything is set while the devices are down, so that they come up silent and with their queueing disciplines in place.

mod tap;

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
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoMacVlan, InfoVlan, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage, MacVlanFlags, MacVlanMode,
    },
};

pub use self::tap::open as open_tun;
use super::{
    error::{NetError, Result},
    interfaces::{Interface, LinkLayer},
    netlink::{Netlink, Refusal, u32_at},
    netns::NetnsHandle,
};

/// Group of our devices: `ip link show group 64023`.
pub const GROUP: u32 = 0xfa17;
/// What their names start with; four hexadecimal digits and a letter for the part it plays follow.
const NAME_PREFIX: &str = "flt";

/// Whether an interface of this name and kind is one of ours.
#[must_use]
pub fn are_ours(name: &str, kind: Option<&str>) -> bool {
    let Some(rest) = name.strip_prefix(NAME_PREFIX) else { return false };
    rest.len() == 5
        && rest.ends_with(['e', 'c', 'k', 'l'])
        && rest[..4].bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && matches!(kind, Some("tun" | "macvlan" | "vlan"))
}

/// What a pair of devices is for. Packets enter the first device and meet a program on their way out of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// They wait: a macvlan, on which the caller puts a queueing discipline.
    Lane,
    /// Super-packets are cut into the packets of the wire: a macvlan that takes one segment at a time.
    Cut,
    /// They are cut, and their checksums computed: a VLAN device, which cannot do either, on a tap that cannot.
    Checksum,
}

impl Purpose {
    /// Last letters of the names of the two devices.
    const fn letters(self) -> (char, char) {
        match self {
            Self::Lane => ('e', 'c'),
            Self::Cut | Self::Checksum => ('k', 'l'),
        }
    }

    /// For messages.
    const fn need(self) -> &'static str {
        match self {
            Self::Lane => "delays need it",
            Self::Cut => "to tell the packets of the wire apart needs it",
            Self::Checksum => "`corrupt` needs it",
        }
    }
}

/// The largest a tap can have: what goes through the lane was made to fit another device.
const MTU: u32 = 65521;

/// The two devices.
#[derive(Debug)]
pub(super) struct Pair {
    pub entry: Interface,
    pub base: Interface,
    /// Closing it removes both.
    pub owner: OwnedFd,
}

#[derive(Debug)]
struct Device {
    index: u32,
    name: String,
}

impl Device {
    fn into_interface(self, kind: &str) -> Interface {
        Interface {
            index: self.index,
            name: self.name,
            kind: Some(kind.to_owned()),
            layer: LinkLayer::Ethernet,
            loopback: false,
            up: true,
        }
    }
}

/// Makes both in `netns` (behind `netlink`). While they are down, `prepare` is given the index of the first.
pub(super) fn create(
    netlink: &mut Netlink,
    netns: &NetnsHandle,
    purpose: Purpose,
    prepare: impl FnOnce(&mut Netlink, u32) -> Result<()>,
) -> Result<Pair> {
    let (owner, stem) = create_tap(netns, purpose)?;
    let (first, second) = purpose.letters();
    // From here on `owner` is all it takes to undo it.
    let base = find(netlink, format!("{stem}{second}"))?;
    let label = LinkAttribute::IfAlias(format!("fault of process {}", process::id()));
    let settings = vec![
        LinkAttribute::Address(hardware_address()),
        LinkAttribute::Mtu(MTU),
        LinkAttribute::Group(GROUP),
        label.clone(),
    ];
    configure(netlink, &base, settings)?;
    let kind = create_upper(netlink, format!("{stem}{first}"), &base, purpose)?;
    let entry = find(netlink, format!("{stem}{first}"))?;
    configure(netlink, &entry, vec![label])?;
    prepare(netlink, entry.index)?;
    netns.run_in(|| {
        silence_ipv6(&base.name);
        silence_ipv6(&entry.name);
        Ok(())
    })?;
    for device in [&base, &entry] {
        set(netlink, device, LinkFlags::Up, Vec::new())
            .map_err(|refusal| refusal.into_error("bring up", &device.name))?;
    }
    Ok(Pair { entry: entry.into_interface(kind), base: base.into_interface("tun"), owner })
}

/// Removes the device with this index, and what is on top of it. That it is gone is not an error.
pub(super) fn delete(netlink: &mut Netlink, index: u32) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    match netlink.request(RouteNetlinkMessage::DelLink(message), 0) {
        Err(refusal) if refusal.errno != libc::ENODEV => {
            Err(refusal.into_error("remove", format!("device {index} of ours")))
        }
        _ => Ok(()),
    }
}

/// The tap, under a free name; what both names begin with.
fn create_tap(netns: &NetnsHandle, purpose: Purpose) -> Result<(OwnedFd, String)> {
    const ATTEMPTS: u32 = 64;
    let (_, letter) = purpose.letters();
    for _ in 0..ATTEMPTS {
        let stem = format!("{NAME_PREFIX}{:04x}", random() as u16);
        if let Some(owner) = tap::create(netns, &format!("{stem}{letter}"), purpose)? {
            return Ok((owner, stem));
        }
    }
    Err(NetError::Occupied {
        operation: "make",
        object: format!("a tap device in {netns}"),
        occupant: format!("an interface for every name tried ({NAME_PREFIX}????{letter})"),
    })
}

/// The device on top of the tap; its kind.
fn create_upper(
    netlink: &mut Netlink,
    name: String,
    base: &Device,
    purpose: Purpose,
) -> Result<&'static str> {
    let (kind, data, config, module) = match purpose {
        Purpose::Lane | Purpose::Cut => (
            InfoKind::MacVlan,
            // Alone on the tap and with its hardware address: any other mode would make that promiscuous,
            // which the kernel logs and audits.
            InfoData::MacVlan(vec![
                InfoMacVlan::Mode(MacVlanMode::Passthrough),
                InfoMacVlan::Flags(MacVlanFlags::NoPromisc),
            ]),
            "CONFIG_MACVLAN",
            "macvlan",
        ),
        Purpose::Checksum => {
            (InfoKind::Vlan, InfoData::Vlan(vec![InfoVlan::Id(1)]), "CONFIG_VLAN_8021Q", "8021q")
        }
    };
    let what = match purpose {
        Purpose::Lane | Purpose::Cut => "macvlan",
        Purpose::Checksum => "vlan",
    };
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name),
        LinkAttribute::Link(base.index),
        LinkAttribute::Group(GROUP),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
    ];
    if purpose == Purpose::Cut {
        // More segments than a device takes at once are cut before it (`gso_features_check`, net/core/dev.c).
        message.attributes.push(LinkAttribute::GsoMaxSegs(1));
    }
    match netlink.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => Ok(what),
        Err(refusal) if refusal.errno == libc::EOPNOTSUPP => Err(NetError::Missing {
            what: match purpose {
                Purpose::Lane | Purpose::Cut => "macvlan device",
                Purpose::Checksum => "VLAN device",
            },
            module,
            config,
            remedy: format!(
                "{}: `modprobe {module}`, or install the package with the kernel's extra modules, or use a kernel \
                 that has it",
                purpose.need()
            ),
            source: io::Error::from_raw_os_error(refusal.errno),
        }),
        Err(refusal) => Err(refusal.into_error("make", format!("a {what} device"))),
    }
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

#[cfg(test)]
mod tests {
    use super::are_ours;

    #[test]
    fn only_generated_names_are_ours() {
        assert!(are_ours("flt00ace", Some("macvlan")));
        assert!(are_ours("fltbeefc", Some("tun")));
        assert!(are_ours("fltbeefk", Some("vlan")));
        for name in ["flt0", "flt00acx", "fltBEEFc", "flt000000c", "eth0", "flt", "fltée"] {
            assert!(!are_ours(name, Some("tun")), "{name}");
        }
        assert!(!are_ours("fltbeefc", Some("dummy")) && !are_ours("fltbeefc", None));
    }
}
