//! What the live view knows: the last snapshot, what passed between it and those before, and what is selected.

use std::collections::{BTreeMap, VecDeque};

use crate::beacon::{
    client::{Everyone, Found},
    message::{Request, Rule, Session, State},
};

/// Intervals kept of each fault: more than a screen has columns.
const KEPT: usize = 240;

/// Of which fault of which session; a number of a process is used again, a start of a session is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub pid: u32,
    session: u64,
    started: String,
    /// None is the session itself.
    pub rule: Option<u32>,
}

/// What passed between two snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Step {
    /// Operations a second that passed the filter.
    pub matched: f64,
    /// Operations a second that were hit.
    pub injected: f64,
    /// Mean of the delays asked for meanwhile, nanoseconds; none where none were.
    pub delay_ns: Option<f64>,
}

/// What passed, and where the counters stood.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Oldest first.
    pub steps: VecDeque<Step>,
    at_ns: u64,
    matched: u64,
    injected: u64,
    delay_ns: u64,
}

impl History {
    fn begin(session: &Session, rule: &Rule) -> Self {
        let Rule { matched, injected, delay_ns, .. } = *rule;
        Self { steps: VecDeque::new(), at_ns: session.lasted_ns, matched, injected, delay_ns }
    }

    fn add(&mut self, session: &Session, rule: &Rule) {
        let Rule { matched, injected, delay_ns, .. } = *rule;
        let seconds = session.lasted_ns.saturating_sub(self.at_ns) as f64 / 1e9;
        // Asked twice in a moment: a rate would be noise.
        if seconds < 0.05 {
            return;
        }
        // Rules may have been replaced by others, which count from zero.
        let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now) as f64;
        let injected_since = since(injected, self.injected);
        let step = Step {
            matched: since(matched, self.matched) / seconds,
            injected: injected_since / seconds,
            delay_ns: (rule.mean_delay_ns.is_some() && injected_since > 0.0)
                .then(|| since(delay_ns, self.delay_ns) / injected_since),
        };
        if self.steps.len() >= KEPT {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
        (self.at_ns, self.matched, self.injected, self.delay_ns) =
            (session.lasted_ns, matched, injected, delay_ns);
    }

    /// The last step.
    pub fn last(&self) -> Option<Step> {
        self.steps.back().copied()
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) enum Row<'a> {
    /// A session.
    Session(&'a Found, &'a Session),
    /// One of its faults.
    Rule(&'a Found, &'a Session, &'a Rule),
    /// A controller that does not answer.
    Silent(u32),
}

impl<'a> Row<'a> {
    pub fn session(&self) -> Option<(&'a Found, &'a Session)> {
        match self {
            Self::Session(found, session) | Self::Rule(found, session, _) => Some((found, session)),
            Self::Silent(_) => None,
        }
    }

    fn key(&self) -> Key {
        match self {
            Self::Session(found, session) => key(found, session, None),
            Self::Rule(found, session, rule) => key(found, session, Some(rule)),
            Self::Silent(pid) => Key { pid: *pid, session: 0, started: String::new(), rule: None },
        }
    }
}

fn key(found: &Found, session: &Session, rule: Option<&Rule>) -> Key {
    Key {
        pid: found.controller.pid,
        session: session.id,
        started: session.started.clone(),
        rule: rule.map(|rule| rule.id),
    }
}

/// What a key of the keyboard asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// So many lines down, or up.
    Move(isize),
    /// Pause or resume the selected session.
    Pause,
    /// Heal it, if the next key says so.
    Heal,
    /// The answer to a question.
    Yes,
    /// Any other key.
    Other,
    /// End.
    Quit,
}

/// What the terminal has to do.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Nothing but to draw.
    Draw,
    /// Tell a controller.
    Tell(Found, Request),
    /// End.
    Quit,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    everyone: Everyone,
    histories: BTreeMap<Key, History>,
    selected: Option<Key>,
    /// Where the selected line was, should it vanish.
    place: usize,
    /// The session that shall be healed, if the next key says so.
    pub question: Option<Key>,
    /// What went wrong with the last key.
    pub message: Option<String>,
}

