//! Numbers for people: three significant digits and a unit.

/// `1.5 µs`, `30.1 ms`, `2.00 s`.
pub(super) fn nanoseconds(ns: u64) -> String {
    let (value, unit) = match ns {
        0 => return "0".to_owned(),
        1..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// `10.3%` for 0.103; as many decimals as three significant digits need, down to `0.0001%`.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 || percent == 100.0 {
        return format!("{percent}%");
    }
    let decimals = match percent {
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        0.01.. => 4,
        0.001.. => 5,
        _ => 6,
    };
    // What is not quite everything is not called everything.
    format!("{:.decimals$}%", if percent > 99.9 { percent.min(99.9) } else { percent })
}

fn three_digits(value: f64) -> String {
    match value {
        99.95.. => format!("{value:.0}"),
        9.995.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// `1 packet`, `2 packets`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_significant_digits() {
        let durations =
            [0, 7, 999, 1_000, 1_500, 99_960, 30_123_456, 100_000_000, 2_000_000_000, 61_000_000_000];
        let expected =
            ["0", "7 ns", "999 ns", "1.00 µs", "1.50 µs", "100 µs", "30.1 ms", "100 ms", "2.00 s", "61.0 s"];
        assert_eq!(durations.map(nanoseconds), expected);
        let shares = [0.0, 1e-6, 0.000_123, 0.012_34, 0.103, 0.5, 0.999_99, 1.0];
        let expected = ["0%", "0.000100%", "0.0123%", "1.23%", "10.3%", "50.0%", "99.9%", "100%"];
        assert_eq!(shares.map(percent), expected);
    }
}
