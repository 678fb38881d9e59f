//! Programs on interfaces, by both methods.

use std::{mem, os::fd::AsFd, thread};

use fault_common::rule::net::Direction::{In, Out};
use fault_user::net::{
    NetError,
    attach::{Hook, Method, Request, attach, attach_clsact, attach_tcx},
    interfaces::{self, Interface},
    leftover::{self, Leftover},
    session_bit::SessionBit,
};

use crate::{
    lab::{Lab, methods},
    programs::{DROP, NEXT, PASS, verdict},
};

/// Somebody else's filter on the way out of `lo`, which passes everything.
const FOREIGN: &str = "tc filter add dev lo egress prio 3 bpf da bytecode '1,6 0 0 4294967295,'";

fn lo(lab: &Lab) -> Interface {
    interfaces::list(&lab.netns).unwrap().remove(0)
}

fn by(method: Method, lab: &Lab, session: u32, requests: &[Request<'_>]) -> Result<Vec<Hook>, NetError> {
    match method {
        Method::Tcx => attach_tcx(&lab.netns, requests),
        Method::Clsact => attach_clsact(&lab.netns, session, requests, |_| Ok(())),
    }
}

fn hook(
    lab: &Lab,
    method: Method,
    session: u32,
    direction: fault_common::rule::net::Direction,
    act: i32,
) -> Hook {
    let program = verdict(act);
    let request = Request { interface: &lo(lab), direction, program: program.as_fd() };
    by(method, lab, session, &[request]).unwrap().remove(0)
}

fn qdiscs(lab: &Lab) -> String {
    lab.must("tc qdisc show dev lo")
}

fn filters(lab: &Lab) -> String {
    lab.must("tc filter show dev lo egress") + &lab.must("tc filter show dev lo ingress")
}

#[test]
fn a_program_acts_while_it_is_attached_and_not_after() {
    for &method in methods() {
        for direction in [Out, In] {
            let lab = Lab::new();
            assert!(lab.pings_itself());
            let hook = hook(&lab, method, 0, direction, DROP);
            assert_eq!((hook.method(), hook.direction(), hook.interface()), (method, direction, 1));
            assert!(!lab.pings_itself(), "{method:?} {direction:?}");
            hook.detach().unwrap();
            assert!(lab.pings_itself(), "{method:?} {direction:?}");
            assert_eq!(filters(&lab), "");
            assert!(!qdiscs(&lab).contains("clsact"));
        }
    }
}

#[test]
fn ours_come_before_programs_that_end_the_chain() {
    if methods().contains(&Method::Tcx) {
        let lab = Lab::new();
        let first = hook(&lab, Method::Tcx, 0, Out, PASS);
        let second = hook(&lab, Method::Tcx, 1, Out, DROP);
        assert!(!lab.pings_itself(), "the later one comes first");
        drop((first, second));
    }
    let lab = Lab::new();
    lab.must("tc qdisc add dev lo clsact");
    lab.must(FOREIGN);
    let ours = hook(&lab, Method::Clsact, 0, Out, DROP);
    assert!(!lab.pings_itself(), "somebody else's filter has priority 3, ours less");
    drop(ours);
    assert!(lab.pings_itself());
}

#[test]
fn the_best_method_is_chosen() {
    let lab = Lab::new();
    let program = verdict(NEXT);
    let interface = lo(&lab);
    let requests =
        [Out, In].map(|direction| Request { interface: &interface, direction, program: program.as_fd() });
    let hooks = attach(&lab.netns, 0, &requests, |_| Ok::<_, NetError>(())).unwrap();
    assert!(lab.pings_itself());
    assert_eq!(hooks.len(), 2);
    let expected = methods()[0];
    assert_eq!(filters(&lab).is_empty(), expected == Method::Tcx);
    for hook in &hooks {
        assert_eq!(hook.method(), expected);
        assert_eq!(hook.leftover().is_some(), expected == Method::Clsact);
    }
}

#[test]
fn all_or_none_are_attached() {
    for &method in methods() {
        let lab = Lab::new();
        let program = verdict(DROP);
        let (there, mut gone) = (lo(&lab), lo(&lab));
        gone.index = 4711;
        let requests =
            [&there, &gone].map(|interface| Request { interface, direction: Out, program: program.as_fd() });
        let error = by(method, &lab, 0, &requests).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENODEV), "{error}");
        assert!(lab.pings_itself());
        assert!(!qdiscs(&lab).contains("clsact"));
    }
}

#[test]
fn other_peoples_clsact_and_filters_stay() {
    let lab = Lab::new();
    lab.must("tc qdisc add dev lo clsact");
    lab.must(FOREIGN);
    let before = (qdiscs(&lab), filters(&lab));
    let hooks = [hook(&lab, Method::Clsact, 0, Out, NEXT), hook(&lab, Method::Clsact, 0, In, NEXT)];
    assert_ne!(filters(&lab), before.1);
    drop(hooks);
    assert_eq!((qdiscs(&lab), filters(&lab)), before);
}

