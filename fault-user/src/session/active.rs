//! active: faults happen, the controller beats, follows the target, and waits for a reason to stop.

use std::time::Duration;

use fault_common::limits::HEARTBEAT_INTERVAL_NS;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use jiff::Timestamp;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    arm::Armed, bell::Bell, error::SessionError, events::Events, history::History, plan::Plan,
    whereabouts::LOOK,
};
use crate::{
    beacon::{BeaconError, Face, Registration, RuleFace},
    kernel::control::monotonic_ns,
    net::interfaces::Change,
    target::Target,
};

/// Why a session stopped being active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `--for` is over.
    Deadline,
    /// SIGINT, SIGTERM or SIGHUP: the signal's number.
    Signal(i32),
    /// A client of the service asked for it.
    Deleted,
    /// A client of the service did not renew its lease.
    LeaseExpired,
    /// Every process of the target has ended.
    TargetGone,
    /// COMMAND has ended.
    CommandEnded,
    /// Who started the controller has let go of it.
    Released,
    /// The controller was stopped for so long that the programs withdrew the faults by themselves.
    Stalled(Duration),
    /// The target could no longer be followed; the report says why.
    Trouble,
    /// Somebody healed it from the live view (`fault top`).
    Asked,
}

impl End {
    /// Whether somebody wanted it to end there and then, whatever was still to come.
    #[must_use]
    pub const fn is_interruption(self) -> bool {
        matches!(self, Self::Signal(_) | Self::Asked)
    }
}

/// Faults happen.
pub struct Active {
    pub(super) armed: Armed,
    pub(super) events: Option<Events>,
    pub(super) bell: Option<Bell>,
    pub(super) started: Timestamp,
    pub(super) history: Option<History>,
    /// Why the live view does not see it, if it does not.
    pub(super) registered: Result<Registration, BeaconError>,
    deadline: Option<Instant>,
}

/// SIGINT, SIGTERM and SIGHUP.
pub struct Signals([(Signal, i32); 3]);

impl Signals {
    /// Catches them from now on. Before anything is armed: a signal must never find a half-armed session.
    ///
    /// # Errors
    /// When the runtime cannot install the handlers.
    pub fn catch() -> std::io::Result<Self> {
        let catch = |kind: SignalKind| signal(kind).map(|stream| (stream, kind.as_raw_value()));
        Ok(Self([
            catch(SignalKind::interrupt())?,
            catch(SignalKind::terminate())?,
            catch(SignalKind::hangup())?,
        ]))
    }

    /// The number of the next signal.
    pub async fn next(&mut self) -> i32 {
        let mut pending: FuturesUnordered<_> = self
            .0
            .iter_mut()
            .map(|(stream, number)| async {
                match stream.recv().await {
                    Some(()) => *number,
                    // The runtime is shutting down: nobody waits for us any more.
                    None => std::future::pending().await,
                }
            })
            .collect();
        match pending.next().await {
            Some(number) => number,
            None => std::future::pending().await,
        }
    }
}

impl Active {
    pub(super) fn new(
        armed: Armed,
        events: Option<Events>,
        bell: Option<Bell>,
        registered: Result<Registration, BeaconError>,
    ) -> Self {
        let deadline = armed.request.plan.duration.map(|duration| Instant::now() + duration);
        Self { armed, events, bell, started: Timestamp::now(), history: None, registered, deadline }
    }

    /// Began when `old` did, and ends when that would have.
    pub(super) fn continues(&mut self, old: &Self) {
        let deadline = old.armed.loaded.control.deadline_ns.load();
        self.armed.loaded.control.deadline_ns.store(deadline);
        self.deadline = old.deadline;
        self.started = old.started;
    }

    /// Nothing is injected from now on. What else there is to be put back is the business of [`Active::heal`].
    pub fn stop(&self) {
        self.armed.switch.stop();
    }

    /// Writes down from now on what the rules do, every half second: [`Healed::history`](super::heal::Healed::history).
    pub fn record(&mut self) {
        self.history = Some(History::new());
    }

    /// What the live view calls the target, and what it says of each rule: by [`super::plan::PlannedRule::id`].
    pub fn introduce(&self, target: &str, describe: impl Fn(u32, &mut RuleFace)) {
        if let Ok(registration) = &self.registered {
            let mut face = Face { target: target.to_owned(), ..self.armed.face() };
            for rule in &mut face.rules {
                describe(rule.id, rule);
            }
            registration.show(face);
        }
    }

    /// Why the live view does not see this session, if it does not.
    #[must_use]
    pub fn hidden(&self) -> Option<&BeaconError> {
        self.registered.as_ref().err()
    }

