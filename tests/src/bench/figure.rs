//! What was measured, against what it should be.

use std::fmt::Write as _;

use serde::Serialize;

use crate::stats::median_bounds;

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    bench: &'static str,
    what: String,
    measured: f64,
    unit: &'static str,
    /// Between what it lies at 99.9 %, of a ratio that was measured often enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    bounds: Option<(f64, f64)>,
    target: Option<Target>,
    /// Of what has bounds, also when the target lies between them.
    reached: Option<bool>,
    /// Every sample, in the order measured.
    samples: Vec<f64>,
}

/// What it should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
}

impl Target {
    fn is_reached_by(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(bound) => measured >= bound,
            Self::AtMost(bound) => measured <= bound,
        }
    }
}

impl Figure {
    /// The median of `samples`.
    pub(super) fn median(what: impl Into<String>, unit: &'static str, samples: &[f64]) -> Self {
        Self::chosen(what, unit, samples, median(samples))
    }

    /// The least of `samples`: for costs on a machine that also does other things.
    pub(super) fn least(what: impl Into<String>, unit: &'static str, samples: &[f64]) -> Self {
        Self::chosen(what, unit, samples, samples.iter().copied().fold(f64::INFINITY, f64::min))
    }

    fn chosen(what: impl Into<String>, unit: &'static str, samples: &[f64], measured: f64) -> Self {
        Self {
            bench: "",
            what: what.into(),
            measured,
            unit,
            bounds: None,
            target: None,
            reached: None,
            samples: samples.to_vec(),
        }
    }

    /// The median of ratios, each of two measurements made one after the other.
    pub(super) fn ratio(what: impl Into<String>, samples: &[f64]) -> Self {
        Self { bounds: median_bounds(samples), ..Self::median(what, "×", samples) }
    }

    /// It should be that.
    pub(super) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self.reached = Some(target.is_reached_by(self.measured) || self.is_near(target));
        self
    }

    /// Whether chance alone may have kept it from `target`.
    fn is_near(&self, target: Target) -> bool {
        self.bounds.is_some_and(|(low, high)| target.is_reached_by(low) || target.is_reached_by(high))
    }

    pub(super) const fn of_bench(mut self, bench: &'static str) -> Self {
        self.bench = bench;
        self
    }

    /// Whether it is what it should be, or nobody said what it should be.
    pub(super) fn is_reached(&self) -> bool {
        self.reached.unwrap_or(true)
    }
}

/// The median; NaN of nothing.
pub(super) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

/// For people; also valid Markdown.
pub(super) fn table(figures: &[Figure]) -> String {
    let header = ["what", "measured", "target", "ok?"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(header).chain(figures.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(text, "| {cell:width$} ");
        }
        text += "|\n";
        if index == 0 {
            for width in widths {
                text += &format!("|{}", "-".repeat(width + 2));
            }
            text += "|\n";
        }
    }
    text
}

fn row(figure: &Figure) -> [String; 4] {
    let with_unit = |value: f64| format!("{} {}", number(value), figure.unit).trim_end().to_owned();
    let target = match figure.target {
        Some(Target::AtLeast(bound)) => format!("≥ {}", with_unit(bound)),
        Some(Target::AtMost(bound)) => format!("≤ {}", with_unit(bound)),
        None => String::new(),
    };
    let reached = match figure.reached {
        Some(true) if figure.target.is_some_and(|target| !target.is_reached_by(figure.measured)) => {
            "by chance no"
        }
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    let what = format!("{}: {}", figure.bench, figure.what);
    let bounds = figure.bounds.map(|(low, high)| format!(" ({} to {})", number(low), number(high)));
    let measured = with_unit(figure.measured) + &bounds.unwrap_or_default();
    [what, measured, target, reached.to_owned()]
}

/// Three digits that matter.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_knows_whether_it_is_good_enough() {
        let ratio = Figure::median("ratio", "×", &[0.9, 0.99, 0.96]).target(Target::AtLeast(0.95));
        assert!(ratio.is_reached());
        assert!(!ratio.target(Target::AtLeast(0.97)).is_reached());
        assert!(Figure::least("cost", "ns", &[31.0, 29.0]).target(Target::AtMost(30.0)).is_reached());
    }

    #[test]
    fn a_ratio_that_chance_may_have_kept_below_is_not_missed() {
        let samples: Vec<f64> = (0..11).map(|step| 0.96 + f64::from(step) * 0.002).collect();
        let ratio = Figure::ratio("ratio", &samples);
        assert!((ratio.measured - 0.97).abs() < 1e-9);
        let near = ratio.clone().target(Target::AtLeast(0.975));
        assert!(near.is_reached() && table(&[near]).contains("(0.96 to 0.98)"));
        assert!(!ratio.clone().target(Target::AtLeast(0.99)).is_reached());
        assert!(ratio.target(Target::AtLeast(0.95)).is_reached());
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let figures = [
            Figure::least("a long name", "ns", &[12.34]).target(Target::AtMost(30.0)).of_bench("b"),
            Figure::median("x", "", &[1.0, 2.0]).of_bench("b"),
        ];
        let text = table(&figures);
        let expected = "| what           | measured | target    | ok? |\n\
                        |----------------|----------|-----------|-----|\n\
                        | b: a long name | 12.3 ns  | ≤ 30.0 ns | yes |\n\
                        | b: x           | 1.5      |           |     |\n";
        assert_eq!(text, expected);
    }
}
