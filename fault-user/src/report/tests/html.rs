//! The page for browsers.

use super::{
    super::{
        html::render,
        scenario::{PhaseReport, ScenarioReport},
    },
    report,
};
use crate::session::history::Point;

fn points(rates: &[(u64, u64)]) -> Vec<Point> {
    let mut point = Point::default();
    let mut points = vec![point];
    for (matched, injected) in rates {
        point.at_ns += 500_000_000;
        point.matched += matched;
        point.injected += injected;
        point.delay_ns += injected * 30_000_000;
        points.push(point);
    }
    points
}

#[test]
fn bars_are_as_high_as_rates() {
    let mut report = report();
    report.rules.truncate(1);
    let page = render(&report, &[points(&[(10, 0), (20, 5), (0, 0)])]);
    // 20 in half a second are the highest bar, a quarter of them hit.
    assert!(page.contains(">40 a second<"), "{page}");
    for bar in [
        r#"class="spared" x="110" y="60" width="32.2" height="60""#,
        r#"class="spared" x="142.2" y="0" width="32.2" height="120""#,
        r#"class="hit" x="142.2" y="90" width="32.2" height="30""#,
    ] {
        assert!(page.contains(bar), "{bar} is not on {page}");
    }
}

#[test]
fn a_page_stands_alone_and_escapes_names() {
    let mut report = report();
    report.session.target = "`<script>alert(1)</script>` & co".to_owned();
    let mut scenario = ScenarioReport { file: "a\"b.toml".to_owned(), ..ScenarioReport::default() };
    scenario.phases.push(PhaseReport {
        name: "<b>slow</b>".to_owned(),
        turns: vec![(0, Some(1_000_000_000)), (2_000_000_000, None)],
        ..PhaseReport::default()
    });
    report.scenario = Some(scenario);
    let page = render(&report, &vec![points(&[(3, 1)]); 4]);
    assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
    assert!(page.contains("&lt;b&gt;slow&lt;/b&gt;"), "{page}");
    assert_eq!(page.matches(r#"class="phase""#).count(), 2);
    for outside in ["http:", "https:", "src=", "href=", "@import"] {
        assert!(!page.contains(outside), "{outside} on {page}");
    }
}

#[test]
fn a_session_without_points_has_a_page() {
    let page = render(&report(), &[]);
    assert!(page.ends_with("</html>") && page.contains("10.3%"), "{page}");
}
