//! Which operations a rule looks at, against models that are written the slow and obvious way.

use fault_common::{
    limits::{MAX_INTERFACES_PER_NETNS, MAX_NETNS},
    rule::{
        block::{BioFacts, BlockFilter, Extent, manner},
        net::{NetFilter, PacketFacts, PortRange, position},
    },
    who::{PORT_WORDS, exit_key, interface_key, port_bit},
};
use proptest::prelude::*;

fn port_range() -> impl Strategy<Value = PortRange> {
    let some = (1u16.., 1u16..).prop_map(|(a, b)| PortRange { low: a.min(b), high: a.max(b) });
    prop_oneof![Just(PortRange::default()), some]
}

/// Numbers near the edges and anywhere.
fn sector() -> impl Strategy<Value = u64> {
    prop_oneof![0..64u64, (u64::MAX - 64)..=u64::MAX, (1u64 << 55) - 8..(1 << 55) + 8, any::<u64>()]
}

fn manners() -> impl Strategy<Value = u32> {
    let all = vec![manner::FUA, manner::META, manner::SYNC];
    prop::sample::subsequence(all, 0..=3).prop_map(|some| some.into_iter().sum())
}

prop_compose! {
    fn block_filter()(
        ops in 0..32u32,
        manners in manners(),
        device in 0..3u32,
        whole_disk in 0..2u32,
        (sector_start, sector_end) in prop_oneof![
            1 => sector().prop_map(|start| (start, 0)),
            3 => (sector(), sector())
                .prop_map(|(a, b)| (a.min(b), a.max(b)))
                .prop_filter("a range is not empty", |(start, end)| start < end),
        ],
    ) -> BlockFilter {
        BlockFilter { ops, device, whole_disk, manners, sector_start, sector_end, ..BlockFilter::default() }
    }
}

prop_compose! {
    fn bio()(
        ops in (1..32u32, manners()).prop_map(|(ops, manners)| ops | manners),
        device in 1..3u32,
        disk in 1..3u32,
        sectors in prop_oneof![Just(0), 1..16u32, any::<u32>()],
        sector in sector(),
        device_start in sector(),
    ) -> BioFacts {
        BioFacts { ops, device, disk, sectors, sector, device_start }
    }
}

