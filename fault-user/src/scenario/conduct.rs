//! Plays a scenario: at each moment at which something changes, one store for each target.
//!
//! On a thread of its own that does nothing else: the session's thread attaches to interfaces, reads /proc and writes events,
//! which takes milliseconds at times.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Phase, TimedRule, between};
use crate::{
    kernel::control::monotonic_ns,
    session::{SessionError, lever::Lever, plan::Plan},
};

/// A phase begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Place in the scenario.
    pub phase: usize,
    /// Whether it begins.
    pub begins: bool,
    /// When it should, in nanoseconds of the scenario.
    pub due: u64,
    /// How much later it did, in nanoseconds.
    pub late: u64,
}

/// A rule, as the conductor sees it.
struct Voice {
    slot: u32,
    rule: TimedRule,
    /// `nth`, `every`, `first` or `times`: it counts from one in each occurrence.
    counts: bool,
    /// The occurrence it is in or was in.
    last: Option<u64>,
}

/// One target.
struct Desk {
    lever: Lever,
    /// Slots that are always in force: exceptions.
    always: u64,
    voices: Vec<Voice>,
}

/// What is to be played, before it begins.
pub struct Score {
    desks: Vec<Desk>,
    phases: Vec<Phase>,
}

/// A thread that plays.
pub struct Conductor {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// What begins and ends.
    pub edges: UnboundedReceiver<Edge>,
}

impl Score {
    /// `phases`, and nobody to play.
    #[must_use]
    pub const fn new(phases: Vec<Phase>) -> Self {
        Self { desks: Vec::new(), phases }
    }

    /// One target more. Its rules are put into the state of the beginning, so it may be activated now.
    pub fn add(&mut self, lever: Lever, plan: &Plan, timed: &[TimedRule]) {
        let always = plan.exceptions.iter().fold(0, |mask, planned| mask | 1 << planned.slot);
        let voices = plan.rules.iter().zip(timed).map(|(planned, timed)| {
            let trigger = &planned.rule.trigger;
            let counts = [trigger.nth, trigger.every, trigger.first, trigger.times] != [0; 4];
            Voice { slot: planned.slot, rule: timed.clone(), counts, last: None }
        });
        let mut desk = Desk { lever, always, voices: voices.collect() };
        desk.play(0);
        self.desks.push(desk);
    }

    /// When something changes next.
    fn next(&self, now: u64) -> Option<u64> {
        let voices = self.desks.iter().flat_map(|desk| &desk.voices).map(|voice| &voice.rule.schedule);
        let phases = self.phases.iter().map(|phase| &phase.schedule);
        voices.chain(phases).filter_map(|schedule| schedule.next(now)).min()
    }

    /// Begins: now is zero of the scenario.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn begin(self) -> Result<Conductor, SessionError> {
        let (stop, stopped) = channel();
        let (tell, edges) = unbounded_channel();
        let start = monotonic_ns();
        let thread = thread::Builder::new()
            .name("conductor".to_owned())
            .spawn(move || self.conduct(start, &stopped, &tell))
            .map_err(SessionError::Thread)?;
        Ok(Conductor { stop: Some(stop), thread: Some(thread), edges })
    }

    fn conduct(mut self, start: u64, stopped: &Receiver<()>, tell: &UnboundedSender<Edge>) {
        hurry();
        self.tell(0, start, true, tell);
        let mut now = 0;
        while let Some(due) = self.next(now) {
            if !wait(start.saturating_add(due), stopped) {
                return;
            }
            now = due;
            for desk in &mut self.desks {
                desk.play(now);
            }
            self.tell(now, start, false, tell);
        }
    }

    /// Which phases begin or end at `now`.
    fn tell(&self, now: u64, start: u64, first: bool, tell: &UnboundedSender<Edge>) {
        // What the scenario begins with was in force before it began.
        let late = if first { 0 } else { monotonic_ns().saturating_sub(start.saturating_add(now)) };
        for (phase, Phase { schedule, .. }) in self.phases.iter().enumerate() {
            let before =
                if first { None } else { now.checked_sub(1).and_then(|before| schedule.occurrence(before)) };
            let after = schedule.occurrence(now);
            if before == after {
                continue;
            }
            let edges = [(false, before.is_some()), (true, after.is_some())];
            for (begins, _) in edges.into_iter().filter(|(_, happens)| *happens) {
                // Nobody listens any more when the session is being healed.
                _ = tell.send(Edge { phase, begins, due: now, late });
            }
        }
    }
}

impl Desk {
    fn play(&mut self, now: u64) {
        let mut in_force = self.always;
        for voice in &mut self.voices {
            let Some(occurrence) = voice.rule.schedule.occurrence(now) else { continue };
            in_force |= 1 << voice.slot;
            if let Some(step) = voice.rule.schedule.step(now) {
                for turn in &voice.rule.turns {
                    self.lever.set(voice.slot, turn.word, between(turn.from, turn.to, step));
                }
            }
            if voice.counts && voice.last.is_some_and(|last| last != occurrence.number) {
                self.lever.renew(voice.slot);
            }
            voice.last = Some(occurrence.number);
        }
        self.lever.put_in_force(in_force);
    }
}

/// Puts this thread before those that compute: it runs for microseconds, but must do so in time also on a machine that has more
/// to do than it can. Where that is not permitted, it is as late as anybody.
fn hurry() {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the calling thread, and a parameter that outlives the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const lowest) };
}

/// Waits until `deadline` of the monotonic clock; false when told to stop.
fn wait(deadline: u64, stopped: &Receiver<()>) -> bool {
    loop {
        let left = deadline.saturating_sub(monotonic_ns());
        if left == 0 {
            return true;
        }
        match stopped.recv_timeout(Duration::from_nanos(left)) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

impl Conductor {
    /// Nothing changes any more from here on.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Conductor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic has been told by the thread itself.
            drop(thread.join());
        }
    }
}
