//! Which bits are flipped.

use std::collections::HashSet;

use fault_common::{decide::corruption::place, limits::MAX_CORRUPT_BITS};
use proptest::prelude::*;

proptest! {
    #[test]
    fn bits_lie_in_the_packet_and_no_two_are_the_same(
        random: u64,
        total in 1..=MAX_CORRUPT_BITS,
        bytes in 1..70_000u32,
    ) {
        let places: HashSet<u32> = (0..total).map(|number| place(random, number, total, bytes)).collect();
        prop_assert!(places.iter().all(|place| *place < bytes * 8));
        if bytes >= total {
            prop_assert_eq!(places.len(), total as usize);
        }
    }
}

#[test]
fn every_bit_is_as_likely_as_any() {
    // One bit of 20 bytes, 160 000 times: each of the 160 is expected 1000 times; 99.9 % of all such counts lie within
    // 1000 ± 104 (normal approximation), all 160 at once within 1000 ± 150.
    let mut counts = [0u32; 160];
    for random in 0..160_000u64 {
        counts[place(random.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0, 1, 20) as usize] += 1;
    }
    assert!(counts.iter().all(|count| count.abs_diff(1000) <= 150), "{counts:?}");
}