impl Model {
    /// A new snapshot.
    pub fn update(&mut self, everyone: Everyone) {
        let mut histories = BTreeMap::new();
        for found in &everyone.found {
            for session in &found.controller.sessions {
                for rule in &session.rules {
                    let key = key(found, session, Some(rule));
                    let history = match self.histories.remove(&key) {
                        Some(mut history) => {
                            history.add(session, rule);
                            history
                        }
                        None => History::begin(session, rule),
                    };
                    histories.insert(key, history);
                }
            }
        }
        self.histories = histories;
        self.everyone = everyone;
        self.settle();
    }

    /// Keeps the selection where there is something.
    fn settle(&mut self) {
        let keys: Vec<Key> = self.rows().iter().map(Row::key).collect();
        let place = self.selected.as_ref().and_then(|selected| keys.iter().position(|key| key == selected));
        self.place = place.unwrap_or_else(|| self.place.min(keys.len().saturating_sub(1)));
        self.selected = keys.get(self.place).cloned();
        if self.question.as_ref().is_some_and(|question| !keys.contains(question)) {
            self.question = None;
        }
    }

    /// All lines of the table.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        for found in &self.everyone.found {
            for session in &found.controller.sessions {
                rows.push(Row::Session(found, session));
                rows.extend(session.rules.iter().map(|rule| Row::Rule(found, session, rule)));
            }
        }
        rows.extend(self.everyone.silent.iter().map(|pid| Row::Silent(*pid)));
        rows
    }

    /// The place of the selected line among [`Model::rows`].
    pub const fn place(&self) -> usize {
        self.place
    }

    /// What passed of late.
    pub fn history(&self, row: &Row<'_>) -> Option<&History> {
        self.histories.get(&row.key())
    }

    /// Sessions, faults, and what all of them did in the last step.
    pub fn totals(&self) -> (usize, usize, Step) {
        let rows = self.rows();
        let sessions = rows.iter().filter(|row| matches!(row, Row::Session(..))).count();
        let faults = rows.iter().filter(|row| matches!(row, Row::Rule(..))).count();
        let sum = self.histories.values().filter_map(History::last).fold(Step::default(), |sum, step| Step {
            matched: sum.matched + step.matched,
            injected: sum.injected + step.injected,
            delay_ns: None,
        });
        (sessions, faults, sum)
    }

    /// A key was pressed.
    pub fn input(&mut self, input: Input) -> Action {
        self.message = None;
        if let Some(question) = self.question.take() {
            return self.answer(&question, input);
        }
        match input {
            Input::Quit => return Action::Quit,
            Input::Move(by) => {
                let last = self.rows().len().saturating_sub(1);
                self.place = self.place.saturating_add_signed(by).min(last);
                self.selected = self.rows().get(self.place).map(Row::key);
            }
            Input::Pause => {
                let rows = self.rows();
                let Some((found, session)) = rows.get(self.place).and_then(Row::session) else {
                    return Action::Draw;
                };
                let id = session.id;
                let request = match session.state {
                    State::Active => Request::Pause { session: id },
                    State::Paused => Request::Resume { session: id },
                    State::Healing => return Action::Draw,
                };
                return Action::Tell(found.clone(), request);
            }
            Input::Heal => {
                let row = self.rows().get(self.place).cloned();
                let session = row.and_then(|row| row.session());
                self.question = session.map(|(found, session)| key(found, session, None));
            }
            Input::Yes | Input::Other => {}
        }
        Action::Draw
    }

    fn answer(&self, question: &Key, input: Input) -> Action {
        let rows = self.rows();
        let row = rows.iter().find(|row| row.key() == *question);
        match (input, row.and_then(Row::session)) {
            (Input::Yes, Some((found, session))) => {
                Action::Tell(found.clone(), Request::Heal { session: session.id })
            }
            (Input::Yes, None)
            | (Input::Quit | Input::Move(_) | Input::Pause | Input::Heal | Input::Other, _) => Action::Draw,
        }
    }
}
