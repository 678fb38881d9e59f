//! `pause`: the target's cgroups are frozen when it is time, and thawed.
//!
//! No program of the kernel's takes part: the controller writes `cgroup.freeze`. So that nobody stays frozen when the
//! controller dies, each cgroup is announced to the [keeper](super::keeper) first, which thaws it when the controller is gone;
//! and, for a controller that is stopped and not dead, when its time is over.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    arm::{Origin, Request},
    error::SessionError,
    keeper::Keeper,
    plan::Plan,
    residue::Leftover,
};
use crate::{
    exit::Class,
    kernel::{
        control::{ControlBlock, CounterBlock, monotonic_ns},
        load::{LoadError, Loaded, find},
    },
    target::{
        Target,
        cgroup::{self, Cgroup, CgroupError, Freeze, Mounts},
    },
};

/// How often the clock is looked at: what a pause, and the end of one, may be late by.
const TICK: Duration = Duration::from_millis(2);
/// How long a pause may take to begin: whoever waits for a disk does not stand still before that has answered. What lasts
/// longer counts as begun.
const SETTLING: Duration = Duration::from_secs(1);
/// How much later than the controller the keeper thaws, if the controller does not.
const GRACE: Duration = Duration::from_millis(1500);

/// The target cannot be paused, or not by itself.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// The whole machine.
    #[error(
        "the whole machine cannot be paused, nobody would be left to go on: name a part of it, for example by --cgroup"
    )]
    Everybody,
    /// The controller, or who called it, lives there.
    #[error("{cgroup:?} cannot be paused: fault itself lives there; start it from another cgroup (`systemd-run --scope fault …`)", cgroup = .0.display())]
    Ourselves(PathBuf),
    /// A process that does not have a cgroup for itself.
    #[error("process {pid} cannot be paused by itself: it shares cgroup {cgroup:?} with process {other}, which is not part of the target; start it by `fault run`, or name the cgroup by --cgroup", cgroup = .cgroup.display())]
    Shared {
        /// Of the target.
        pid: u32,
        /// Not of the target.
        other: u32,
        /// Where both live.
        cgroup: PathBuf,
    },
    /// By somebody else, who would not expect it to go on.
    #[error("{cgroup:?} is frozen already, by somebody else: thaw it first (`echo 0 > {cgroup}/cgroup.freeze`)", cgroup = .0.display())]
    Frozen(PathBuf),
    /// Something about a cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl PauseError {
    /// Decides the exit status.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Everybody | Self::Ourselves(_) | Self::Shared { .. } | Self::Frozen(_) => Class::Usage,
            Self::Cgroup(error) => error.class(),
        }
    }
}

/// The cgroups in which the target lives, and nobody else.
///
/// # Errors
/// See [`PauseError`].
pub(super) fn cgroups(target: &Target) -> Result<BTreeSet<PathBuf>, SessionError> {
    if target.is_host() {
        return Err(PauseError::Everybody.into());
    }
    let named: Vec<&Cgroup> = target.present_cgroups().collect();
    let mut found: BTreeSet<PathBuf> = named.iter().map(|cgroup| cgroup.path.clone()).collect();
    if target.has_processes() {
        let mounts = Mounts::read().map_err(PauseError::from)?;
        let members = target.snapshot()?.members;
        for &pid in &members {
            // Gone meanwhile.
            let Some(path) = cgroup::of_process(&mounts, pid) else { continue };
            if found.iter().any(|known| path.starts_with(known)) {
                continue;
            }
            let there = cgroup::processes(&path).map_err(PauseError::from)?;
            if let Some(&other) = there.difference(&members).next() {
                return Err(PauseError::Shared { pid, other, cgroup: path }.into());
            }
            found.insert(path);
        }
    }
    for path in &found {
        let there = cgroup::processes(path).map_err(PauseError::from)?;
        if !there.is_disjoint(&target.exempt) {
            return Err(PauseError::Ourselves(path.clone()).into());
        }
    }
    Ok(found)
}

/// One fault, and how far it is.
#[derive(Clone, Copy, Debug)]
struct Pause {
    slot: u32,
    after: Duration,
    lasts: Duration,
    state: State,
    /// Of the counters, while it lasts: rules may be replaced meanwhile.
    bank: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Another phase of the scenario.
    OutOfForce,
    /// In force since then.
    Waiting(Instant),
    /// The target stands still since then.
    Paused(Instant),
    /// It was, and is over.
    Done,
}

impl Pause {
    fn all(plan: &Plan) -> Vec<Self> {
        let new = |(slot, after, lasts)| Self { slot, after, lasts, state: State::OutOfForce, bank: 0 };
        plan.pauses().map(new).collect()
    }

