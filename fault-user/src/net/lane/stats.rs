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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
    /// Packets C could not hand back (C's `tx_dropped`).
    pub near_drops: u64,
    /// Packets that missed the exit and went to the far end (C's `tx_packets`).
    pub near_leaks: u64,
}

impl LaneStats {
    /// Packets lost by the lane itself.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.fq_drops + self.entry_drops + self.near_drops + self.near_leaks
    }
}

/// Reads the counters of the lane with these two devices.
pub(super) fn read(netlink: &mut Netlink, entry: &Interface, near: &Interface) -> Result<LaneStats> {
    let mut stats = LaneStats::default();
    read_fq(netlink, entry.index, &mut stats)?;
    let link = link_counters(netlink, entry)?;
    stats.entry_drops = link.tx_dropped;
    let link = link_counters(netlink, near)?;
    stats.near_drops = link.tx_dropped;
    stats.near_leaks = link.tx_packets;
    Ok(stats)
}

fn read_fq(netlink: &mut Netlink, device: u32, stats: &mut LaneStats) -> Result<()> {
    let answers = netlink
        .dump(&RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(device as i32)))
        .map_err(|refusal| refusal.into_error("read", "the lane's fq"))?;
    let fq = answers.iter().find_map(|answer| {
        let root = u32_at(&answer.payload, 4)? == device
            && u32_at(&answer.payload, 12)? == u32::from(TcHandle::ROOT);
        attribute(answer.payload.get(TC_HEADER..)?, TCA_STATS2).filter(|_| root)
    });
    let missing = || NetError::Protocol {
        operation: "read",
        object: "the lane's fq".to_owned(),
        detail: "its counters are not there".to_owned(),
    };
    let fq = fq.ok_or_else(missing)?;
    let queue = attribute(&fq, TCA_STATS_QUEUE).ok_or_else(missing)?;
    // struct gnet_stats_queue: qlen, backlog, drops, requeues, overlimits (u32 each).
    stats.waiting_packets = u32_at(&queue, 0).ok_or_else(missing)?.into();
    stats.fq_drops = u32_at(&queue, 8).ok_or_else(missing)?.into();
    // struct gnet_stats_basic: bytes (u64), packets (u32).
    let basic = attribute(&fq, TCA_STATS_BASIC).ok_or_else(missing)?;
    stats.sent_bytes = u64_at(&basic, 0).ok_or_else(missing)?;
    stats.sent_packets = u32_at(&basic, 8).ok_or_else(missing)?.into();
    // struct tc_fq_qd_stats; it grows at its end.
    let own = attribute(&fq, TCA_STATS_APP).ok_or_else(missing)?;
    stats.fq_flow_limit = u64_at(&own, 32).unwrap_or(0);
    stats.fq_allocation_errors = u64_at(&own, 48).unwrap_or(0);
    stats.fq_horizon_drops = u64_at(&own, 88).unwrap_or(0);
    stats.fq_horizon_caps = u64_at(&own, 96).unwrap_or(0);
    Ok(())
}

struct LinkCounters {
    tx_packets: u64,
    tx_dropped: u64,
}

fn link_counters(netlink: &mut Netlink, device: &Interface) -> Result<LinkCounters> {
    let mut request = LinkMessage::default();
    request.header.index = device.index;
    let answer = netlink
        .get(RouteNetlinkMessage::GetLink(request))
        .map_err(|refusal| refusal.into_error("read the counters of", &device.name))?;
    let counters = answer.and_then(|answer| attribute(answer.payload.get(LINK_HEADER..)?, IFLA_STATS64));
    // struct rtnl_link_stats64: rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped,
    // tx_dropped, …
    counters
        .and_then(|counters| {
            Some(LinkCounters { tx_packets: u64_at(&counters, 8)?, tx_dropped: u64_at(&counters, 56)? })
        })
        .ok_or_else(|| NetError::Protocol {
            operation: "read the counters of",
            object: device.name.clone(),
            detail: "they are not there".to_owned(),
        })
}
