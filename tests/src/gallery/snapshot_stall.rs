//! ZooKeeper: what the leader sends to one learner stops in the middle of a snapshot.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;

use super::{
    Scenario, Story,
    record::View,
    service::Services,
    stage::{Stage, Table},
    zookeeper::{self, Ensemble, PATIENCE, address, monitored, unsent},
};
use crate::{
    process::Process,
    victim::report::{Sample, now_ns},
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "snapshot-stall",
    number: "1",
    story: Story {
        title: "A snapshot that stalls",
        lead: "ZooKeeper, three servers. One lost its disk and gets a snapshot from the leader, and in the middle of it the \
               network to it takes no more data. Everybody else reads and writes as before; but the leader counts the one that \
               has nothing among its followers, and when the other one pauses for a moment, writes time out while the \
               leader's checks are green.",
        production: "`ruok` says `imok` on all three servers, `srvr` is fine on two, and `zk_synced_followers` of the leader is \
                     no lower than it was: it even rises above the number of followers there are, by one with each try of the \
                     learner. Only the learner itself says, to `srvr`, that it is not serving requests. On the leader, `ss -tn` \
                     shows connections to one learner with a full Send-Q, and a thread dump shows a `LearnerHandler` for each in \
                     `serializeNode`. The learner gives up after `initLimit` (20 s here) and begins anew; the leader does not \
                     learn of it, for it only writes, and waits until TCP gives up, which takes a quarter of an hour. When the \
                     network is whole again, it learns of each within the two minutes after which TCP tries again.\n\n\
                     In ZOOKEEPER-2201 the thread that sends the snapshot held the lock of the node it was sending, while it \
                     waited for the socket. A write to that node stopped, and all writes behind it; pings went on, so nobody \
                     elected another leader. That is mended since 3.4.7 and 3.5.1, and measured here of 3.8: the thread still \
                     waits in the middle of a node, but what it locks is a copy of its own, and writes to every node, also to the \
                     one that is stuck, succeed all the while. What is left is what the leader says: the stalled learner \
                     counts as a follower, and acknowledges nothing. That writes stop when two of three servers are out is as it \
                     must be; that one of them has been out all the time is what nobody could see.",
        look_for: "During `stall` reads and writes go on as dots, of leader and follower; the crosses are the checks of the learner, \
                   which does not serve. In the phases called `paused` the other follower is stopped for seven seconds (SIGSTOP), \
                   as by a long garbage collection. Before and after, the leader writes on with the learner and nobody notices. \
                   With the stall, every write times out after its client's two seconds, while reads from the leader and its \
                   checks are as good as ever. Clients of the follower are not shown there: it is stopped.",
        who: "LEADER is the PID of the leader, 10.78.0.1 is the learner. The first 64 KiB of each connection \
              pass, so the learner finds its leader and the snapshot begins.",
    },
    run,
};

/// Nodes of 150 kB: more than the buffers of a connection hold.
const NODES: usize = 24;
/// What a client waits for an answer, usually and while a follower is paused, in seconds.
const WAITS: u64 = 15;
const WAITS_PAUSED: u64 = 2;
/// Less than the ten seconds (`syncLimit`) after which a leader gives a follower up.
const PAUSE: Duration = Duration::from_secs(7);
/// More than what arrives while one looks.
const STUCK: u64 = 32 * 1024;
const SECOND: u64 = 1_000_000_000;

struct Play {
    ensemble: Ensemble,
    services: Services,
}

impl Play {
    /// Clients of the servers in `users`, and a check of the health of all in `checks`, ready to begin.
    fn users(&self, seconds: u64, waits: u64, users: &[&str], checks: &[&str]) -> anyhow::Result<Process> {
        let named = |role: &&str| format!("{role}={}", address(self.id(role)));
        let mut command = zookeeper::clients(Services::python());
        command.arg(self.services.path("znodes.py"));
        command.arg("--users").args(users.iter().map(named)).arg("--checks").args(checks.iter().map(named));
        command.arg("--").args([seconds.to_string(), waits.to_string(), NODES.to_string()]);
        Process::start_until(&mut command, "ready")
    }

    fn id(&self, role: &str) -> u8 {
        match role {
            "leader" => self.ensemble.leader,
            "follower" => self.ensemble.follower,
            _ => self.ensemble.learner,
        }
    }

    /// Clients of leader and follower for some seconds.
    fn everybody(&self, seconds: u64) -> anyhow::Result<Process> {
        self.users(seconds, WAITS, &["leader", "follower"], &["leader", "follower", "learner"])
    }

    /// Clients of the leader alone, while the follower is paused. When that began.
    fn paused(&self, stage: &mut Stage, phase: &str) -> anyhow::Result<u64> {
        let mut users = self.users(PAUSE.as_secs(), WAITS_PAUSED, &["leader"], &["leader", "learner"])?;
        stage.hurt(phase, || {
            self.ensemble.signal(self.ensemble.follower, Signal::SIGSTOP)?;
            let begin_ns = now_ns();
            users.release()?;
            thread::sleep(PAUSE);
            self.ensemble.signal(self.ensemble.follower, Signal::SIGCONT)?;
            Ok((begin_ns, users.report()?))
        })
    }