/// The sectors as numbers too large to overflow.
fn block_model(filter: &BlockFilter, bio: &BioFacts) -> bool {
    let on_disk = filter.device != 0 && filter.whole_disk != 0;
    let op = filter.ops == 0 || filter.ops & bio.ops != 0;
    let device = filter.device == 0 || filter.device == if on_disk { bio.disk } else { bio.device };
    let first = u128::from(bio.sector) + if on_disk { u128::from(bio.device_start) } else { 0 };
    // A disk has no sectors from u64::MAX on.
    let first = first.min(u128::from(u64::MAX));
    let after = (first + u128::from(bio.sectors)).min(u128::from(u64::MAX));
    let (start, end) = (u128::from(filter.sector_start), u128::from(filter.sector_end));
    let shared = end.min(after).saturating_sub(start.max(first));
    let manner = [manner::FUA, manner::META, manner::SYNC]
        .into_iter()
        .all(|manner| filter.manners & manner == 0 || bio.ops & manner != 0);
    op && manner && device && (filter.sector_end == 0 || shared > 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn block_filter_is_its_model(filter in block_filter(), bio in bio()) {
        prop_assert_eq!(filter.matches(&bio), block_model(&filter, &bio));
    }

    #[test]
    fn extents_are_what_bio_and_range_have_in_common(filter in block_filter(), bio in bio()) {
        let extent = filter.extent(&bio);
        if filter.sector_end != 0 {
            let anything = BlockFilter { ops: 0, manners: 0, ..filter };
            prop_assert_eq!(extent.is_some(), anything.matches(&bio));
        }
        if let Some(Extent { start, end }) = extent {
            let first = if filter.device != 0 && filter.whole_disk != 0 {
                bio.sector.saturating_add(bio.device_start)
            } else {
                bio.sector
            };
            prop_assert!(start >= filter.sector_start.max(first));
            prop_assert!(start < end && end <= filter.sector_end);
            prop_assert!(end - start <= u64::from(bio.sectors));
        }
    }

    #[test]
    fn every_sector_of_an_extent_has_one_bit(start in sector(), length in 1..1000u64) {
        let end = start.saturating_add(length);
        prop_assume!(start < end);
        let extent = Extent { start, end };
        let mut sectors = Vec::new();
        for index in 0..extent.words() {
            let (word, bits) = extent.word(index);
            let of_word = (0..64).filter(|bit| bits >> bit & 1 != 0);
            sectors.extend(of_word.map(|bit| word * 64 + bit));
        }
        prop_assert_eq!(sectors, (start..end).collect::<Vec<_>>());
    }

    #[test]
    fn port_range_is_inclusive(range in port_range(), port: u16) {
        let expected = range == PortRange::default() || (range.low..=range.high).contains(&port);
        prop_assert_eq!(range.contains(port), expected);
        prop_assert!(range.contains(range.low) && range.contains(range.high));
    }

    #[test]
    fn packets_without_ports_pass_only_rules_without_ports(range in port_range()) {
        prop_assert_eq!(range.contains(0), range == PortRange::default());
    }

    #[test]
    fn net_filter_is_a_conjunction(
        directions in 0..4u32,
        protocols in 0..16u32,
        remote_port in port_range(),
        local_port in port_range(),
        direction in 1..3u32,
        protocol in prop_oneof![Just(1u32), Just(2), Just(4), Just(8)],
        remote in 0..4u16,
        local: u16,
        (segments, segment) in (0..16u32, 0..16u32),
        (calls, call) in (0..8u32, prop_oneof![Just(0u32), Just(1), Just(2), Just(4)]),
        (after_bytes, position) in (prop_oneof![Just(0), 0..10u64], 0..12u64),
    ) {
        let filter =
            NetFilter { directions, protocols, remote_port, local_port, segments, calls, after_bytes };
        let packet = PacketFacts {
            direction,
            protocol,
            remote_port: remote,
            local_port: local,
            segment,
            call,
            _pad: 0,
            position,
        };
        let conditions = [
            directions & direction != 0,
            protocols == 0 || protocols & protocol != 0,
            remote_port.contains(remote),
            local_port.contains(local),
            segments == 0 || segments & segment != 0,
            calls == 0 || calls & call != 0,
            after_bytes == 0 || position > after_bytes,
        ];
        prop_assert_eq!(filter.matches(&packet), conditions.into_iter().all(|holds| holds));
    }

    #[test]
    fn positions_are_those_of_the_stream(
        initial: u32,
        carried in 0..1u64 << 40,
        offset in -100_000i64..100_000,
        payload in 0..70_000u32,
    ) {
        // The stream's own numbers, as wide as it takes; a segment does not begin before the stream.
        let start = (carried as i64 + offset).max(0) as u64;
        let number = |at: u64| initial.wrapping_add(at as u32);
        let place = position(carried, number(carried), number(start), payload);
        prop_assert_eq!(place, start + u64::from(payload.max(1)));
        // `after SIZE` spares what ends at or before SIZE, and of packets without payload those that come before it ends.
        for after_bytes in [start.max(1), (start + u64::from(payload)).max(1), start + u64::from(payload) + 1] {
            let filter = NetFilter { directions: 1, after_bytes, ..NetFilter::default() };
            let packet = PacketFacts { direction: 1, position: place, ..PacketFacts::default() };
            let end = start + u64::from(payload);
            let beyond = if payload == 0 { end >= after_bytes } else { end > after_bytes };
            prop_assert_eq!(filter.matches(&packet), beyond);
        }
    }

    #[test]
    fn interface_keys_do_not_collide(a: (u32, u32), b: (u32, u32)) {
        prop_assert_eq!(interface_key(a.0, a.1) == interface_key(b.0, b.1), a == b);
    }

    #[test]
    fn exit_keys_are_distinct_and_in_range(
        a in (0..MAX_NETNS, 0..MAX_INTERFACES_PER_NETNS),
        b in (0..MAX_NETNS, 0..MAX_INTERFACES_PER_NETNS),
    ) {
        prop_assert_eq!(exit_key(a.0, a.1) == exit_key(b.0, b.1), a == b);
        prop_assert!(exit_key(a.0, a.1) < MAX_NETNS * MAX_INTERFACES_PER_NETNS);
    }
}

#[test]
fn every_port_has_a_bit_of_its_own() {
    let mut words = vec![0u64; PORT_WORDS as usize];
    for is_udp in [false, true] {
        for port in 0..=u16::MAX {
            let (word, bit) = port_bit(is_udp, port);
            assert_eq!(words[word as usize] & bit, 0, "{is_udp} {port}");
            words[word as usize] |= bit;
        }
    }
    assert!(words.iter().all(|&word| word == u64::MAX));
}

#[test]
fn last_sectors_of_the_largest_disk() {
    let filter = BlockFilter { sector_start: u64::MAX - 8, sector_end: u64::MAX, ..BlockFilter::default() };
    let bio = |sector, sectors| BioFacts { ops: 1, sector, sectors, ..BioFacts::default() };
    assert!(filter.matches(&bio(u64::MAX - 8, 8)));
    assert!(filter.matches(&bio(u64::MAX - 1, u32::MAX)), "an end past u64 does not wrap to the start");
    assert!(filter.matches(&bio(0, u32::MAX)) == (u64::from(u32::MAX) > u64::MAX - 8));
    assert!(!filter.matches(&bio(u64::MAX - 16, 8)), "half open");
    assert!(!filter.matches(&bio(u64::MAX - 8, 0)), "an empty flush lies in no range");
}

#[test]
fn partitions_of_a_disk_count_with_the_sectors_of_the_disk() {
    let disk =
        BlockFilter { device: 7, whole_disk: 1, sector_start: 2048, sector_end: 2056, ..Default::default() };
    let on_partition = BioFacts { ops: 1, device: 9, disk: 7, sectors: 8, sector: 0, device_start: 2048 };
    assert!(disk.matches(&on_partition));
    let partition = BlockFilter { device: 9, whole_disk: 0, ..disk };
    assert!(!partition.matches(&on_partition), "sectors of a partition are its own");
    assert!(partition.matches(&BioFacts { sector: 2048, ..on_partition }));
}
