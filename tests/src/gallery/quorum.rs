//! etcd under symmetric, simplex and partial partitions, judged by the history of its clients.

use std::{thread, time::Duration};

use anyhow::ensure;

use super::{
    Scenario, Story,
    checks::Checks,
    etcd::{Cluster, Member},
    history::History,
    record::{Phase, View},
    service::Services,
    stage::{Stage, Table},
};
use crate::{
    process::Process,
    victim::report::{Sample, now_ns},
};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "quorum-store",
    number: "7",
    story: Story {
        title: "A quorum store in five partitions",
        lead: "Three members of etcd. Their leader is cut off both ways, one way, and one way for data only; then the leader and \
               one follower do not reach each other, then the two followers. A majority goes on, what was acknowledged stays, \
               and reads of a member's own copy are stale.",
        production: "Clients of one member time out while those of the others are served: who is down depends on whom one asks. \
                     Every member is up and answers its own status, and serializable reads (`--consistency=s`) succeed \
                     everywhere. An isolated member starts election after election (etcd 3.4 has `--pre-vote` switched off \
                     unless asked for), and takes the higher term back with it: the second outage comes when the network is \
                     whole again.",
        look_for: "Crosses of A at the time-out of 3 s in the first three partitions, while B and C go on after an election; \
                   crosses of B in the fourth, in which A and C do not notice; nothing in the fifth. Local reads are as fast as \
                   ever, and crosses where they lack something that had been acknowledged before. The crosses of all three after \
                   a partition is over are the election that healing it causes. Between the phases the emulated machine is busy \
                   with arming the next fault.\n\n\
                   One way is not always half as bad. Where all packets towards A are lost, so are the acknowledgements of what \
                   it sends, and TCP soon sends nothing new: the others miss it as if it were gone. Where only data is lost, its \
                   heartbeats keep arriving and nobody misses it; it gives up by itself when no answer has come for an election \
                   time-out, and only then the others begin to wait for theirs. What it had sent them meanwhile may be kept by \
                   the next leader: a change that timed out, and took effect.",
        who: "CGROUP_A and CGROUP_B are the cgroups of two of the members, A is the leader whenever a partition begins. Members \
              listen for each other on port 2380 of 127.0.0.11 to 127.0.0.13; the emulated machine is slow, so they run with \
              `--heartbeat-interval 200 --election-timeout 2000`, twice the defaults. Whoever is hit on \
              `port 2380` and on `local-port 2380` is hit on the connections that it made and on those made to it. Clients, on \
              port 2379, are spared. What each of them did and saw is in \
              [quorum-store.history.json](quorum-store.history.json).",
    },
    run,
};

/// After how many seconds a client gives up.
pub const PATIENCE_S: u64 = 3;
pub const SECOND: u64 = 1_000_000_000;
/// What is under way when a phase begins, and what may still be answered by the next.
pub const EDGE_NS: u64 = SECOND / 2;
pub const END_NS: u64 = PATIENCE_S * SECOND + EDGE_NS;
/// How long the others may take to elect a leader, on an emulated machine.
const ELECTION_NS: u64 = 8 * SECOND;

/// How long a partition lasts, and how long the store has until it must have a leader again.
const HURT_S: u64 = 20;
const HEALED_S: u64 = 12;

/// Whom a partition leaves without a majority.
struct Split {
    phase: &'static str,
    words: &'static [&'static str],
    alone: Option<Member>,
}

const SPLITS: [Split; 5] = [
    Split {
        phase: "cut off",
        words: &["--cgroup", "CGROUP_A", "--net", "drop port 2380", "--net", "drop local-port 2380"],
        alone: Some(Member::A),
    },
    Split {
        phase: "one way",
        words: &["--cgroup", "CGROUP_A", "--net", "drop in port 2380", "--net", "drop in local-port 2380"],
        alone: Some(Member::A),
    },
    Split {
        phase: "data one way",
        words: &[
            "--cgroup",
            "CGROUP_A",
            "--net",
            "drop in port 2380 data",
            "--net",
            "drop in local-port 2380 data",
        ],
        alone: Some(Member::A),
    },
    Split {
        phase: "A-B cut",
        words: &[
            "--cgroup",
            "CGROUP_A",
            "--cgroup",
            "CGROUP_B",
            "--net",
            "drop to 127.0.0.11:2380 to 127.0.0.12:2380",
        ],
        alone: Some(Member::B),
    },
    Split {
        phase: "B-C cut",
        words: &[
            "--cgroup",
            "CGROUP_B",
            "--cgroup",
            "CGROUP_C",
            "--net",
            "drop to 127.0.0.12:2380 to 127.0.0.13:2380",
        ],
        alone: None,
    },
];

/// Clients of all members, who begin at once.
///
/// # Errors
/// When they end instead.
pub fn clients(services: &Services) -> anyhow::Result<Process> {
    let members = Member::ALL.map(|member| format!("{}={}", member.name(), member.clients()));
    let patience = PATIENCE_S.to_string();
    let arguments: Vec<&str> =
        std::iter::once(patience.as_str()).chain(members.iter().map(String::as_str)).collect();
    services.start("registers.py", &arguments)
}