#[test]
fn a_clsact_that_somebody_else_began_to_use_stays() {
    let lab = Lab::new();
    let ours = hook(&lab, Method::Clsact, 0, Out, NEXT);
    lab.must(FOREIGN);
    drop(ours);
    assert!(qdiscs(&lab).contains("clsact"));
    let left = filters(&lab);
    assert!(left.contains("pref 3") && !left.contains("fault"), "{left}");
}

#[test]
fn the_last_of_several_sessions_removes_the_clsact() {
    let lab = Lab::new();
    let first = hook(&lab, Method::Clsact, 0, Out, NEXT);
    let second = hook(&lab, Method::Clsact, 1, Out, NEXT);
    drop(first);
    assert!(qdiscs(&lab).contains("clsact"));
    assert!(filters(&lab).contains("fault/1"));
    drop(second);
    assert!(!qdiscs(&lab).contains("clsact"));
}

#[test]
fn ways_that_are_attached_at_once_leave_no_clsact() {
    let lab = Lab::new();
    for round in 0..50 {
        let (out, inwards) = thread::scope(|scope| {
            let out = scope.spawn(|| hook(&lab, Method::Clsact, 0, Out, NEXT));
            let inwards = scope.spawn(|| hook(&lab, Method::Clsact, 0, In, NEXT));
            (out.join().unwrap(), inwards.join().unwrap())
        });
        // Whichever goes last removes it.
        if round % 2 == 0 {
            drop((out, inwards))
        } else {
            drop((inwards, out))
        }
        assert!(!qdiscs(&lab).contains("clsact"), "round {round}");
    }
}

#[test]
fn an_ingress_discipline_in_the_way_is_not_removed() {
    let lab = Lab::new();
    lab.must("tc qdisc add dev lo ingress");
    let program = verdict(NEXT);
    let request = Request { interface: &lo(&lab), direction: Out, program: program.as_fd() };
    let error = by(Method::Clsact, &lab, 0, &[request]).unwrap_err();
    assert!(matches!(error, NetError::Occupied { .. }), "{error}");
    assert!(qdiscs(&lab).contains("ingress"));
}

#[test]
fn what_outlives_a_dead_session_is_found_and_undone() {
    let lab = Lab::new();
    let claim = SessionBit::claim(&lab.netns).unwrap();
    let hooks = [
        hook(&lab, Method::Clsact, claim.bit(), Out, DROP),
        hook(&lab, Method::Clsact, claim.bit(), In, NEXT),
    ];
    let described: Vec<_> = hooks.iter().map(|hook| hook.leftover().unwrap()).collect();
    // As the keeper gets it.
    let text = serde_json::to_string(&described).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Leftover>>(&text).unwrap(), described);

    assert_eq!(leftover::find(&lab.netns).unwrap(), [], "the session lives");
    mem::forget(hooks);
    drop(claim);
    let mut found = leftover::find(&lab.netns).unwrap();
    assert_eq!(found.len(), 2);
    assert!(described.iter().all(|one| found.contains(one)), "{found:?} {described:?}");
    for one in found.drain(..) {
        one.undo_in(&lab.netns).unwrap();
        one.undo_in(&lab.netns).unwrap();
    }
    assert!(lab.pings_itself());
    assert!(!qdiscs(&lab).contains("clsact"));
    assert_eq!(leftover::find(&lab.netns).unwrap(), []);
}

#[test]
fn what_would_outlive_us_is_announced_before_it_is_made() {
    let lab = Lab::new();
    let program = verdict(NEXT);
    let interface = lo(&lab);
    let requests =
        [Out, In].map(|direction| Request { interface: &interface, direction, program: program.as_fd() });
    let mut announced = Vec::new();
    let hooks = attach_clsact(&lab.netns, 2, &requests, |leftover| {
        assert_eq!(filters(&lab).contains("fault/2"), !announced.is_empty(), "the first is not there yet");
        announced.push(leftover.clone());
        Ok::<_, NetError>(())
    })
    .unwrap();
    assert_eq!(announced, hooks.iter().map(|hook| hook.leftover().unwrap()).collect::<Vec<_>>());
    drop(hooks);

    let refused = NetError::NoSuchProcess { pid: 0 };
    let mut refused = Some(refused);
    let result = attach_clsact(&lab.netns, 2, &requests, |_| Err(refused.take().unwrap()));
    assert!(matches!(result, Err(NetError::NoSuchProcess { pid: 0 })));
    assert!(!qdiscs(&lab).contains("clsact"), "nothing is made that nobody knows of");
    // Died between the two: undoing what was never made is fine.
    for leftover in announced {
        leftover.undo_in(&lab.netns).unwrap();
    }
}