    /// Waits until the snapshot no longer gets on.
    fn stalls(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut before = Vec::new();
        loop {
            let now = unsent(self.ensemble.leader, self.ensemble.learner)?;
            if now == before && now.iter().any(|&bytes| bytes > STUCK) {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < PATIENCE,
                "the leader sends no snapshot, or it does not stall: {now:?}"
            );
            before = now;
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// What the leader says, what is so, and what is stuck.
    fn look(&self, when: &str) -> anyhow::Result<Look> {
        let Ensemble { leader, learner, .. } = self.ensemble;
        let handlers = self.ensemble.stacks(leader, &format!("LearnerHandler-/{}:", address(learner)))?;
        Ok(Look {
            when: when.to_owned(),
            serving: self.ensemble.followers(),
            synced: monitored(leader, "zk_synced_followers")?,
            sending: handlers.into_iter().filter(|stack| stack.contains("serializeNode(")).collect(),
            unsent: unsent(leader, learner)?.into_iter().filter(|&bytes| bytes > STUCK).collect(),
        })
    }
}

struct Look {
    when: String,
    serving: usize,
    synced: u64,
    sending: Vec<String>,
    unsent: Vec<u64>,
}

impl Look {
    fn row(&self) -> Vec<String> {
        let unsent: Vec<String> = self.unsent.iter().map(|bytes| format!("{} KiB", bytes / 1024)).collect();
        vec![
            self.when.clone(),
            self.serving.to_string(),
            self.synced.to_string(),
            self.sending.len().to_string(),
            unsent.join(", "),
        ]
    }
}

fn act(mut users: Process) -> anyhow::Result<((), Vec<Sample>)> {
    users.release()?;
    Ok(((), users.report()?))
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    for package in ["zookeeper", "openjdk-17-jre-headless", "python3-kazoo"] {
        stage.runs(package)?;
    }
    let (short, long) = (stage.pace.of(6, 12), stage.pace.of(25, 45));
    let place = tempfile::TempDir::new()?;
    let mut play = Play { ensemble: Ensemble::start(place.path())?, services: Services::new()? };

    // A Java machine is slow until it has seen something.
    act(play.everybody(short)?)?;
    let users = play.everybody(short)?;
    stage.phase("before", || act(users))?;
    let mut looks = vec![play.look("before")?];
    let mut pauses = vec![("before, paused", play.paused(stage, "before, paused")?)];

    let learner = play.ensemble.learner;
    play.ensemble.lose(learner)?;
    let peer = format!("peer={}", address(learner));
    let injection = stage.fault(
        &["preset", "snapshot-stall", "--pid", "LEADER", "peer=10.78.0.1", "for=30m"],
        &[("LEADER", &play.ensemble.pid(play.ensemble.leader)), ("peer=10.78.0.1", &peer)],
    )?;
    play.ensemble.rejoin(learner)?;
    play.stalls()?;
    let users = play.everybody(long)?;
    looks.push(play.look("at the beginning of the stall")?);
    stage.hurt("stall", || act(users))?;
    looks.push(play.look("at its end")?);
    pauses.push(("stall, paused", play.paused(stage, "stall, paused")?));
    looks.push(play.look("after the pause")?);
    let report = injection.heal()?;

    let back = stage.phase("catching up", || Ok((play.ensemble.serves(learner)?, Vec::new())))?;
    let users = play.everybody(short)?;
    stage.phase("after", || act(users))?;
    looks.push(play.look("after")?);
    pauses.push(("after, paused", play.paused(stage, "after, paused")?));

    stage.checks.that("`fault` counts lost packets", report.rule(0, "injected")? > 0)?;
    felt(stage)?;
    paused(stage, &pauses)?;
    stuck(stage, &looks)?;
    let counted = [play.ensemble.leader, learner].map(|id| monitored(id, "zk_znode_count"));
    let [leader, learner] = counted;
    stage.checks.equal("after: nodes that the learner has, as many as the leader", learner?, leader?)?;
    stage.tables.push(Table {
        title: "What the leader says, and what is so".to_owned(),
        head: [
            "",
            "followers that serve",
            "`zk_synced_followers`",
            "threads that send a snapshot",
            "unsent on each of their connections",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: looks.iter().map(Look::row).collect(),
    });
    stage.tables.push(Table {
        title: "The learner".to_owned(),
        head: vec!["serves again after the network is whole".to_owned()],
        rows: vec![vec![format!("in {:.1} s", back.as_secs_f64())]],
    });
    Ok(())
}

/// Everybody but the learner, before, during and after.
fn felt(stage: &mut Stage) -> anyhow::Result<()> {
    let (record, checks) = (&stage.record, &mut stage.checks);
    for phase in ["before", "stall", "after"] {
        for server in ["leader", "follower"] {
            for who in [
                format!("write through the {server}"),
                format!("read from the {server}"),
                format!("health check of the {server}"),
            ] {
                let seen = record.of(&who, phase);
                checks.that(
                    format!(
                        "{who}, {phase}: {} of {} as wanted, and no less than 5",
                        seen.good(),
                        seen.count()
                    ),
                    seen.good() == seen.count() && seen.count() >= 5,
                )?;
            }
        }
    }
    for server in ["leader", "follower"] {
        let who = format!("write through the {server}");
        let during = record.of(&who, "stall");
        let nodes: BTreeSet<&str> = during.iter().map(|sample| sample.what.as_str()).collect();
        checks.equal(&format!("{who}, stall: different nodes that took a write"), nodes.len(), NODES)?;
        let (median, worst) = (during.median_ms(), during.worst_ms());
        checks.that(
            format!(
                "{who}, stall: median {median:.0} ms, the slowest {worst:.0} ms, less than {} s",
                WAITS / 3
            ),
            worst < WAITS as f64 * 1000.0 / 3.0,
        )?;
    }
    let learner = record.of("health check of the learner", "stall");
    checks.equal(
        &format!(
            "`ruok` of the learner says imok and `srvr` that it does not serve, stall, of {}",
            learner.count()
        ),
        learner.ended("imok, not serving"),
        learner.count(),
    )?;
    let learner = record.of("health check of the learner", "after");
    checks.equal(
        &format!("the learner is a follower, after, of {}", learner.count()),
        learner.ended("imok, follower"),
        learner.count(),
    )
}

/// What began so early in a pause that its answer was due before the end.
fn within<'a>(seen: &View<'a>, begin_ns: u64) -> View<'a> {
    let last_ns = begin_ns + (PAUSE.as_secs() - WAITS_PAUSED) * SECOND;
    seen.only(|sample| (begin_ns..last_ns).contains(&sample.at_ns))
}

/// The other follower pauses: with the learner, nobody notices; without it, nothing can be written.
fn paused(stage: &mut Stage, pauses: &[(&str, u64)]) -> anyhow::Result<()> {
    let (record, checks) = (&stage.record, &mut stage.checks);
    for &(phase, begin_ns) in pauses {
        let writes = within(&record.of("write through the leader", phase), begin_ns);
        let (ended, how) = if phase.starts_with("stall") {
            (writes.ended("timed out"), "timed out")
        } else {
            (writes.good(), "succeeded")
        };
        checks.that(
            format!(
                "{phase}: {ended} of {} writes through the leader {how}, and no less than 2",
                writes.count()
            ),
            ended == writes.count() && ended >= 2,
        )?;
        let reads = record.of("read from the leader", phase);
        checks.equal(
            &format!("{phase}: reads from the leader that succeeded, of {}", reads.count()),
            reads.good(),
            reads.count(),
        )?;
        let health = record.of("health check of the leader", phase);
        checks.equal(
            &format!("{phase}: checks that said `imok` and `leader`, of {}", health.count()),
            health.ended("imok, leader"),
            health.count(),
        )?;
    }
    Ok(())
}

/// What stands still in the leader, and what it says about it.
fn stuck(stage: &mut Stage, looks: &[Look]) -> anyhow::Result<()> {
    let [before, begin, end, ..] = looks else { anyhow::bail!("looks are missing") };
    let checks = &mut stage.checks;
    checks.equal("before: followers that serve", before.serving, 2)?;
    checks.equal("before: followers that the leader calls synced", before.synced, 2)?;
    checks.equal("stall: followers that serve", end.serving, 1)?;
    checks.that(
        format!("stall: followers that the leader calls synced: {}, then {}", begin.synced, end.synced),
        begin.synced >= 2 && end.synced > 2,
    )?;
    checks.that(
        format!("threads of the leader that are stuck in the middle of a snapshot: {}", end.sending.len()),
        !end.sending.is_empty(),
    )?;
    // A lock stands below the frame that took it. `DataNode.serialize` locks the copy that is sent, which nobody else has.
    let holds = |stack: &String| {
        let lines: Vec<&str> = stack.lines().collect();
        lines.windows(2).any(|pair| pair[0].contains("DataTree.serialize") && pair[1].contains("- locked"))
    };
    checks.equal(
        "those of them that hold the lock of a node, as in ZOOKEEPER-2201",
        end.sending.iter().filter(|stack| holds(stack)).count(),
        0,
    )?;
    let stack = end.sending.first().context("there is one")?;
    let frames = stack.lines().skip(2).filter(|line| {
        let known = ["NioSocketImpl.write", "DataNode.serialize", "DataTree.serializeNode", "locked"];
        known.iter().any(|name| line.contains(name)) || line.contains("LearnerHandler.run")
    });
    let frame = |line: &str| line.trim().trim_start_matches("at ").to_owned();
    stage.tables.push(Table {
        title: "Where such a thread is".to_owned(),
        head: vec!["called by the one below; a lock belongs to the frame above it".to_owned()],
        rows: frames.map(|line| vec![format!("`{}`", frame(line))]).collect(),
    });
    Ok(())
}
