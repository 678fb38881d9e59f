//! Hits that come in bursts: netem's correlation, and the Gilbert–Elliott model.

use fault_common::decide::{
    past::Past,
    rng::{Purpose, draw},
    trigger::{CERTAIN, Gilbert, Markov, Model, Trigger, threshold_from_ppb},
};

use crate::{
    ALPHA, at,
    bounds::{chi_square_is_credible, clopper_pearson},
};

const PERCENT: u64 = 10_000_000;

/// The decisions of one stream.
fn hits(trigger: &Trigger, stream: u64, length: u64) -> Vec<bool> {
    // Whatever was remembered before the first match does not count.
    let mut memory = Past(0xdead_beef_dead_beef);
    (0..length).map(|ordinal| trigger.wants(1, &at(7, 2, stream, ordinal), &mut memory)).collect()
}

fn burst(percent: u64, correlation: u64) -> Trigger {
    Trigger {
        threshold: threshold_from_ppb(percent * PERCENT),
        correlation: threshold_from_ppb(correlation * PERCENT),
        ..Trigger::ALWAYS
    }
}

fn gilbert([to_bad, to_good, bad, good]: [u64; 4]) -> Trigger {
    let chance = |percent| threshold_from_ppb(percent * PERCENT);
    let gilbert =
        Gilbert { to_bad: chance(to_bad), to_good: chance(to_good), bad: chance(bad), good: chance(good) };
    Trigger { model: Model::Gilbert as u32, gilbert, ..Trigger::ALWAYS }
}

/// Whether `count` of `trials` is credible for `percent`; never and always are exact.
fn as_often(percent: u64, trials: u64, count: u64, alpha: f64) -> bool {
    match percent {
        0 => count == 0,
        100 => count == trials,
        _ => {
            let p = threshold_from_ppb(percent * PERCENT) as f64 / CERTAIN as f64;
            clopper_pearson(trials, p, count, alpha)
        }
    }
}

/// How many runs of hits have length 1, 2, … 9, and 10 or more.
fn runs(hits: &[bool]) -> [u64; 10] {
    let mut counts = [0; 10];
    for run in hits.chunk_by(|a, b| a == b).filter(|run| run[0]) {
        counts[run.len().min(10) - 1] += 1;
    }
    counts
}

/// netem's `get_crandom` and the comparison after it, in floating point, with numbers of another generator and
/// purpose.
fn netem(loss: f64, correlation: f64, length: u64) -> Vec<bool> {
    let mut last = 0.5;
    let numbers =
        (0..length).map(|ordinal| draw(&at(99, 5, 1, ordinal), Purpose::Delay) as f64 / 2f64.powi(64));
    numbers
        .map(|value| {
            last = value.mul_add(1.0 - correlation, last * correlation);
            last < loss
        })
        .collect()
}

#[test]
fn runs_of_correlated_hits_are_those_of_netem() {
    // Two samples of 2 000 000 decisions each: χ² over lengths of runs, cells with fewer than 20 put together.
    let cases = [(5, 25), (30, 25), (30, 50), (20, 75)];
    for (percent, correlation) in cases {
        let ours = runs(&hits(&burst(percent, correlation), 1, 2_000_000));
        let theirs = runs(&netem(percent as f64 / 100.0, correlation as f64 / 100.0, 2_000_000));
        let (n, m) = (ours.iter().sum::<u64>() as f64, theirs.iter().sum::<u64>() as f64);
        assert!(n > 1000.0 && m > 1000.0, "{percent} % burst {correlation} %: {n} and {m} runs");
        let (mut statistic, mut cells) = (0.0, 0);
        let (mut a, mut b) = (0.0, 0.0);
        for (index, (our, their)) in ours.iter().zip(&theirs).enumerate() {
            (a, b) = (a + *our as f64, b + *their as f64);
            if a + b < 20.0 && index + 1 < ours.len() {
                continue;
            }
            if a + b > 0.0 {
                statistic += ((m / n).sqrt() * a - (n / m).sqrt() * b).powi(2) / (a + b);
                cells += 1;
            }
            (a, b) = (0.0, 0.0);
        }
        assert!(
            chi_square_is_credible(statistic, cells - 1, ALPHA / cases.len() as f64),
            "{percent} % burst {correlation} %: χ² {statistic} over {cells} cells, {ours:?} and {theirs:?}"
        );
        // And they are longer than without: the share of runs of one.
        let alone = runs(&hits(&burst(percent, 0), 1, 2_000_000));
        let single = |runs: [u64; 10]| runs[0] as f64 / runs.iter().sum::<u64>() as f64;
        assert!(single(ours) < single(alone), "{percent} % burst {correlation} %: no bursts");
    }
}

