//! A network namespace of our own to try things in, and the few netlink requests the probes make there.
//!
//! The namespace belongs to a thread that ends with the probe; with it go all devices, queueing disciplines
//! and filters. The machine's own interfaces are never touched.

use std::{fs::File, os::fd::AsRawFd, thread};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoData, InfoKind, InfoMacVlan, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, MacVlanFlags,
        MacVlanMode,
    },
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};

use super::bpf::{Attempt, Failure};
use crate::net::devices::open_tun;

/// Index of `lo` in every network namespace.
pub const LOOPBACK: u32 = 1;

/// Runs `work` on a thread in a network namespace that exists for nothing else.
pub fn in_private<T: Send>(work: impl FnOnce(&Netlink) -> T + Send) -> Attempt<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("fault-probe".to_owned()).spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Failure::new("making a network namespace", errno))?;
            Ok(work(&Netlink::open()?))
        });
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(Failure::io("starting a thread", &error)),
        }
    })
}

/// A route netlink socket.
pub struct Netlink(Socket);

impl Netlink {
    fn open() -> Attempt<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            std::io::Result::Ok(socket)
        };
        open().map(Self).map_err(|error| Failure::io("opening a netlink socket", &error))
    }

    fn request(&self, step: &str, message: RouteNetlinkMessage, flags: u16) -> Attempt<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.0.send(&bytes, 0).map_err(|error| Failure::io(step, &error))?;
        let (answer, _) = self.0.recv_from_full().map_err(|error| Failure::io(step, &error))?;
        // An acknowledgement is `struct nlmsgerr`: the error follows the 16 bytes of the message header.
        let code = answer
            .get(16..20)
            .and_then(|code| code.try_into().ok())
            .map(i32::from_ne_bytes)
            .ok_or_else(|| Failure::new(step, Errno::EBADMSG))?;
        if code == 0 { Ok(()) } else { Err(Failure::new(step, Errno::from_raw(-code))) }
    }

    fn add_link(&self, step: &str, attributes: Vec<LinkAttribute>) -> Attempt<()> {
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        self.request(step, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// A macvlan device over `lower`; gives its index.
    pub fn add_macvlan(&self, lower: u32) -> Attempt<u32> {
        self.add_link(
            "creating a macvlan device over a tap",
            vec![
                LinkAttribute::IfName("probe1".to_owned()),
                LinkAttribute::Link(lower),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::MacVlan),
                    LinkInfo::Data(InfoData::MacVlan(vec![
                        InfoMacVlan::Mode(MacVlanMode::Passthrough),
                        InfoMacVlan::Flags(MacVlanFlags::NoPromisc),
                    ])),
                ]),
            ],
        )?;
        index_of("probe1")
    }

    /// A VLAN device over `lower`; gives its index.
    pub fn add_vlan(&self, lower: u32) -> Attempt<u32> {
        self.add_link(
            "creating a VLAN device over a tap",
            vec![
                LinkAttribute::IfName("probe2".to_owned()),
                LinkAttribute::Link(lower),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Vlan),
                    LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(1)])),
                ]),
            ],
        )?;
        index_of("probe2")
    }

    /// `fq` as the root queueing discipline of `interface`.
    pub fn add_fq(&self, interface: u32) -> Attempt<()> {
        self.add_qdisc("fq", interface, TcHandle::ROOT, TcHandle::UNSPEC)
    }

    /// The hook of kernels before tcx.
    pub fn add_clsact(&self, interface: u32) -> Attempt<()> {
        let handle = TcHandle { major: u16::MAX, minor: 0 };
        self.add_qdisc("clsact", interface, TcHandle::CLSACT, handle)
    }

    fn add_qdisc(&self, kind: &str, interface: u32, parent: TcHandle, handle: TcHandle) -> Attempt<()> {
        let mut message = TcMessage::with_index(interface as i32);
        message.header.parent = parent;
        message.header.handle = handle;
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        self.request(
            &format!("adding the {kind} queueing discipline"),
            RouteNetlinkMessage::NewQueueDiscipline(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// A direct-action filter on the egress side of clsact.
    pub fn add_filter(&self, interface: u32, program: i32) -> Attempt<()> {
        let mut message = TcMessage::with_index(interface as i32);
        message.header.parent = TcHandle { major: u16::MAX, minor: TcHandle::MIN_EGRESS };
        // Priority and protocol: 1, ETH_P_ALL in network order.
        message.header.info = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
        message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName("fault_probe".to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        self.request(
            "adding a BPF filter to clsact",
            RouteNetlinkMessage::NewTrafficFilter(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }
}

/// A tap device of the calling thread's namespace, for as long as this lives.
pub struct Tap {
    pub index: u32,
    _owner: File,
}

/// Makes a tap device.
pub fn add_tap() -> Attempt<Tap> {
    const DEVICE: &str = "/dev/net/tun";
    let owner = open_tun().map_err(|error| Failure::io(format!("opening {DEVICE}"), &error))?;
    // SAFETY: plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"probe0\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request reads and writes one `ifreq` and keeps no reference to it.
    let result = unsafe { libc::ioctl(owner.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    Errno::result(result).map_err(|errno| Failure::new("creating a tap device", errno))?;
    Ok(Tap { index: index_of("probe0")?, _owner: owner })
}

fn index_of(name: &str) -> Attempt<u32> {
    nix::net::if_::if_nametoindex(name)
        .map_err(|errno| Failure::new(format!("looking up the interface {name}"), errno))
}
