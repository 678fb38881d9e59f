//! The owner of a session: a thread of its own, which alone touches it. Everybody else sends it [`Command`]s.
//!
//! A thread and not a task: the heartbeat of a session must stop when that which serves it is stuck, and no other session
//! must notice.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};

use super::{
    changes::Changes,
    error::{ApiError, Code},
    events::{Chunk, Numbers, Writers},
    hub::{Entry, Hub},
    request::Lease,
};
use crate::{
    report::{ExceptionReport, Exit, RuleReport, SessionReport},
    sentence::sentence,
    session::{Active, End, arm::Request, heal::Totals, plan::Plan, prepare},
    target::Target,
};

/// What the owner of a session is asked.
pub(super) enum Command {
    /// What it does at the moment.
    Look(oneshot::Sender<Result<Look, ApiError>>),
    /// Other faults; answered with what those that went had done.
    Change(Box<Plan>, oneshot::Sender<Result<Vec<RuleReport>, ApiError>>),
    /// The client still cares.
    Renew(oneshot::Sender<Result<(), ApiError>>),
    /// Heal.
    End(End),
}

/// What a session does at the moment.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) rules: Vec<RuleReport>,
    pub(super) except: Vec<ExceptionReport>,
    pub(super) counters: Totals,
}

/// A session that is about to be armed.
pub(super) struct Draft {
    pub(super) plan: Plan,
    pub(super) target: Target,
    pub(super) lease: Lease,
    /// The connection that asks.
    pub(super) open: watch::Receiver<()>,
    pub(super) events: bool,
    /// Its place among the sessions the service may have.
    pub(super) permit: OwnedSemaphorePermit,
}

/// The whole life of a session. `ready` is told its entry, or why there is none.
pub(super) fn own(hub: Arc<Hub>, draft: Draft, ready: oneshot::Sender<Result<Entry, ApiError>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(live(hub, draft, ready)),
        Err(error) => {
            // A client that has gone needs no answer.
            _ = ready.send(Err(ApiError::internal(format!("starting a runtime failed: {error}"))));
        }
    }
    super::memory::give_back();
}

async fn live(hub: Arc<Hub>, draft: Draft, ready: oneshot::Sender<Result<Entry, ApiError>>) {
    let Draft { plan, target, lease, open, events: listened, permit } = draft;
    let words = target.to_string();
    let numbers = Numbers::default();
    let (writers, listeners) = listened.then(Writers::new).unzip();
    let events = writers.as_ref().map(|writers| writers.writer(numbers.clone()));
    let keeper = Arc::clone(&hub.keeper);
    let request = Request { events, ..Request::new(plan, target, keeper) };
    let armed = {
        // One after the other: what arms needs the processor, and other sessions' heartbeats do, too.
        let _turn = hub.turn();
        prepare::arm(request)
    };
    let active = armed
        .map_err(ApiError::from)
        .and_then(|armed| armed.activate().map_err(|error| ApiError::from(&error)));
    let mut active = match active {
        Ok(active) => active,
        Err(error) => return drop(ready.send(Err(error))),
    };
    numbers.learn(active.generation(), active.plan());
    let (commands, mut asked) = mpsc::channel(64);
    let (over, healed) = watch::channel(None);
    let entry = hub.enter(&active, words.clone(), lease, commands, healed, listeners);
    // A service that ends, or a client that has gone meanwhile: nobody will ask for this session again.
    let wanted = match entry {
        Some(entry) if ready.send(Ok(entry.clone())).is_ok() => Ok(entry),
        Some(entry) => Err(Some(entry)),
        None => Err(None),
    };
    let mut changes = Changes::new(Arc::clone(&hub), writers, numbers);
    let (end, trouble) = match &wanted {
        Ok(_) => attend(&mut active, &mut asked, lease, open, &mut changes).await,
        Err(_) => (End::Deleted, None),
    };
    drop(asked);
    let mut outcome = active.heal(end).await;
    changes.end().await.into_iter().for_each(|earlier| outcome.after(earlier));
    outcome.troubles.extend(trouble);
    let troubles: Vec<String> = outcome.troubles.iter().map(|trouble| sentence(trouble)).collect();
    let exit = Exit::of(outcome.end, None, &troubles);
    let report = Arc::new(SessionReport::new(&outcome, words, None, exit, troubles));
    over.send_replace(Some(report));
    match wanted {
        Ok(entry) => hub.over(&entry),
        Err(entry) => entry.iter().for_each(|entry| hub.forget(entry)),
    }
    drop(permit);
}

/// Keeps the session alive and answers, until there is a reason to end.
async fn attend(
    active: &mut Active,
    asked: &mut mpsc::Receiver<Command>,
    lease: Lease,
    mut open: watch::Receiver<()>,
    changes: &mut Changes,
) -> (End, Option<crate::session::SessionError>) {
    let mut until = expiry(lease);
    loop {
        tokio::select! {
            command = asked.recv() => match command {
                Some(Command::Look(answer)) => drop(answer.send(changes.look(active))),
                Some(Command::Change(plan, answer)) => changes.ask(active, *plan, answer),
                Some(Command::Renew(answer)) => {
                    until = expiry(lease);
                    drop(answer.send(renewed(lease)));
                }
                Some(Command::End(end)) => return (end, None),
                None => return (End::Deleted, None),
            },
            done = changes.done() => changes.follow(active, done),
            () = expired(until) => return (End::LeaseExpired, None),
            _ = open.changed(), if lease == Lease::Connection => return (End::LeaseExpired, None),
            end = active.tend() => return match end {
                Ok(end) => (end, None),
                Err(error) => (End::Trouble, Some(error)),
            },
        }
    }
}

/// What `active` does at the moment.
pub(super) fn look(active: &Active) -> Result<Look, ApiError> {
    let counts = active.counts().map_err(|error| ApiError::from(&error))?;
    let lasted = lasted(active);
    let plan = active.plan();
    let rules = plan.rules.iter().zip(counts.rules);
    let exceptions = plan.exceptions.iter().zip(counts.spared);
    Ok(Look {
        rules: rules.map(|(planned, totals)| RuleReport::new(planned, totals, lasted)).collect(),
        except: exceptions.map(|(planned, totals)| ExceptionReport::new(planned, totals)).collect(),
        counters: counts.totals,
    })
}

/// For how long it has been active.
pub(super) fn lasted(active: &Active) -> Duration {
    jiff::Timestamp::now().duration_since(active.started()).try_into().unwrap_or_default()
}

fn renewed(lease: Lease) -> Result<(), ApiError> {
    match lease {
        Lease::Time(_) => Ok(()),
        Lease::Unlimited | Lease::Connection => Err(ApiError::new(
            axum::http::StatusCode::CONFLICT,
            Code::NoLease,
            "this session has no lease that could be renewed",
            "create it with `lease` and a duration",
        )),
    }
}

fn expiry(lease: Lease) -> Option<Instant> {
    match lease {
        Lease::Time(duration) => Some(Instant::now() + duration),
        Lease::Unlimited | Lease::Connection => None,
    }
}

async fn expired(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// How to listen to a session, if that was asked for.
pub(super) type Listeners = Option<broadcast::WeakSender<Chunk>>;
