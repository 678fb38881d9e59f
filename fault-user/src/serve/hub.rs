//! All sessions of the service. Nobody here touches one: that is its [owner](super::owner)'s.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use utoipa::ToSchema;

use super::{
    error::{ApiError, Code},
    owner::{self, Command, Draft, Listeners, Look},
    request::Lease,
};
use crate::{
    report::{ExceptionReport, RuleReport, SessionReport},
    session::{Active, End, heal::Totals, keeper::Keeper},
};

/// Reports of healed sessions that nobody has deleted yet; older ones are forgotten.
const REPORTS: usize = 64;

/// See the module.
pub(super) struct Hub {
    pub(super) keeper: Arc<Keeper>,
    /// What the ids of this service begin with, so that those of an earlier one mean nothing here.
    prefix: String,
    limit: u32,
    places: Arc<Semaphore>,
    turn: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    closing: bool,
    sessions: BTreeMap<u64, Entry>,
}

/// A session, as the others know it.
#[derive(Clone)]
pub(super) struct Entry {
    number: u64,
    pub(super) id: String,
    target: String,
    seed: u64,
    started: Timestamp,
    pub(super) lease: Lease,
    commands: mpsc::Sender<Command>,
    pub(super) healed: watch::Receiver<Option<Arc<SessionReport>>>,
    pub(super) listeners: Listeners,
}

impl Hub {
    pub(super) fn new(keeper: Arc<Keeper>, limit: u32) -> Self {
        Self {
            keeper,
            prefix: format!("{:x}-", Timestamp::now().as_millisecond()),
            limit,
            places: Arc::new(Semaphore::new(limit as usize)),
            turn: Mutex::default(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic is done while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a session is armed.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more session.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!("there are {} sessions, and no more are allowed", self.limit);
            let next = "delete one first, or start the service with a larger --max-sessions";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Code::TooManySessions, message, next)
        })
    }

    /// Arms and activates, in a thread that owns the session from then on.
    pub(super) async fn create(self: &Arc<Self>, draft: Draft) -> Result<Entry, ApiError> {
        let (ready, entry) = oneshot::channel();
        let hub = Arc::clone(self);
        thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || owner::own(hub, draft, ready))
            .map_err(|error| ApiError::internal(format!("starting a thread failed: {error}")))?;
        entry.await.unwrap_or_else(|_| Err(closing()))
    }

    /// Makes a session known; none when the service is about to end.
    pub(super) fn enter(
        &self,
        active: &Active,
        target: String,
        lease: Lease,
        commands: mpsc::Sender<Command>,
        healed: watch::Receiver<Option<Arc<SessionReport>>>,
        listeners: Listeners,
    ) -> Option<Entry> {
        let mut state = self.state();
        if state.closing {
            return None;
        }
        state.next += 1;
        let number = state.next;
        let entry = Entry {
            number,
            id: format!("{}{number}", self.prefix),
            target,
            seed: active.plan().seed,
            started: active.started(),
            lease,
            commands,
            healed,
            listeners,
        };
        state.sessions.insert(number, entry.clone());
        Some(entry)
    }

    /// A session is healed: its report stays for a while.
    pub(super) fn over(&self, _: &Entry) {
        let mut state = self.state();
        let healed = state.sessions.values().filter(|entry| entry.report().is_some());
        let healed: Vec<u64> = healed.map(|entry| entry.number).collect();
        for number in healed.iter().take(healed.len().saturating_sub(REPORTS)) {
            state.sessions.remove(number);
        }
    }

    /// Forgets a session.
    pub(super) fn forget(&self, entry: &Entry) {
        self.state().sessions.remove(&entry.number);
    }

    /// The session `id`.
    pub(super) fn get(&self, id: &str) -> Result<Entry, ApiError> {
        let state = self.state();
        let number: Option<u64> = id.strip_prefix(&self.prefix).and_then(|number| number.parse().ok());
        let entry = number.and_then(|number| state.sessions.get(&number)).filter(|entry| entry.id == id);
        entry.cloned().ok_or_else(|| ApiError::no_session(id))
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> Vec<Entry> {
        self.state().sessions.values().cloned().collect()
    }

    /// How many there were, ever.
    pub(super) fn created(&self) -> u64 {
        self.state().next
    }

    /// Heals all sessions, lets none begin, and waits until they are gone.
    pub(super) async fn close(&self, end: End) {
        self.state().closing = true;
        for entry in self.all() {
            entry.end(end).await;
        }
        // Every owner, also of a session that is being armed, gives its place back when nothing is left.
        let _all = self.places.acquire_many(self.limit).await;
    }
}

