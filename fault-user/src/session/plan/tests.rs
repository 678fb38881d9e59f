//! Plans, what they need, and the masks they become.

use fault_common::{
    control::Bank,
    rule::{
        Verb,
        file::{OPS, op},
    },
};

use super::*;
use crate::spec::{Layer, parse, parse_exception};

fn plan(specs: &[(Layer, &str)]) -> Plan {
    let faults = specs.iter().map(|(layer, text)| parse(*layer, text).unwrap()).collect();
    Plan::new(faults, &[], 1, None).unwrap()
}

#[test]
fn terminal_verbs_come_first_whatever_the_order_given() {
    let plan = plan(&[
        (Layer::Net, "delay 1ms"),
        (Layer::Disk, "hang 1s then error"),
        (Layer::Net, "drop 1%"),
        (Layer::Disk, "delay 1ms"),
        (Layer::Disk, "error"),
    ]);
    let slots: Vec<_> = plan.rules.iter().map(|planned| planned.slot).collect();
    assert_eq!(slots, [3, 2, 0, 4, 1]);
    assert_eq!(plan.in_slot(0).map(|planned| planned.id), Some(2));
}

#[test]
fn needs_are_what_the_verbs_need() {
    let needs = |specs: &[_]| plan(specs).needs();
    let (packets, out) = (Needs { packets: true, ..Needs::default() }, needs(&[(Layer::Net, "drop out")]));
    assert_eq!(out, packets);
    assert_eq!(needs(&[(Layer::Net, "drop")]), Needs { packets_in: true, ..packets });
    assert_eq!(
        needs(&[(Layer::Net, "drop out"), (Layer::Net, "drop in")]),
        needs(&[(Layer::Net, "drop in")])
    );
    assert!(!out.cover(needs(&[(Layer::Net, "drop in")])));
    for waits in ["delay 1ms", "rate 1mbit", "slot 1ms", "reorder"] {
        assert!(needs(&[(Layer::Net, waits)]).packet_delay, "{waits}");
    }
    assert!(!needs(&[(Layer::Net, "duplicate")]).packet_delay);
    assert_eq!(needs(&[(Layer::Net, "refuse")]), Needs { calls: true, ..Needs::default() });
    assert_eq!(needs(&[(Layer::Disk, "error")]), Needs { bios: true, ..Needs::default() });
    let binds = Needs { calls: true, binds: true, ..Needs::default() };
    assert_eq!(needs(&[(Layer::Net, "fail EADDRINUSE bind")]), binds);
    assert!(needs(&[(Layer::Disk, "hang 1s")]).bio_delay);
    let files = |specs| needs(specs).files;
    assert_eq!(needs(&[(Layer::File, "error EIO read")]), Needs { files: op::READ, ..Needs::default() });
    assert_eq!(
        files(&[(Layer::File, "error EIO read"), (Layer::File, "error EIO open")]),
        op::READ | op::OPEN
    );
    assert_eq!(files(&[(Layer::File, "error EIO")]), (1 << OPS) - 1);
    let globbed = needs(&[(Layer::File, "error EIO read file /a/**")]);
    assert!(globbed.globs && globbed.cover(needs(&[(Layer::File, "error EIO read")])));
    assert!(!needs(&[(Layer::File, "error EIO read open")]).cover(globbed), "patterns take room");
    assert!(!globbed.cover(needs(&[(Layer::File, "error EIO write")])));
}

#[test]
fn some_ask_for_the_time_some_for_marks_and_some_for_a_table() {
    let bank = |text| plan(&[(Layer::Net, text)]).bank();
    assert_eq!(
        (bank("slot 1ms").net_timed, bank("rate 1mbit").net_timed, bank("delay 1ms").net_timed),
        (1, 1, 0)
    );
    assert_eq!((bank("drop ecn").net_mark, bank("drop").net_mark), (1, 0));
    let demanding = ["slot 1ms", "drop ecn", "drop syn", "drop connections 5%", "drop after 1kB", "corrupt"];
    assert!(demanding.iter().all(|text| bank(text).net_demanding == 1));
    assert_eq!(bank("delay 1ms out udp").net_demanding, 0);
    for (layer, text) in [
        (Layer::Net, "delay 1ms jitter 1ms table /x.dist"),
        (Layer::Net, "slot 1ms jitter 1ms table /x.dist"),
        (Layer::Disk, "delay 1ms jitter 1ms table /x.dist"),
        (Layer::File, "delay 1ms jitter 1ms table /x.dist open"),
    ] {
        let with = plan(&[(layer, text)]);
        assert!(with.needs().tables && with.tables().eq([(0, Path::new("/x.dist"))]), "{text}");
        let without = plan(&[(layer, &text.replace(" table /x.dist", ""))]);
        assert!(!without.needs().tables && with.needs().cover(without.needs()), "{text}");
        assert!(!without.needs().cover(with.needs()), "{text}");
    }
}

