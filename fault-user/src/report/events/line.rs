//! One event as one JSON object.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use fault_common::{
    event::{Action, BioEvent, Event, FileEvent, PacketEvent},
    limits::EVENT_PATH_BYTES,
    rule::{
        Layer,
        block::{manner, op},
        net::Direction,
    },
};
use serde::Serialize;

use super::{
    Clock,
    names::{Names, comm, numbers},
};
use crate::spec::{FileErrno, FileOp};

/// An injection. What is not known is absent.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    time: String,
    monotonic_ns: u64,
    /// The fault that decided: the one that dropped or failed the operation, else the first that delayed it.
    pub(super) rule: Option<u32>,
    /// All faults that hit.
    rules: Vec<u32>,
    layer: &'static str,
    action: &'static str,
    delay_ns: u64,
    bytes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_id: Option<u64>,
    #[serde(flatten)]
    hit: Hit,
}

/// What was hit.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Hit {
    Packet {
        direction: &'static str,
        protocol: &'static str,
        /// `ADDRESS:PORT`, or `ADDRESS` where the protocol has no ports.
        local: String,
        remote: String,
        ifindex: u32,
    },
    Bio {
        device: String,
        ops: Vec<&'static str>,
        /// First 512-byte sector, relative to the device.
        sector: u64,
        /// 512-byte sectors.
        sectors: u32,
    },
    File {
        ops: Vec<&'static str>,
        /// Of one that fails.
        #[serde(skip_serializing_if = "Option::is_none")]
        errno: Option<String>,
        /// `major:minor` of the file system.
        device: String,
        /// Where it is mounted here, and on from there.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// From the root of the file system.
        #[serde(skip_serializing_if = "Option::is_none")]
        inner_path: Option<String>,
        /// The end of that, of a path that is too long for an event.
        #[serde(skip_serializing_if = "Option::is_none")]
        path_end: Option<String>,
    },
    Unknown {},
}

impl Line {
    pub(super) fn new(
        (event, file): (&Event, Option<&FileEvent>),
        clock: Clock,
        rule_of: &dyn Fn(u32, u32) -> Option<u32>,
        names: &mut dyn Names,
    ) -> Self {
        let slots = (0..u64::BITS).filter(|slot| event.hits >> slot & 1 != 0);
        let rules: Vec<u32> = slots.filter_map(|slot| rule_of(event.generation, slot)).collect();
        // A verb that ends the matter is the last one to be looked at.
        let rule = if event.action == Action::Delay as u32 { rules.first() } else { rules.last() }.copied();
        let known = |number: u32| (number != 0).then_some(number);
        let (layer, hit) = match event.layer {
            layer if layer == Layer::Net as u32 => ("net", packet(&event.packet)),
            layer if layer == Layer::Disk as u32 => ("disk", bio(&event.bio, event.bytes, names)),
            layer if layer == Layer::File as u32 => {
                ("file", file.map_or(Hit::Unknown {}, |file| on_file(file, names)))
            }
            _ => ("unknown", Hit::Unknown {}),
        };
        Self {
            time: clock.text(event.time_ns),
            monotonic_ns: event.time_ns,
            rule,
            rules,
            layer,
            action: action(event.action),
            delay_ns: event.delay_ns,
            bytes: event.bytes,
            pid: known(event.tgid),
            tid: known(event.pid),
            comm: comm(&event.comm).or_else(|| known(event.tgid).and_then(|pid| names.process(pid))),
            cgroup: if event.cgroup == 0 { None } else { names.cgroup(event.cgroup) },
            cgroup_id: (event.cgroup != 0).then_some(event.cgroup),
            hit,
        }
    }
}

fn action(number: u32) -> &'static str {
    Action::ALL.into_iter().find(|action| *action as u32 == number).map_or("unknown", Action::name)
}

fn packet(packet: &PacketEvent) -> Hit {
    let protocol = match packet.protocol as i32 {
        libc::IPPROTO_TCP => "tcp",
        libc::IPPROTO_UDP => "udp",
        libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6 => "icmp",
        _ => "other",
    };
    let direction = if packet.direction == Direction::In as u32 { "in" } else { "out" };
    let has_ports = matches!(protocol, "tcp" | "udp");
    let [local, remote] = [(packet.local, packet.local_port), (packet.remote, packet.remote_port)]
        .map(|(address, port)| endpoint(address, has_ports.then_some(port)));
    Hit::Packet { direction, protocol, local, remote, ifindex: packet.ifindex }
}

/// IPv4 is mapped into IPv6 in the kernel's maps, and shown as itself.
fn endpoint(address: [u8; 16], port: Option<u16>) -> String {
    let address = Ipv6Addr::from(address);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    port.map_or_else(|| address.to_string(), |port| SocketAddr::new(address, port).to_string())
}

fn bio(bio: &BioEvent, bytes: u32, names: &mut dyn Names) -> Hit {
    const OPS: [(u32, &str); 8] = [
        (op::READ, "read"),
        (op::WRITE, "write"),
        (op::FLUSH, "flush"),
        (op::DISCARD, "discard"),
        (op::OTHER, "other"),
        (manner::FUA, "fua"),
        (manner::META, "meta"),
        (manner::SYNC, "sync"),
    ];
    let ops = OPS.iter().filter(|(bit, _)| bio.ops & bit != 0).map(|(_, word)| *word).collect();
    Hit::Bio { device: names.device(bio.device), ops, sector: bio.sector, sectors: bytes / 512 }
}

fn on_file(file: &FileEvent, names: &mut dyn Names) -> Hit {
    let ops = FileOp::ALL.into_iter().filter(|op| file.ops & op.bit() != 0).map(FileOp::word).collect();
    let name = |number| {
        FileErrno::numbered(number).map_or_else(|| number.to_string(), |errno| errno.name().to_owned())
    };
    let errno = (file.errno != 0).then(|| name(file.errno));
    let length = file.length as usize;
    let bytes = &file.path[..length.min(EVENT_PATH_BYTES)];
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let (mut path, mut inner_path, mut path_end) = (None, None, None);
    if length > EVENT_PATH_BYTES {
        // The last name may be cut as well: what is behind the last slash is not whole.
        let whole = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        path_end = (whole > 0).then(|| text(&forwards(&bytes[..whole])));
    } else if length > 0 {
        let inner = forwards(bytes);
        path = names.path(file.device, &inner).map(|path| text(&path));
        inner_path = Some(text(&inner));
    }
    Hit::File { ops, errno, device: numbers(file.device), path, inner_path, path_end }
}

/// `c/b/a/`, as the kernel's way goes, to `/a/b/c`.
fn forwards(path: &[u8]) -> Vec<u8> {
    let names = path.strip_suffix(b"/").unwrap_or(path).rsplit(|byte| *byte == b'/');
    names.flat_map(|name| [b"/", name].concat()).collect()
}
