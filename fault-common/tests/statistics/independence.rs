//! Does one decision tell anything about another?

use fault_common::decide::{
    past::Past,
    rng::{Coordinates, Purpose, draw},
    trigger::{Trigger, threshold_from_ppb},
};

use crate::{
    ALPHA, at,
    bounds::{chi_square_is_credible, normal_bound},
};

/// Chi-square of independence of two cells' hits over `count` pairs (1 degree of freedom).
fn chi_square_2x2(pairs: impl Iterator<Item = (bool, bool)>) -> f64 {
    let mut table = [[0f64; 2]; 2];
    for (a, b) in pairs {
        table[usize::from(a)][usize::from(b)] += 1.0;
    }
    let total: f64 = table.iter().flatten().sum();
    let mut statistic = 0.0;
    for row in &table {
        for (j, cell) in row.iter().enumerate() {
            let column = table[0][j] + table[1][j];
            let expected = (row[0] + row[1]) * column / total;
            statistic += (cell - expected).powi(2) / expected;
        }
    }
    statistic
}

/// Correlation of pairs of numbers, as a standard normal value: r √n.
fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len() as f64;
    let (sum_a, sum_b) = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let (mean_a, mean_b) = (sum_a / n, sum_b / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in pairs {
        ab += (a - mean_a) * (b - mean_b);
        aa += (a - mean_a).powi(2);
        bb += (b - mean_b).powi(2);
    }
    ab / (aa * bb).sqrt() * n.sqrt()
}

fn unit(at: &Coordinates, purpose: Purpose) -> f64 {
    draw(at, purpose) as f64 / 2f64.powi(64)
}

fn hit(trigger: &Trigger, at: Coordinates) -> bool {
    trigger.wants(1, &at, &mut Past::default())
}