#[test]
fn masks_tell_which_rules_need_a_look_up() {
    let bank = plan(&[
        (Layer::Net, "drop to 10.0.0.1 in"),
        (Layer::Net, "drop iface lo"),
        (Layer::Disk, "error"),
        (Layer::Net, "rate 10mbit out"),
    ])
    .bank();
    let expected = Bank {
        net: 0b1011,
        net_out: 0b1010,
        net_in: 0b0011,
        net_any_peer: 0b1010,
        net_any_iface: 0b1001,
        net_timed: 0b1000,
        net_demanding: 0b1000,
        disk: 0b0100,
        ..Bank::default()
    };
    assert_eq!(bank, expected);
}

#[test]
fn only_what_asks_for_ports_and_chance_alone_is_simple() {
    let simple = |layer, text: &str| plan(&[(layer, text)]).bank().net_simple == 1;
    for text in [
        "drop 1%",
        "drop 1% in",
        "delay 10ms 1% udp port 53",
        "duplicate 1% local-port 80",
        "drop 1% times 3",
    ] {
        assert!(simple(Layer::Net, text), "{text}");
    }
    let others = [
        "drop",
        "drop nth 3",
        "drop 1% for 10s",
        "drop 1% to 10.0.0.1",
        "drop 1% iface lo",
        "drop 1% syn",
        "drop 1% connections 10%",
        "drop ecn 1%",
        "hang 1% after 64KiB",
        "rate 10mbit",
        "reset 1%",
        "corrupt fix-checksum 1%",
        "refuse 1%",
    ];
    for text in others {
        assert!(!simple(Layer::Net, text), "{text}");
    }
    assert!(!simple(Layer::Disk, "error 1%"));
    // What every packet passes first is none.
    let bank = spared(&[(Layer::Net, "drop 1%")], &["udp port 53"]).unwrap().bank();
    assert_eq!((bank.net_spare, bank.net_simple), (0b01, 0b10));
}

#[test]
fn more_faults_than_bits_are_refused() {
    let faults = vec![parse(Layer::Net, "drop").unwrap(); MAX_RULES + 1];
    assert!(matches!(Plan::new(faults, &[], 1, None), Err(PlanError::TooMany(65))));
}

#[test]
fn only_some_ask_where_a_bio_goes() {
    let located = |text| plan(&[(Layer::Disk, text)]).bank().disk_located;
    assert_eq!(located("error read"), 0);
    assert_eq!(located("error read sectors 0..8"), 1);
}

#[test]
fn bad_sectors_are_remembered_for_all_faults_together() {
    let plan = |ranges: &[&str]| {
        let spec = |range: &&str| format!("error on /dev/vdb sectors {range} until-written");
        let faults = ranges.iter().map(|range| parse(Layer::Disk, &spec(range)).unwrap()).collect();
        Plan::new(faults, &[], 1, None)
    };
    assert_eq!(plan(&["0..4194304"]).unwrap().bank().disk_until_written, 1);
    assert_eq!(plan(&["0..2097152", "0..2097152"]).unwrap().bank().disk_until_written, 3);
    assert!(matches!(plan(&["0..4194304", "0..1"]), Err(PlanError::TooManyBadSectors(4_194_305))));
}

#[test]
fn packets_are_told_apart_where_some_of_a_super_packet_may_be_meant() {
    let cut = |text| plan(&[(Layer::Net, text)]).needs().cut;
    for text in [
        "drop 1%",
        "drop nth 3",
        "drop gilbert 1% 10%",
        "drop markov 1%",
        "drop gap 5",
        "drop ecn 1%",
        "slot 20ms packets 4",
        "slot 20ms bytes 6kB",
        "rate 1mbit cell 48B",
        "rate 1mbit overhead -14B",
        "duplicate every 2",
        "hang times 1",
        "drop data",
        "delay 1ms ack",
        "rate 1mbit after 1MB",
        "hang after 64KiB",
        "corrupt",
        "corrupt fix-checksum",
    ] {
        assert!(cut(text), "{text}");
    }
    for text in [
        "drop",
        "drop 100% after 1s for 2s",
        "drop 0%",
        "drop ecn",
        "slot 20ms",
        "duplicate",
        "hang",
        "delay 1ms 5%",
        "rate 1mbit",
        "reset 5% data",
        "reset after 1MB",
        "refuse 5%",
        "drop connections 10%",
    ] {
        assert!(!cut(text), "{text}");
    }
    let checksum = |text| plan(&[(Layer::Net, text)]).needs().checksum;
    assert!(checksum("corrupt 3 bits"));
    assert!(!checksum("corrupt 3 bits fix-checksum"));
    assert!(!checksum("reset"));
}

