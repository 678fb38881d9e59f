//! etcd whose leader stands still for five seconds and goes on as if nothing had been.

use anyhow::ensure;

use super::{
    Scenario, Story,
    etcd::{Cluster, Member},
    history::History,
    quorum::{self, EDGE_NS, SECOND},
    service::Services,
    stage::{Stage, Table},
};
use crate::victim::report::Sample;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "quorum-pause",
    number: "9",
    story: Story {
        title: "A leader that stands still for five seconds",
        lead: "Three members of etcd. All processes of the leader's cgroup are stopped for 5 s and go on, as after a long \
               collection of garbage or the migration of a virtual machine. It wakes up as a leader, and must not answer as one.",
        production: "Clients of one member get time-outs: it accepts connections and says nothing. The others elect a leader. \
                     When the member goes on, it finds in its buffers what it was asked meanwhile, by clients who have given up, \
                     and its own clock says that no time has passed.",
        look_for: "A is silent for 5 s (crosses at the time-out of 3 s, also for local reads: a stopped process answers \
                   nothing, unlike one that is cut off). B and C stop for an election and go on. No second election when A comes \
                   back: it has not campaigned while it stood still, so its term is old, and it follows. Until it has heard of \
                   the new leader its local reads may be stale; it answers no other read, for that needs the others' consent. What \
                   it was asked in its sleep may take effect after the client has given up. Between \
                   the phases the emulated machine is busy with arming the next pause.",
        who: "CGROUP_A is the cgroup of the member that leads. Members run with a heartbeat each 200 ms and start an \
              election after 2 s to 4 s without (twice the defaults, for a slow machine). What each client did and saw is in \
              [quorum-pause.history.json](quorum-pause.history.json).",
    },
    run,
};

const PAUSE_S: u64 = 5;
const AFTER_S: u64 = 12;
const ROUNDS: usize = 3;
/// An election may still be under way when A goes on.
const SETTLED_NS: u64 = 6 * SECOND;

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    quorum::packages(stage)?;
    let cluster = Cluster::start()?;
    cluster.lead(Member::A)?;
    let services = Services::new()?;
    let clients = quorum::clients(&services)?;
    stage.phase("before", || Ok(quorum::rest(8)))?;
    let cgroup = cluster.cgroup(Member::A);
    for round in 1..=ROUNDS {
        let words = ["inject", "--cgroup", "CGROUP_A", "--proc", "pause 5s"];
        let injection = stage.fault(&words, &[("CGROUP_A", &cgroup)])?;
        stage.hurt("paused", || Ok(quorum::rest(PAUSE_S)))?;
        stage.phase("after", || Ok(quorum::rest(AFTER_S)))?;
        let report = injection.heal()?;
        ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
        if round < ROUNDS {
            cluster.lead(Member::A)?;
            stage.phase("before", || Ok(quorum::rest(3)))?;
        }
    }
    let history = quorum::told(stage, clients)?;
    felt(stage)?;
    led(stage, &history)?;
    quorum::judge(stage, &history)
}

fn felt(stage: &mut Stage) -> anyhow::Result<()> {
    let (record, checks) = (&stage.record, &mut stage.checks);
    // It stands still a moment after it was asked to.
    let paused: Vec<(u64, u64)> = record
        .phases
        .iter()
        .filter(|phase| phase.hurt)
        .map(|phase| (phase.begin_ns + EDGE_NS, phase.end_ns))
        .collect();
    for who in ["through A", "local reads of A"] {
        let answered = |sample: &&Sample| {
            let end_ns = sample.at_ns + sample.took_ns;
            let known = matches!(sample.outcome.as_str(), "ok" | "current" | "stale");
            sample.who == who && known && paused.iter().any(|span| (span.0..span.1).contains(&end_ns))
        };
        let timed_out = record.of(who, "paused").ended("time-out");
        checks.equal(
            &format!("paused, from 0.5 s on: {who}, answered beside {timed_out} time-outs"),
            record.samples.iter().filter(answered).count(),
            0,
        )?;
        ensure!(timed_out >= ROUNDS, "{timed_out} time-outs {who}");
    }
    for member in Member::ALL.map(Member::name) {
        let seen = record.inside(&format!("through {member}"), "after", SETTLED_NS, 0);
        quorum::served(checks, "after, from 6 s on", member, &seen)?;
    }
    Ok(())
}

fn led(stage: &mut Stage, history: &History) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let (mut begun, mut took) = (0, 0);
    for pair in stage.record.phases.windows(2).filter(|pair| pair[0].hurt) {
        let (paused, after) = (&pair[0], &pair[1]);
        let view = |member: &str, at_ns: u64| {
            history.view(member, at_ns).ok_or_else(|| anyhow::anyhow!("{member} was not asked"))
        };
        let [before, then, of_a] =
            [view("B", paused.begin_ns)?, view("B", after.end_ns)?, view("A", after.end_ns)?];
        let checks = &mut stage.checks;
        checks.that(
            format!("A led in term {}; then {} leads in term {}", before.term, then.leader, then.term),
            before.leader == "A" && matches!(then.leader.as_str(), "B" | "C") && then.term > before.term,
        )?;
        checks.that(
            format!("and A follows {} in term {}", of_a.leader, of_a.term),
            (&of_a.leader, of_a.term) == (&then.leader, then.term),
        )?;
        let (unknown, effective) = history.unknown(&["A"], (paused.begin_ns, paused.end_ns));
        begun += unknown;
        took += effective;
        let silence = history.silence_ns(&["B", "C"], (paused.begin_ns, after.end_ns));
        let stale = |sample: &&Sample| {
            sample.who == "local reads of A"
                && sample.outcome == "stale"
                && (paused.begin_ns..after.end_ns).contains(&sample.at_ns)
        };
        rows.push(vec![
            format!("{}, {}", before.leader, before.term),
            format!("{:.1} s", silence as f64 / SECOND as f64),
            format!("{}, {}", then.leader, then.term),
            unknown.to_string(),
            effective.to_string(),
            stage.record.samples.iter().filter(stale).count().to_string(),
        ]);
    }
    stage.checks.that(
        format!("changes asked of the paused leader and not answered in time: {begun}, of which {took} took effect"),
        begun > 0,
    )?;
    stage.tables.push(Table {
        title: "The pauses".to_owned(),
        head: [
            "leader and term before",
            "longest silence of B and C",
            "leader and term 12 s after",
            "changes of A's clients that timed out",
            "of these took effect",
            "stale local reads of A",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    });
    Ok(())
}
