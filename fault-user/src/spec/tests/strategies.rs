//! Faults of every kind that can be expressed, for proptest.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::spec::{
    BAD_SECTORS_MAX, ByteRate, ByteSize, COUNT_MAX, Call, CallError, Cell, Cidr, Connections, Cycle,
    DISK_HOLD_MAX, DelaySpec, Direction, DiskFault, DiskFilter, DiskManner, DiskOp, DiskVerb, Distribution,
    Endpoint, Errno, FRAME_BYTES_MAX, Fault, FileErrno, FileFault, FileFilter, FileGlob, FileOp, FileVerb,
    Framing, GAP_MAX, Gilbert, Hold, IOPS_MAX, Located, Markov, NET_DELAY_MAX, NetFault, NetFilter, NetVerb,
    PAUSE_MAX, Part, Peer, PortRange, Probability, ProcFault, ProcVerb, Protocol, SLOT_BYTES_MAX,
    SectorRange, Segment, Source, Trigger, WINDOW_MAX,
};

/// Durations of all magnitudes, up to and including `longest`.
fn durations(shortest: u64, longest: Duration) -> impl Strategy<Value = Duration> {
    let longest = u64::try_from(longest.as_nanos()).expect("limits fit 64 bits");
    let nanos = prop_oneof![
        Just(shortest),
        Just(longest),
        shortest..=longest,
        (shortest.max(1)..1_000, 0_u32..18)
            .prop_map(move |(digits, power)| (digits * 10_u64.pow(power.min(15))).min(longest)),
    ];
    nanos.prop_map(Duration::from_nanos)
}

fn distributions() -> impl Strategy<Value = Distribution> {
    select(vec![
        Distribution::Uniform,
        Distribution::Normal,
        Distribution::Pareto,
        Distribution::ParetoNormal,
    ])
}

fn delays(longest: Duration, ordered: bool) -> impl Strategy<Value = DelaySpec> {
    (uncorrelated(longest, ordered), option::of(probabilities())).prop_map(|(delay, correlation)| {
        let correlation = delay.jitter.and(correlation);
        DelaySpec { correlation, ..delay }
    })
}

fn uncorrelated(longest: Duration, ordered: bool) -> impl Strategy<Value = DelaySpec> {
    let paths = prop_oneof!["/[a-z/.]{0,20}", "/[^\\x00]{0,20}", "/[ \"\\\\a]{0,8}"];
    (analytic(longest, ordered), option::weighted(0.2, paths)).prop_map(|(delay, path)| {
        let is_free = delay.jitter.is_some() && delay.distribution == Distribution::Uniform;
        let table = path.filter(|_| is_free).map(|path| PathBuf::from(path).into());
        DelaySpec { table, ..delay }
    })
}

fn analytic(longest: Duration, ordered: bool) -> impl Strategy<Value = DelaySpec> {
    let ordered = if ordered { any::<bool>().boxed() } else { Just(false).boxed() };
    let jitter = option::of((durations(0, longest), distributions()));
    (durations(0, longest), jitter, ordered).prop_map(move |(mean, jitter, ordered)| {
        let (jitter, distribution) = match jitter {
            Some((jitter, Distribution::Uniform)) => {
                (Some(jitter.min(mean).min(longest - mean)), Distribution::Uniform)
            }
            Some((jitter, distribution)) => (Some(jitter), distribution),
            None => (None, Distribution::Uniform),
        };
        DelaySpec { mean, jitter, distribution, table: None, correlation: None, ordered }
    })
}

fn probabilities() -> impl Strategy<Value = Probability> + Clone {
    prop_oneof![
        Just(0),
        1_000..=Probability::BILLION,
        (0_u32..=100).prop_map(|percent| percent * 10_000_000),
    ]
    .prop_map(|parts| Probability::from_parts_per_billion(parts).expect("in range"))
}

