//! Numbers and events, in few columns.

use serde_json::Value;

/// At most six columns: `0`, `0.4`, `12.3`, `1234`, `56.7k`, `8.90M`.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        value if value < 99.95 => format!("{value:.1}"),
        value if value < 9_999.5 => format!("{value:.0}"),
        value if value < 999_950.0 => format!("{:.1}k", value / 1e3),
        value if value < 999_950_000.0 => format!("{:.1}M", value / 1e6),
        value => format!("{:.1}G", value / 1e9),
    }
}

/// At most six columns: `0`, `999`, `12.3k`.
pub(super) fn count(number: u64) -> String {
    if number < 10_000 { number.to_string() } else { rate(number as f64) }
}

/// At most seven columns: `512 B`, `1.5 KiB`, `20 MiB`.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 999.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `850 ms`, `12.3 s`, `5m12s`, `2h05m`.
pub(super) fn time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0 if ns < 1_000_000 => format!("{} µs", ns / 1_000),
        0 => format!("{} ms", ns / 1_000_000),
        1..60 => format!("{:.1} s", ns as f64 / 1e9),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A delay, at most seven columns: `850 µs`, `30.1 ms`.
pub(super) fn delay(ns: f64) -> String {
    match ns {
        ns if ns < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 999_500.0 => format!("{:.0} µs", ns / 1e3),
        ns if ns < 99_950_000.0 => format!("{:.1} ms", ns / 1e6),
        ns if ns < 999_500_000.0 => format!("{:.0} ms", ns / 1e6),
        ns => format!("{:.1} s", ns / 1e9),
    }
}

/// One character for each value, the largest one full; what is not known is blank, and zero a dot.
pub(super) fn sparkline(values: impl Iterator<Item = Option<f64>> + Clone, most: f64) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    values
        .map(|value| match value {
            None => ' ',
            Some(value) if value <= 0.0 || most <= 0.0 => '·',
            Some(value) => LEVELS[((value / most * 8.0).ceil() as usize).clamp(1, 8) - 1],
        })
        .collect()
}

/// `12:03:11.5  #0 drop  nginx 4711  tcp out 10.0.0.1:80`.
pub(super) fn event(event: &Value) -> String {
    let word = |field: &str| event[field].as_str().unwrap_or_default();
    let time = word("time").split('T').nth(1).and_then(|time| time.get(..10)).unwrap_or_default();
    let rule = event["rule"].as_u64().map_or_else(|| "#?".to_owned(), |rule| format!("#{rule}"));
    let delay = match event["delay_ns"].as_u64() {
        Some(ns @ 1..) => format!(" {}", delay(ns as f64)),
        Some(0) | None => String::new(),
    };
    let who = match event["pid"].as_u64() {
        Some(pid) => format!("{} {pid}", word("comm")),
        None => word("comm").to_owned(),
    };
    let ops = || {
        let words = event["ops"].as_array().map(Vec::as_slice).unwrap_or_default();
        words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
    };
    let what = match word("layer") {
        "net" => {
            let arrow = if word("direction") == "in" { "from" } else { "to" };
            format!("{} {} {arrow} {}", word("protocol"), word("direction"), word("remote"))
        }
        "disk" => format!("{} {} sector {}", ops(), word("device"), event["sector"]),
        "file" => {
            let path = ["path", "inner_path", "path_end"].into_iter().find_map(|field| event[field].as_str());
            format!("{} {} {}", ops(), word("errno"), path.unwrap_or_default())
        }
        _ => String::new(),
    };
    let parts = [format!("{time} {rule} {}{delay}", word("action")), who, what];
    parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
}

/// What others call things must not move the cursor.
pub(super) fn tame(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_stay_short() {
        let rates = [0.0, 0.04, 3.26, 99.96, 1234.4, 9999.6, 56_700.0, 999_960.0, 8.9e6, 2.5e10];
        let expected = ["0", "0.0", "3.3", "100", "1234", "10.0k", "56.7k", "1.0M", "8.9M", "25.0G"];
        assert_eq!(rates.map(rate), expected);
        assert_eq!([0, 9_999, 10_000].map(count), ["0", "9999", "10.0k"]);
        assert_eq!(
            [0, 1023, 1536, 20 << 20, 1 << 40].map(bytes),
            ["0 B", "1023 B", "1.5 KiB", "20 MiB", "1.0 TiB"]
        );
        let times =
            [1_000, 850_000_000, 12_300_000_000, 312_000_000_000, 7_500_000_000_000, 180_000_000_000_000];
        assert_eq!(times.map(time), ["1 µs", "850 ms", "12.3 s", "5m12s", "2h05m", "2d02h"]);
        assert_eq!(
            [7.0, 850e3, 30.1e6, 100e6, 3e9].map(delay),
            ["7 ns", "850 µs", "30.1 ms", "100 ms", "3.0 s"]
        );
        assert_eq!(sparkline([None, Some(0.0), Some(1.0), Some(8.0)].into_iter(), 8.0), " ·▁█");
    }

    #[test]
    fn events_of_all_layers() {
        let packet = json!({"time": "2026-11-20T08:54:31.123456789Z", "rule": 0, "layer": "net", "action": "delay",
            "delay_ns": 30_000_000, "pid": 7, "comm": "curl", "direction": "out", "protocol": "tcp", "remote": "10.0.0.1:80"});
        assert_eq!(event(&packet), "08:54:31.1 #0 delay 30.0 ms  curl 7  tcp out to 10.0.0.1:80");
        let bio = json!({"layer": "disk", "action": "error", "rule": 1, "device": "vdb", "ops": ["read"], "sector": 8});
        assert_eq!(event(&bio), "#1 error  read vdb sector 8");
        let file =
            json!({"layer": "file", "action": "fail", "ops": ["open"], "errno": "EIO", "path": "/data/a"});
        assert_eq!(event(&file), "#? fail  open EIO /data/a");
        assert_eq!(event(&json!({"from": "a later version"})), "#?");
        assert_eq!(tame("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}
