//! The frequency of this machine's time stamp counter, which an emulated guest sees as its own.

use std::arch::x86_64::_rdtsc;
use std::time::{Duration, Instant};

/// Long enough for an error of a few parts in 100 000.
const MEASURE: Duration = Duration::from_millis(50);
/// Readings at each end; the one with the least time around it counts.
const READINGS: usize = 20;

/// Frequency of the time stamp counter, kHz, measured against the monotonic clock.
pub fn tsc_khz() -> u64 {
    let (time, ticks) = reading();
    std::thread::sleep(MEASURE);
    let (later, more) = reading();
    let nanos = later.duration_since(time).as_nanos().max(1);
    let khz = u128::from(more.wrapping_sub(ticks)) * 1_000_000 / nanos;
    u64::try_from(khz).unwrap_or(u64::MAX)
}

/// Clock and counter at the same moment, as far as preemption allows.
fn reading() -> (Instant, u64) {
    let mut best = read_once();
    for _ in 1..READINGS {
        let next = read_once();
        if next.2 < best.2 {
            best = next;
        }
    }
    (best.0, best.1)
}

fn read_once() -> (Instant, u64, Duration) {
    let before = Instant::now();
    // SAFETY: every x86-64 processor has RDTSC, and Linux does not forbid it to user space.
    let ticks = unsafe { _rdtsc() };
    let around = before.elapsed();
    (before + around / 2, ticks, around)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (first, second) = (tsc_khz(), tsc_khz());
        // 1 %: far more than the error of either, far less than what a wrong unit would give.
        assert!(first.abs_diff(second) < first / 100, "{first} kHz, {second} kHz");
    }
}