pub(super) fn triggers() -> impl Strategy<Value = Trigger> {
    let probability = probabilities();
    let count = || prop_oneof![1_u64..20, 1..=COUNT_MAX];
    let which = prop_oneof![
        Just((None, None, None)),
        count().prop_map(|nth| (Some(nth), None, None)),
        (option::of(count()), option::of(count())).prop_map(|pair| match pair {
            (Some(every), Some(first)) => (None, Some(every.min(first)), Some(every.max(first))),
            (every, first) => (None, every, first),
        }),
    ];
    let chance = move || probability.clone();
    let model = (chance(), chance(), chance(), chance()).prop_map(|(to_bad, to_good, bad, good)| Gilbert {
        to_bad,
        to_good,
        bad,
        good,
    });
    let gap = || option::weighted(0.2, 1..=GAP_MAX);
    let chances = prop_oneof![
        3 => (option::of(chance()), gap()).prop_map(|(probability, gap)| (probability, None, None, None, gap)),
        1 => (chance(), chance(), gap())
            .prop_map(|(probability, burst, gap)| (Some(probability), Some(burst), None, None, gap)),
        1 => model.prop_map(|model| (None, None, Some(model), None, None)),
        1 => states().prop_map(|model| (None, None, None, Some(model), None)),
    ];
    let length = || durations(1, WINDOW_MAX);
    let windows = (
        option::of(durations(0, WINDOW_MAX)),
        option::of(length()),
        option::weighted(0.3, (length(), length()).prop_map(|(on, off)| Cycle { on, off })),
    );
    (chances.boxed(), which.boxed(), option::of(count()).boxed(), windows.boxed()).prop_map(
        |((probability, burst, gilbert, markov, gap), (nth, every, first), times, (after, window, cycle))| {
            Trigger {
                probability,
                burst,
                gilbert,
                markov,
                gap,
                nth,
                every,
                first,
                times,
                after,
                window,
                cycle,
            }
        },
    )
}

/// Chances of leaving a state that come to at most 100 %.
fn states() -> impl Strategy<Value = Markov> {
    let pair = || (probabilities(), probabilities());
    let fit = |(one, other): (Probability, Probability)| {
        let sum = u64::from(one.parts_per_billion()) + u64::from(other.parts_per_billion());
        if sum > u64::from(Probability::BILLION) { (one, Probability::NEVER) } else { (one, other) }
    };
    (pair(), pair(), probabilities(), any::<bool>()).prop_map(move |(gap, burst, to_hit, short)| {
        let ((to_burst, alone), (to_gap, to_pause)) = (fit(gap), fit(burst));
        if short { Markov::new(to_burst) } else { Markov { to_burst, to_gap, to_pause, to_hit, alone } }
    })
}

fn ports() -> impl Strategy<Value = PortRange> {
    (1_u16.., 1_u16..).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).expect("in range"))
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        // Addresses with long runs of zeros, and IPv4 inside IPv6.
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, b).into()),
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
    ]
}

fn peers() -> impl Strategy<Value = Peer> {
    prop_oneof![
        addresses().prop_map(Peer::Ip),
        (addresses(), any::<u8>()).prop_map(|(address, prefix)| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            Peer::Cidr(Cidr::new(address, prefix % (bits + 1)).expect("in range"))
        }),
        "[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,20}[a-z0-9])?(\\.[a-z][a-z0-9]{0,9}){1,4}\\.?".prop_map(Peer::Name),
        select(vec!["in", "out", "tcp", "drop", "syn", "nth", "rate", "localhost"])
            .prop_map(|name| Peer::Name(name.to_owned())),
    ]
}

fn endpoints() -> impl Strategy<Value = Vec<Located<Endpoint>>> {
    let endpoint = (peers(), option::of(ports()));
    vec(endpoint.prop_map(|(peer, ports)| Endpoint { peer, ports }), 0..4).prop_map(|all| {
        let mut once: Vec<Located<Endpoint>> = Vec::new();
        for endpoint in all {
            if once.iter().all(|other| other.value != endpoint) {
                once.push(endpoint.into());
            }
        }
        once
    })
}