#[test]
fn who_can_do_more_can_do_less() {
    let needs = |text| plan(&[(Layer::Net, text)]).needs();
    assert!(needs("corrupt").cover(needs("drop 1%")));
    assert!(needs("corrupt").cover(needs("corrupt fix-checksum")));
    assert!(!needs("corrupt fix-checksum").cover(needs("corrupt")));
    assert!(!needs("drop").cover(needs("drop 1%")));
    assert!(needs("refuse bind connect").cover(needs("refuse")));
    assert!(!needs("refuse").cover(needs("refuse bind")));
    assert!(
        Needs { checksum: true, packets: true, packets_in: true, ..Needs::default() }.cover(needs("drop 1%"))
    );
}

#[test]
fn masks_tell_what_rules_ask_about_a_packet() {
    let bank = plan(&[
        (Layer::Net, "drop syn out"),
        (Layer::Net, "hang after 64KiB"),
        (Layer::Net, "refuse bind connections 10%"),
        (Layer::Net, "reset out"),
        (Layer::Net, "reset"),
        (Layer::Net, "corrupt"),
        (Layer::Net, "corrupt fix-checksum out connection 3"),
    ])
    .bank();
    let expected = Bank {
        net: 0b111_1011,
        net_out: 0b111_1011,
        net_in: 0b011_0010,
        net_any_peer: 0b111_1111,
        net_any_iface: 0b111_1011,
        net_calls: 0b000_0100,
        net_cut: 0b110_0011,
        net_checksum: 0b010_0000,
        net_segment: 0b101_1011,
        net_position: 0b001_0010,
        net_connections: 0b101_1100,
        net_demanding: 0b111_1111,
        ..Bank::default()
    };
    assert_eq!(bank, expected);
}

fn spared(faults: &[(Layer, &str)], exceptions: &[&str]) -> Result<Plan, PlanError> {
    plan(faults).except(exceptions.iter().map(|text| parse_exception(text).unwrap()).collect())
}

#[test]
fn exceptions_come_first_and_are_no_faults() {
    let plan = spared(
        &[(Layer::Net, "delay 1ms"), (Layer::Net, "drop out to 10.0.0.1")],
        &["tcp port 22", "in syn iface lo", "to 10.0.0.2"],
    )
    .unwrap();
    let faults: Vec<_> =
        plan.rules.iter().map(|planned| (planned.id, planned.rule.id, planned.slot)).collect();
    assert_eq!(faults, [(0, 0, 4), (1, 1, 3)]);
    let exceptions: Vec<_> = plan.exceptions.iter().map(|planned| (planned.rule.id, planned.slot)).collect();
    assert_eq!(exceptions, [(2, 0), (3, 1), (4, 2)]);
    assert!(plan.exceptions.iter().all(|planned| planned.rule.verb == Verb::Spare as u32));
    assert!(plan.in_slot(0).is_none() && plan.in_slot(3).is_some());
    let expected = Bank {
        net: 0b11111,
        net_out: 0b11101,
        net_in: 0b10111,
        net_any_peer: 0b10011,
        net_any_iface: 0b11101,
        net_calls: 0b00101,
        net_spare: 0b00111,
        net_cut: 0b00010,
        net_segment: 0b00010,
        net_demanding: 0b00010,
        ..Bank::default()
    };
    assert_eq!(plan.bank(), expected);
    assert_eq!(plan.compiled().count(), 5);
    assert!(plan.compiled().all(|(_, rule)| rule.key == rng::key(plan.seed, rule.id, Purpose::Trigger)));
    assert_eq!(plan.net_filters().map(|(slot, _)| slot).collect::<Vec<_>>(), [4, 3, 0, 1, 2]);
}

#[test]
fn exceptions_alone_need_nothing() {
    let needs = spared(&[(Layer::Net, "refuse")], &["in", "syn"]).unwrap().needs();
    assert_eq!(needs, Needs { calls: true, ..Needs::default() });
    let needs = spared(&[(Layer::Net, "drop out")], &["in syn"]).unwrap().needs();
    assert_eq!(needs, Needs { packets: true, cut: true, ..Needs::default() });
    // Which of a super-packet a trigger hits is a matter of the packets of the wire.
    let needs = |exception| spared(&[(Layer::Net, "drop out")], &[exception]).unwrap().needs();
    assert!(needs("5% out").cut && needs("nth 3").cut && !needs("out for 5s").cut);
    let error = spared(&[(Layer::Disk, "error")], &["tcp"]).unwrap_err();
    assert!(matches!(error, PlanError::NothingToExcept));
    assert!(spared(&[(Layer::Disk, "error")], &[]).is_ok());
}

#[test]
fn exceptions_share_the_limit_of_faults() {
    let faults = [(Layer::Net, "drop"); MAX_RULES - 1];
    assert!(spared(&faults, &["tcp"]).is_ok());
    let error = spared(&faults, &["tcp", "udp"]).unwrap_err();
    assert_eq!(error.to_string(), "63 faults and 2 exceptions in one session; together the limit is 64");
}
