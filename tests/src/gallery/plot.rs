//! What users felt over time, as SVG: a dot for each request that ended as wanted, a cross for each that did not.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::record::{Phase, Record};
use crate::victim::report::Sample;

/// In units of the drawing.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 320.0;
/// Left of the plot stand latencies, above it phases, under it times and the legend.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 44.0;
const FOOT: f64 = 26.0;
const LEGEND_ROW: f64 = 20.0;
const LEGEND_COLUMNS: usize = 3;

/// Colours that people who see few of them can tell apart (Okabe and Ito).
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5a5a5a", "#8a6d00"];

/// From time and latency to the drawing. Latencies are on a logarithmic scale of whole decades.
struct Scale {
    begin_ns: u64,
    end_ns: u64,
    least: i32,
    most: i32,
}

impl Scale {
    fn of(record: &Record) -> Self {
        let begins = record
            .phases
            .iter()
            .map(|phase| phase.begin_ns)
            .chain(record.samples.iter().map(|one| one.at_ns));
        let ends = record
            .phases
            .iter()
            .map(|phase| phase.end_ns)
            .chain(record.samples.iter().map(|one| one.at_ns + one.took_ns));
        let took = || record.samples.iter().map(|one| decades(one.took_ns));
        let least = took().fold(f64::INFINITY, f64::min).floor();
        let most = took().fold(f64::NEG_INFINITY, f64::max).ceil();
        let (least, most) =
            if least.is_finite() && most.is_finite() { (least as i32, most as i32) } else { (0, 1) };
        Self {
            begin_ns: begins.min().unwrap_or(0),
            end_ns: ends.max().unwrap_or(1),
            least,
            most: most.max(least + 1),
        }
    }

    fn x(&self, at_ns: u64) -> f64 {
        let lasted = self.end_ns.saturating_sub(self.begin_ns).max(1) as f64;
        LEFT + (WIDTH - LEFT - RIGHT) * (at_ns.saturating_sub(self.begin_ns) as f64 / lasted)
    }

    fn y(&self, decades: f64) -> f64 {
        let share = (decades - f64::from(self.least)) / f64::from(self.most - self.least);
        TOP + HEIGHT * (1.0 - share.clamp(0.0, 1.0))
    }

    /// Seconds at which the axis has a mark: about eight.
    fn marks(&self) -> Vec<u64> {
        let lasted = self.end_ns.saturating_sub(self.begin_ns) / 1_000_000_000;
        let step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600]
            .into_iter()
            .find(|step| lasted / step <= 8)
            .unwrap_or(1200);
        (0..=lasted / step).map(|mark| mark * step).collect()
    }
}

/// Decades above a millisecond.
fn decades(took_ns: u64) -> f64 {
    (took_ns.max(1) as f64 / 1e6).log10()
}

fn latency(decade: i32) -> String {
    match decade {
        3.. => format!("{} s", 10_u64.pow((decade - 3) as u32)),
        0..3 => format!("{} ms", 10_u64.pow(decade as u32)),
        _ => format!("{} µs", 10_f64.powi(decade + 3)),
    }
}

/// The drawing.
#[must_use]
pub fn render(record: &Record) -> String {
    let scale = Scale::of(record);
    let who = record.who();
    let rows = who.len().div_ceil(LEGEND_COLUMNS);
    let bottom = TOP + HEIGHT;
    let height = bottom + FOOT + LEGEND_ROW * (rows as f64 + 1.0) + 6.0;
    let drawing = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height}"))
            font-family="sans-serif" font-size="12" fill="#333" role="img"
            aria-label="latency of each request over time" {
            rect width=(WIDTH) height=(height) fill="#fff" {}
            @for (number, phase) in record.phases.iter().enumerate() { (band(&scale, phase, number)) }
            @for decade in scale.least..=scale.most {
                @let y = scale.y(f64::from(decade));
                line x1=(LEFT) x2=(WIDTH - RIGHT) y1=(tidy(y)) y2=(tidy(y)) stroke="#ccc" {}
                text x=(LEFT - 6.0) y=(tidy(y + 4.0)) text-anchor="end" { (latency(decade)) }
            }
            @for mark in scale.marks() {
                @let x = scale.x(scale.begin_ns + mark * 1_000_000_000);
                line x1=(tidy(x)) x2=(tidy(x)) y1=(bottom) y2=(bottom + 4.0) stroke="#999" {}
                text x=(tidy(x)) y=(bottom + 17.0) text-anchor="middle" { (mark) " s" }
            }
            @for (number, who) in who.iter().enumerate() {
                @let colour = COLOURS[number % COLOURS.len()];
                @let (dots, crosses) = marks(&scale, record, who);
                path d=(dots) stroke=(colour) stroke-width="4.4" stroke-linecap="round" stroke-opacity="0.6" fill="none" {}
                path d=(crosses) stroke=(colour) stroke-width="1.8" fill="none" {}
                (legend(number, who, colour, bottom + FOOT))
            }
            @let y = bottom + FOOT + LEGEND_ROW * (rows as f64) + 13.0;
            text x=(LEFT) y=(y) fill="#777" { "dot: as wanted · cross: not · shaded: something is broken · vertical: how long a request took" }
        }
    };
    drawing.into_string()
}

