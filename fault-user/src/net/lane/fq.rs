//! The queueing discipline of the lane's entry: `fq` (Linux 3.12) with limits that are never reached.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};
use std::io;

use super::super::{
    error::{NetError, Result},
    netlink::Netlink,
};

const TCA_FQ_PLIMIT: u16 = 1;
const TCA_FQ_FLOW_PLIMIT: u16 = 2;
const TCA_FQ_QUANTUM: u16 = 3;
const TCA_FQ_INITIAL_QUANTUM: u16 = 4;
const TCA_FQ_RATE_ENABLE: u16 = 5;
const TCA_FQ_BUCKETS_LOG: u16 = 8;
const TCA_FQ_ORPHAN_MASK: u16 = 10;
const TCA_FQ_TIMER_SLACK: u16 = 13;
const TCA_FQ_HORIZON: u16 = 14;
const TCA_FQ_HORIZON_DROP: u16 = 15;

/// Packets in the lane, and of one flow: memory ends before this does (one packet takes at least 512 bytes).
const LIMIT: u32 = 100_000_000;
/// Bytes a flow may send before it is the next one's turn: one super-packet.
const QUANTUM: u32 = 1 << 16;
/// Hash buckets for the flows, as a power of two (at most 18).
const BUCKETS_LOG: u32 = 14;
/// Packets in the lane have no socket: they are told apart by the hash our hooks give them, all of it.
const ORPHAN_MASK: u32 = u32::MAX;
/// Farthest departure time, in microseconds: the whole range of the attribute (71 minutes).
const HORIZON_US: u32 = u32::MAX;

/// Makes `fq` the root of the device with this index, which must be down: no packet is ever without it.
pub(super) fn add(netlink: &mut Netlink, device: u32) -> Result<()> {
    let number = |kind, value: u32| TcOption::Other(DefaultNla::new(kind, value.to_ne_bytes().to_vec()));
    let mut message = TcMessage::with_index(device as i32);
    message.header.parent = TcHandle::ROOT;
    message.attributes = vec![
        TcAttribute::Kind("fq".to_owned()),
        TcAttribute::Options(vec![
            number(TCA_FQ_PLIMIT, LIMIT),
            number(TCA_FQ_FLOW_PLIMIT, LIMIT),
            number(TCA_FQ_QUANTUM, QUANTUM),
            number(TCA_FQ_INITIAL_QUANTUM, QUANTUM * 10),
            // No pacing of its own: departure times are all it goes by.
            number(TCA_FQ_RATE_ENABLE, 0),
            number(TCA_FQ_BUCKETS_LOG, BUCKETS_LOG),
            number(TCA_FQ_ORPHAN_MASK, ORPHAN_MASK),
            // Without it the timer may be 10 µs late to save an interrupt (fq_init, net/sched/sch_fq.c), and on an idle CPU is.
            number(TCA_FQ_TIMER_SLACK, 0),
            number(TCA_FQ_HORIZON, HORIZON_US),
            // Beyond the horizon: send at the horizon, do not drop.
            TcOption::Other(DefaultNla::new(TCA_FQ_HORIZON_DROP, vec![0])),
        ]),
    ];
    netlink.request(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE).map_err(
        |refusal| match refusal.errno {
            libc::ENOENT | libc::EOPNOTSUPP => NetError::Missing {
                what: "fq queueing discipline",
                module: "sch_fq",
                config: "CONFIG_NET_SCH_FQ",
                remedy: "delays need it: `modprobe sch_fq`, or install the package with the kernel's extra \
                         modules, or use a kernel that has it"
                    .to_owned(),
                source: io::Error::from_raw_os_error(refusal.errno),
            },
            _ => refusal.into_error("add fq to", "the lane"),
        },
    )
}
