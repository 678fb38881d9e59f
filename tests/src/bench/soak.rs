//! Mixed faults over a thousand connections while the rules change twenty times a second; and what is left of it.

mod ledger;
mod machine;
mod renewed;
mod sets;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use fault_user::{
    session::{
        Active, End,
        active::Signals,
        arm::{Armed, Request},
        heal::Healed,
    },
    target::Target as Victims,
};

use self::{
    ledger::{Ledger, Sums},
    machine::Memory,
};
use super::{
    Lane, Setting,
    figure::{Figure, Target},
};
use crate::{
    driver::victim,
    kernel_log::KernelLog,
    net_lab::{NetLab, PEER_V4},
    process::Process,
    residue::Picture,
    victim::report::{Flooded, Held, Sunk},
};

/// How long a rule set is in force.
const CHANGE: Duration = Duration::from_millis(50);
/// The first run brings into the machine what stays there for good: caches, pages of the allocators.
const WARM_UP: Duration = Duration::from_secs(10);
/// What a lab of this size may leave in the kernel's allocators, KiB. A packet is at least 768 bytes: more than one lost
/// in some thousands would show.
const SLACK_KIB: f64 = 8192.0;
/// Pages of the socket buffers that the kernel keeps for each CPU.
const SLACK_PAGES: f64 = 1024.0;

pub(super) fn run(setting: &Setting) -> anyhow::Result<Vec<Figure>> {
    let mut log = KernelLog::from_now()?;
    soak(setting, WARM_UP).context("warming up")?;
    let picture = Picture::take()?;
    let before = Memory::settled()?;
    let seen = soak(setting, Duration::from_secs_f64(setting.minutes * 60.0))?;
    let after = Memory::settled()?;
    let mut figures = seen.figures()?;
    // The machine's own kernel has no lane.
    if setting.lane == Lane::Fault {
        let lost = renewed::lost(setting).context("a link that comes back")?;
        figures.push(none("datagrams lost by a `rate` that comes back into force", lost));
    }
    let clean = [
        ("kernel's complaints", log.must_be_clean()),
        ("residue", picture.must_return()),
        ("troubles in healing", troubles(&seen.healed)),
    ];
    figures.extend(clean.map(|(what, result)| {
        if let Err(error) = &result {
            eprintln!("  {what}: {error:#}");
        }
        none(what, u64::from(result.is_err()) as f64)
    }));
    let grown = |what, now: f64, then: f64, slack| {
        Figure::median(what, "KiB", &[now - then]).target(Target::AtMost(slack))
    };
    figures.extend([
        grown("unreclaimable slab, growth", after.unreclaimable, before.unreclaimable, SLACK_KIB),
        grown("per-CPU memory, growth", after.per_cpu, before.per_cpu, SLACK_KIB),
        grown("this process's memory, growth", after.own, before.own, SLACK_KIB),
        Figure::median("  all slab, growth", "KiB", &[after.slab - before.slab]),
        Figure::median("  available memory, loss", "KiB", &[before.available - after.available]),
        Figure::median("pages in socket buffers, growth", "", &[after.socket_pages - before.socket_pages])
            .target(Target::AtMost(SLACK_PAGES)),
        Figure::median("  sockets of this namespace, growth", "", &[after.sockets - before.sockets]),
    ]);
    Ok(figures)
}

fn none(what: &str, count: f64) -> Figure {
    Figure::median(what, "", &[count]).target(Target::AtMost(0.0))
}

fn troubles(healed: &Healed) -> anyhow::Result<()> {
    ensure!(healed.troubles.is_empty(), "{:?}", healed.troubles);
    Ok(())
}

/// What everybody saw.
struct Seen {
    healed: Healed,
    sums: Sums,
    flooded: Flooded,
    sunk: Sunk,
    held: Held,
    sockets_left: f64,
    overflows: f64,
    backlog_drops: u64,
    seconds: f64,
}

