//! Direct-action filters on clsact, for kernels without tcx (below 6.6).
//!
//! Nothing here is owned by a descriptor, so every filter carries a name of ours, is removed only when that name
//! is still there, and a clsact that we had to create is removed with the last filter of ours in it, unless
//! somebody else uses it by then. An existing clsact and other people's filters are never touched.

use fault_common::rule::net::Direction;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    os::fd::AsRawFd,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{
    attach::Request,
    error::{NetError, Result},
    netlink::{Netlink, Refusal, attribute, string, u32_at},
};

/// `struct tcmsg`.
const TC_HEADER: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
/// Prefix of the names of our filters; the bit of the session follows.
const NAME: &str = "fault/";
/// Our filters have a priority of their own, and this handle within it.
const HANDLE: u32 = 1;

/// Held from the look at what is there until our filter is: who finds a clsact without filters must know that it is not of
/// another thread that is about to use it.
static ADDING: Mutex<()> = Mutex::new(());
/// How often, and how far apart, a clsact without filters is looked at again: another process may be about to use it.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// A filter of ours, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClsactFilter {
    /// Inode number of the network namespace.
    pub netns: u64,
    /// Index of the interface.
    pub interface: u32,
    /// `TC_H_CLSACT` with `TC_H_MIN_INGRESS` or `TC_H_MIN_EGRESS`.
    pub parent: u32,
    /// Priority: filters with lower ones come first.
    pub priority: u16,
    /// Handle within the priority.
    pub handle: u32,
    /// Bit of the session it belongs to.
    pub session: u32,
    /// Whether the clsact itself is ours, not somebody's we found.
    pub created_qdisc: bool,
}

/// A filter on an interface, ours or not.
struct Found {
    parent: u32,
    priority: u16,
    handle: u32,
    /// Session whose filter this is; none when it is somebody else's.
    session: Option<u32>,
}

const fn parent(direction: Direction) -> u32 {
    let minor = match direction {
        Direction::Out => TcHandle::MIN_EGRESS,
        Direction::In => TcHandle::MIN_INGRESS,
    };
    (TcHandle::CLSACT.major as u32) << 16 | minor as u32
}

fn message(interface: u32, handle: u32, parent: u32, info: u32, attributes: Vec<TcAttribute>) -> TcMessage {
    let mut message = TcMessage::with_index(interface as i32);
    message.header.handle = handle.into();
    message.header.parent = parent.into();
    message.header.info = info;
    message.attributes = attributes;
    message
}

/// Priority and protocol (all) as `tcm_info` has them.
fn info(priority: u16) -> u32 {
    u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}

fn qdisc(interface: u32) -> TcMessage {
    let handle = u32::from(TcHandle::CLSACT.major) << 16;
    let kind = vec![TcAttribute::Kind("clsact".to_owned())];
    message(interface, handle, TcHandle::CLSACT.into(), 0, kind)
}

/// Adds the filter of `session` that `request` describes. `announce` is told before anything is made.
pub(super) fn add<E: From<NetError>>(
    netlink: &mut Netlink,
    netns: u64,
    session: u32,
    request: &Request<'_>,
    announce: &mut dyn FnMut(&ClsactFilter) -> Result<(), E>,
) -> Result<ClsactFilter, E> {
    let interface = request.interface.index;
    let name = &request.interface.name;
    // It guards no data.
    let _alone = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
    let there = kind_of_qdisc(netlink, interface)?;
    let created_qdisc = match there.as_deref() {
        None => true,
        // It occupies the same place, and would take our filter for the way out as one for the way in.
        Some("ingress") if request.direction == Direction::Out => {
            return Err(E::from(NetError::Occupied {
                operation: "add clsact to",
                object: name.to_owned(),
                occupant: "an ingress queueing discipline".to_owned(),
            }));
        }
        // If only sessions of ours use it, one of them created it, and the last of them must remove it.
        Some(_) => {
            let users = users(netlink, interface)?;
            !users.is_empty() && users.iter().all(|user| user.session.is_some())
        }
    };
    let mut filter = ClsactFilter {
        netns,
        interface,
        parent: parent(request.direction),
        priority: 0,
        handle: HANDLE,
        session,
        created_qdisc,
    };
    loop {
        filter.priority = free_priority(netlink, &filter).map_err(|refusal| filter_refused(refusal, name))?;
        announce(&filter)?;
        if there.is_none() {
            add_qdisc(netlink, interface, name)?;
        }
        match insert(netlink, &filter, request) {
            Ok(()) => return Ok(filter),
            // Somebody took the priority since we looked.
            Err(Refusal { errno: libc::EEXIST, .. }) => {}
            Err(refusal) => {
                if there.is_none() {
                    drop(remove_unused_qdisc(netlink, interface));
                }
                return Err(E::from(filter_refused(refusal, name)));
            }
        }
    }
}