/// A neighbour in one coordinate.
type Step = (&'static str, fn(Coordinates) -> Coordinates);

/// All ways from one decision to one that an experiment may put beside it.
const NEIGHBOURS: [Step; 9] = [
    ("next ordinal", |c| Coordinates { ordinal: c.ordinal + 1, ..c }),
    ("second next ordinal", |c| Coordinates { ordinal: c.ordinal + 2, ..c }),
    ("ordinal 64 later", |c| Coordinates { ordinal: c.ordinal + 64, ..c }),
    ("next stream", |c| Coordinates { stream: c.stream + 1, ..c }),
    ("stream and ordinal swapped", |c| Coordinates { stream: c.ordinal, ordinal: c.stream, ..c }),
    ("next stream, previous ordinal", |c| Coordinates {
        stream: c.stream + 1,
        ordinal: c.ordinal.wrapping_sub(1),
        ..c
    }),
    ("next rule", |c| Coordinates { rule: c.rule + 1, ..c }),
    ("next seed", |c| Coordinates { seed: c.seed + 1, ..c }),
    ("opposite seed", |c| Coordinates { seed: !c.seed, ..c }),
];

/// 1000 streams of 1000 operations.
fn grid() -> impl Iterator<Item = Coordinates> {
    (1001..2001).flat_map(|stream| (0..1000).map(move |ordinal| at(42, 7, stream, ordinal)))
}

#[test]
fn hits_do_not_depend_on_their_neighbours() {
    // 10^6 pairs for each neighbour, at 1 %, 10 % and 50 %.
    let alpha = ALPHA / (3 * NEIGHBOURS.len()) as f64;
    for ppb in [10_000_000, 100_000_000, 500_000_000] {
        let trigger = Trigger { threshold: threshold_from_ppb(ppb), ..Trigger::ALWAYS };
        for (name, step) in NEIGHBOURS {
            let statistic = chi_square_2x2(grid().map(|c| (hit(&trigger, c), hit(&trigger, step(c)))));
            // One-sided: with one degree of freedom a value near zero is the most likely one.
            assert!(statistic < normal_bound(alpha).powi(2), "{name} at {ppb} ppb: {statistic}");
        }
    }
}

#[test]
fn draws_are_not_correlated_with_their_neighbours() {
    // 10^6 pairs for each neighbour and both purposes.
    let bound = normal_bound(ALPHA / (2 * NEIGHBOURS.len()) as f64);
    for purpose in [Purpose::Trigger, Purpose::Delay] {
        for (name, step) in NEIGHBOURS {
            let pairs: Vec<_> = grid().map(|c| (unit(&c, purpose), unit(&step(c), purpose))).collect();
            let z = correlation(&pairs);
            assert!(z.abs() < bound, "{name}, {purpose:?}: {z}");
        }
    }
}

#[test]
fn how_late_does_not_depend_on_whether() {
    let pairs: Vec<_> = grid().map(|c| (unit(&c, Purpose::Trigger), unit(&c, Purpose::Delay))).collect();
    let z = correlation(&pairs);
    assert!(z.abs() < normal_bound(ALPHA), "{z}");
}

#[test]
fn pairs_fill_the_square() {
    // Serial test: top 5 bits of a draw against those of its neighbour, 1024 cells, 10^6 pairs.
    let alpha = ALPHA / NEIGHBOURS.len() as f64;
    for (name, step) in NEIGHBOURS {
        let mut cells = vec![0u64; 1024];
        for c in grid() {
            let (a, b) = (draw(&c, Purpose::Trigger) >> 59, draw(&step(c), Purpose::Trigger) >> 59);
            cells[(a << 5 | b) as usize] += 1;
        }
        let statistic = crate::bounds::chi_square_even(&cells);
        assert!(chi_square_is_credible(statistic, 1023, alpha), "{name}: {statistic}");
    }
}

#[test]
fn runs_are_neither_too_long_nor_too_short() {
    // Wald–Wolfowitz: the number of runs of equal outcomes in 10^6 operations, given the hits among them.
    let percentages = [1, 10, 50, 90];
    let bound = normal_bound(ALPHA / (percentages.len() * 8) as f64);
    for percent in percentages {
        let trigger = Trigger { threshold: threshold_from_ppb(percent * 10_000_000), ..Trigger::ALWAYS };
        for seed in 0..8 {
            let outcomes: Vec<bool> =
                (0..1_000_000).map(|ordinal| hit(&trigger, at(seed, 0, 1, ordinal))).collect();
            let hits = outcomes.iter().filter(|&&hit| hit).count() as f64;
            let spared = outcomes.len() as f64 - hits;
            let n = hits + spared;
            let runs = 1.0 + outcomes.windows(2).filter(|pair| pair[0] != pair[1]).count() as f64;
            let mean = 2.0 * hits * spared / n + 1.0;
            let variance = (mean - 1.0) * (mean - 2.0) / (n - 1.0);
            let z = (runs - mean) / variance.sqrt();
            assert!(z.abs() < bound, "{percent} %, seed {seed}: {z}");
        }
    }
}

#[test]
fn gaps_between_hits_are_geometric() {
    // At 10 %: 10^6 hits, gaps of 0 ..= 49 operations and longer ones, 51 cells.
    let trigger = Trigger { threshold: threshold_from_ppb(100_000_000), ..Trigger::ALWAYS };
    let (mut counts, mut gap, mut hits, mut ordinal) = ([0f64; 51], 0usize, 0, 0);
    while hits < 1_000_000 {
        if hit(&trigger, at(99, 1, 5, ordinal)) {
            counts[gap.min(50)] += 1.0;
            (gap, hits) = (0, hits + 1);
        } else {
            gap += 1;
        }
        ordinal += 1;
    }
    let expected = |gap: usize| if gap < 50 { 0.1 * 0.9f64.powi(gap as i32) } else { 0.9f64.powi(50) };
    let statistic: f64 = counts
        .iter()
        .enumerate()
        .map(|(gap, count)| (count - 1e6 * expected(gap)).powi(2) / (1e6 * expected(gap)))
        .sum();
    assert!(chi_square_is_credible(statistic, 50, ALPHA), "{statistic}");
}