fn soak(setting: &Setting, duration: Duration) -> anyhow::Result<Seen> {
    let lab = NetLab::new("bench-soak")?;
    let program = victim()?;
    let drops = machine::backlog_drops()?;
    let seconds = duration.as_secs().max(1).to_string();
    let (tcp, udp) = (format!("{PEER_V4}:9001"), format!("{PEER_V4}:9000"));
    let echo = Process::start_until(lab.in_peer(&program).args(["many-echo", &tcp]), "ready")?;
    let mut sink = lab.in_peer(&program);
    let sink = Process::start_until(sink.args(["udp-sink", &udp, "--idle-ms", "3000"]), "ready")?;
    let mut hold = lab.in_target(&program);
    // An emulated machine has a tenth of the speed.
    let rest = if setting.lane == Lane::Native { "50" } else { "400" };
    hold.args(["many-hold", &tcp, "--wait", "--seconds", &seconds, "--rest-ms", rest]);
    let mut hold = Process::start_until(&mut hold, "connected")?;
    let mut flood = lab.in_target(&program);
    flood.args(["udp-flood", &udp, "--wait", "--seconds", &seconds, "--pause-us", "500"]);
    let mut flood = Process::start_until(&mut flood, "ready")?;
    // A target that is there until the end.
    let anchor = Process::start(lab.in_target("sleep").arg("100000"))?;
    let target = [&hold, &flood, &anchor].map(Process::pid);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (healed, sums) = runtime.block_on(async {
        let mut session = Session::arm(setting, &target)?;
        hold.release()?;
        flood.release()?;
        session.go_on(duration).await?;
        session.heal().await
    })?;
    let (flooded, held): (Flooded, Held) = (flood.report()?, hold.report()?);
    let sunk: Sunk = sink.report()?;
    let overflows = machine::overflows(&lab)?;
    let backlog_drops = machine::backlog_drops()? - drops;
    drop((echo, anchor));
    let sockets_left = machine::sockets_left(&lab)?;
    Ok(Seen {
        healed,
        sums,
        flooded,
        sunk,
        held,
        sockets_left,
        overflows,
        backlog_drops,
        seconds: duration.as_secs_f64(),
    })
}

/// A session whose rules change.
struct Session {
    active: Active,
    ledger: Ledger,
    signals: Signals,
    whole: bool,
    changes: u64,
}

impl Session {
    fn arm(setting: &Setting, pids: &[String]) -> anyhow::Result<Self> {
        let whole = setting.lane == Lane::Fault;
        let keeper = Arc::clone(&setting.keeper);
        let mut target = Victims::nobody([keeper.pid()]);
        for pid in pids {
            target.add_pid(pid.parse()?)?;
        }
        let plan = sets::everything(whole).plan(1)?;
        let request = Request::new(plan.clone(), target, keeper);
        let active = Armed::arm(request)?.activate()?;
        let ledger = Ledger::new(std::process::id(), &plan)?;
        let mut session = Self { active, ledger, signals: Signals::catch()?, whole, changes: 0 };
        // Before anything is sent: what the session was armed with does not look at datagrams.
        session.change()?;
        Ok(session)
    }

    fn change(&mut self) -> anyhow::Result<()> {
        let sets = sets::all(self.whole);
        let (round, index) = (self.changes as usize / sets.len(), self.changes as usize % sets.len());
        // Forth and back, so that each set meets either bank.
        let set = sets[if round % 2 == 0 { index } else { sets.len() - 1 - index }];
        let plan = set.plan(self.changes)?;
        self.ledger.before(&plan)?;
        self.active.change(plan).with_context(|| format!("changing to {set:?}"))?;
        self.changes += 1;
        Ok(())
    }

    /// Lives so long without a change.
    async fn live(&mut self, time: Duration) -> anyhow::Result<()> {
        let finished =
            self.active.live(&mut self.signals, tokio::time::sleep(time), |signal| Some(End::Signal(signal)));
        let end = finished.await?.end;
        ensure!(end == End::CommandEnded, "the session ended: {end:?}");
        Ok(())
    }

