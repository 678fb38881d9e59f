//! The sessions of this process, as those who look on see them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fault_common::{limits::BANKS, rule::Verb};
use jiff::Timestamp;
use tokio::sync::Notify;

use super::{
    BeaconError,
    message::{Controller, Delays, Rule, Session, State, VERSION},
    server,
};
use crate::{
    kernel::control::CounterBlock,
    report::events::{DELAY_STEPS_NS, Recent},
    sentence::sentence,
    session::{audience::Audience, lever::Earlier, plan::PlannedRule, switch::Switch},
};

/// What there is to know of a session.
pub struct Subject {
    /// Turns it.
    pub switch: Arc<Switch>,
    /// Its counters, mapped once more.
    pub counters: CounterBlock,
    /// What rules matched before they came into force again.
    pub earlier: Arc<Earlier>,
    /// Its last events.
    pub told: Told,
    /// Its seed.
    pub seed: u64,
    /// `--for`.
    pub duration: Option<Duration>,
    /// Its target and rules.
    pub face: SharedFace,
}

/// Who reads the events of a session.
pub enum Told {
    /// The session itself, which writes them down (`--events`).
    Written(Arc<Recent>),
    /// Nobody else.
    Watched(Box<Audience>),
}

impl Told {
    fn recent(&self) -> &Recent {
        match self {
            Self::Written(recent) => recent,
            Self::Watched(audience) => audience.look(),
        }
    }
}

/// What a session shows, which changes with its rules. Replaced as a whole, so that nobody waits for who reads it.
#[derive(Clone)]
pub struct SharedFace(Arc<Mutex<Arc<Face>>>);

impl SharedFace {
    /// That of a new session.
    #[must_use]
    pub fn new(face: Face) -> Self {
        Self(Arc::new(Mutex::new(Arc::new(face))))
    }

    /// As it is now.
    #[must_use]
    pub fn get(&self) -> Arc<Face> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, face: Face) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(face);
    }
}

impl Face {
    /// The number of the rule in `slot` of `generation` of the rule set, unless that is no longer in force.
    #[must_use]
    pub fn rule_in(&self, generation: u32, slot: u32) -> Option<u32> {
        if generation % BANKS as u32 != self.bank {
            return None;
        }
        self.rules.iter().find(|rule| rule.slot == slot).map(|rule| rule.id)
    }
}

/// The target and the rules in force, in words.
#[derive(Clone, Debug)]
pub struct Face {
    /// Who suffers.
    pub target: String,
    /// The bank the rules lie in.
    pub bank: u32,
    /// By id.
    pub rules: Vec<RuleFace>,
}

/// A rule, in words.
#[derive(Clone, Debug)]
pub struct RuleFace {
    /// Its number.
    pub id: u32,
    /// `net`, `disk` or `file`.
    pub layer: &'static str,
    /// Its spec.
    pub spec: String,
    /// Its phase, of a scenario.
    pub phase: Option<String>,
    slot: u32,
    delays: bool,
}

impl RuleFace {
    /// Of a planned rule.
    #[must_use]
    pub fn new(planned: &PlannedRule) -> Self {
        Self {
            id: planned.id,
            layer: planned.fault.layer().name(),
            spec: planned.fault.to_string(),
            phase: None,
            slot: planned.slot,
            delays: Verb::from_u32(planned.rule.verb).is_some_and(Verb::delays),
        }
    }
}

/// A session that is seen.
struct Entry {
    id: u64,
    began: Instant,
    started: Timestamp,
    subject: Subject,
    heal: Notify,
}

/// The sessions of this process.
#[derive(Default)]
pub(super) struct Registry {
    last: AtomicU64,
    sessions: Mutex<BTreeMap<u64, Arc<Entry>>>,
}

/// A session is seen while this lives.
pub struct Registration(Arc<Entry>);

/// Of this process, and whether it listens.
static REGISTRY: OnceLock<(Arc<Registry>, Result<(), String>)> = OnceLock::new();

/// Makes a session seen. The first one of a process starts the thread that answers.
///
/// # Errors
/// When there is no socket or no thread to be had. The session is none the worse for it.
pub fn register(subject: Subject) -> Result<Registration, BeaconError> {
    let mut first = None;
    let (registry, listening) = REGISTRY.get_or_init(|| {
        let registry = Arc::<Registry>::default();
        let started = server::start(Arc::clone(&registry));
        let listening = started.as_ref().copied().map_err(|error| sentence(error));
        first = started.err();
        (registry, listening)
    });
    if let Some(error) = first {
        return Err(error);
    }
    if let Err(why) = listening {
        return Err(BeaconError::NotListening(why.clone()));
    }
    Ok(registry.add(subject))
}

