//! The generator itself.

use fault_common::decide::rng::{Coordinates, Purpose, draw};

use crate::{
    ALPHA, at,
    bounds::{chi_square_even, chi_square_is_credible, normal_bound},
};

/// Input bits: seed, rule, stream, ordinal.
const INPUT_BITS: usize = 64 + 32 + 64 + 64;

fn flip(at: Coordinates, bit: usize) -> Coordinates {
    match bit {
        0..64 => Coordinates { seed: at.seed ^ 1 << bit, ..at },
        64..96 => Coordinates { rule: at.rule ^ 1 << (bit - 64), ..at },
        96..160 => Coordinates { stream: at.stream ^ 1 << (bit - 96), ..at },
        _ => Coordinates { ordinal: at.ordinal ^ 1 << (bit - 160), ..at },
    }
}

#[test]
fn avalanche() {
    // Every input bit flips every output bit half of the time: 4096 samples for each of 224 × 64 cells,
    // around small coordinates, as sessions have them.
    const SAMPLES: u64 = 4096;
    let z = normal_bound(ALPHA / (INPUT_BITS * 64) as f64);
    let (half, bound) = (SAMPLES as f64 / 2.0, z * (SAMPLES as f64 / 4.0).sqrt());
    for bit in 0..INPUT_BITS {
        let mut flips = [0u64; 64];
        for sample in 0..SAMPLES {
            let here = at(sample % 8, (sample % 5) as u32, sample % 16, sample);
            let changed = draw(&here, Purpose::Trigger) ^ draw(&flip(here, bit), Purpose::Trigger);
            for (output, flips) in flips.iter_mut().enumerate() {
                *flips += changed >> output & 1;
            }
        }
        for (output, &flips) in flips.iter().enumerate() {
            assert!((flips as f64 - half).abs() < bound, "input bit {bit}, output bit {output}: {flips}");
        }
    }
}

#[test]
fn purposes_are_apart() {
    let mut flips = 0;
    for ordinal in 0..100_000 {
        let here = at(1, 0, 1, ordinal);
        flips += u64::from((draw(&here, Purpose::Trigger) ^ draw(&here, Purpose::Delay)).count_ones());
    }
    let z = (flips as f64 - 3_200_000.0) / (6_400_000f64 / 4.0).sqrt();
    assert!(z.abs() < normal_bound(ALPHA), "{z}");
}

#[test]
fn every_bit_is_fair() {
    // 10^6 draws along each coordinate, 64 bits each.
    const DRAWS: u64 = 1_000_000;
    let along: [fn(u64) -> Coordinates; 4] =
        [|i| at(i, 0, 1, 0), |i| at(42, i as u32, 1, 0), |i| at(42, 0, i, 0), |i| at(42, 0, 1, i)];
    let bound = normal_bound(ALPHA / 256.0) * (DRAWS as f64 / 4.0).sqrt();
    for (coordinate, along) in along.into_iter().enumerate() {
        let mut ones = [0u64; 64];
        for i in 0..DRAWS {
            let number = draw(&along(i), Purpose::Trigger);
            for (bit, ones) in ones.iter_mut().enumerate() {
                *ones += number >> bit & 1;
            }
        }
        for (bit, &ones) in ones.iter().enumerate() {
            let off = ones as f64 - DRAWS as f64 / 2.0;
            assert!(off.abs() < bound, "coordinate {coordinate}, bit {bit}: {ones}");
        }
    }
}

#[test]
fn bytes_are_even() {
    // 256 cells for each of the 8 bytes, 2 × 10^6 draws.
    let mut cells = vec![[0u64; 256]; 8];
    for ordinal in 0..2_000_000 {
        for (byte, cells) in draw(&at(7, 3, 11, ordinal), Purpose::Delay).to_le_bytes().iter().zip(&mut cells)
        {
            cells[usize::from(*byte)] += 1;
        }
    }
    for (byte, cells) in cells.iter().enumerate() {
        let statistic = chi_square_even(cells);
        assert!(chi_square_is_credible(statistic, 255, ALPHA / 8.0), "byte {byte}: {statistic}");
    }
}

#[test]
fn coordinates_do_not_collide() {
    // 10^6 distinct coordinates, 64-bit numbers: P(any two equal) is 3 × 10^-8.
    let mut numbers: Vec<u64> = (0..10u64)
        .flat_map(|seed| (0..10u32).map(move |rule| (seed, rule)))
        .flat_map(|(seed, rule)| (0..100u64).map(move |stream| (seed, rule, stream)))
        .flat_map(|(seed, rule, stream)| (0..100u64).map(move |ordinal| at(seed, rule, stream, ordinal)))
        .map(|at| draw(&at, Purpose::Trigger))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
}