    async fn go_on(&mut self, duration: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut said = 0;
        while started.elapsed() < duration {
            self.change()?;
            self.live(CHANGE).await?;
            let minutes = started.elapsed().as_secs() / 60;
            if minutes > said {
                said = minutes;
                let own = machine::own()?;
                eprintln!("  {minutes} min, {} changes, {own} KiB: {:?}", self.changes, self.ledger.sums);
            }
        }
        // The senders stop by their own clocks.
        self.live(Duration::from_secs(3)).await
    }

    async fn heal(self) -> anyhow::Result<(Healed, Sums)> {
        let sums = self.ledger.close()?;
        Ok((self.active.heal(End::Deadline).await, sums))
    }
}

impl Seen {
    fn figures(&self) -> anyhow::Result<Vec<Figure>> {
        let Self { healed, sums, flooded, sunk, held, .. } = self;
        eprintln!("  {sums:?}\n  {flooded:?}\n  {sunk:?}\n  {held:?}");
        let totals = serde_json::to_value(healed.totals)?;
        eprintln!("  {totals}\n  {:?}", healed.lanes);
        let total = |name: &str| totals[name].as_f64().with_context(|| format!("counter {name}"));
        let expected = sums.datagrams as f64 - sums.dropped as f64 + sums.doubled as f64;
        let between = |a: f64, b: f64| (a - b).abs();
        let lost: u64 = healed.lanes.iter().map(|lane| lane.lost()).sum();
        let waiting: u64 = healed.lanes.iter().map(|lane| lane.waiting_packets).sum();
        let a_second = |count: u64| count as f64 / self.seconds;
        let mut figures = vec![
            Figure::median("rule sets", "", &[sums.sets as f64]),
            Figure::median("  decisions", "1/s", &[a_second(sums.matched)]),
            Figure::median("  injections", "1/s", &[a_second(sums.injected)]),
            Figure::median("  messages echoed", "1/s", &[a_second(held.messages)]),
            Figure::median(
                "  connections ended by an error",
                "",
                &[held.errors.values().sum::<u64>() as f64],
            ),
            Figure::median("  connections given up", "", &[held.given_up as f64]),
            Figure::median("connections at the end", "", &[held.held as f64]).target(Target::AtLeast(900.0)),
            Figure::median("datagrams sent", "", &[flooded.sent as f64]),
            none(
                "datagrams sent and not counted as matched",
                between(flooded.sent as f64, sums.datagrams as f64),
            ),
            // The backlog does not say whose packets it drops.
            none(
                "datagrams that did not arrive, and neither the session nor the backlog dropped",
                (expected - sunk.received as f64 - self.backlog_drops as f64).max(0.0),
            ),
            none("datagrams that arrived, and should not have", (sunk.received as f64 - expected).max(0.0)),
            Figure::median(
                "  datagrams that did not arrive, of those that should",
                "",
                &[expected - sunk.received as f64],
            ),
            none("datagrams the receiver had no room for", self.overflows),
            Figure::median(
                "  packets of all that the kernel's backlog had no room for",
                "",
                &[self.backlog_drops as f64],
            ),
            none("bytes echoed wrong", held.wrong as f64),
            none("rules with more hits than matches", sums.impossible as f64),
            none(&format!("budgets (`times`) not fresh, of {}", sums.budgeted), sums.budgets as f64),
            none("cut_in − cut_out", between(total("cut_in")?, total("cut_out")?)),
            none("lane_in − lane_out", between(total("lane_in")?, total("lane_out")?)),
            none("packets waiting in the lane", waiting as f64),
            none("packets the lane lost", lost as f64),
            none("packets stranded", healed.stranded as f64),
            none("sockets left in the namespaces", self.sockets_left),
        ];
        for name in ["lane_refused", "lane_stray", "copy_failed", "uncut", "unchanged", "unparsable"] {
            figures.push(none(name, total(name)?));
        }
        Ok(figures)
    }
}