/// Packages, for the page.
///
/// # Errors
/// When one is missing.
pub fn packages(stage: &mut Stage) -> anyhow::Result<()> {
    ["etcd-server", "etcd-client", "python3"].into_iter().try_for_each(|package| stage.runs(package))
}

/// A phase in which time passes.
pub fn rest(seconds: u64) -> ((), Vec<Sample>) {
    thread::sleep(Duration::from_secs(seconds));
    ((), Vec::new())
}

/// Ends the clients, and remembers what they did.
///
/// # Errors
/// When they failed.
pub fn told(stage: &mut Stage, mut clients: Process) -> anyhow::Result<History> {
    clients.release()?;
    let history: History = clients.report()?;
    stage.record.samples = history.samples();
    stage.beside.push(("history.json".to_owned(), history.json(&stage.record.phases)?));
    Ok(history)
}

fn run(stage: &mut Stage) -> anyhow::Result<()> {
    packages(stage)?;
    let cluster = Cluster::start()?;
    cluster.lead(Member::A)?;
    let services = Services::new()?;
    let clients = clients(&services)?;
    stage.phase("healthy", || Ok(rest(HEALED_S)))?;
    let cgroups = Member::ALL.map(|member| (format!("CGROUP_{}", member.name()), cluster.cgroup(member)));
    let known: Vec<(&str, &str)> =
        cgroups.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
    // Whatever the leader does once all is well, it has done by then.
    let mut settled = Vec::new();
    for split in &SPLITS {
        let injection = stage.fault(&[&["inject"], split.words].concat(), &known)?;
        stage.hurt(split.phase, || Ok(rest(HURT_S)))?;
        let report = injection.heal()?;
        for rule in 0..split.words.iter().filter(|&&word| word == "--net").count() {
            ensure!(report.rule(rule, "injected")? > 0, "{}: {}", split.phase, report.json);
        }
        settled.push(stage.phase("healed", || {
            rest(HEALED_S);
            let settled = now_ns();
            // So that the next partition finds it where it should.
            cluster.lead(Member::A)?;
            Ok((settled, rest(2).1))
        })?);
    }
    let history = told(stage, clients)?;
    for member in Member::ALL.map(Member::name) {
        served(
            &mut stage.checks,
            "healthy",
            member,
            &stage.record.of(&format!("through {member}"), "healthy"),
        )?;
    }
    for split in &SPLITS {
        felt(stage, split)?;
    }
    led(stage, &history, &settled)?;
    unknown(stage, &history)?;
    judge(stage, &history)?;
    stage.checks.that(
        "with local reads counted as reads the same history is not linearizable",
        !history.linearizable(true),
    )
}

/// What clients felt in a partition, and what they did not.
fn felt(stage: &mut Stage, split: &Split) -> anyhow::Result<()> {
    let Split { phase, alone, .. } = split;
    let (record, checks) = (&stage.record, &mut stage.checks);
    for member in Member::ALL {
        let name = member.name();
        let through = format!("through {name}");
        if *alone == Some(member) {
            // A follower takes an election time-out to notice; until then it has a leader that does not answer.
            let seen = record.inside(&through, phase, EDGE_NS, END_NS);
            checks.equal(
                &format!("{phase}: answered through {name}, of {}", seen.count()),
                seen.good(),
                0,
            )?;
            ensure!(seen.count() >= 4, "{phase}: {} operations through {name}", seen.count());
            let own = record.inside(&format!("local reads of {name}"), phase, ELECTION_NS, 0);
            let (stale, current) = (own.ended("stale"), own.ended("current"));
            checks.that(
                format!(
                    "{phase}: local reads of {name}: {stale} stale, {current} current, of {}",
                    own.count()
                ),
                stale > current && 4 * (stale + current) >= 3 * own.count(),
            )?;
        } else {
            // Where the leader is alone, the others need an election first.
            let after = if *alone == Some(Member::A) { ELECTION_NS } else { 0 };
            let seen = record.inside(&through, phase, after, END_NS);
            served(checks, phase, name, &seen)?;
        }
    }
    Ok(())
}

/// At least three in four: the emulated machine is at times too slow for the time-out.
///
/// # Errors
/// When fewer were.
pub fn served(checks: &mut Checks, phase: &str, member: &str, seen: &View<'_>) -> anyhow::Result<()> {
    checks.that(
        format!("{phase}: answered through {member}: {} of {}", seen.good(), seen.count()),
        seen.count() >= 4 && 4 * seen.good() >= 3 * seen.count(),
    )
}

/// Each partition and the phase in which it was healed.
fn pairs(phases: &[Phase]) -> impl Iterator<Item = (&Phase, &Phase)> {
    phases.windows(2).filter(|pair| pair[0].hurt).map(|pair| (&pair[0], &pair[1]))
}

/// How long after the beginning of the phase the first of `members` no longer took A for the leader.
fn gives_up(history: &History, members: &[&str], hurt: &Phase) -> Option<u64> {
    let first = history.views.iter().filter(|view| {
        members.contains(&view.member.as_str())
            && view.leader != "A"
            && (hurt.begin_ns..hurt.end_ns).contains(&view.at_ns)
    });
    first.map(|view| view.at_ns - hurt.begin_ns).min()
}

