//! Targets as a whole.

use super::*;
use crate::exit::Class;
use std::fs;
use std::process::{Command, Stdio};

fn child() -> process::Child {
    Command::new("cat").stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_heir_of_a_number_is_nobody() {
    let (mut victim, mut heir) = (child(), child());
    let mut target = Target::nobody([]);
    target.add_pid(victim.id()).unwrap();
    assert_eq!(target.snapshot().unwrap().tasks, [victim.id()].into());
    // The number of a living process with the descriptor of one that has ended: what a reused number looks like.
    let pidfd = target.pids.remove(&victim.id()).unwrap();
    target.pids.insert(heir.id(), pidfd);
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(target.snapshot().unwrap().members.is_empty());
    assert_eq!(target.ended(), [heir.id()].into());
    heir.kill().unwrap();
    heir.wait().unwrap();
}

#[test]
fn who_has_ended_since_is_told() {
    let mut victim = child();
    let mut target = Target::nobody([]);
    target.add_pid(victim.id()).unwrap();
    target.check_present().unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    let error = target.check_present().unwrap_err();
    let wanted =
        format!("process {} has ended in the meantime, and nobody was hit in its place", victim.id());
    assert_eq!((error.to_string(), error.class()), (wanted, Class::Usage));
}

/// A cgroup of the test's own; none where it may not make one.
fn cgroup(name: &str) -> Option<std::path::PathBuf> {
    let path = cgroup::Cgroup::root().ok()?.path.join(format!("fault-unit-{name}-{}", process::id()));
    fs::create_dir(&path).ok()?;
    Some(path)
}

#[test]
fn cgroups_that_were_removed_since_are_told() {
    let Some(path) = cgroup("removed") else { return };
    let mut target = Target::nobody([]);
    target.add_cgroup(&path).unwrap();
    target.check_present().unwrap();
    fs::remove_dir(&path).unwrap();
    assert!(target.check_present().unwrap_err().to_string().ends_with("was removed in the meantime"));
    // Another one of the same path is another one.
    fs::create_dir(&path).unwrap();
    assert!(target.check_present().is_err());
    fs::remove_dir(&path).unwrap();
}

#[test]
fn containers_that_stopped_since_are_told() {
    let Some(path) = cgroup("stopped") else { return };
    let mut inhabitant = child();
    fs::write(path.join("cgroup.procs"), inhabitant.id().to_string()).unwrap();
    let request = TargetRequest::Container("fault-no-such".to_owned());
    let mut target = Target::nobody([]);
    target.follow(&request, Cgroup::resolve(&path).unwrap(), Again::Container("fault-no-such".to_owned()));
    target.check_present().unwrap();
    inhabitant.kill().unwrap();
    inhabitant.wait().unwrap();
    target.refresh();
    let error = target.check_present().unwrap_err();
    assert_eq!(error.to_string(), "container fault-no-such has stopped in the meantime: start it first");
    fs::remove_dir(&path).unwrap();
    target.refresh();
    assert!(target.check_present().is_err());
}

#[test]
fn several_requests_are_one_target() {
    let (mut one, mut other) = (child(), child());
    let mut target = Target::nobody([other.id()]);
    target.add_pid(one.id()).unwrap();
    target.add(&TargetRequest::Comm("fault-no-such".to_owned())).unwrap();
    assert!(target.add_pid(other.id()).is_err(), "a helper");
    assert_eq!(
        target.to_string(),
        format!(
            "pid {} and its descendants and processes named fault-no-such and their descendants",
            one.id()
        )
    );
    assert!(target.has_processes() && target.may_come_back() && target.is_followed() && !target.is_host());
    assert!(target.lifelines().is_empty() && target.confirm(false).is_ok());
    for process in [&mut one, &mut other] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

#[test]
fn names_have_a_limit() {
    let mut target = Target::nobody([]);
    for number in 0..MAX_NAMES {
        target.add(&TargetRequest::Comm(format!("name-{number}"))).unwrap();
    }
    target.add(&TargetRequest::Comm("name-0".to_owned())).unwrap();
    let error = target.add(&TargetRequest::Comm("one-more".to_owned())).unwrap_err();
    assert_eq!(error.class(), Class::Usage, "{error}");
}