pub(super) fn net_filters() -> impl Strategy<Value = NetFilter> {
    let direction = select(vec![Direction::In, Direction::Out, Direction::Both]);
    let protocols = subsequence(vec![Protocol::Tcp, Protocol::Udp, Protocol::Icmp], 0..=3);
    let iface = prop_oneof![
        "[a-z]{1,8}[0-9]{0,4}",
        "[^/:\\s\"\\p{Cc}]{1,3}".prop_filter("reserved", |name| name != "." && name != ".."),
        select(vec!["in", "port", "drop"]).prop_map(str::to_owned),
    ];
    let segments = prop_oneof![Just(Vec::new()), subsequence(Segment::ALL.to_vec(), 0..=4)];
    let ports = (option::of(ports()), option::of(ports()));
    (direction, protocols, endpoints(), ports, option::of(iface), segments).prop_map(
        |(direction, protocols, to, (port, local_port), iface, segments)| {
            let to_port = to.iter().any(|endpoint| endpoint.ports.is_some());
            let port = port.filter(|_| !to_port);
            let mut protocols: BTreeSet<_> = protocols.into_iter().collect();
            let looks_at_ports =
                port.is_some() || local_port.is_some() || to.iter().any(|endpoint| endpoint.ports.is_some());
            if looks_at_ports {
                protocols.remove(&Protocol::Icmp);
            }
            let mut segments: BTreeSet<_> = segments.into_iter().collect();
            if !protocols.is_empty() && !protocols.contains(&Protocol::Tcp) {
                segments.retain(|segment| *segment == Segment::Data && protocols.contains(&Protocol::Udp));
            }
            let iface = iface.map(Located::from);
            NetFilter { direction, protocols, to, port, local_port, iface, segments }
        },
    )
}

fn disk_filters() -> impl Strategy<Value = DiskFilter> {
    let ops = btree_set(select(DiskOp::ALL.to_vec()), 0..=4);
    let manners = btree_set(select(DiskManner::ALL.to_vec()), 0..=3);
    let path = prop_oneof!["/[a-z/]{0,20}", "/[^\\x00]{0,20}", "/[ \"\\\\a]{0,8}"];
    let sectors =
        (any::<u64>(), any::<u64>()).prop_filter_map("empty", |(a, b)| SectorRange::new(a.min(b), a.max(b)));
    let bad = (0..u64::MAX / 2, 1..=BAD_SECTORS_MAX)
        .prop_filter_map("empty", |(start, length)| SectorRange::new(start, start + length));
    let sectors = prop_oneof![
        2 => option::of(sectors).prop_map(|sectors| (sectors, false)),
        1 => bad.prop_map(|sectors| (Some(sectors), true)),
    ];
    let globs = option::weighted(0.3, globs());
    (ops, manners, option::of(path), sectors, globs).prop_map(
        |(mut ops, mut manners, path, (sectors, bad), glob)| {
            if sectors.is_some() {
                ops.remove(&DiskOp::Flush);
            }
            if !ops.is_empty() && !ops.contains(&DiskOp::Write) && !ops.contains(&DiskOp::Flush) {
                manners.remove(&DiskManner::Fua);
            }
            let until_written = bad && path.is_some();
            if until_written {
                ops.retain(|op| *op == DiskOp::Read);
                manners.remove(&DiskManner::Fua);
            }
            if glob.is_some() {
                ops.retain(|op| matches!(op, DiskOp::Read | DiskOp::Write));
                manners.remove(&DiskManner::Meta);
                if ops.contains(&DiskOp::Read) && !ops.contains(&DiskOp::Write) {
                    manners.remove(&DiskManner::Fua);
                }
            }
            DiskFilter {
                ops,
                manners,
                on: path.map(|path| PathBuf::from(path).into()),
                sectors: sectors.map(Located::from),
                until_written,
                glob: glob.map(Located::from),
            }
        },
    )
}

fn parts() -> impl Strategy<Value = Part> {
    let connections = prop_oneof![
        probabilities().prop_map(Connections::Share),
        (1_u32..).prop_map(|number| Connections::Number(number.try_into().expect("not 0"))),
    ];
    let bytes = prop_oneof![
        1..=ByteSize::MAX.bytes(),
        (1_u64..2000, 0_u32..3).prop_map(|(digits, power)| digits * 1000_u64.pow(power)),
        (1_u64..1000, 0_u32..3).prop_map(|(digits, power)| digits << (10 * power)),
    ];
    let after = bytes.prop_filter_map("size", ByteSize::new);
    (option::weighted(0.3, connections), option::weighted(0.3, after))
        .prop_map(|(connections, after)| Part { connections, after })
}

