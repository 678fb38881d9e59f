//! Where the target is now: cgroups that came back under their name, processes that joined with open sockets, network
//! namespaces that somebody entered, and those that nobody lives in any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use fault_common::limits::MAX_NETNS;

use super::{
    arm::Armed,
    error::SessionError,
    packets::Namespace,
    tasks::{Joined, Tasks},
};
use crate::net::{error::NetError, netns::NetnsHandle};

/// How often a target is looked for that is found by its name: what a restarted container sends in its first tenth of a
/// second may be spared.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// How long nobody may have lived in a network namespace before it is let go: our descriptor keeps it alive, and with it
/// interfaces that go back to their owner when it ends.
const VACANCY: Duration = Duration::from_secs(2);

impl Armed {
    /// Whether anything about the target is found by looking, rather than told by the kernel programs.
    pub(super) fn must_look(&self) -> bool {
        self.request.target.is_followed()
    }

    /// Looks where the target is, and goes there.
    pub(super) fn look(&mut self) -> Result<(), SessionError> {
        if self.request.target.refresh() {
            Tasks::aim(&self.loaded, &self.request.target);
        }
        let Some(sockets) = &mut self.sockets else { return Ok(()) };
        let target = &self.request.target;
        let mut members = target.inhabitants()?;
        let mut new = members.clone();
        if target.has_processes() {
            for (pid, joined) in Tasks::list(&self.loaded.ebpf)? {
                if target.exempt.contains(&pid) {
                    continue;
                }
                members.insert(pid);
                match joined {
                    // A child's sockets are its parent's, or were made under our eyes.
                    Joined::ByNumber => {}
                    Joined::ByName => _ = new.insert(pid),
                }
            }
        }
        sockets.add(&new)?;
        if self.needs.packets { self.follow_namespaces(&members) } else { Ok(()) }
    }

    /// Attaches to namespaces that members live in, and lets go those that nobody lives in.
    fn follow_namespaces(&mut self, members: &BTreeSet<u32>) -> Result<(), SessionError> {
        let mut inhabited: BTreeMap<u64, u32> = BTreeMap::new();
        for &pid in members {
            // Who has ended meanwhile lives nowhere.
            if let Some(inode) = inode_of(&pid.to_string()) {
                inhabited.entry(inode).or_insert(pid);
            }
        }
        let known: BTreeSet<u64> = self.namespaces.iter().map(|known| known.netns().inode()).collect();
        for (_, &pid) in inhabited.iter().filter(|(inode, _)| !known.contains(inode)) {
            match NetnsHandle::of_pid(pid) {
                // Another process of the same one may have been there before.
                Ok(netns) if self.namespaces.iter().any(|known| *known.netns() == netns) => {}
                Ok(netns) => self.attach_to(netns)?,
                Err(NetError::NoSuchProcess { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.leave_vacant(&inhabited)
    }

    fn attach_to(&mut self, netns: NetnsHandle) -> Result<(), SessionError> {
        let taken: BTreeSet<u32> = self.namespaces.iter().map(Namespace::number).collect();
        let number = (0..MAX_NETNS)
            .find(|number| !taken.contains(number))
            .ok_or_else(|| NetError::TooManyNamespaces { namespaces: taken.len() + 1, limit: MAX_NETNS })?;
        let namespace = Namespace::attach(
            &mut self.loaded.ebpf,
            &self.copies,
            &self.btf,
            &self.request.plan,
            self.needs,
            (number, netns),
            &self.request.keeper,
        )?;
        self.namespaces.push(namespace);
        Ok(())
    }

    fn leave_vacant(&mut self, inhabited: &BTreeMap<u64, u32>) -> Result<(), SessionError> {
        let now = Instant::now();
        let mut due = false;
        for namespace in &mut self.namespaces {
            let since = &mut namespace.vacant;
            if inhabited.contains_key(&namespace.netns.inode()) {
                *since = None;
            } else {
                due |= now.duration_since(*since.get_or_insert(now)) >= VACANCY;
            }
        }
        if !due {
            return Ok(());
        }
        // Sockets of the target may be with others who live there: as long as anybody does, we stay.
        let anybody = everybody();
        let mut index = 0;
        while let Some(namespace) = self.namespaces.get_mut(index) {
            let Some(since) = namespace.vacant else {
                index += 1;
                continue;
            };
            if anybody.contains(&namespace.netns.inode()) {
                namespace.vacant = Some(now);
            } else if now.duration_since(since) >= VACANCY {
                let mut left = self.namespaces.remove(index);
                self.lanes.extend(left.lane_stats()?);
                left.forget(&mut self.loaded.ebpf)?;
                left.detach(&self.request.keeper)?;
                continue;
            }
            index += 1;
        }
        Ok(())
    }
}

/// The inode of the network namespace of a process.
fn inode_of(pid: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|namespace| namespace.ino())
}

/// The inodes of all network namespaces that processes live in.
fn everybody() -> BTreeSet<u64> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| inode_of(entry.file_name().to_str()?)).collect()
}