/// Who uses the clsact of `interface`; nobody, if nobody does for a while.
fn users(netlink: &mut Netlink, interface: u32) -> Result<Vec<Found>> {
    for _ in 0..LOOKS {
        let users = list(netlink, interface)?;
        if !users.is_empty() {
            return Ok(users);
        }
        thread::sleep(BETWEEN_LOOKS);
    }
    list(netlink, interface)
}

fn filter_refused(refusal: Refusal, interface: &str) -> NetError {
    match refusal.errno {
        libc::ENOENT | libc::EOPNOTSUPP => NetError::Missing {
            what: "bpf filters",
            module: "cls_bpf",
            config: "CONFIG_NET_CLS_BPF",
            remedy: "`modprobe cls_bpf`, or install the package with the kernel's extra modules".to_owned(),
            source: io::Error::from_raw_os_error(refusal.errno),
        },
        _ => refusal.into_error("add a bpf filter to", interface),
    }
}

/// Makes the clsact. That it is there is fine.
fn add_qdisc(netlink: &mut Netlink, interface: u32, name: &str) -> Result<()> {
    let request = RouteNetlinkMessage::NewQueueDiscipline(qdisc(interface));
    match netlink.request(request, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) | Err(Refusal { errno: libc::EEXIST, .. }) => Ok(()),
        Err(Refusal { errno: errno @ (libc::ENOENT | libc::EOPNOTSUPP), .. }) => Err(NetError::Missing {
            what: "place to hook packets (neither tcx nor clsact)",
            module: "sch_ingress",
            config: "CONFIG_NET_SCH_INGRESS",
            remedy: "`modprobe sch_ingress`, or use Linux 6.6 or later".to_owned(),
            source: io::Error::from_raw_os_error(errno),
        }),
        Err(refusal) => Err(refusal.into_error("add clsact to", name)),
    }
}

fn kind_of_qdisc(netlink: &mut Netlink, interface: u32) -> Result<Option<String>> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(interface as i32));
    let answers = netlink.dump(&request).map_err(|refusal| {
        refusal.into_error("list", format!("the queueing disciplines of interface {interface}"))
    })?;
    Ok(answers.iter().find_map(|answer| {
        let ours = u32_at(&answer.payload, 4)? == interface;
        let clsact = u32_at(&answer.payload, 12)? == u32::from(TcHandle::CLSACT);
        attribute(answer.payload.get(TC_HEADER..)?, TCA_KIND)
            .filter(|_| ours && clsact)
            .map(|kind| string(&kind))
    }))
}

/// The lowest priority number nobody uses, so that we come as early as we can.
fn free_priority(netlink: &mut Netlink, filter: &ClsactFilter) -> Result<u16, Refusal> {
    let used = match list_parent(netlink, filter.interface, filter.parent) {
        // No clsact yet.
        Err(refusal) if is_gone(&refusal) => Vec::new(),
        used => used?,
    };
    (1..u16::MAX)
        .find(|priority| used.iter().all(|found| found.priority != *priority))
        .ok_or(Refusal { errno: libc::ENOSPC, message: None })
}

fn insert(netlink: &mut Netlink, filter: &ClsactFilter, request: &Request<'_>) -> Result<(), Refusal> {
    let attributes = vec![
        TcAttribute::Kind("bpf".to_owned()),
        TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(request.program.as_raw_fd() as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(format!("{NAME}{}", filter.session))),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]),
    ];
    let message = message(filter.interface, filter.handle, filter.parent, info(filter.priority), attributes);
    netlink.request(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE | NLM_F_EXCL)
}