    /// What it is at `now`.
    fn step(&self, in_force: bool, now: Instant) -> State {
        match self.state {
            _ if !in_force => State::OutOfForce,
            State::OutOfForce if self.after.is_zero() => State::Paused(now),
            State::OutOfForce => State::Waiting(now),
            State::Waiting(since) if now >= since + self.after => State::Paused(now),
            State::Paused(since) if now >= since + self.lasts => State::Done,
            State::Waiting(_) | State::Paused(_) | State::Done => self.state,
        }
    }
}

/// Other pauses, and who is told that none of the old ones lasts any more.
type Change = (Vec<Pause>, Sender<()>);

/// Who freezes and thaws, on a thread of its own. Dropped, it thaws.
pub(super) struct Pauser {
    plans: Option<Sender<Change>>,
    thread: Option<JoinHandle<Vec<SessionError>>>,
}

impl Pauser {
    /// Begins with the pauses of `plan`; nothing happens while the session is not active.
    ///
    /// # Errors
    /// When the target cannot be paused.
    pub(super) fn new(loaded: &Loaded, request: &Request) -> Result<Self, SessionError> {
        let Request { plan, target, keeper, origin, backend: _, events: _ } = request;
        for path in cgroups(target)? {
            match *origin {
                Origin::First if cgroup::is_frozen(&path).map_err(PauseError::from)? => {
                    return Err(PauseError::Frozen(path).into());
                }
                // By the one before, maybe; the first pause looks again.
                Origin::First | Origin::Successor => {}
            }
        }
        let map = |name| find(&loaded.ebpf, name);
        let (plans, receiver) = channel();
        let clock = Clock {
            control: ControlBlock::new(map("CONTROL")?).map_err(LoadError::from)?,
            counters: CounterBlock::new(map("RULE_COUNTERS")?).map_err(LoadError::from)?,
            target: target.clone(),
            keeper: Arc::clone(keeper),
            pauses: Pause::all(plan),
            frozen: Vec::new(),
            settling: None,
            troubles: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("fault-pause".into());
        let thread = thread.spawn(move || clock.run(&receiver)).map_err(SessionError::Thread)?;
        Ok(Self { plans: Some(plans), thread: Some(thread) })
    }

    /// Goes on with the pauses of `plan`, from their beginning; one that is under way has ended on return.
    pub(super) fn change(&self, plan: &Plan) {
        self.go_on_with(Pause::all(plan));
    }

    /// Goes on without any; one that is under way has ended on return.
    pub(super) fn rest(&self) {
        self.go_on_with(Vec::new());
    }

    fn go_on_with(&self, pauses: Vec<Pause>) {
        if let Some(plans) = &self.plans {
            let (ended, wait) = channel();
            // It ends only when it is told to, below.
            _ = plans.send((pauses, ended));
            _ = wait.recv();
        }
    }

    /// Thaws; what went wrong in the meantime.
    pub(super) fn stop(&mut self) -> Vec<SessionError> {
        self.plans = None;
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Pauser {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread.
struct Clock {
    control: ControlBlock,
    counters: CounterBlock,
    target: Target,
    keeper: Arc<Keeper>,
    pauses: Vec<Pause>,
    /// Announced to the keeper; the lock is there once it is frozen.
    frozen: Vec<(Leftover, Option<Freeze>)>,
    /// Until when the kernel is waited for: not everybody stands still yet.
    settling: Option<Instant>,
    troubles: Vec<SessionError>,
}

impl Clock {
    fn run(mut self, plans: &Receiver<Change>) -> Vec<SessionError> {
        loop {
            match plans.recv_timeout(TICK) {
                Ok((pauses, ended)) => {
                    self.end_all();
                    self.pauses = pauses;
                    // Who asked may have stopped waiting.
                    _ = ended.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tick(Instant::now());
        }
        self.end_all();
        self.troubles
    }

    fn tick(&mut self, now: Instant) {
        if let Some(until) = self.settling {
            // A pause lasts from when everybody stands still.
            for pause in &mut self.pauses {
                if let State::Paused(since) = &mut pause.state {
                    *since = now;
                }
            }
            let stands = |(leftover, _): &(Leftover, _)| match leftover {
                Leftover::Frozen { path, .. } => cgroup::stands_still(path),
                Leftover::Cgroup { .. } | Leftover::Controllers { .. } | Leftover::Net(_) => true,
            };
            if now >= until || self.frozen.iter().all(stands) {
                self.settling = None;
            }
        }
        let slots = if self.control.active.load() == 0 { 0 } else { self.control.in_force.load() };
        let mut begun = Vec::new();
        for number in 0..self.pauses.len() {
            let pause = self.pauses[number];
            let state = pause.step(slots >> pause.slot & 1 != 0, now);
            match (pause.state, state) {
                (State::Paused(_), State::Paused(_)) => {}
                (State::Paused(since), _) => self.count_end(&pause, now - since),
                (_, State::Paused(_)) => begun.push(pause),
                _ => {}
            }
            self.pauses[number].state = state;
        }
        let paused = self.pauses.iter().any(|pause| matches!(pause.state, State::Paused(_)));
        if !begun.is_empty() {
            let longest = begun.iter().map(|pause| pause.lasts).max().unwrap_or_default();
            if let Err(error) = self.freeze(longest) {
                self.troubles.push(error);
                self.thaw();
                for pause in begun {
                    self.of_slot(pause.slot).for_each(|pause| pause.state = State::Done);
                }
                return;
            }
            let bank = self.control.bank();
            for pause in begun {
                self.of_slot(pause.slot).for_each(|pause| pause.bank = bank);
                let counters = self.counters.rule(bank, pause.slot);
                counters.matched.fetch_add(1);
                counters.injected.fetch_add(1);
            }
        } else if !paused {
            self.thaw();
        }
    }

    fn count_end(&self, pause: &Pause, lasted: Duration) {
        let nanoseconds = lasted.as_nanos().try_into().unwrap_or(u64::MAX);
        self.counters.rule(pause.bank, pause.slot).delay_ns.fetch_add(nanoseconds);
    }

    fn of_slot(&mut self, slot: u32) -> impl Iterator<Item = &mut Pause> {
        self.pauses.iter_mut().filter(move |pause| pause.slot == slot)
    }

    /// Everybody of the target stands still for `lasts`, whatever becomes of us.
    fn freeze(&mut self, lasts: Duration) -> Result<(), SessionError> {
        // What is followed by its name may have been started again elsewhere.
        self.target.refresh();
        let until_ns = monotonic_ns() + (lasts + GRACE).as_nanos() as u64;
        // Who stands still already does not begin again.
        let goes_on = !self.frozen.is_empty();
        for path in cgroups(&self.target)? {
            let leftover = Leftover::Frozen { path: path.clone(), until_ns };
            if let Some((known, _)) = self.frozen.iter_mut().find(|(known, _)| known.is_frozen(&path)) {
                // Another pause is under way: the keeper waits for the later end of the two.
                if known.until_ns() < Some(until_ns) {
                    self.keeper.announce(&leftover)?;
                    self.keeper.withdraw(&std::mem::replace(known, leftover))?;
                }
                continue;
            }
            if cgroup::is_frozen(&path).map_err(PauseError::from)? {
                return Err(PauseError::Frozen(path).into());
            }
            self.keeper.announce(&leftover)?;
            self.frozen.push((leftover, None));
            let lock = cgroup::freeze(&path).map_err(PauseError::from)?;
            if let Some((_, held)) = self.frozen.last_mut() {
                *held = Some(lock);
            }
        }
        if goes_on {
            return Ok(());
        }
        self.settling = Some(Instant::now() + SETTLING);
        Ok(())
    }

    fn thaw(&mut self) {
        self.settling = None;
        for (leftover, _lock) in std::mem::take(&mut self.frozen) {
            // The keeper goes on trying what cannot be undone.
            let undone = leftover.undo().map_err(SessionError::from);
            if let Err(error) = undone.and_then(|()| Ok(self.keeper.withdraw(&leftover)?)) {
                self.troubles.push(error);
            }
        }
    }

    fn end_all(&mut self) {
        let now = Instant::now();
        for pause in std::mem::take(&mut self.pauses) {
            if let State::Paused(since) = pause.state {
                self.count_end(&pause, now - since);
            }
        }
        self.thaw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(after: u64) -> Pause {
        let [after, lasts] = [after, 100].map(Duration::from_millis);
        Pause { slot: 0, after, lasts, state: State::OutOfForce, bank: 0 }
    }

    /// The milliseconds at which it begins and ends, if it is in force at those where `in_force` says so.
    fn turns(mut pause: Pause, in_force: impl Fn(u64) -> bool) -> Vec<(u64, bool)> {
        let start = Instant::now();
        let mut turns = Vec::new();
        for ms in 0..1000 {
            let state = pause.step(in_force(ms), start + Duration::from_millis(ms));
            let is_paused = |state| matches!(state, State::Paused(_));
            if is_paused(state) != is_paused(pause.state) {
                turns.push((ms, is_paused(state)));
            }
            pause.state = state;
        }
        turns
    }

    #[test]
    fn it_happens_once_when_it_is_time() {
        assert_eq!(turns(pause(0), |_| true), [(0, true), (100, false)]);
        assert_eq!(turns(pause(50), |_| true), [(50, true), (150, false)]);
    }

    #[test]
    fn it_counts_from_when_it_is_in_force_and_ends_with_that() {
        assert_eq!(turns(pause(50), |ms| ms >= 300), [(350, true), (450, false)]);
        assert_eq!(turns(pause(50), |ms| ms < 80), [(50, true), (80, false)]);
        let phases = |ms| ms % 400 < 200;
        assert_eq!(
            turns(pause(50), phases),
            [(50, true), (150, false), (450, true), (550, false), (850, true), (950, false)]
        );
    }
}