/// A phase and its name, in two rows by turns.
fn band(scale: &Scale, phase: &Phase, number: usize) -> Markup {
    let (x, end) = (scale.x(phase.begin_ns), scale.x(phase.end_ns));
    let colour = if phase.hurt { "#fbe3dc" } else { "#f2f5f7" };
    let y = if number.is_multiple_of(2) { 16.0 } else { 34.0 };
    // A name stays within the drawing.
    let anchor = if x < 0.1 * WIDTH {
        "start"
    } else if end > 0.95 * WIDTH {
        "end"
    } else {
        "middle"
    };
    let at = match anchor {
        "start" => x,
        "end" => end,
        _ => f64::midpoint(x, end),
    };
    html! {
        rect x=(tidy(x)) y=(TOP) width=(tidy(end - x)) height=(HEIGHT) fill=(colour) {}
        text x=(tidy(at)) y=(y) text-anchor=(anchor) font-weight=(if phase.hurt { "bold" } else { "normal" }) { (phase.name) }
    }
}

fn legend(number: usize, who: &str, colour: &str, top: f64) -> Markup {
    let column = (WIDTH - LEFT - RIGHT) / LEGEND_COLUMNS as f64;
    let x = LEFT + column * (number % LEGEND_COLUMNS) as f64;
    let y = top + LEGEND_ROW * (number / LEGEND_COLUMNS) as f64 + 10.0;
    html! {
        circle cx=(tidy(x + 4.0)) cy=(tidy(y - 4.0)) r="4" fill=(colour) {}
        text x=(tidy(x + 14.0)) y=(tidy(y)) { (who) }
    }
}

/// All dots and all crosses of one of them, a path each: a file of a few kilobytes.
fn marks(scale: &Scale, record: &Record, who: &str) -> (String, String) {
    let (mut dots, mut crosses) = (String::new(), String::new());
    let of_who = |sample: &&Sample| sample.who == who;
    for sample in record.samples.iter().filter(of_who) {
        let (x, y) = (scale.x(sample.at_ns), scale.y(decades(sample.took_ns)));
        // Writing to a string cannot fail.
        _ = if sample.good {
            write!(dots, "M{} {}h0", tidy(x), tidy(y))
        } else {
            write!(crosses, "M{} {}l7 7m0-7l-7 7", tidy(x - 3.5), tidy(y - 3.5))
        };
    }
    (dots, crosses)
}

/// One digit behind the point, if it is needed.
fn tidy(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let sample = |at_ns, took_ns, good| Sample {
            who: "a < b".to_owned(),
            what: String::new(),
            at_ns,
            took_ns,
            outcome: String::new(),
            good,
        };
        let phase = |name: &str, begin_ns, hurt| Phase {
            name: name.to_owned(),
            begin_ns,
            end_ns: begin_ns + 1_000_000_000,
            hurt,
        };
        Record {
            phases: vec![phase("before", 0, false), phase("during", 1_000_000_000, true)],
            samples: vec![sample(0, 2_000_000, true), sample(1_500_000_000, 400_000_000, false)],
        }
    }

    #[test]
    fn what_was_felt_is_where_it_belongs() {
        let drawing = render(&record());
        let scale = Scale::of(&record());
        assert_eq!((scale.least, scale.most), (0, 3));
        // The dot at its time and latency, the cross higher and later.
        let dot = format!("M{} {}h0", tidy(LEFT), tidy(scale.y(2_f64.log10())));
        assert!(drawing.contains(&dot), "{drawing}");
        assert_eq!(drawing.matches("l7 7m0-7l-7 7").count(), 1);
        assert!(scale.y(decades(400_000_000)) < scale.y(decades(2_000_000)));
        assert!(drawing.contains("a &lt; b") && drawing.contains("#fbe3dc"), "{drawing}");
    }

    #[test]
    fn nothing_can_be_drawn() {
        assert!(render(&Record::default()).starts_with("<svg"));
    }

    #[test]
    fn decades_have_names() {
        let names: Vec<String> = (-1..=4).map(latency).collect();
        assert_eq!(names, ["100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
    }
}