impl Registry {
    fn add(&self, subject: Subject) -> Registration {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (began, started) = (Instant::now(), Timestamp::now());
        let entry = Arc::new(Entry { id, began, started, subject, heal: Notify::new() });
        self.sessions().insert(id, Arc::clone(&entry));
        Registration(entry)
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Entry>>> {
        // Held for one operation on the map.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: u64) -> Result<Arc<Entry>, String> {
        self.sessions().get(&id).cloned().ok_or_else(|| format!("there is no session {id} any more"))
    }

    /// All sessions as they are.
    pub(super) fn snapshot(&self, verb: &str) -> Controller {
        let entries: Vec<_> = self.sessions().values().cloned().collect();
        Controller {
            version: VERSION,
            fault: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            verb: verb.to_owned(),
            sessions: entries.iter().map(|entry| entry.look()).collect(),
        }
    }

    pub(super) fn pause(&self, id: u64) -> Result<(), String> {
        let entry = self.get(id)?;
        if entry.subject.switch.is_over() {
            return Err(format!("session {id} is being healed"));
        }
        entry.subject.switch.pause();
        Ok(())
    }

    pub(super) fn resume(&self, id: u64) -> Result<(), String> {
        match self.get(id)?.subject.switch.resume() {
            true => Ok(()),
            false => Err(format!("session {id} is being healed")),
        }
    }

    pub(super) fn heal(&self, id: u64) -> Result<(), String> {
        self.get(id)?.heal.notify_one();
        Ok(())
    }
}

impl Entry {
    fn look(&self) -> Session {
        let Subject { switch, told, seed, duration, face, .. } = &self.subject;
        let (face, recent) = (face.get(), told.recent());
        let state = match (switch.is_over(), switch.is_paused()) {
            (true, _) => State::Healing,
            (false, true) => State::Paused,
            (false, false) => State::Active,
        };
        let lasted = self.began.elapsed();
        let events = recent.lines().iter().filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Session {
            id: self.id,
            target: face.target.clone(),
            seed: *seed,
            state,
            started: format!("{:.3}", self.started),
            lasted_ns: nanoseconds(lasted),
            left_ns: duration.map(|duration| nanoseconds(duration.saturating_sub(lasted))),
            rules: face.rules.iter().map(|rule| self.rule(face.bank, rule, recent)).collect(),
            events: Some(events),
        }
    }

    fn rule(&self, bank: u32, face: &RuleFace, recent: &Recent) -> Rule {
        let Subject { switch, counters, earlier, .. } = &self.subject;
        let counters = counters.rule(bank, face.slot);
        // In this order: a hit is counted as a match first, so there are never more hits than matches.
        let delay_ns = counters.delay_ns.load();
        let injected = counters.injected.load();
        let matched = counters.matched.load() + earlier.matched(face.slot);
        let steps = recent.delays(face.id).filter(|_| face.delays);
        let ends = DELAY_STEPS_NS.into_iter().map(Some).chain([None]);
        Rule {
            id: face.id,
            layer: face.layer.to_owned(),
            spec: face.spec.clone(),
            phase: face.phase.clone(),
            in_force: switch.in_force() >> face.slot & 1 != 0,
            matched,
            injected,
            bytes: counters.bytes.load(),
            delay_ns,
            mean_delay_ns: face.delays.then(|| delay_ns.checked_div(injected)).flatten(),
            delays: steps
                .map(|steps| ends.zip(steps).map(|(up_to_ns, count)| Delays { up_to_ns, count }).collect()),
        }
    }
}

impl Registration {
    /// Other rules are in force.
    pub fn show(&self, face: Face) {
        let Subject { told, face: shown, .. } = &self.0.subject;
        match told {
            Told::Written(recent) => recent.forget_delays(),
            Told::Watched(audience) => audience.recent().forget_delays(),
        }
        shown.set(face);
    }

    /// Waits until somebody asks for the end of the session.
    pub(crate) async fn asked_to_heal(&self) {
        self.0.heal.notified().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some((registry, _)) = REGISTRY.get() {
            registry.sessions().remove(&self.0.id);
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
