//! Specs that are right, and what they mean.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::spec::{
    ByteSize, Call, CallError, Connections, Cycle, DelaySpec, Direction, DiskFault, DiskManner, DiskOp,
    DiskVerb, Distribution, Fault, Hold, Layer, Markov, NetFault, NetVerb, Peer, Probability, Protocol,
    Segment, parse, parse_exception,
};

fn net(text: &str) -> NetFault {
    text.parse().unwrap_or_else(|e: crate::spec::SpecError| panic!("{}", e.render(false)))
}

fn disk(text: &str) -> DiskFault {
    text.parse().unwrap_or_else(|e: crate::spec::SpecError| panic!("{}", e.render(false)))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// `text` means the same as `canonical`, which is how it is printed.
fn canonical(layer: Layer, text: &str, canonical: &str) {
    let fault = parse(layer, text).unwrap_or_else(|e| panic!("{}", e.render(false)));
    assert_eq!(fault.to_string(), canonical);
    assert_eq!(fault.source().text(), text);
    assert_eq!(parse(layer, canonical).ok(), Some(fault));
}

#[test]
fn the_examples_of_the_design_are_read() {
    let fault = net("drop 5% out to 10.0.0.0/8:5432");
    assert_eq!(fault.verb, NetVerb::Drop { ecn: false });
    assert_eq!(fault.filter.direction, Direction::Out);
    assert_eq!(fault.trigger.probability, Probability::from_parts_per_billion(50_000_000));
    let to = &fault.filter.to[0];
    assert!(matches!(to.peer, Peer::Cidr(cidr) if cidr.prefix() == 8));
    assert_eq!(to.ports.map(|p| (p.first(), p.last())), Some((5432, 5432)));
    assert_eq!((to.span.start, to.span.end), (15, 30));

    let fault = net("delay 100ms jitter 20ms normal in");
    let delay = DelaySpec {
        jitter: Some(ms(20)),
        distribution: Distribution::Normal,
        ..DelaySpec::constant(ms(100))
    };
    assert_eq!(fault.verb, NetVerb::Delay(delay));
    assert_eq!(fault.filter.direction, Direction::In);

    let fault = disk("error 1% read on /var/lib/pg");
    assert_eq!(fault.verb, DiskVerb::Error);
    assert_eq!(fault.filter.ops, BTreeSet::from([DiskOp::Read]));
    assert_eq!(fault.filter.on.as_deref().map(|p| p.as_path()), Some(Path::new("/var/lib/pg")));

    let fault = disk("hang 3s then error read sectors 2048..4096 on /dev/vdb");
    let hang = DiskVerb::Hang { hold: Hold::For(ms(3000)), then_error: true };
    assert_eq!(fault.verb, hang);
    let sectors = fault.filter.sectors.map(|s| (s.start(), s.end()));
    assert_eq!(sectors, Some((2048, 4096)));
}

#[test]
fn a_delay_may_resemble_the_one_before() {
    let NetVerb::Delay(delay) = net("delay 40ms correlation 25% jitter 10ms pareto").verb else {
        panic!("a delay");
    };
    assert_eq!(delay.correlation, Probability::from_parts_per_billion(250_000_000));
    canonical(
        Layer::Net,
        "delay 40ms ordered correlation 25% jitter 10ms pareto 5%",
        "delay 40ms jitter 10ms pareto correlation 25% ordered 5%",
    );
    canonical(
        Layer::Disk,
        "delay 40ms jitter 10ms correlation 100%",
        "delay 40ms jitter 10ms correlation 100%",
    );
}

#[test]
fn a_delay_may_be_distributed_as_a_file_says() {
    let NetVerb::Delay(delay) = net("delay 40ms table \"/my files/x.dist\" jitter 90ms").verb else {
        panic!("a delay");
    };
    assert_eq!(delay.table.as_deref().map(|path| path.as_path()), Some(Path::new("/my files/x.dist")));
    canonical(
        Layer::Disk,
        "delay 40ms correlation 5% table /x.dist jitter 90ms",
        "delay 40ms jitter 90ms table /x.dist correlation 5%",
    );
    canonical(Layer::Net, "slot 40ms table /x.dist jitter 9ms", "slot 40ms jitter 9ms table /x.dist");
}

#[test]
fn what_can_be_marked_need_not_be_lost() {
    assert_eq!(net("drop 5% ecn").verb, NetVerb::Drop { ecn: true });
    canonical(Layer::Net, "drop 5% out ecn", "drop ecn 5% out");
}

#[test]
fn a_link_may_add_to_packets() {
    canonical(
        Layer::Net,
        "rate 8mbit cell-overhead 5B overhead 8B cell 48B out per-connection",
        "rate 8mbit per-connection overhead 8B cell 48B cell-overhead 5B out",
    );
    canonical(Layer::Net, "rate 8mbit overhead -14B", "rate 8mbit overhead -14B");
    canonical(Layer::Net, "rate 8mbit overhead 0B cell 1kB cell-overhead 0B", "rate 8mbit cell 1000B");
    canonical(Layer::Net, "rate 8mbit cell 48B cell-overhead -47B", "rate 8mbit cell 48B cell-overhead -47B");
}

#[test]
fn packets_may_leave_in_slots() {
    let NetVerb::Slot { gap, packets, bytes } = net("slot 20ms bytes 6kB packets 4 in").verb else {
        panic!("a slot");
    };
    assert_eq!(gap, DelaySpec::constant(ms(20)));
    assert_eq!((packets.map(|n| n.get()), bytes.map(ByteSize::bytes)), (Some(4), Some(6000)));
    canonical(
        Layer::Net,
        "slot 20ms normal tcp packets 4 jitter 5ms",
        "slot 20ms jitter 5ms normal packets 4 tcp",
    );
}

#[test]
fn chances_of_four_states_have_those_of_netem_when_they_are_not_written() {
    let markov = |text| net(text).trigger.markov.expect("a model");
    let percent = |percent: u32| Probability::from_parts_per_billion(percent * 10_000_000).expect("in range");
    assert_eq!(markov("drop markov 5%"), Markov::new(percent(5)));
    assert_eq!(markov("drop markov 5%").to_gap, percent(95));
    let all = markov("drop markov 5% 30% 20% 50% 1%");
    let chances = [all.to_burst, all.to_gap, all.to_pause, all.to_hit, all.alone];
    assert_eq!(chances, [5, 30, 20, 50, 1].map(percent));
    canonical(Layer::Net, "drop markov 5% 95% 0% 100% 0% in", "drop in markov 5%");
    canonical(Layer::Net, "drop markov 5% 95% 0% 50%", "drop markov 5% 95% 0% 50%");
}

#[test]
fn an_exception_may_have_a_trigger() {
    let read = |text| parse_exception(text).unwrap_or_else(|e| panic!("{}", e.render(false)));
    let exception = read("gap 5 out 25% udp");
    assert_eq!(exception.to_string(), "25% out udp gap 5");
    assert_eq!(exception.trigger.gap, Some(5));
    assert_eq!(read("10%").to_string(), "10%");
    assert_eq!(read("for 5s after 2s").trigger.after, Some(ms(2000)));
}

#[test]
fn kinds_of_block_operations_are_read() {
    let filter = disk("error sync discard write fua meta").filter;
    assert_eq!(filter.ops, BTreeSet::from([DiskOp::Write, DiskOp::Discard]));
    assert_eq!(filter.manners, BTreeSet::from(DiskManner::ALL));
    canonical(Layer::Disk, "hang forever on /x read then error EIO", "hang forever then error read on /x");
    canonical(Layer::Disk, "error sync discard fua write", "error write discard fua sync");
    canonical(Layer::Disk, "error fua flush", "error flush fua");
}

#[test]
fn a_disk_may_be_slow() {
    assert_eq!(disk("iops 100 read").verb, DiskVerb::Iops(100));
    canonical(Layer::Disk, "rate 1024KiB/s 50% read", "rate 1MiB/s 50% read");
    canonical(Layer::Disk, "iops 10000000 sync", "iops 10000000 sync");
}

#[test]
fn sectors_may_be_bad_until_they_are_written() {
    let filter = disk("error until-written sectors 8..16 on /dev/vdb").filter;
    assert!(filter.until_written && filter.ops.is_empty());
    canonical(
        Layer::Disk,
        "error until-written 5% read sectors 8..16 on /dev/vdb",
        "error 5% read on /dev/vdb sectors 8..16 until-written",
    );
    assert!(disk("delay 1s on /dev/vdb sectors 0..4194304 until-written").filter.until_written);
}

#[test]
fn every_trigger_is_read() {
    let trigger = net("drop every 3 first 9 times 2 after 1m30s cycle 1s/500ms for 20us 0.0001%").trigger;
    assert_eq!(trigger.probability, Some(Probability::SMALLEST));
    assert_eq!(trigger.every, Some(3));
    assert_eq!(trigger.first, Some(9));
    assert_eq!(trigger.times, Some(2));
    assert_eq!(trigger.after, Some(Duration::from_secs(90)));
    assert_eq!(trigger.window, Some(Duration::from_micros(20)));
    assert_eq!(trigger.cycle, Some(Cycle { on: ms(1000), off: ms(500) }));
    assert_eq!(net("drop nth 7").trigger.nth, Some(7));
}

#[test]
fn zero_per_cent_never_hits() {
    assert!(net("drop 0%").trigger.is_never());
    assert!(net("drop 0.000%").trigger.is_never());
    assert!(!net("drop").trigger.is_never());
    assert!(!net("drop 0.0001%").trigger.is_never());
}

#[test]
fn protocols_and_operations_are_sets() {
    let fault = net("drop icmp tcp");
    assert_eq!(fault.filter.protocols, BTreeSet::from([Protocol::Tcp, Protocol::Icmp]));
    let fault = disk("error write read flush");
    assert_eq!(fault.filter.ops.len(), 3);
}

#[test]
fn clauses_come_in_any_order() {
    let canonical = |text| canonical(Layer::Net, text, "drop 5% in tcp to 10.0.0.1 iface eth0 nth 2");
    canonical("drop 5% in tcp to 10.0.0.1 iface eth0 nth 2");
    canonical("drop nth 2 iface eth0 to 10.0.0.1 tcp in 5%");
    canonical("drop tcp in 5% nth 2 to 10.0.0.1 iface eth0");
    canonical("  drop\ttcp in\n5% nth 2 to 10.0.0.1 iface eth0 ");
}

#[test]
fn printing_is_canonical() {
    let net = |text, to| canonical(Layer::Net, text, to);
    net("drop in out", "drop");
    net("drop 5.50%", "drop 5.5%");
    net("drop 100.0%", "drop 100%");
    net("drop 0.1234567%", "drop 0.1234567%");
    net("delay 1500ms", "delay 1s500ms");
    net("delay 0.5s", "delay 500ms");
    net("delay 0ms", "delay 0s");
    net("delay 60m", "delay 1h");
    net("delay 1.000000001s", "delay 1s1ns");
    net("delay 20µs jitter 5us uniform", "delay 20us jitter 5us");
    net("delay 20ms ordered paretonormal jitter 50ms", "delay 20ms jitter 50ms paretonormal ordered");
    net("drop port 80-80", "drop port 80");
    net("drop local-port 1-65535", "drop local-port 1-65535");
    net("drop to 10.1.2.3/8", "drop to 10.0.0.0/8");
    net("drop to 2001:DB8::1", "drop to 2001:db8::1");
    net("drop to [2001:db8::1]", "drop to 2001:db8::1");
    net("drop to [2001:db8::/32]:80-90", "drop to [2001:db8::/32]:80-90");
    net("drop to ::/0 to 0.0.0.0/0", "drop to ::/0 to 0.0.0.0/0");
    net("drop to db.example.:5432", "drop to db.example.:5432");
    net("drop to \"in\" iface \"out\"", "drop to \"in\" iface \"out\"");
    net("drop to in:80", "drop to in:80");
    net("drop for 1d", "drop for 1d");
    let disk = |text, to| canonical(Layer::Disk, text, to);
    disk("error EIO flush", "error flush");
    disk("hang 3s on /x then error EIO", "hang 3s then error on /x");
    disk("error on \"/mnt/my disk\"", "error on \"/mnt/my disk\"");
    disk(r#"error on "/a\"b\\c""#, r#"error on "/a\"b\\c""#);
    disk("error on \"/plain\"", "error on /plain");
    disk("delay 60s", "delay 1m");
    disk("delay 30s jitter 30s", "delay 30s jitter 30s");
    disk("error sectors 0..18446744073709551615", "error sectors 0..18446744073709551615");
}

#[test]
fn a_fault_knows_its_layer() {
    let fault = parse(Layer::Net, "delay 1ms").expect("a net fault");
    assert!(matches!(fault, Fault::Net(_)));
    assert_eq!(fault.layer(), Layer::Net);
    let fault = parse(Layer::Disk, "delay 1ms").expect("a disk fault");
    assert!(matches!(fault, Fault::Disk(_)));
    assert_eq!(fault.layer(), Layer::Disk);
}

#[test]
fn packets_are_damaged_and_connections_ended() {
    assert_eq!(net("corrupt").verb, NetVerb::Corrupt { bits: 1, fix_checksum: false });
    assert_eq!(net("corrupt 32 bits 5%").verb, NetVerb::Corrupt { bits: 32, fix_checksum: false });
    assert_eq!(net("corrupt out fix-checksum").verb, NetVerb::Corrupt { bits: 1, fix_checksum: true });
    assert_eq!(net("reset").verb, NetVerb::Reset);
    assert_eq!(net("hang tcp").verb, NetVerb::Hang);
    let canonical = |text, to| canonical(Layer::Net, text, to);
    canonical("corrupt 1 bit", "corrupt");
    canonical("corrupt 1 bits", "corrupt");
    canonical("corrupt 3 bit", "corrupt 3 bits");
    canonical("corrupt tcp 5% fix-checksum", "corrupt fix-checksum 5% tcp");
    canonical("reset from 10.0.0.1:80", "reset in to 10.0.0.1:80");
    canonical("hang after 64KiB to 10.0.0.1", "hang to 10.0.0.1 after 64KiB");
}

#[test]
fn parts_of_conversations_are_chosen() {
    let fault = net("drop fin syn ack data after 10s after 64KiB connections 10%");
    assert_eq!(fault.filter.segments, BTreeSet::from(Segment::ALL));
    assert_eq!(fault.trigger.after, Some(Duration::from_secs(10)));
    assert_eq!(fault.part.after, ByteSize::new(65_536));
    let tenth = Probability::from_parts_per_billion(100_000_000).expect("in range");
    assert_eq!(fault.part.connections, Some(Connections::Share(tenth)));
    let third = Connections::Number(3.try_into().expect("not 0"));
    assert_eq!(net("reset connection 3").part.connections, Some(third));
    let canonical = |text, to| canonical(Layer::Net, text, to);
    canonical("drop after 5s data after 1024KiB", "drop data after 1MiB after 5s");
    canonical("drop after 1000B", "drop after 1kB");
    canonical("drop after 0.5MB", "drop after 500kB");
    canonical("drop from 10.0.0.1 in from 10.0.0.2", "drop in to 10.0.0.1 to 10.0.0.2");
    canonical("drop connection 1 udp", "drop udp connection 1");
    canonical("drop syn udp tcp", "drop tcp udp syn");
    canonical("drop iface \"syn\" to \"bind\"", "drop to \"bind\" iface \"syn\"");
}

#[test]
fn calls_are_chosen() {
    let calls = |text| match net(text).verb {
        NetVerb::Fail { calls, error } => (error, calls),
        verb => panic!("{verb:?}"),
    };
    assert_eq!(calls("refuse"), (CallError::Refused, Call::usual()));
    assert_eq!(calls("unreachable bind"), (CallError::Unreachable, BTreeSet::from([Call::Bind])));
    let canonical = |text, to| canonical(Layer::Net, text, to);
    canonical("refuse sendmsg connect", "refuse");
    canonical("refuse 5% connect", "refuse connect 5%");
    canonical("fail EADDRINUSE local-port 80 bind", "fail EADDRINUSE bind local-port 80");
    canonical("fail EINVAL sendmsg bind connect", "fail EINVAL connect bind sendmsg");
}

#[test]
fn exceptions_are_filters() {
    let canonical = |text, canonical: &str| {
        let exception = parse_exception(text).unwrap_or_else(|e| panic!("{}", e.render(false)));
        assert_eq!(exception.to_string(), canonical);
        assert_eq!(exception.source.text(), text);
        assert_eq!(parse_exception(canonical).ok(), Some(exception));
    };
    canonical("tcp port 22", "tcp port 22");
    canonical("syn in from 10.0.0.0/8 iface eth0", "in to 10.0.0.0/8 iface eth0 syn");
    canonical("local-port 80-90 udp tcp", "tcp udp local-port 80-90");
    canonical("in out", "in out");
}
