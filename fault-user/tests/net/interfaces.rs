//! Interfaces as `ip` makes them.

use fault_user::net::interfaces::{self, Change, LinkLayer, Watcher};
use tokio::time::{Duration, timeout};

use crate::lab::Lab;

#[test]
fn interfaces_are_listed_with_what_matters_about_them() {
    let lab = Lab::new();
    lab.must("ip link add v0 type veth peer name v1");
    lab.must("modprobe -q tun; ip tuntap add t0 mode tun");
    let listed = interfaces::list(&lab.netns).unwrap();
    let find = |name: &str| listed.iter().find(|interface| interface.name == name).unwrap();

    assert!(find("lo").loopback && find("lo").up);
    assert_eq!((find("lo").index, find("lo").layer), (1, LinkLayer::Ethernet));
    assert_eq!(find("v0").kind.as_deref(), Some("veth"));
    assert_eq!(find("v0").layer, LinkLayer::Ethernet);
    assert!(!find("v0").up && !find("v0").loopback);
    assert!(
        matches!(find("t0").layer, LinkLayer::Other(_)),
        "a tun has no Ethernet header: {:?}",
        find("t0")
    );
    let index = lab.must("cat /sys/class/net/lo/ifindex");
    assert_eq!(index.trim(), "1");
}

#[test]
fn the_lanes_of_sessions_are_not_listed() {
    let lab = Lab::new();
    lab.must("modprobe -q tun; ip tuntap add fltc0dec mode tap");
    lab.must("ip tuntap add other mode tap");
    let listed = interfaces::list(&lab.netns).unwrap();
    let has = |name: &str| listed.iter().any(|one| one.name == name);
    assert!(has("lo") && has("other") && !has("fltc0dec"), "{listed:?}");
}

#[tokio::test]
async fn interfaces_that_come_and_go_are_reported() {
    let lab = Lab::new();
    let mut watcher = Watcher::new(&lab.netns).unwrap();
    lab.must("ip link add v0 type veth peer name v1");
    let index = interfaces::list(&lab.netns)
        .unwrap()
        .into_iter()
        .find(|interface| interface.name == "v0")
        .unwrap()
        .index;
    lab.must("ip link del v0");

    let mut appeared = false;
    // The deadline only ends a test that would hang.
    let gone = timeout(Duration::from_secs(20), async {
        loop {
            match watcher.next().await.unwrap() {
                Change::Present(interface) => appeared |= interface.index == index,
                Change::Gone(gone) if gone == index => return true,
                Change::Gone(_) | Change::Lost => {}
            }
        }
    });
    assert!(gone.await.unwrap() && appeared);
}
