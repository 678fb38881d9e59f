//! What is left when the controller dies by SIGKILL, lane and hooks and claim and all.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    os::fd::AsFd,
    process::{Command, Stdio},
    time::Duration,
};

use fault_common::rule::net::Direction::{In, Out};
use fault_user::net::{
    NetError,
    attach::{Request, attach, attach_clsact},
    interfaces,
    lane::Lane,
    leftover::{self, Leftover},
    netns::NetnsHandle,
    session_bit::SessionBit,
};

use crate::{
    lab::Lab,
    lane::kernel_can,
    programs::{DROP, out_to, verdict},
};

const RESTLESS_VICTIM: &str = "FAULT_TEST_RESTLESS_CONTROLLER_OF";
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
    let target = lab.inhabitant();
    let before = lab.must("ip -br link");
    let mut controller = Command::new(env::current_exe().unwrap())
        .args(["--exact", "death::controller", "--nocapture"])
        .env(VICTIM, target.pid().to_string())
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
}

/// Not a test by itself: arms and heals without end, announcing as to a keeper, until
/// [`a_controller_killed_at_any_instant_leaves_nothing`] kills it.
#[test]
fn restless_controller() {
    let Ok(pid) = env::var(RESTLESS_VICTIM) else { return };
    let netns = NetnsHandle::of_pid(pid.parse().unwrap()).unwrap();
    let program = verdict(DROP);
    let announce = |leftover: &Leftover| {
        println!("announced {}", serde_json::to_string(leftover).unwrap());
        Ok::<_, NetError>(())
    };
    loop {
        let claim = SessionBit::claim(&netns).unwrap();
        let lane = Lane::new(&netns);
        let lo = interfaces::list(&netns).unwrap().remove(0);
        let requests =
            [Out, In].map(|direction| Request { interface: &lo, direction, program: program.as_fd() });
        let hooks = attach_clsact(&netns, claim.bit(), &requests, announce).unwrap();
        let links = attach(&netns, claim.bit(), &requests, announce).unwrap();
        drop((links, hooks, lane));
        println!("round");
    }
}

#[test]
fn a_controller_killed_at_any_instant_leaves_nothing() {
    const KILLS: u64 = 12;
    let lab = Lab::new();
    let target = lab.inhabitant();
    let before = lab.must("ip -br link");
    for kill in 0..KILLS {
        let mut controller = Command::new(env::current_exe().unwrap())
            .args(["--exact", "death::restless_controller", "--nocapture"])
            .env(RESTLESS_VICTIM, target.pid().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(controller.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let mut announced: Vec<_> = said.by_ref().take_while(|line| line != "round").collect();
        // Another instant each time: one round takes about as long as all of these together.
        std::thread::sleep(Duration::from_millis(kill * 9));
        controller.kill().unwrap();
        controller.wait().unwrap();
        announced.extend(said);
        // What the keeper does.
        for line in announced.iter().filter_map(|line| line.strip_prefix("announced ")) {
            serde_json::from_str::<Leftover>(line).unwrap().undo_in(&lab.netns).unwrap();
        }
        assert_eq!(lab.must("ip -br link"), before, "kill {kill}");
        assert!(!lab.must("tc qdisc show").contains("clsact"), "kill {kill}");
        assert!(lab.pings_itself(), "kill {kill}");
        assert_eq!(SessionBit::claimed(&lab.netns).unwrap(), 0, "kill {kill}");
    }
}