fn calls() -> impl Strategy<Value = BTreeSet<Call>> {
    subsequence(Call::ALL.to_vec(), 1..=3).prop_map(|calls| calls.into_iter().collect())
}

/// What remains of a filter and a part of it beside this verb.
fn fit(verb: &NetVerb, filter: &mut NetFilter, part: &mut Part) {
    match verb {
        NetVerb::Drop { .. }
        | NetVerb::Slot { .. }
        | NetVerb::Delay(_)
        | NetVerb::Rate { .. }
        | NetVerb::Duplicate
        | NetVerb::Reorder { .. }
        | NetVerb::Corrupt { fix_checksum: false, .. } => {}
        NetVerb::Corrupt { fix_checksum: true, .. } => {
            filter.protocols.remove(&Protocol::Icmp);
            if !filter.segments.is_empty() {
                filter.segments.insert(Segment::Data);
            }
        }
        NetVerb::Reset => {
            filter.protocols.retain(|protocol| *protocol == Protocol::Tcp);
            if filter.segments.len() == 1 {
                filter.segments.remove(&Segment::Syn);
            }
        }
        NetVerb::Hang => {
            filter.protocols.retain(|protocol| *protocol == Protocol::Tcp);
            filter.segments.clear();
        }
        NetVerb::Fail { calls, .. } => {
            part.after = None;
            filter.segments.clear();
            filter.iface = None;
            if filter.direction == Direction::In {
                filter.direction = Direction::Out;
            }
            if calls.contains(&Call::Bind) {
                filter.to.clear();
                filter.port = None;
            }
            if *calls == BTreeSet::from([Call::Sendmsg]) {
                filter.protocols.retain(|protocol| *protocol == Protocol::Udp);
            }
        }
    }
    if part.after.is_some() && !filter.protocols.is_empty() {
        filter.protocols.insert(Protocol::Tcp);
    }
}

fn rates() -> impl Strategy<Value = ByteRate> {
    let bytes = prop_oneof![
        1..=ByteRate::MAX.bytes_per_second(),
        (1_u64..2000, 0_u32..4).prop_map(|(digits, power)| digits * 125 * 1000_u64.pow(power) / 2),
        (1_u64..2000, 0_u32..3).prop_map(|(digits, power)| digits << (10 * power)),
    ];
    bytes.prop_filter_map("rate", ByteRate::new)
}

fn framings() -> impl Strategy<Value = Framing> {
    let most = FRAME_BYTES_MAX.cast_signed();
    let cell = (1..=FRAME_BYTES_MAX, prop_oneof![Just(0), -most..=most]).prop_map(move |(size, overhead)| {
        Cell { size: size.try_into().expect("not 0"), overhead: overhead.max(1 - size.cast_signed()) }
    });
    (prop_oneof![2 => Just(0), 1 => -most..=most], option::weighted(0.3, cell))
        .prop_map(|(overhead, cell)| Framing { overhead, cell })
}

fn slots() -> impl Strategy<Value = NetVerb> {
    let gap = uncorrelated(NET_DELAY_MAX, false).prop_filter("no time", |gap| !gap.mean.is_zero());
    let packets = (1_u32..).prop_map(|packets| packets.try_into().expect("not 0"));
    let bytes = (1..=u64::from(SLOT_BYTES_MAX)).prop_filter_map("size", ByteSize::new);
    (gap, option::of(packets), option::of(bytes)).prop_map(|(gap, packets, bytes)| NetVerb::Slot {
        gap,
        packets,
        bytes,
    })
}