/// Who led, in which term, and how long nobody did.
fn led(stage: &mut Stage, history: &History, settled: &[u64]) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for ((split, (hurt, healed)), &settled) in SPLITS.iter().zip(pairs(&stage.record.phases)).zip(settled) {
        let Split { phase, alone, .. } = *split;
        let view = |member: &str, at_ns: u64| {
            history.view(member, at_ns).ok_or_else(|| anyhow::anyhow!("{phase}: {member} was not asked"))
        };
        // C is with the majority in all of them.
        let [before, during, after] =
            [view("C", hurt.begin_ns)?, view("C", hurt.end_ns)?, view("C", settled)?];
        let checks = &mut stage.checks;
        checks
            .that(format!("{phase}: the leader before is A (term {})", before.term), before.leader == "A")?;
        if alone == Some(Member::A) {
            let leader = &during.leader;
            checks.that(
                format!("{phase}: the majority has elected {leader} (term {})", during.term),
                matches!(leader.as_str(), "B" | "C") && during.term > before.term,
            )?;
            let [gives_up, missed] = [gives_up(history, &["A"], hurt), gives_up(history, &["B", "C"], hurt)];
            if phase == "data one way" {
                checks.that(
                    format!("{phase}: A gives up before the others miss it"),
                    gives_up.is_some() && gives_up < missed,
                )?;
            }
            checks.that(
                format!("{phase}: A knows that it is not the leader any more"),
                view("A", hurt.end_ns)?.leader != "A",
            )?;
        } else {
            checks.that(
                format!("{phase}: the leader is A in the same term"),
                during.leader == "A" && during.term == before.term,
            )?;
        }
        checks.that(
            format!("{phase}, healed: from term {} to term {}", during.term, after.term),
            (after.term > during.term) == alone.is_some() && !after.leader.is_empty(),
        )?;
        let others: Vec<&str> =
            Member::ALL.into_iter().filter(|&one| alone != Some(one)).map(Member::name).collect();
        let seconds = |ns: u64| format!("{:.1} s", ns as f64 / 1e9);
        let all = Member::ALL.map(Member::name);
        rows.push(vec![
            phase.to_owned(),
            alone.map_or("nobody", Member::name).to_owned(),
            gives_up(history, &["A"], hurt).map_or("-".to_owned(), seconds),
            gives_up(history, &others, hurt).map_or("-".to_owned(), seconds),
            seconds(history.silence_ns(&others, (hurt.begin_ns, hurt.end_ns))),
            format!("{}, {}", before.leader, before.term),
            format!("{}, {}", during.leader, during.term),
            format!("{}, {}", after.leader, after.term),
            seconds(history.silence_ns(&all, (healed.begin_ns, settled))),
        ]);
    }
    stage.tables.push(Table {
        title: "Who led, and the longest time without an answer".to_owned(),
        head: [
            "partition",
            "without a majority",
            "A does not lead, says A, after",
            "say the others, after",
            "longest silence of the others in it",
            "leader and term before",
            "at its end",
            "12 s after",
            "longest silence of all in these 12 s",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    });
    Ok(())
}

/// What became of changes whose end nobody was told.
fn unknown(stage: &mut Stage, history: &History) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (Split { phase, alone, .. }, (hurt, _)) in SPLITS.iter().zip(pairs(&stage.record.phases)) {
        let Some(alone) = alone.map(Member::name) else { continue };
        let (all, took_effect) = history.unknown(&[alone], (hurt.begin_ns, hurt.end_ns - 2 * END_NS));
        if *phase == "cut off" {
            // Nobody but A ever had them.
            stage.checks.that(
                format!("{phase}: of {all} changes through {alone} that timed out, none took effect"),
                all > 0 && took_effect == 0,
            )?;
        }
        rows.push(vec![(*phase).to_owned(), alone.to_owned(), all.to_string(), took_effect.to_string()]);
    }
    stage.tables.push(Table {
        title: "Changes that timed out in the middle of a partition".to_owned(),
        head: ["partition", "asked of", "timed out", "took effect all the same"].map(str::to_owned).to_vec(),
        rows,
    });
    Ok(())
}

/// What the history says about the store.
///
/// # Errors
/// When something acknowledged is lost, or there is no order for what was seen.
pub fn judge(stage: &mut Stage, history: &History) -> anyhow::Result<()> {
    let checks = &mut stage.checks;
    let (changes, lost) = history.acknowledged();
    checks.equal(
        &format!(
            "acknowledged changes, of {changes}, that a member does not hold in the end at their revision"
        ),
        lost,
        0,
    )?;
    let mut logs = history.log.values();
    let first = logs.next();
    checks.that(
        format!("all {} members hold the same {} revisions", history.log.len(), first.map_or(0, Vec::len)),
        history.log.len() == 3 && logs.all(|log| Some(log) == first),
    )?;
    checks.that(
        format!("the history of {} operations is linearizable (local reads aside)", history.operations.len()),
        history.linearizable(false),
    )
}
