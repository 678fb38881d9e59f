//! What a seed means. A change that breaks these tests breaks every `--seed` that anybody wrote down.

use fault_common::decide::{
    delay::{Delay, Distribution},
    past::Past,
    rng::{Coordinates, Purpose, draw},
    trigger::{Trigger, threshold_from_ppb},
};

use crate::at;

/// SplitMix64 as its author publishes it (<https://prng.di.unimi.it/splitmix64.c>, public domain): with a
/// state that advances.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e3779b97f4a7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        z ^ (z >> 31)
    }

    fn nth(seed: u64, n: u64) -> u64 {
        let mut generator = Self(seed);
        (0..n).for_each(|_| {
            generator.next();
        });
        generator.next()
    }
}

#[test]
fn reference_implementation_gives_its_published_numbers() {
    let mut generator = SplitMix64(1234567);
    let published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ];
    assert_eq!(published.map(|_| generator.next()), published);
}

#[test]
fn draw_is_three_nested_generators() {
    for at @ Coordinates { seed, rule, stream, ordinal } in
        [at(0, 0, 0, 0), at(42, 1, 2, 3), at(u64::MAX, 63, 1000, 5000), at(1 << 63, 5, 77, 4096)]
    {
        for purpose in [Purpose::Trigger, Purpose::Delay] {
            let of_rule = SplitMix64::nth(seed, u64::from(rule) << 8 | purpose as u64);
            let of_stream = SplitMix64::nth(of_rule, stream);
            assert_eq!(draw(&at, purpose), SplitMix64::nth(of_stream, ordinal), "{at:?} {purpose:?}");
        }
    }
}

#[test]
fn draws() {
    let coordinates = [
        at(0, 0, 0, 0),
        at(1, 0, 1, 0),
        at(42, 0, 1, 0),
        at(42, 0, 1, 1),
        at(42, 1, 1, 0),
        at(42, 0, 2, 0),
        at(u64::MAX, u32::MAX, u64::MAX, u64::MAX),
    ];
    let numbers = coordinates.map(|at| [draw(&at, Purpose::Trigger), draw(&at, Purpose::Delay)]);
    let pinned = [
        [0x80ab_e802_ac1e_182e, 0x3edf_ba92_8125_7392],
        [0x61a4_14db_368f_9397, 0x4a3f_23c7_0b2a_c7e8],
        [0xc6cc_343d_aa0f_53bf, 0xbcd4_271e_0c2b_d47b],
        [0x8c5d_59f0_8213_2129, 0xf55f_78d8_c07d_79fa],
        [0xa877_f42a_f038_97a0, 0x5645_d35b_6109_8210],
        [0x29be_ed4f_3b92_f7f5, 0xb943_e0de_874a_e133],
        [0xdd05_ee7c_41b0_3a12, 0xb9b5_e3b2_2c0b_c197],
    ];
    assert_eq!(numbers, pinned, "{numbers:#x?}");
}

#[test]
fn which_of_the_first_hundred_are_hit() {
    let trigger = Trigger { threshold: threshold_from_ppb(100_000_000), ..Trigger::ALWAYS };
    let hits: Vec<u64> =
        (0..100).filter(|&ordinal| trigger.wants(1, &at(42, 0, 1, ordinal), &mut Past::default())).collect();
    assert_eq!(hits, [29, 30, 53, 58, 60, 68, 72, 73, 92, 97]);
}

#[test]
fn how_late_the_first_four_are() {
    let delays =
        [Distribution::Uniform, Distribution::Normal, Distribution::Pareto, Distribution::ParetoNormal].map(
            |distribution| {
                let delay = Delay {
                    mean_ns: 100_000_000,
                    jitter_ns: 20_000_000,
                    distribution: distribution as u32,
                    flags: 0,
                    ..Delay::default()
                };
                [0, 1, 2, 3].map(|ordinal| delay.sample(&at(42, 0, 1, ordinal), &mut Past::default(), None))
            },
        );
    let pinned = [
        [109_504_488, 118_339_522, 91_527_486, 80_351_764],
        [112_719_726, 134_667_968, 88_825_683, 52_514_648],
        [101_430_664, 132_055_664, 91_223_144, 88_520_507],
        [104_418_945, 136_428_222, 89_604_492, 78_186_035],
    ];
    assert_eq!(delays, pinned);
}