fn closing() -> ApiError {
    let next = "ask again when it runs";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, Code::Closing, "the service is about to end", next)
}

impl Entry {
    /// What its decisions depend on.
    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    /// Its report, once it is healed.
    pub(super) fn report(&self) -> Option<Arc<SessionReport>> {
        self.healed.borrow().clone()
    }

    /// Asks for its end.
    pub(super) async fn end(&self, end: End) {
        // An owner that does not listen any more is healing already.
        _ = self.commands.send(Command::End(end)).await;
    }

    /// Asks the owner; none when the session is being healed or is.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, ApiError>>) -> Command,
    ) -> Option<Result<T, ApiError>> {
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.ok()?;
        answer.await.ok()
    }

    /// What the session does at the moment; none as above.
    pub(super) async fn look(&self) -> Option<Result<Look, ApiError>> {
        self.ask(Command::Look).await
    }

    /// Waits for the report.
    pub(super) async fn wait(&self) -> Result<Arc<SessionReport>, ApiError> {
        let mut healed = self.healed.clone();
        let report = healed.wait_for(Option::is_some).await.ok().and_then(|report| report.clone());
        report.ok_or_else(|| ApiError::internal("the owner of the session ended before it was healed"))
    }

    /// What clients see.
    pub(super) async fn view(&self) -> Result<View, ApiError> {
        let lease = match self.lease {
            Lease::Unlimited => None,
            Lease::Time(duration) => Some(humantime::format_duration(duration).to_string()),
            Lease::Connection => Some("connection".to_owned()),
        };
        let mut view = View {
            id: self.id.clone(),
            state: Stage::Healing,
            target: self.target.clone(),
            seed: self.seed,
            started: format!("{:.3}", self.started),
            lease,
            events: self.listeners.is_some(),
            rules: None,
            except: None,
            counters: None,
            report: None,
        };
        if let Some(report) = self.report() {
            view.state = Stage::Healed;
            view.report = Some(SessionReport::clone(&report));
        } else if let Some(look) = self.look().await {
            let look = look?;
            view.state = Stage::Active;
            view.rules = Some(look.rules);
            view.except = Some(look.except);
            view.counters = Some(look.counters);
        }
        Ok(view)
    }
}

/// A session as clients see it. Fields are only ever added.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionView)]
pub(super) struct View {
    /// Never used again.
    id: String,
    state: Stage,
    /// Who suffers, in words.
    target: String,
    /// What its decisions depend on.
    seed: u64,
    /// When it became active.
    #[schema(format = DateTime)]
    started: String,
    /// A duration, or `connection`; `null`: none.
    lease: Option<String>,
    /// Whether injections can be listened to.
    events: bool,
    /// What the faults in force have done; of an active session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rules: Option<Vec<RuleReport>>,
    /// What was spared; of an active session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    except: Option<Vec<ExceptionReport>>,
    /// Of the whole session, as long as it is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<BTreeMap<String, u64>>)]
    counters: Option<Totals>,
    /// Of a session that is healed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    report: Option<SessionReport>,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// Faults happen.
    Active,
    /// It is being taken out of the kernel.
    Healing,
    /// Nothing of it is left but its report.
    Healed,
}