#[test]
fn correlation_at_its_ends() {
    let independent = Trigger { correlation: 0, ..burst(30, 0) };
    assert_eq!(hits(&burst(30, 0), 3, 10_000), hits(&independent, 3, 10_000));
    // All of the previous draw: one decision for the whole stream, by chance.
    let trigger = Trigger { correlation: CERTAIN, ..burst(30, 0) };
    let first: Vec<bool> = (1..=20_000)
        .map(|stream| {
            let hits = hits(&trigger, stream, 5);
            assert!(hits.iter().all(|hit| *hit == hits[0]), "stream {stream}: {hits:?}");
            hits[0]
        })
        .collect();
    let hit = first.iter().filter(|hit| **hit).count() as u64;
    assert!(clopper_pearson(20_000, 0.3, hit, ALPHA), "{hit} of 20 000 streams");
}

#[test]
fn states_change_as_often_as_asked() {
    // Always hit while bad, never while good: hits show the state. 1 000 000 matches for each model.
    for (p, r) in [(1, 10), (5, 20), (20, 5), (50, 50), (100, 100)] {
        let states = hits(&gilbert([p, r, 100, 0]), 1, 1_000_000);
        assert!(!states[0], "a flow starts in the good state");
        let [mut good, mut turned_bad, mut bad, mut turned_good] = [0; 4];
        for pair in states.windows(2) {
            if pair[0] {
                bad += 1;
                turned_good += u64::from(!pair[1]);
            } else {
                good += 1;
                turned_bad += u64::from(pair[1]);
            }
        }
        for (what, trials, count, chance) in [("bad", good, turned_bad, p), ("good", bad, turned_good, r)] {
            assert!(
                as_often(chance, trials, count, ALPHA / 10.0),
                "gilbert {p}% {r}%: {count} of {trials} turned {what}"
            );
        }
    }
}

#[test]
fn each_state_has_its_chance() {
    // The same transitions, seen through other chances of a hit: 1 000 000 matches.
    for [p, r, h, k] in [[2, 10, 50, 5], [10, 10, 80, 0], [5, 30, 100, 1]] {
        let states = hits(&gilbert([p, r, 100, 0]), 1, 1_000_000);
        let hits = hits(&gilbert([p, r, h, k]), 1, 1_000_000);
        for (state, chance) in [(true, h), (false, k)] {
            let of_state = states.iter().zip(&hits).filter(|(is_bad, _)| **is_bad == state);
            let (trials, count) =
                of_state.fold((0, 0), |(trials, count), (_, hit)| (trials + 1, count + u64::from(*hit)));
            assert!(
                as_often(chance, trials, count, ALPHA / 6.0),
                "gilbert {p}% {r}% {h}% {k}%: {count} of {trials} hit while bad = {state}"
            );
        }
    }
}

/// netem's `loss_4state`, with states by its names and numbers of another generator and purpose, until `length` decisions.
fn loss_4state([p13, p31, p32, p23, p14]: [u64; 5], length: u64) -> Vec<bool> {
    let a = [p13, p31, p32, p14, p23].map(|percent| percent as f64 / 100.0);
    let (mut state, mut lost) = ("TX_IN_GAP_PERIOD", Vec::new());
    for ordinal in 0..length {
        let rnd = draw(&at(99, 5, 1, ordinal), Purpose::Delay) as f64 / 2f64.powi(64);
        state = match state {
            "TX_IN_GAP_PERIOD" if rnd < a[3] => "LOST_IN_GAP_PERIOD",
            "TX_IN_GAP_PERIOD" if rnd < a[0] + a[3] => "LOST_IN_BURST_PERIOD",
            "TX_IN_BURST_PERIOD" if rnd < a[4] => "LOST_IN_BURST_PERIOD",
            "TX_IN_BURST_PERIOD" => "TX_IN_BURST_PERIOD",
            "LOST_IN_BURST_PERIOD" if rnd < a[2] => "TX_IN_BURST_PERIOD",
            "LOST_IN_BURST_PERIOD" if rnd < a[1] + a[2] => "TX_IN_GAP_PERIOD",
            "LOST_IN_BURST_PERIOD" => "LOST_IN_BURST_PERIOD",
            _ => "TX_IN_GAP_PERIOD",
        };
        lost.push(state.starts_with("LOST"));
    }
    lost
}

