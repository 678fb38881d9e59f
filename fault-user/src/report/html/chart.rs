//! Plots over the time of a session, as SVG.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::super::{number, scenario::PhaseReport};
use crate::session::history::Point;

/// In units of the drawing, which the browser makes as wide as the page.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 120.0;
/// Left of it stand numbers or names.
const LEFT: f64 = 110.0;
const ROW: f64 = 20.0;
/// Under it stand times.
const FOOT: f64 = 18.0;

/// Time on the horizontal axis.
#[derive(Clone, Copy)]
struct Axis {
    lasted_ns: u64,
}

impl Axis {
    fn x(self, at_ns: u64) -> f64 {
        LEFT + (WIDTH - LEFT) * (at_ns as f64 / self.lasted_ns.max(1) as f64).min(1.0)
    }

    /// The line, its beginning, middle and end.
    fn draw(self, height: f64) -> Markup {
        let marks = [(0, "start"), (self.lasted_ns / 2, "middle"), (self.lasted_ns, "end")];
        html! {
            line.axis x1=(LEFT) x2=(WIDTH) y1=(height) y2=(height) {}
            @for (at, anchor) in marks {
                text x=(tidy(self.x(at))) y=(height + 13.0) text-anchor=(anchor) { (number::nanoseconds(at)) }
            }
        }
    }
}

/// What passed between two points.
struct Step {
    from_ns: u64,
    to_ns: u64,
    matched: u64,
    injected: u64,
    delay_ns: u64,
}

impl Step {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / ((self.to_ns - self.from_ns) as f64 / 1e9)
    }
}

fn steps(points: &[Point]) -> Vec<Step> {
    points
        .windows(2)
        .filter(|pair| pair[1].at_ns > pair[0].at_ns)
        .map(|pair| Step {
            from_ns: pair[0].at_ns,
            to_ns: pair[1].at_ns,
            // Counters that begin anew with their phase are no steps backwards.
            matched: pair[1].matched.saturating_sub(pair[0].matched),
            injected: pair[1].injected.saturating_sub(pair[0].injected),
            delay_ns: pair[1].delay_ns.saturating_sub(pair[0].delay_ns),
        })
        .collect()
}

/// Operations a second: those that were hit, on those that matched.
pub(super) fn operations(points: &[Point], lasted_ns: u64) -> Markup {
    let axis = Axis { lasted_ns };
    let steps = steps(points);
    let most = steps.iter().map(|step| step.per_second(step.matched)).fold(0.0, f64::max);
    let bar = |class: &'static str, step: &Step, count: u64| {
        let height = if most > 0.0 { HEIGHT * step.per_second(count) / most } else { 0.0 };
        let (x, end) = (axis.x(step.from_ns), axis.x(step.to_ns));
        html! {
            rect class=(class) x=(tidy(x)) y=(tidy(HEIGHT - height)) width=(tidy(end - x)) height=(tidy(height)) {}
        }
    };
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", HEIGHT + FOOT)) role="img" aria-label="operations a second" {
            text x="0" y="11" { (tidy(most)) " a second" }
            rect.hit x="0" y="24" width="9" height="9" {} text x="13" y="33" { "hit" }
            rect.spared x="0" y="40" width="9" height="9" {} text x="13" y="49" { "matched, spared" }
            @for step in &steps {
                (bar("spared", step, step.matched))
                (bar("hit", step, step.injected))
            }
            (axis.draw(HEIGHT))
        }
    }
}

/// The mean delay asked for, where anything was hit.
pub(super) fn delays(points: &[Point], lasted_ns: u64) -> Markup {
    let axis = Axis { lasted_ns };
    let means: Vec<(u64, f64)> = steps(points)
        .iter()
        .filter(|step| step.injected > 0)
        .map(|step| (u64::midpoint(step.from_ns, step.to_ns), step.delay_ns as f64 / step.injected as f64))
        .collect();
    let most = means.iter().map(|(_, mean)| *mean).fold(0.0, f64::max);
    let mut path = String::new();
    for (place, (at, mean)) in means.iter().enumerate() {
        let y = if most > 0.0 { HEIGHT - (HEIGHT - 8.0) * mean / most } else { HEIGHT };
        // Writing to a string cannot fail.
        _ = write!(path, "{}{} {} ", if place == 0 { 'M' } else { 'L' }, tidy(axis.x(*at)), tidy(y));
    }
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", HEIGHT + FOOT)) role="img" aria-label="mean delay asked for" {
            text x="0" y="11" { "mean delay asked" }
            text x="0" y="27" { "up to " (number::nanoseconds(most as u64)) }
            path.delay d=(path.trim_end()) {}
            (axis.draw(HEIGHT))
        }
    }
}

/// When each phase was in force.
pub(super) fn turns(phases: &[PhaseReport], lasted_ns: u64) -> Markup {
    let axis = Axis { lasted_ns };
    let height = ROW * phases.len() as f64;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", height + FOOT)) role="img" aria-label="phases" {
            @for (row, phase) in phases.iter().enumerate() {
                @let y = ROW * row as f64;
                text x="0" y=(y + 14.0) { (phase.name) }
                @for (begin, end) in &phase.turns {
                    @let x = axis.x(*begin);
                    @let width = axis.x(end.unwrap_or(lasted_ns)) - x;
                    rect.phase x=(tidy(x)) y=(y + 4.0) width=(tidy(width.max(1.0))) height=(ROW - 8.0) {}
                }
            }
            (axis.draw(height))
        }
    }
}

/// One digit behind the point, if it is needed.
fn tidy(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}