    /// What was planned.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.armed.request.plan
    }

    /// Who suffers.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.armed.request.target
    }

    /// When it became active.
    #[must_use]
    pub const fn started(&self) -> Timestamp {
        self.started
    }

    /// The number of the rule set in force; it grows with every [`Active::change`], and events name it.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.armed.loaded.control.generation.load()
    }

    /// Keeps the session alive until there is a reason to stop. `command` is the end of COMMAND, for `fault run`.
    ///
    /// # Errors
    /// When the target can no longer be followed.
    pub async fn live<T>(
        &mut self,
        signals: &mut Signals,
        command: impl Future<Output = T>,
        mut on_signal: impl FnMut(i32) -> Option<End>,
    ) -> Result<Finished<T>, SessionError> {
        let mut command = std::pin::pin!(command);
        let mut tended = std::pin::pin!(self.tend());
        loop {
            tokio::select! {
                biased;
                ended = &mut command => return Ok(Finished { end: End::CommandEnded, command: Some(ended) }),
                number = signals.next() => {
                    if let Some(end) = on_signal(number) {
                        return Ok(Finished { end, command: None });
                    }
                }
                end = &mut tended => return Ok(Finished { end: end?, command: None }),
            }
        }
    }

    /// What the session itself has to do while it lives: beat, follow the target, attach what it begins to need, write events. Until its time is over or its
    /// target is gone. Cancel safe.
    ///
    /// # Errors
    /// When the target can no longer be followed.
    pub async fn tend(&mut self) -> Result<End, SessionError> {
        let mut beat = interval(Duration::from_nanos(HEARTBEAT_INTERVAL_NS));
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = at(self.deadline) => return Ok(End::Deadline),
                () = asked(&self.registered) => return Ok(End::Asked),
                // Before what may always be ready: a flood of events must not look like a dead controller.
                _ = beat.tick() => {
                    if let Some(end) = self.beat()? {
                        return Ok(end);
                    }
                }
                rung = rung(&mut self.bell) => {
                    rung?;
                    self.armed.serve()?;
                }
                _ = look.tick(), if self.armed.must_look() => self.armed.look()?,
                change = next_change(&mut self.armed) => {
                    let (index, change) = change?;
                    let armed = &mut self.armed;
                    armed.namespaces[index].follow(
                        &mut armed.loaded.ebpf,
                        &armed.request.plan,
                        change,
                        &armed.request.keeper,
                    )?;
                }
                () = due(&mut self.history) => self.armed.write_down(&mut self.history),
                written = next_events(&mut self.events) => written?,
            }
        }
    }

    /// One sign of life, and a look at the target.
    fn beat(&mut self) -> Result<Option<End>, SessionError> {
        let control = &self.armed.loaded.control;
        let now = monotonic_ns();
        let silence = now.saturating_sub(control.heartbeat_ns.load());
        if silence >= fault_common::limits::HEARTBEAT_TIMEOUT_NS {
            // Beating again would silently go on after a gap; the user must hear of it.
            let silence = Duration::from_nanos(silence);
            return Ok(Some(End::Stalled(silence)));
        }
        control.heartbeat_ns.store(now);
        self.armed.look()?;
        let Armed { tasks, loaded, request, .. } = &mut self.armed;
        if !request.target.may_come_back() && !tasks.any_left(loaded)? {
            return Ok(Some(End::TargetGone));
        }
        Ok(None)
    }
}

/// How [`Active::live`] ended.
pub struct Finished<T> {
    /// Why.
    pub end: End,
    /// What the command's future gave, if that was the reason.
    pub command: Option<T>,
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn asked(registered: &Result<Registration, BeaconError>) {
    match registered {
        Ok(registration) => registration.asked_to_heal().await,
        Err(_) => std::future::pending().await,
    }
}

async fn rung(bell: &mut Option<Bell>) -> Result<(), SessionError> {
    match bell {
        Some(bell) => bell.rung().await,
        None => std::future::pending().await,
    }
}

async fn due(history: &mut Option<History>) {
    match history {
        Some(history) => history.due().await,
        None => std::future::pending().await,
    }
}

async fn next_events(events: &mut Option<Events>) -> Result<(), SessionError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// The next change of interfaces in any namespace, with the namespace's index.
async fn next_change(armed: &mut Armed) -> Result<(usize, Change), SessionError> {
    let mut watchers: FuturesUnordered<_> = armed
        .namespaces
        .iter_mut()
        .enumerate()
        .map(|(index, namespace)| async move { namespace.watcher.next().await.map(|change| (index, change)) })
        .collect();
    match watchers.next().await {
        Some(change) => Ok(change?),
        None => std::future::pending().await,
    }
}