/// Numbers of the 16 patterns of four decisions, each counted once every 16, so that what is counted is nearly independent.
fn patterns(hits: &[bool]) -> [u64; 16] {
    let mut counts = [0; 16];
    for four in hits.chunks_exact(16).map(|chunk| &chunk[..4]) {
        counts[four.iter().fold(0, |number, hit| number << 1 | usize::from(*hit))] += 1;
    }
    counts
}

#[test]
fn four_states_are_those_of_netem() {
    // Two samples of 3 200 000 decisions: χ² over the patterns of four in a row, and over the lengths of runs.
    let cases = [[2, 30, 20, 50, 1], [5, 60, 0, 100, 0], [1, 20, 60, 10, 5], [20, 30, 40, 5, 60]];
    for case in cases {
        let chance = |percent: u64| threshold_from_ppb(percent * PERCENT);
        let markov = Markov::new(case.map(chance));
        let ours = hits(&Trigger { model: Model::Markov as u32, markov, ..Trigger::ALWAYS }, 1, 3_200_000);
        let theirs = loss_4state(case, 3_200_000);
        let compared = [
            (patterns(&ours).to_vec(), patterns(&theirs).to_vec()),
            (runs(&ours).to_vec(), runs(&theirs).to_vec()),
        ];
        for (ours, theirs) in compared {
            let (n, m) = (ours.iter().sum::<u64>() as f64, theirs.iter().sum::<u64>() as f64);
            let (mut statistic, mut cells) = (0.0, 0);
            for (a, b) in ours.iter().zip(&theirs).map(|(a, b)| (*a as f64, *b as f64)) {
                // Rare cells are left out on both sides: what they hold is in no other.
                if a + b >= 20.0 {
                    statistic += ((m / n).sqrt() * a - (n / m).sqrt() * b).powi(2) / (a + b);
                    cells += 1;
                }
            }
            assert!(cells > 2, "{case:?}: {ours:?}");
            assert!(
                chi_square_is_credible(statistic, cells - 1, ALPHA / 8.0),
                "markov {case:?}: χ² {statistic} over {cells} cells, {ours:?} and {theirs:?}"
            );
        }
    }
}

#[test]
fn hits_after_a_gap_have_their_chance() {
    // 200 000 matches, 20 % and at least five apart: of those that may be hit, a fifth is.
    let trigger = Trigger { threshold: threshold_from_ppb(20 * PERCENT), gap: 5, ..Trigger::ALWAYS };
    let hits = hits(&trigger, 1, 200_000);
    let (mut run, mut trials, mut count) = (0, 0, 0);
    for hit in hits {
        if run >= 4 {
            trials += 1;
            count += u64::from(hit);
        }
        run = if hit { 0 } else { run + 1 };
    }
    assert!(as_often(20, trials, count, ALPHA), "{count} of {trials}");
}

#[test]
fn a_gap_does_not_move_a_correlated_sequence() {
    // Where no hit is possible nothing is drawn, as in netem: with all of the previous draw, one decision for the stream.
    let trigger = Trigger { correlation: CERTAIN, gap: 3, ..burst(30, 0) };
    for stream in 1..=200 {
        let hits: Vec<bool> = hits(&trigger, stream, 30).into_iter().skip(2).step_by(3).collect();
        assert!(hits.iter().all(|hit| *hit == hits[0]), "stream {stream}: {hits:?}");
    }
}
