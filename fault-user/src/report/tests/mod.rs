//! Golden outputs: what users and their scripts read changes only on purpose.
//!
//! `FAULT_BLESS=1 cargo test -p fault-user report` writes the files anew.

mod dry_run;
mod events;
mod html;
mod json;
mod output;
mod summary;

use std::{fs, path::Path, time::Duration};

use fault_common::counters::{COUNTERS, Counter};
use jiff::Timestamp;

use super::{Exit, RuleReport, Session, SessionReport, note::notes};
use crate::{
    net::lane::LaneStats,
    session::{
        heal::{RuleTotals, Totals},
        plan::Plan,
    },
    spec,
};

/// Compares with `golden/NAME`.
#[track_caller]
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/tests/golden").join(name);
    if std::env::var_os("FAULT_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "{name}");
}

fn plan(faults: &[(spec::Layer, &str)]) -> Plan {
    let faults = faults.iter().map(|(layer, text)| spec::parse(*layer, text).unwrap()).collect();
    Plan::new(faults, &[], 42, Some(Duration::from_secs(90))).unwrap()
}

/// A session of four faults, of which two did nothing.
fn report() -> SessionReport {
    let plan = plan(&[
        (spec::Layer::Net, "drop 10% out tcp"),
        (spec::Layer::Disk, "delay 30ms jitter 5ms read"),
        (spec::Layer::Net, "delay 100ms in to 10.0.0.7:5432"),
        (spec::Layer::Disk, "error 0.01% write"),
    ]);
    let totals = [
        RuleTotals { matched: 1000, injected: 103, bytes: 149_350, ..RuleTotals::default() },
        RuleTotals {
            matched: 512,
            injected: 512,
            bytes: 2_097_152,
            delay_ns: 15_411_200_000,
            overflowed: 0,
            marked: 0,
        },
        RuleTotals::default(),
        RuleTotals { matched: 12, ..RuleTotals::default() },
    ];
    let session = Session {
        version: "0.1.0",
        seed: 42,
        started: "2026-11-20T08:54:31.25Z".parse::<Timestamp>().unwrap(),
        ended: "2026-11-20T08:54:43.5Z".parse::<Timestamp>().unwrap(),
        target: "pid 4711 and its descendants".to_owned(),
        command: None,
        exit: Exit::Interrupted { signal: "SIGINT".to_owned() },
    };
    let rules = plan
        .rules
        .iter()
        .zip(totals)
        .map(|(planned, totals)| RuleReport::new(planned, totals, session.lasted()))
        .collect();
    let mut counters = Totals([0; COUNTERS as usize]);
    for (counter, value) in [
        (Counter::Parked, 509),
        (Counter::ParkOverflow, 3),
        (Counter::EventsLost, 1),
        (Counter::LaneIn, 40),
        (Counter::LaneOut, 40),
        (Counter::Unparsable, 2),
    ] {
        counters.0[counter as usize] = value;
    }
    let lanes = vec![LaneStats { sent_packets: 40, sent_bytes: 4000, ..LaneStats::default() }];
    let notes = notes(&counters, 0, &lanes);
    SessionReport {
        session,
        rules,
        except: Vec::new(),
        scenario: None,
        notes,
        troubles: Vec::new(),
        counters,
        lanes,
    }
}
