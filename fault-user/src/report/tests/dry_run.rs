//! `--dry-run`.

use crate::{
    report::dry_run::dry_run,
    session::simulate::simulate,
    spec::{self, Layer},
};

use super::{golden, plan};

#[test]
fn golden_text() {
    let plan = plan(&[
        (Layer::Net, "drop 10% out to db.example:5432"),
        (Layer::Net, "delay 100ms jitter 20ms normal in"),
        (Layer::Disk, "error nth 5 read on /var/lib/pg"),
        (Layer::Disk, "hang 3s then error write"),
        (Layer::Net, "drop 0%"),
        (Layer::Net, "drop udp cycle 5s/30s"),
    ]);
    let resolved = [
        vec![("to db.example".to_owned(), "10.0.0.7, 10.0.0.8".to_owned())],
        vec![],
        vec![("on /var/lib/pg".to_owned(), "vdb1 (254:17)".to_owned())],
    ];
    golden("dry-run.txt", &dry_run(&plan, "pid 4711 and its descendants", &resolved));
}

#[test]
fn quantiles_are_of_what_was_delayed() {
    let plan = plan(&[(Layer::Net, "delay 100ms jitter 50ms 20% after 10s for 1s")]);
    let expectation = simulate(&plan.rules[0], plan.seed, 10_000);
    assert_eq!(expectation.matched, 10_000, "in its window");
    assert_eq!(expectation.delays_ns.len() as u64, expectation.injected);
    assert_eq!(expectation.quantile_ns(0.0), expectation.delays_ns.first().copied());
    assert_eq!(expectation.quantile_ns(1.0), expectation.delays_ns.last().copied());
    let middle = expectation.quantile_ns(0.5).unwrap();
    let below = expectation.delays_ns.iter().filter(|&&ns| ns <= middle).count();
    assert!(2 * below >= expectation.delays_ns.len());
}

#[test]
fn what_never_hits_has_no_quantiles() {
    let plan = plan(&[(Layer::Net, "delay 100ms 0%")]);
    let expectation = simulate(&plan.rules[0], 1, 1000);
    assert_eq!((expectation.injected, expectation.quantile_ns(0.5)), (0, None));
}

#[test]
fn exceptions_follow_the_faults() {
    let exception = spec::parse_exception("to db.example port 22").unwrap();
    let plan = plan(&[(Layer::Net, "drop")]).except(vec![exception]).unwrap();
    let resolved = [vec![], vec![("to db.example".to_owned(), "10.0.0.7".to_owned())]];
    let text = dry_run(&plan, "pid 1", &resolved);
    let end = "
except     to db.example port 22
           to db.example is 10.0.0.7
           no net fault touches what passes this filter

Nothing was armed.
";
    assert!(text.ends_with(end), "{text}");
}
