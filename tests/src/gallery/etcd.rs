//! Three members of etcd from Debian's package on this machine, each with an address and a cgroup of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::service;
use crate::{
    cgroup_lab::CgroupLab,
    process::{Ended, Process},
};

/// How long a cluster may take to have a leader, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where members talk to each other; clients are at etcd's usual port.
pub const PEERS: u16 = 2380;
const CLIENTS: u16 = 2379;

/// One of three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The first.
    A,
    /// The second.
    B,
    /// The third.
    C,
}

impl Member {
    /// All.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, 11 + self as u8)
    }

    /// Where its clients go.
    #[must_use]
    pub fn clients(self) -> String {
        format!("{}:{CLIENTS}", self.address())
    }
}

/// What a member says about itself.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "Status")]
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    header: Header,
    #[serde(default)]
    leader: u64,
}

#[derive(Deserialize)]
struct Header {
    member_id: u64,
}

/// All three. They end when this is dropped.
pub struct Cluster {
    // Processes end before their cgroups do, and both before the directory.
    _members: Vec<Process>,
    cgroups: Vec<CgroupLab>,
    _place: tempfile::TempDir,
}

impl Cluster {
    /// Starts them and waits until they have a leader.
    ///
    /// # Errors
    /// When they do not.
    pub fn start() -> anyhow::Result<Self> {
        let place = tempfile::TempDir::new()?;
        let peers = |member: Member| format!("http://{}:{PEERS}", member.address());
        let all = Member::ALL.map(|member| format!("{}={}", member.name(), peers(member))).join(",");
        let (mut members, mut cgroups) = (Vec::new(), Vec::new());
        for member in Member::ALL {
            let cgroup = CgroupLab::new(&format!("etcd-{}", member.name()))?;
            let mut command = cgroup.command("etcd");
            let directory = place.path().join(member.name());
            let (peers, clients) = (peers(member), format!("http://{}", member.clients()));
            command
                .args(["--name", member.name(), "--initial-cluster", &all])
                .arg("--data-dir")
                .arg(&directory);
            command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
            command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
            // Twice the defaults: the emulated machine is slow.
            command.args(["--heartbeat-interval", "200", "--election-timeout", "2000"]);
            // Nobody reads what it would print.
            command.args(["--logger", "zap", "--log-outputs"]).arg(directory.with_extension("log"));
            members.push(Process::start(&mut command)?);
            cgroups.push(cgroup);
        }
        let cluster = Self { _members: members, cgroups, _place: place };
        for member in Member::ALL {
            service::wait_for(SocketAddr::from((member.address(), CLIENTS))).context("etcd")?;
        }
        cluster.leader()?;
        Ok(cluster)
    }

    /// The cgroup of a member.
    #[must_use]
    pub fn cgroup(&self, member: Member) -> String {
        self.cgroups[member as usize].path()
    }

    /// Whom all of them take for the leader.
    ///
    /// # Errors
    /// When they do not agree in time.
    pub fn leader(&self) -> anyhow::Result<Member> {
        Ok(Self::agreed()?.0)
    }

    /// Makes `member` the leader.
    ///
    /// # Errors
    /// When it does not become that in time.
    pub fn lead(&self, member: Member) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (leader, numbers) = Self::agreed()?;
            if leader == member {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} does not become the leader", member.name());
            // Whether it has is asked again: an election may come in between.
            ctl(&[leader], &["move-leader", &format!("{:x}", numbers[member as usize])])?;
        }
    }

    /// The leader, and the numbers of all.
    fn agreed() -> anyhow::Result<(Member, Vec<u64>)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = ctl(&Member::ALL, &["endpoint", "status", "-w", "json"])?;
            let told: Vec<Told> = serde_json::from_str(&ended.stdout).unwrap_or_default();
            let numbers: Vec<u64> = told.iter().map(|one| one.status.header.member_id).collect();
            let leader = told.first().map_or(0, |one| one.status.leader);
            let place = numbers.iter().position(|&number| number == leader);
            if let (3, true, Some(place)) =
                (told.len(), told.iter().all(|one| one.status.leader == leader), place)
            {
                return Ok((Member::ALL[place], numbers));
            }
            ensure!(Instant::now() < deadline, "they agree on no leader: {ended:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

fn ctl(members: &[Member], words: &[&str]) -> anyhow::Result<Ended> {
    let to = members.iter().map(|member| member.clients()).collect::<Vec<_>>().join(",");
    Ended::of(Command::new("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", &to]).args(words))
}
