//! Holding, entering and making namespaces; claims of session bits.

use std::{fs, os::unix::fs::MetadataExt};

use fault_common::limits::MAX_SESSIONS_PER_NETNS;
use fault_user::{
    exit::Class,
    net::{NetError, netns::NetnsHandle, session_bit::SessionBit},
};

use crate::lab::Lab;

fn inode_here() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
}

#[test]
fn a_namespace_is_the_same_however_it_was_found() {
    let ours = NetnsHandle::current().unwrap();
    assert_eq!(ours, NetnsHandle::of_pid(std::process::id()).unwrap());
    assert_eq!(ours.inode(), inode_here());
    assert_ne!(ours, Lab::new().netns);
}

#[test]
fn work_runs_inside_and_the_caller_stays_outside() {
    let before = inode_here();
    let lab = Lab::new();
    let inside = lab.netns.run_in(|| Ok(inode_here())).unwrap();
    assert_eq!(inside, lab.netns.inode());
    assert_eq!(inode_here(), before);
    // Where IPv6 tunnels are built in, every namespace has a sit0.
    let links = lab.must("ip -br link | grep -v ^sit0");
    assert_eq!(links.lines().count(), 1, "a private namespace has nothing but lo: {links}");
}

#[test]
fn a_process_that_does_not_exist_is_refused_by_its_number() {
    // Above the largest PID there can be (PID_MAX_LIMIT, 4 Mi).
    let error = NetnsHandle::of_pid(4_194_305).unwrap_err();
    assert_eq!(error.to_string(), "there is no process 4194305");
    assert_eq!(error.class(), Class::Usage);
}

#[test]
fn a_namespace_is_found_by_its_number_while_somebody_lives_in_it() {
    let lab = Lab::new();
    assert!(NetnsHandle::find(lab.netns.inode()).is_none(), "only a descriptor of ours holds it");
    let inhabitant = lab.inhabitant();
    assert_eq!(NetnsHandle::find(lab.netns.inode()), Some(lab.netns.clone()));
    drop(inhabitant);
    assert!(NetnsHandle::find(lab.netns.inode()).is_none());
}

#[test]
fn sessions_claim_bits_until_there_are_none_and_death_frees_them() {
    let lab = Lab::new();
    let mut claims: Vec<_> =
        (0..MAX_SESSIONS_PER_NETNS).map(|_| SessionBit::claim(&lab.netns).unwrap()).collect();
    let bits: Vec<_> = claims.iter().map(SessionBit::bit).collect();
    assert_eq!(bits, (0..MAX_SESSIONS_PER_NETNS).collect::<Vec<_>>());
    let error = SessionBit::claim(&lab.netns).unwrap_err();
    assert!(matches!(error, NetError::TooManySessions { .. }), "{error}");

    drop(claims.remove(3));
    // A child that another test has forked, and that has executed nothing yet, still has a copy of the descriptor.
    let begin = std::time::Instant::now();
    while SessionBit::claimed(&lab.netns).unwrap() == 0b11_1111 && begin.elapsed().as_secs() < 10 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(SessionBit::claimed(&lab.netns).unwrap(), 0b11_0111);
    let seen = lab.must("grep -c fault/session /proc/self/net/unix");
    assert_eq!(seen.trim(), "5");
    assert_eq!(SessionBit::claim(&lab.netns).unwrap().bit(), 3);
    assert_eq!(SessionBit::claim(&Lab::new().netns).unwrap().bit(), 0, "another namespace, other bits");
}
