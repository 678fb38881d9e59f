//! Specs and the bytes they become.

use super::*;
use crate::spec::{Layer, parse};

fn rule(layer: Layer, text: &str) -> Result<Rule, CompileError> {
    compile(3, &parse(layer, text).unwrap(), None)
}

#[test]
fn a_net_spec_becomes_the_bytes_the_kernel_reads() {
    let rule = rule(
        Layer::Net,
        "delay 100ms jitter 20ms normal ordered 5% in tcp udp to 10.0.0.1:80-90 local-port 7000 every 3 first 30 times 2 after 1s for 2s cycle 300ms/200ms",
    )
    .unwrap();
    assert_eq!(rule.id, 3);
    assert_eq!(rule.verb, Verb::Delay as u32);
    assert_eq!(rule.delay.mean_ns, 100_000_000);
    assert_eq!(rule.delay.jitter_ns, 20_000_000);
    assert_eq!(rule.delay.distribution, delay::Distribution::Normal as u32);
    assert_eq!(rule.delay.flags, delay::ORDERED);
    assert_eq!(rule.net.directions, Way::In as u32);
    assert_eq!(rule.net.protocols, protocol::TCP | protocol::UDP);
    assert_eq!(rule.net.remote_port, PortRange { low: 80, high: 90 });
    assert_eq!(rule.net.local_port, PortRange { low: 7000, high: 7000 });
    let trigger = Trigger {
        threshold: threshold_from_ppb(50_000_000),
        nth: 0,
        every: 3,
        first: 30,
        times: 2,
        start_ns: 1_000_000_000,
        end_ns: 3_000_000_000,
        cycle_ns: 500_000_000,
        cycle_on_ns: 300_000_000,
        ..Trigger::default()
    };
    assert_eq!(rule.trigger, trigger);
}

#[test]
fn a_rank_correlation_is_one_of_normal_numbers() {
    let delay = |text| rule(Layer::Net, text).unwrap().delay;
    // 2 sin(π r / 6), and what is new.
    let half = delay("delay 40ms jitter 10ms correlation 50%");
    assert_eq!((half.old, half.new), (33924, 56073));
    let all = delay("delay 40ms jitter 10ms correlation 100%");
    assert_eq!((all.old, all.new), (1 << 16, 0));
    let none = delay("delay 40ms jitter 10ms correlation 0%");
    assert_eq!((none.old, none.new), (0, 1 << 16));
    let own = delay("delay 40ms jitter 10ms table /x.dist");
    assert_eq!(own.distribution, delay::Distribution::Table as u32);
}

#[test]
fn links_slots_and_marks_become_numbers() {
    let rate = rule(Layer::Net, "rate 8mbit overhead -14B cell 48B cell-overhead 5B").unwrap().rate;
    assert_eq!((rate.overhead, rate.cell, rate.cell_overhead), (-14, 48, 5));
    let slot = rule(Layer::Net, "slot 20ms jitter 5ms normal packets 4 bytes 6kB").unwrap();
    assert_eq!((slot.verb, slot.slot), (Verb::Slot as u32, Slot { packets: 4, bytes: 6000 }));
    assert_eq!((slot.delay.mean_ns, slot.delay.jitter_ns), (20_000_000, 5_000_000));
    assert_eq!(rule(Layer::Net, "drop ecn").unwrap().verb, Verb::Mark as u32);
    let trigger = rule(Layer::Net, "drop 5% gap 7").unwrap().trigger;
    assert_eq!((trigger.gap, trigger.model), (7, 0));
    assert_eq!(rule(Layer::Net, "drop markov 5%").unwrap().trigger.model, Model::Markov as u32);
    let exception = spare(5, 1, &crate::spec::parse_exception("nth 3 udp").unwrap()).unwrap();
    assert_eq!(exception.trigger, Trigger { nth: 3, ..Trigger::ALWAYS });
}

#[test]
fn a_disk_spec_becomes_the_bytes_the_kernel_reads() {
    let fault = parse(Layer::Disk, "hang 3s then error read sectors 2048..4096 on /dev/vdb").unwrap();
    let rule = compile(0, &fault, Some(DeviceNumber { dev: 0xfe_00010, whole_disk: true })).unwrap();
    assert_eq!(rule.verb, Verb::DelayThenError as u32);
    assert_eq!(rule.delay.mean_ns, 3_000_000_000);
    assert_eq!(rule.block.ops, op::READ);
    assert_eq!((rule.block.sector_start, rule.block.sector_end), (2048, 4096));
    assert_eq!((rule.block.device, rule.block.whole_disk), (0xfe_00010, 1));
    assert_eq!(rule.trigger, Trigger::ALWAYS);
}

#[test]
fn what_a_bio_does_is_a_choice_and_how_is_not() {
    let block = |text| rule(Layer::Disk, text).unwrap().block;
    let chosen = block("error sync write discard fua");
    assert_eq!(chosen.ops, op::WRITE | op::DISCARD);
    assert_eq!(chosen.manners, manner::FUA | manner::SYNC);
    assert_eq!((block("error meta").ops, block("error meta").manners), (0, manner::META));
}

#[test]
fn what_fails_until_it_is_written_is_read() {
    let filter = rule(Layer::Disk, "error on /dev/vdb sectors 8..16 until-written").unwrap().block;
    assert_eq!((filter.ops, filter.until_written), (op::READ, 1));
    assert_eq!(rule(Layer::Disk, "error on /dev/vdb sectors 8..16").unwrap().block.until_written, 0);
}

