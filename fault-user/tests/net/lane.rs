//! The lane: refused exactly where fq is missing, lossless where it is not.

use std::{
    net::UdpSocket,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use fault_common::rule::net::Direction::Out;
use fault_user::{
    exit::Class,
    net::{
        NetError,
        attach::{Request, attach},
        interfaces,
        lane::Lane,
    },
};

use crate::{
    lab::Lab,
    programs::{into_lane, out_to},
};

/// Whether this kernel has all the lane needs, according to `ip` and `tc`.
pub fn kernel_can() -> bool {
    let lab = Lab::new();
    lab.must("modprobe -q tun; ip tuntap add t0 mode tap");
    lab.can("ip link add m0 link t0 type macvlan mode private") && lab.can("tc qdisc add dev m0 root fq")
}

fn links(lab: &Lab) -> String {
    lab.must("ip -br link | cut -d' ' -f1")
}

/// A lane, or none where `tc` says that there is no fq; then the refusal is what it must be.
fn lane(lab: &Lab) -> Option<Lane> {
    let before = links(lab);
    match (Lane::new(&lab.netns), kernel_can()) {
        (Ok(lane), true) => Some(lane),
        (Err(error), false) => {
            assert_eq!(error.class(), Class::Unsupported, "{error}");
            assert!(matches!(error, NetError::Missing { module: "sch_fq", .. }), "{error}");
            assert_eq!(
                error.to_string(),
                "no fq queueing discipline: this kernel has no sch_fq (CONFIG_NET_SCH_FQ); delays need it: \
                 `modprobe sch_fq`, or install the package with the kernel's extra modules, or use a kernel that \
                 has it"
            );
            assert_eq!(links(lab), before, "nothing is half made");
            None
        }
        (lane, can) => panic!("`tc` can add fq: {can}; the lane says {lane:?}"),
    }
}

#[test]
fn a_lane_is_made_or_refused_with_cause_and_remedy() {
    let lab = Lab::new();
    let before = links(&lab);
    let start = Instant::now();
    let lane = lane(&lab);
    println!("made or refused, and asked `tc`, in {:?}", start.elapsed());
    assert_eq!(Lane::probe().is_ok(), lane.is_some());
    assert_eq!(links(&lab) == before, lane.is_none());
    let start = Instant::now();
    drop(lane);
    println!("removed in {:?}", start.elapsed());
    assert_eq!(links(&lab), before);
}

#[test]
fn the_devices_are_silent_and_go_with_the_lane() {
    let lab = Lab::new();
    let before = (links(&lab), lab.must("ip -6 route show table all"), lab.must("ip route show table all"));
    let Some(mut lane) = lane(&lab) else { return };
    let made = lab.must("ip -d link show group 64023");
    assert_eq!(made.matches(" mtu 65521 qdisc").count(), 2, "{made}");
    assert_eq!(made.matches("addrgenmode none").count(), 2, "{made}");
    assert_eq!(made.matches("alias fault lane of process").count(), 2, "{made}");
    assert!(made.contains("macvlan mode passthru") && made.contains("qdisc fq"), "{made}");
    assert_eq!(made.matches("promiscuity 0").count(), 2, "the kernel would log it: {made}");
    assert_eq!(made.matches(",UP,LOWER_UP>").count(), 2, "{made}");
    assert_eq!(lab.must("ip addr show group 64023").matches("inet").count(), 0);
    assert_eq!(lab.must("ip -6 route show table all"), before.1);
    assert_eq!(lab.must("ip route show table all"), before.2);
    // Time enough for a router solicitation or a multicast report, were one to come.
    std::thread::sleep(Duration::from_secs(2));
    let stats = lane.stats().unwrap();
    assert_eq!((stats.sent_packets, stats.missed_exit, stats.waiting_packets), (0, 0, 0), "{stats:?}");
    drop(lane);
    assert_eq!(links(&lab), before.0);
}

#[test]
fn several_lanes_share_a_namespace() {
    let lab = Lab::new();
    let before = links(&lab).lines().count();
    let lanes: Vec<_> = (0..6).map_while(|_| lane(&lab)).collect();
    if lanes.is_empty() {
        return;
    }
    assert_eq!(links(&lab).lines().count(), before + 2 * 6);
    assert_eq!(interfaces::list(&lab.netns).unwrap().len(), before);
    drop(lanes);
    assert_eq!(links(&lab).lines().count(), before);
}

/// Two namespaces joined by a veth pair, `v0` at 10.0.0.1 here and `v1` at 10.0.0.2 there.
fn joined() -> (Lab, Lab) {
    let (here, there) = (Lab::new(), Lab::new());
    here.must("ip link add v0 address 02:00:00:00:00:01 type veth peer name v1 address 02:00:00:00:00:02");
    here.must(&format!("ip link set v1 netns /proc/{}/fd/{}", std::process::id(), fd(&there)));
    here.must("ip addr add 10.0.0.1/24 dev v0");
    there.must("ip addr add 10.0.0.2/24 dev v1");
    // No IPv6 and no ARP: only what the test sends goes through the lane.
    here.run("echo 1 > /proc/sys/net/ipv6/conf/v0/disable_ipv6");
    here.must("ip link set v0 up");
    there.must("ip link set v1 up");
    here.must("ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev v0");
    there.must("ip neigh add 10.0.0.1 lladdr 02:00:00:00:00:01 dev v1");
    (here, there)
}

fn fd(lab: &Lab) -> i32 {
    use std::os::fd::AsRawFd;
    lab.netns.as_raw_fd()
}

#[test]
fn a_burst_waits_and_arrives_whole() {
    const PACKETS: u32 = 20_000;
    const DELAY: Duration = Duration::from_millis(1500);
    let (here, there) = joined();
    let Some(mut lane) = lane(&here) else { return };
    let interface =
        interfaces::list(&here.netns).unwrap().into_iter().find(|interface| interface.name == "v0").unwrap();
    lane.open(0, out_to(interface.index).as_fd()).unwrap();
    let program = into_lane(lane.entry(), DELAY.as_nanos() as u32);
    let request = Request { interface: &interface, direction: Out, program: program.as_fd() };
    let hooks = attach(&here.netns, 0, &[request], |_| Ok::<_, NetError>(())).unwrap();

    let receiver = there.netns.run_in(|| Ok(UdpSocket::bind("10.0.0.2:9").unwrap())).unwrap();
    socket2::SockRef::from(&receiver).set_recv_buffer_size(256 << 20).unwrap();
    nix::sys::socket::setsockopt(&receiver, nix::sys::socket::sockopt::RcvBufForce, &(256 << 20)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let sender = here.netns.run_in(|| Ok(UdpSocket::bind("10.0.0.1:0").unwrap())).unwrap();
    sender.connect("10.0.0.2:9").unwrap();

    let mut sent_at = Vec::new();
    for number in 0..PACKETS {
        sent_at.push(Instant::now());
        assert_eq!(sender.send(&number.to_ne_bytes()).unwrap(), 4, "the sender notices nothing");
    }
    let mut buffer = [0; 4];
    // A veth hands packets on through the backlog of whichever CPU they were sent from: the order may change there.
    let mut missing = vec![true; PACKETS as usize];
    for count in 0..PACKETS {
        assert_eq!(receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("after {count}: {error}")), 4);
        let arrived = Instant::now();
        let number = u32::from_ne_bytes(buffer) as usize;
        assert!(std::mem::take(&mut missing[number]), "packet {number} came twice");
        let waited = arrived - sent_at[number];
        assert!(waited >= DELAY, "packet {number} after {waited:?}");
    }
    let stats = lane.stats().unwrap();
    assert_eq!(stats.lost(), 0, "{stats:?}");
    assert_eq!((stats.waiting_packets, stats.fq_horizon_caps), (0, 0), "{stats:?}");
    assert_eq!(stats.sent_packets, u64::from(PACKETS), "{stats:?}");
    drop((hooks, lane));
    sender.send(&[0; 4]).unwrap();
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 4);
}