pub(super) fn net_faults() -> impl Strategy<Value = Fault> {
    let error = prop_oneof![
        Just(CallError::Refused),
        Just(CallError::Unreachable),
        select(Errno::ALL.to_vec()).prop_map(CallError::Errno),
    ];
    let verb = prop_oneof![
        any::<bool>().prop_map(|ecn| NetVerb::Drop { ecn }),
        slots(),
        delays(NET_DELAY_MAX, true).prop_map(NetVerb::Delay),
        (rates(), any::<bool>(), framings()).prop_map(|(rate, per_connection, framing)| NetVerb::Rate {
            rate,
            per_connection,
            framing
        }),
        Just(NetVerb::Duplicate),
        (1..=fault_common::limits::MAX_CORRUPT_BITS, any::<bool>())
            .prop_map(|(bits, fix_checksum)| NetVerb::Corrupt { bits, fix_checksum }),
        Just(NetVerb::Reset),
        Just(NetVerb::Hang),
        (error, calls()).prop_map(|(error, calls)| NetVerb::Fail { error, calls }),
        durations(1, NET_DELAY_MAX).prop_map(|by| NetVerb::Reorder { by }),
    ];
    // Boxed: value trees of this many branches are too big for the stack of a test's thread.
    (verb.boxed(), net_filters().boxed(), parts().boxed(), triggers().boxed()).prop_map(
        |(verb, mut filter, mut part, mut trigger)| {
            fit(&verb, &mut filter, &mut part);
            if matches!(verb, NetVerb::Rate { per_connection: true, .. }) {
                (trigger.burst, trigger.gilbert, trigger.markov, trigger.gap) = (None, None, None, None);
            }
            Fault::Net(NetFault { verb, filter, part, trigger, source: Source::default() })
        },
    )
}

pub(super) fn disk_faults() -> impl Strategy<Value = Fault> {
    let verb = prop_oneof![
        Just(DiskVerb::Error),
        rates().prop_map(DiskVerb::Rate),
        (1..=IOPS_MAX).prop_map(DiskVerb::Iops),
        delays(DISK_HOLD_MAX, false).prop_map(DiskVerb::Delay),
        (prop_oneof![Just(Hold::Forever), durations(1, DISK_HOLD_MAX).prop_map(Hold::For)], any::<bool>())
            .prop_map(|(hold, then_error)| { DiskVerb::Hang { hold, then_error } }),
    ];
    (verb, disk_filters(), triggers()).prop_map(|(verb, mut filter, trigger)| {
        if matches!(verb, DiskVerb::Rate(_)) {
            filter.ops.retain(|op| matches!(op, DiskOp::Read | DiskOp::Write));
            if filter.ops.iter().eq([&DiskOp::Read]) {
                filter.manners.remove(&DiskManner::Fua);
            }
        }
        Fault::Disk(DiskFault { verb, filter, trigger, source: Source::default() })
    })
}

fn globs() -> impl Strategy<Value = FileGlob> {
    let component = prop_oneof![Just("**".to_owned()), "[a-z *?é]{1,6}", r"\\[*?\[]", "[ \"a]{1,4}"];
    vec(component, 1..5)
        .prop_filter_map("no pattern", |names| FileGlob::read(&format!("/{}", names.join("/"))).ok())
}

pub(super) fn file_faults() -> impl Strategy<Value = Fault> {
    let ops = btree_set(select(FileOp::ALL.to_vec()), 0..=5);
    let errors = (select(FileErrno::ALL.to_vec()).prop_map(FileVerb::Error), ops);
    let late =
        delays(DISK_HOLD_MAX, false).prop_map(|delay| (FileVerb::Delay(delay), [FileOp::Fsync].into()));
    (prop_oneof![errors, late], option::of(globs()), triggers()).prop_map(|((verb, ops), glob, trigger)| {
        let filter = FileFilter { ops, glob: glob.map(Located::from) };
        Fault::File(FileFault { verb, filter, trigger, source: Source::default() })
    })
}

pub(super) fn proc_faults() -> impl Strategy<Value = Fault> {
    (durations(1, PAUSE_MAX), option::of(durations(0, WINDOW_MAX))).prop_map(|(pause, after)| {
        let verb = ProcVerb::Pause(pause);
        let trigger = Trigger { after, ..Trigger::default() };
        Fault::Proc(ProcFault { verb, trigger, source: Source::default() })
    })
}
