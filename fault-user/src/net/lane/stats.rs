//! The lane's own counters: the proof that it loses nothing.

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::LinkMessage,
    tc::{TcHandle, TcMessage},
};
use serde::Serialize;

use super::super::{
    error::{NetError, Result},
    interfaces::Interface,
    netlink::{Netlink, attribute, u32_at, u64_at},
};

/// `struct tcmsg`.
const TC_HEADER: usize = 20;
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_QUEUE: u16 = 3;
const TCA_STATS_APP: u16 = 4;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
const IFLA_STATS64: u16 = 23;

/// Counters of one lane since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct LaneStats {
    /// Packets that left fq (super-packets count once per wire segment).
    pub sent_packets: u64,
    /// Bytes that left fq.
    pub sent_bytes: u64,
    /// Packets waiting now.
    pub waiting_packets: u64,
    /// Packets fq dropped, for whatever reason.
    pub fq_drops: u64,
    /// Of these: a flow was too long.
    pub fq_flow_limit: u64,
    /// Of these: no memory.
    pub fq_allocation_errors: u64,
    /// Packets whose departure lay beyond the horizon: dropped on kernels below 5.8, late on none.
    pub fq_horizon_drops: u64,
    /// Packets whose departure lay beyond the horizon and was moved to it.
    pub fq_horizon_caps: u64,
    /// Packets E could not hand to C (E's `tx_dropped`).
    pub entry_drops: u64,
    /// Packets that missed the exit and went on into C, whence nothing returns.
    pub missed_exit: u64,
}

impl LaneStats {
    /// Packets lost by the lane itself.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.fq_drops + self.entry_drops + self.missed_exit
    }
}

/// Reads the counters of the lane with these two devices.
pub(super) fn read(netlink: &mut Netlink, entry: &Interface, base: &Interface) -> Result<LaneStats> {
    let fq = Qdisc::read(netlink, entry)?;
    // Behind the exit lies C's own queueing discipline, whichever is the system's default.
    let behind = Qdisc::read(netlink, base)?;
    Ok(LaneStats {
        sent_packets: fq.packets,
        sent_bytes: fq.bytes,
        waiting_packets: fq.waiting,
        fq_drops: fq.drops,
        // struct tc_fq_qd_stats; it grows at its end.
        fq_flow_limit: u64_at(&fq.own, 32).unwrap_or(0),
        fq_allocation_errors: u64_at(&fq.own, 48).unwrap_or(0),
        fq_horizon_drops: u64_at(&fq.own, 88).unwrap_or(0),
        fq_horizon_caps: u64_at(&fq.own, 96).unwrap_or(0),
        entry_drops: dropped_by(netlink, entry)?,
        missed_exit: behind.packets + behind.waiting + behind.drops,
    })
}

/// Counters of a root queueing discipline.
struct Qdisc {
    packets: u64,
    bytes: u64,
    waiting: u64,
    drops: u64,
    /// Those of its kind alone.
    own: Vec<u8>,
}

impl Qdisc {
    fn read(netlink: &mut Netlink, device: &Interface) -> Result<Self> {
        const OPERATION: &str = "read the queueing discipline of";
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(device.index as i32));
        let answers =
            netlink.dump(&request).map_err(|refusal| refusal.into_error(OPERATION, &device.name))?;
        let counters = answers.iter().find_map(|answer| {
            let root = u32_at(&answer.payload, 4)? == device.index
                && u32_at(&answer.payload, 12)? == u32::from(TcHandle::ROOT);
            attribute(answer.payload.get(TC_HEADER..)?, TCA_STATS2).filter(|_| root)
        });
        counters.and_then(|counters| Self::parse(&counters)).ok_or_else(|| NetError::Protocol {
            operation: OPERATION,
            object: device.name.clone(),
            detail: "its counters are not there".to_owned(),
        })
    }

    fn parse(counters: &[u8]) -> Option<Self> {
        // struct gnet_stats_basic: bytes (u64), packets (u32).
        let basic = attribute(counters, TCA_STATS_BASIC)?;
        // struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits (u32 each).
        let queue = attribute(counters, TCA_STATS_QUEUE)?;
        Some(Self {
            packets: u32_at(&basic, 8)?.into(),
            bytes: u64_at(&basic, 0)?,
            waiting: u32_at(&queue, 0)?.into(),
            drops: u32_at(&queue, 8)?.into(),
            own: attribute(counters, TCA_STATS_APP).unwrap_or_default(),
        })
    }
}

/// Packets a device could not send.
fn dropped_by(netlink: &mut Netlink, device: &Interface) -> Result<u64> {
    const OPERATION: &str = "read the counters of";
    let mut request = LinkMessage::default();
    request.header.index = device.index;
    let answer = netlink
        .get(RouteNetlinkMessage::GetLink(request))
        .map_err(|refusal| refusal.into_error(OPERATION, &device.name))?;
    answer
        .and_then(|answer| attribute(answer.payload.get(LINK_HEADER..)?, IFLA_STATS64))
        // struct rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped,
        // tx_dropped, …
        .and_then(|counters| u64_at(&counters, 56))
        .ok_or_else(|| NetError::Protocol {
            operation: OPERATION,
            object: device.name.clone(),
            detail: "they are not there".to_owned(),
        })
}
