//! Other faults for a session that is active. What it was armed for is changed by one store; for the rest a second session is
//! armed beside it, which takes over when it is ready.
//!
//! One after the other, in the order asked for, and all the time the session is kept alive.

use std::{collections::VecDeque, future::pending, sync::Arc};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{JoinError, JoinHandle, spawn_blocking},
};

use super::{
    error::ApiError,
    events::{Numbers, Writers},
    hub::Hub,
    owner::{Look, lasted, look},
};
use crate::{
    report::RuleReport,
    session::{
        Active, End,
        arm::Armed,
        heal::{Healed, Totals},
        plan::Plan,
        prepare::{self, ArmError, PrepareError},
    },
};

/// Is told what the rules that went had done.
type Answer = oneshot::Sender<Result<Vec<RuleReport>, ApiError>>;

/// What a session is in the middle of.
enum Work {
    Nothing,
    /// A successor is being armed.
    Arming(JoinHandle<Result<Armed, ArmError>>, Numbers, Answer),
    /// A predecessor is being healed; it had counted that much.
    Healing(JoinHandle<Healed>, Totals),
}

/// See the module.
pub(super) struct Changes {
    hub: Arc<Hub>,
    /// Who writes events, if anybody may listen.
    writers: Option<Writers>,
    numbers: Numbers,
    work: Work,
    waiting: VecDeque<(Plan, Answer)>,
    /// Of predecessors that are healed.
    healed: Vec<Healed>,
}

/// [`Work`] that is done.
pub(super) enum Done {
    Armed(Box<Result<Armed, ArmError>>),
    Healed(Box<Healed>),
}

impl Changes {
    /// Of a session whose rule sets are known by `numbers`.
    pub(super) fn new(hub: Arc<Hub>, writers: Option<Writers>, numbers: Numbers) -> Self {
        Self { hub, writers, numbers, work: Work::Nothing, waiting: VecDeque::new(), healed: Vec::new() }
    }

    /// Changes to `plan` as soon as possible.
    pub(super) fn ask(&mut self, active: &mut Active, plan: Plan, answer: Answer) {
        self.waiting.push_back((plan, answer));
        self.go_on(active);
    }

    /// Waits for what is under way. Cancel safe.
    pub(super) async fn done(&mut self) -> Done {
        match &mut self.work {
            Work::Nothing => pending().await,
            Work::Arming(armed, ..) => Done::Armed(Box::new(joined(armed.await))),
            Work::Healing(healed, _) => Done::Healed(Box::new(joined(healed.await))),
        }
    }

    /// What follows from it.
    pub(super) fn follow(&mut self, active: &mut Active, done: Done) {
        match (done, std::mem::replace(&mut self.work, Work::Nothing)) {
            (Done::Armed(armed), Work::Arming(_, numbers, answer)) => {
                let result =
                    (*armed).map_err(ApiError::from).and_then(|armed| self.relieve(active, armed, numbers));
                // A client that has gone needs no answer.
                _ = answer.send(result);
            }
            (Done::Healed(healed), _) => self.healed.push(*healed),
            (Done::Armed(_), work) => self.work = work,
        }
        self.go_on(active);
    }

    fn go_on(&mut self, active: &mut Active) {
        while let Some((plan, answer)) = self.waiting.pop_front() {
            let plan = match plan.spare(active.target().lifelines()) {
                Ok(plan) => plan,
                Err(error) => {
                    _ = answer.send(Err(PrepareError::from(error).into()));
                    continue;
                }
            };
            match (active.covers(&plan), &self.work) {
                (true, Work::Nothing | Work::Healing(..)) => _ = answer.send(self.change(active, plan)),
                (false, Work::Nothing) => self.arm(active, plan, answer),
                (_, Work::Arming(..)) | (false, Work::Healing(..)) => {
                    self.waiting.push_front((plan, answer));
                    return;
                }
            }
        }
    }

    /// By one store.
    fn change(&self, active: &mut Active, plan: Plan) -> Result<Vec<RuleReport>, ApiError> {
        let (replaced, lasted) = (active.plan().clone(), lasted(active));
        self.numbers.learn(active.generation().wrapping_add(1), &plan);
        active.change(plan).map_err(|error| ApiError::from(&error))?;
        // Not before: it would miss what they did in the meantime.
        let counts = active.counts_of_replaced(&replaced).into_iter().zip(&replaced.rules);
        Ok(counts.map(|(totals, planned)| RuleReport::new(planned, totals, lasted)).collect())
    }

    /// In a thread of its own: the session must not stop beating meanwhile.
    fn arm(&mut self, active: &Active, plan: Plan, answer: Answer) {
        let numbers = Numbers::default();
        let events = self.writers.as_ref().map(|writers| writers.writer(numbers.clone()));
        let request = match active.successor(plan, events) {
            Ok(request) => request,
            Err(error) => return drop(answer.send(Err(ApiError::from(&error)))),
        };
        let hub = Arc::clone(&self.hub);
        let armed = spawn_blocking(move || {
            let _turn = hub.turn();
            prepare::arm(request)
        });
        self.work = Work::Arming(armed, numbers, answer);
    }

    /// Both stores, one after the other.
    fn relieve(
        &mut self,
        active: &mut Active,
        armed: Armed,
        numbers: Numbers,
    ) -> Result<Vec<RuleReport>, ApiError> {
        let new = armed.relieve(active).map_err(|error| ApiError::from(&error))?;
        numbers.learn(new.generation(), new.plan());
        self.numbers = numbers;
        let old = std::mem::replace(active, new);
        let before = look(&old);
        let counted = before.as_ref().map(|look| look.counters).unwrap_or_default();
        let healed = spawn_blocking(move || Handle::current().block_on(old.heal(End::Deleted)));
        self.work = Work::Healing(healed, counted);
        Ok(before?.rules)
    }

    /// What the session does at the moment, together with what its predecessors counted.
    pub(super) fn look(&self, active: &Active) -> Result<Look, ApiError> {
        let mut look = look(active)?;
        for healed in &self.healed {
            look.counters.add(&healed.totals);
        }
        if let Work::Healing(_, counted) = &self.work {
            look.counters.add(counted);
        }
        Ok(look)
    }

    /// Ends what is under way: a successor comes too late, a predecessor has to be gone. All that are.
    pub(super) async fn end(mut self) -> Vec<Healed> {
        match self.work {
            Work::Nothing => {}
            Work::Arming(armed, ..) => drop(joined(armed.await)),
            Work::Healing(healed, _) => self.healed.push(joined(healed.await)),
        }
        self.healed
    }
}

fn joined<T>(joined: Result<T, JoinError>) -> T {
    // Nobody aborts it.
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
