//! What is left when the controller dies by SIGKILL, lane and hooks and claim and all.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    os::fd::AsFd,
    process::{Command, Stdio},
};

use fault_common::rule::net::Direction::{In, Out};
use fault_user::net::{
    NetError,
    attach::{Request, attach},
    interfaces,
    lane::Lane,
    leftover,
    netns::NetnsHandle,
    session_bit::SessionBit,
};

use crate::{
    lab::Lab,
    lane::kernel_can,
    programs::{DROP, out_to, verdict},
};

const VICTIM: &str = "FAULT_TEST_CONTROLLER_OF";

/// Not a test by itself: the controller that [`everything_dies_with_the_controller`] kills.
#[test]
fn controller() {
    let Ok(pid) = env::var(VICTIM) else { return };
    let netns = NetnsHandle::of_pid(pid.parse().unwrap()).unwrap();
    let claim = SessionBit::claim(&netns).unwrap();
    let lane = kernel_can().then(|| {
        let mut lane = Lane::new(&netns).unwrap();
        lane.open(claim.bit(), out_to(1).as_fd()).unwrap();
        lane
    });
    let program = verdict(DROP);
    let lo = interfaces::list(&netns).unwrap().remove(0);
    let requests = [Out, In].map(|direction| Request { interface: &lo, direction, program: program.as_fd() });
    let hooks = attach(&netns, claim.bit(), &requests, |_| Ok::<_, NetError>(())).unwrap();
    println!("armed {:?}", hooks[0].method());
    std::io::stdin().read_exact(&mut [0]).unwrap();
    drop((hooks, lane));
}

#[test]
fn everything_dies_with_the_controller() {
    let lab = Lab::new();
    let mut target = lab
        .netns
        .run_in(|| Ok(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap()))
        .unwrap();
    let before = lab.must("ip -br link");
    let mut controller = Command::new(env::current_exe().unwrap())
        .args(["--exact", "death::controller", "--nocapture"])
        .env(VICTIM, target.id().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(controller.stdout.take().unwrap())
        .lines()
        .map(|line| line.unwrap())
        .find(|line| line.contains("armed"))
        .expect("the controller arms");
    assert_eq!(lab.must("ip -br link") != before, kernel_can());
    assert_eq!(SessionBit::claimed(&lab.netns).unwrap(), 1);
    assert!(!lab.pings_itself());

    controller.kill().unwrap();
    controller.wait().unwrap();
    assert_eq!(lab.must("ip -br link"), before, "the lane dies at once");
    assert_eq!(SessionBit::claimed(&lab.netns).unwrap(), 0);
    // Filters stay: there the keeper, or `fault sweep`, does this.
    let leftovers = leftover::find(&lab.netns).unwrap();
    assert_eq!(leftovers.len(), if said.contains("Tcx") { 0 } else { 2 }, "{leftovers:?}");
    for leftover in leftovers {
        leftover.undo().unwrap();
    }
    assert!(lab.pings_itself());
    assert!(!lab.must("tc qdisc show").contains("clsact"));
    target.kill().unwrap();
    target.wait().unwrap();
}