impl ClsactFilter {
    /// Removes the filter if it is (still) ours, and then the clsact if it was ours and nobody else uses it.
    pub(super) fn remove(&self, netlink: &mut Netlink) -> Result<()> {
        let wrong = |refusal: Refusal| {
            refusal.into_error("remove a bpf filter from", format!("interface {}", self.interface))
        };
        let there = match list_parent(netlink, self.interface, self.parent) {
            Ok(there) => there,
            Err(refusal) if is_gone(&refusal) => return Ok(()),
            Err(refusal) => return Err(wrong(refusal)),
        };
        let same = |found: &Found| {
            (found.priority, found.handle, found.session) == (self.priority, self.handle, Some(self.session))
        };
        if there.iter().any(same) {
            let kind = vec![TcAttribute::Kind("bpf".to_owned())];
            let message = message(self.interface, self.handle, self.parent, info(self.priority), kind);
            match netlink.request(RouteNetlinkMessage::DelTrafficFilter(message), 0) {
                Err(refusal) if !is_gone(&refusal) => return Err(wrong(refusal)),
                _ => {}
            }
        }
        if self.created_qdisc { remove_unused_qdisc(netlink, self.interface) } else { Ok(()) }
    }
}

fn remove_unused_qdisc(netlink: &mut Netlink, interface: u32) -> Result<()> {
    if !list(netlink, interface)?.is_empty()
        || kind_of_qdisc(netlink, interface)?.as_deref() != Some("clsact")
    {
        return Ok(());
    }
    match netlink.request(RouteNetlinkMessage::DelQueueDiscipline(qdisc(interface)), 0) {
        Err(refusal) if !is_gone(&refusal) => {
            Err(refusal.into_error("remove clsact from", format!("interface {interface}")))
        }
        _ => Ok(()),
    }
}

/// Filters of ours on `interface`, whichever session's.
pub(super) fn find(netlink: &mut Netlink, netns: u64, interface: u32) -> Result<Vec<ClsactFilter>> {
    let all = list(netlink, interface)?;
    let only_ours = all.iter().all(|found| found.session.is_some());
    let ours = all.into_iter().filter_map(|found| {
        Some(ClsactFilter {
            netns,
            interface,
            parent: found.parent,
            priority: found.priority,
            handle: found.handle,
            session: found.session?,
            created_qdisc: only_ours,
        })
    });
    Ok(ours.collect())
}

/// Filters on both ways of `interface`.
fn list(netlink: &mut Netlink, interface: u32) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for direction in [Direction::Out, Direction::In] {
        match list_parent(netlink, interface, parent(direction)) {
            // Besides its filters the kernel lists each priority itself, with handle 0.
            Ok(found) => all.extend(found.into_iter().filter(|found| found.handle != 0)),
            Err(refusal) if is_gone(&refusal) => {}
            Err(refusal) => {
                return Err(refusal.into_error("list", format!("the filters of interface {interface}")));
            }
        }
    }
    Ok(all)
}

/// Filters and priorities of one way.
fn list_parent(netlink: &mut Netlink, interface: u32, parent: u32) -> Result<Vec<Found>, Refusal> {
    let request = RouteNetlinkMessage::GetTrafficFilter(message(interface, 0, parent, 0, Vec::new()));
    let answers = netlink.dump(&request)?;
    let found = answers.iter().filter_map(|answer| {
        let attributes = answer.payload.get(TC_HEADER..)?;
        let bpf = attribute(attributes, TCA_KIND).is_some_and(|kind| string(&kind) == "bpf");
        let name = attribute(attributes, TCA_OPTIONS)
            .and_then(|options| attribute(&options, TCA_BPF_NAME))
            .map(|name| string(&name));
        let handle = u32_at(&answer.payload, 8)?;
        let session = name.filter(|_| bpf).and_then(|name| name.strip_prefix(NAME)?.parse().ok());
        let priority = (u32_at(&answer.payload, 16)? >> 16) as u16;
        Some(Found { parent, priority, handle, session })
    });
    Ok(found.collect())
}

/// The filter, its clsact or the interface is not there (any more).
const fn is_gone(refusal: &Refusal) -> bool {
    matches!(refusal.errno, libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::EINVAL)
}