#[test]
fn a_slow_disk_is_a_link_of_bytes_or_of_operations() {
    let bytes = rule(Layer::Disk, "rate 8mbit").unwrap();
    assert_eq!(bytes.verb, Verb::Rate as u32);
    assert_eq!(bytes.rate, Rate { bytes_per_second: 1_000_000, ..Rate::default() });
    assert_eq!(bytes.block.ops, op::READ | op::WRITE, "what moves no data takes no time");
    let operations = rule(Layer::Disk, "iops 50").unwrap();
    assert_eq!(operations.rate, Rate { bytes_per_second: 50, flags: OPERATIONS, ..Rate::default() });
    assert_eq!(operations.block.ops, 0);
    assert_eq!(rule(Layer::Disk, "iops 50 flush").unwrap().block.ops, op::FLUSH);
}

#[test]
fn one_rule_has_one_range_of_ports() {
    assert_eq!(
        rule(Layer::Net, "drop to 10.0.0.1:80 to 10.0.0.2:443").unwrap_err(),
        CompileError::MixedPorts { subject: Subject::Fault(3) }
    );
    assert!(rule(Layer::Net, "drop to 10.0.0.1:80 to 10.0.0.2:80").is_ok());
}

fn net(text: &str) -> Rule {
    rule(Layer::Net, text).unwrap()
}

#[test]
fn corruption_is_of_payload_where_the_checksum_is_made_right() {
    let broken = net("corrupt 3 bits");
    assert_eq!(broken.verb, Verb::Corrupt as u32);
    assert_eq!(broken.corruption, Corruption { bits: 3, fix_checksum: 0 });
    assert_eq!((broken.net.segments, broken.net.protocols), (0, 0));
    let fixed = net("corrupt fix-checksum");
    assert_eq!(fixed.corruption, Corruption { bits: 1, fix_checksum: 1 });
    assert_eq!((fixed.net.segments, fixed.net.protocols), (segment::DATA, 0));
    let chosen = net("corrupt fix-checksum data fin");
    assert_eq!(chosen.net.segments, segment::DATA | segment::FIN);
}

#[test]
fn a_reset_is_of_a_connection() {
    let rule = net("reset from 10.0.0.1");
    assert_eq!((rule.verb, rule.net.protocols), (Verb::Reset as u32, protocol::TCP));
    assert_eq!(rule.net.segments, segment::DATA | segment::ACK | segment::FIN);
    assert_eq!(rule.net.directions, Way::In as u32);
    assert_eq!(rule.connections, Connections { by_chance: 1, share: CERTAIN, number: 0 });
    assert_eq!(net("reset data").net.segments, segment::DATA);
    let third = Connections { number: 3, ..Connections::default() };
    assert_eq!(net("reset connection 3").connections, third);
}

#[test]
fn a_hang_is_a_loss_of_data() {
    let rule = net("hang to 10.0.0.1:80 after 64KiB");
    assert_eq!((rule.verb, rule.net.protocols), (Verb::Drop as u32, protocol::TCP));
    assert_eq!((rule.net.segments, rule.net.after_bytes), (segment::DATA, 65536));
    assert!(rule.connections.are_all());
}

#[test]
fn what_only_tcp_has_is_asked_of_tcp_alone() {
    let asked = |text| (net(text).net.protocols, net(text).net.segments);
    assert_eq!(asked("drop syn"), (protocol::TCP, segment::SYN));
    assert_eq!(asked("drop ack fin"), (protocol::TCP, segment::ACK | segment::FIN));
    assert_eq!(asked("drop data"), (0, segment::DATA));
    assert_eq!(asked("drop data udp"), (protocol::UDP, segment::DATA));
    assert_eq!(asked("drop syn data"), (0, segment::SYN | segment::DATA));
    assert_eq!(asked("drop after 1MB tcp udp"), (protocol::TCP, 0));
    assert_eq!(net("drop after 1MB after 2s").trigger.start_ns, 2_000_000_000);
}

#[test]
fn some_of_many_connections() {
    let half = Connections { by_chance: 1, share: CERTAIN / 2, number: 0 };
    assert_eq!(net("drop connections 50%").connections, half);
    assert_eq!(net("refuse connection 7").connections.number, 7);
}

#[test]
fn calls_are_those_that_reach_for_a_peer_unless_told() {
    assert_eq!(net("refuse").net.calls, call::CONNECT | call::SENDMSG);
    assert_eq!(net("unreachable sendmsg").net.calls, call::SENDMSG);
    let bind = net("fail EADDRINUSE bind local-port 80");
    assert_eq!((bind.net.calls, bind.net.local_port), (call::BIND, PortRange { low: 80, high: 80 }));
    assert_eq!(bind.errno, libc::EADDRINUSE.unsigned_abs());
    assert_eq!(net("drop").net.calls, 0);
}

#[test]
fn an_exception_is_a_filter_alone() {
    let exception = |text| spare(5, 1, &crate::spec::parse_exception(text).unwrap());
    let rule = exception("out tcp port 22").unwrap();
    assert_eq!((rule.id, rule.verb, rule.layer), (5, Verb::Spare as u32, RuleLayer::Net as u32));
    assert_eq!(rule.trigger, Trigger::ALWAYS);
    assert!(rule.connections.are_all());
    let filter = NetFilter {
        directions: Way::Out as u32,
        protocols: protocol::TCP,
        remote_port: PortRange { low: 22, high: 22 },
        ..NetFilter::default()
    };
    assert_eq!(rule.net, filter);
    let error = exception("to 10.0.0.1:80 to 10.0.0.2:90").unwrap_err();
    assert_eq!(error.to_string(), "exception 1: all `to` must name the same port; write one for each port");
}
