//! From a session to one that was armed for more, without a moment between the two: the second is armed while the first is in
//! force, one store activates it, the next one stops the first.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    active::Active,
    arm::{Armed, Origin, Request},
    error::SessionError,
    plan::Plan,
    tasks::{Joined, Tasks},
};
use crate::report::events::EventWriter;

impl Active {
    /// Whether [`Active::change`] can put `plan` into force; else it takes a [successor](Active::successor).
    #[must_use]
    pub fn covers(&self, plan: &Plan) -> bool {
        self.armed.needs.cover(plan.needs())
    }

    /// What has to be armed so that `plan` can take over from this session: for the same target, also for those whose
    /// ancestors have ended, and until the same time. `events` are written by `events`.
    ///
    /// # Errors
    /// When the processes of the target cannot be read.
    pub fn successor(&self, plan: Plan, events: Option<EventWriter>) -> Result<Request, SessionError> {
        let Request { target, backend, keeper, plan: old, events: _, origin: _ } = &self.armed.request;
        let mut target = target.clone();
        let members = self.armed.members_by_number()?;
        target.inherit(members);
        // Who is a member still was one when its descriptor was opened, so that stands for it and no later process.
        let members = self.armed.members_by_number()?;
        target.keep_heirs(&members);
        let plan = Plan { duration: old.duration, ..plan };
        Ok(Request {
            plan,
            target,
            backend: *backend,
            events,
            keeper: Arc::clone(keeper),
            origin: Origin::Successor,
        })
    }
}

impl Armed {
    fn members_by_number(&self) -> Result<BTreeSet<u32>, SessionError> {
        let members = Tasks::list(&self.loaded.ebpf)?.into_iter();
        Ok(members.filter(|(_, joined)| *joined == Joined::ByNumber).map(|(pid, _)| pid).collect())
    }

    /// Becomes active and stops `old`, which still has to be healed. For some microseconds both are in force, and never
    /// none. `for` goes on; the counters begin at zero, `after` and `for` of rules count from now.
    ///
    /// # Errors
    /// As [`Armed::activate`]; then `old` stays in force.
    pub fn relieve(mut self, old: &Active) -> Result<Active, SessionError> {
        if self.request.target.has_processes() {
            // Whose parent ended while this session was being armed, nobody else would find.
            let missed = &old.armed.members_by_number()? - &self.members_by_number()?;
            self.tasks.adopt(&mut self.loaded, &missed)?;
            let gone = &missed - &old.armed.members_by_number()?;
            self.tasks.remove(&mut self.loaded, &gone)?;
            if let Some(sockets) = &mut self.sockets {
                sockets.add_more(&(&missed - &gone))?;
            }
        }
        // What stands still for one could not be paused by the other.
        if let Some(pauser) = &old.armed.pauser {
            pauser.rest();
        }
        let mut new = match self.activate() {
            Ok(new) => new,
            Err(error) => {
                if let Some(pauser) = &old.armed.pauser {
                    pauser.change(old.plan());
                }
                return Err(error);
            }
        };
        if old.armed.switch.is_paused() {
            new.armed.switch.pause();
        }
        old.stop();
        new.continues(old);
        Ok(new)
    }
}
