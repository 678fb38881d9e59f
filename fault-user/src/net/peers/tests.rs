//! The closure against the definition: an address is concerned by a rule when one of the rule's networks holds it.

use proptest::prelude::*;

use super::*;

/// Longest-prefix match as the kernel does it.
fn look_up(table: &Table, address: IpAddr) -> [u64; BANKS] {
    let key = Prefix::new(single(address).expect("a whole address is a network"));
    table
        .iter()
        .filter(|(prefix, _)| prefix.covers(key))
        .max_by_key(|(prefix, _)| prefix.length)
        .map_or([0; BANKS], |(_, rules)| rules.0)
}

/// What the words mean, one rule at a time.
fn meant(named: &Named, address: IpAddr) -> u64 {
    named
        .iter()
        .filter(|(network, _)| {
            network.network().is_ipv4() == address.is_ipv4()
                && Cidr::new(address, network.prefix()).is_some_and(|same| same == *network)
        })
        .fold(0, |mask, (_, slots)| mask | slots)
}

/// Few distinct bits, so that prefixes nest and collide often.
fn addresses() -> impl Strategy<Value = IpAddr> {
    let v4 = (0u32..4, 0u32..4).prop_map(|(high, low)| IpAddr::V4((high << 30 | low).into()));
    let v6 = (0u128..4, 0u128..4).prop_map(|(high, low)| IpAddr::V6((high << 126 | low).into()));
    prop_oneof![v4, v6]
}

fn networks() -> impl Strategy<Value = Cidr> {
    let length = prop_oneof![0u8..4, 28u8..33, 94u8..98, 125u8..129];
    (addresses(), length)
        .prop_filter_map("an IPv4 prefix has 32 bits", |(address, length)| Cidr::new(address, length))
}

fn named() -> impl Strategy<Value = Named> {
    prop::collection::vec((networks(), (0u32..64).prop_map(|slot| 1 << slot)), 0..24)
}

proptest! {
    #[test]
    fn a_look_up_finds_every_rule_that_names_the_address(
        banks in [named(), named()],
        asked in prop::collection::vec(addresses(), 16),
    ) {
        let table = table(&banks);
        for address in asked {
            let expected = [meant(&banks[0], address), meant(&banks[1], address)];
            prop_assert_eq!(look_up(&table, address), expected, "{}", address);
        }
    }

    #[test]
    fn changing_one_bank_never_disturbs_the_other(
        kept in named(),
        before in named(),
        after in named(),
        shuffle in any::<u64>(),
        asked in prop::collection::vec(addresses(), 8),
    ) {
        let target = table(&[kept.clone(), after]);
        let mut map = table(&[kept.clone(), before]);
        let mut changes = changes(&map, &target);
        // Any order within the two halves.
        changes.upserts.sort_by_key(|(prefix, _)| (prefix.bits as u64).wrapping_mul(shuffle | 1));
        changes.removals.sort_by_key(|prefix| (prefix.bits as u64).wrapping_mul(shuffle | 1));
        let undisturbed = |map: &Table| {
            asked.iter().all(|address| look_up(map, *address)[0] == meant(&kept, *address))
        };
        for (prefix, rules) in changes.upserts {
            map.insert(prefix, rules);
            prop_assert!(undisturbed(&map), "after inserting {:?}", prefix);
        }
        for prefix in changes.removals {
            map.remove(&prefix);
            prop_assert!(undisturbed(&map), "after removing {:?}", prefix);
        }
        prop_assert_eq!(map, target);
    }
}

fn cidr(text: &str) -> Cidr {
    let (address, length) = text.split_once('/').expect("ADDRESS/LENGTH");
    Cidr::new(address.parse().expect("an address"), length.parse().expect("a number")).expect("in range")
}

#[test]
fn the_longest_prefix_answers_for_the_shorter_ones() {
    let table =
        table(&[vec![(cidr("10.0.0.0/8"), 1), (cidr("10.1.0.0/16"), 2), (cidr("10.1.2.3/32"), 4)], vec![]]);
    let mask = |address: &str| look_up(&table, address.parse().expect("an address"))[0];
    assert_eq!(mask("10.9.9.9"), 1);
    assert_eq!(mask("10.1.9.9"), 3);
    assert_eq!(mask("10.1.2.3"), 7);
    assert_eq!(mask("11.0.0.1"), 0);
}

#[test]
fn all_of_ipv6_does_not_mean_ipv4() {
    let table = table(&[vec![(cidr("::/0"), 1), (cidr("192.0.2.1/32"), 2)], vec![]]);
    let mask = |address: &str| look_up(&table, address.parse().expect("an address"))[0];
    assert_eq!(mask("2001:db8::1"), 1);
    assert_eq!(mask("192.0.2.1"), 2);
    assert_eq!(mask("192.0.2.2"), 0);
}

#[test]
fn ten_thousand_peers_are_ten_thousand_entries() {
    let named: Named =
        (0..10_000u32).map(|n| (Cidr::new(IpAddr::V4((10 << 24 | n).into()), 32).unwrap(), 1)).collect();
    assert_eq!(table(&[named, vec![]]).len(), 10_000);
}

#[test]
fn a_name_of_this_machine_resolves_to_its_addresses() {
    let found = resolve(&Peer::Name("localhost".to_owned())).unwrap();
    assert!(found.contains(&cidr("127.0.0.1/32")) || found.contains(&cidr("::1/128")), "{found:?}");
}

#[test]
fn a_name_nobody_has_is_refused_by_name() {
    // RFC 6761: never resolves.
    let error = resolve(&Peer::Name("fault.invalid".to_owned())).unwrap_err().to_string();
    assert!(error.starts_with("the name 'fault.invalid' does not resolve to any address"), "{error}");
}
