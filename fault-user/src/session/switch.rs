//! Whether the programs inject: one word that they read, and the only ones who set it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::error::SessionError;
use crate::kernel::{
    control::ControlBlock,
    load::{LoadError, Loaded, find},
};

/// Turned by the session itself and, while it is active, by whoever pauses it from another thread. A mapping of its own, and
/// nothing that could block: each turn is a few stores.
pub struct Switch {
    control: ControlBlock,
    paused: AtomicBool,
    over: AtomicBool,
}

impl Switch {
    pub(super) fn new(loaded: &Loaded) -> Result<Arc<Self>, SessionError> {
        let control = ControlBlock::new(find(&loaded.ebpf, "CONTROL")?).map_err(LoadError::from)?;
        Ok(Arc::new(Self { control, paused: AtomicBool::new(false), over: AtomicBool::new(false) }))
    }

    /// Faults happen from now on.
    pub(super) fn on(&self) {
        self.control.active.store(1);
    }

    /// Nothing is injected from now on, whoever resumes.
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.control.active.store(0);
    }

    /// Nothing is injected until somebody resumes. What waits already waits for its time.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
        self.control.active.store(0);
    }

    /// Faults happen again, unless the session is over; whether they do.
    pub fn resume(&self) -> bool {
        if self.is_over() {
            return false;
        }
        self.paused.store(false, Ordering::SeqCst);
        self.control.active.store(1);
        // A release store and a load do not keep their order by themselves.
        std::sync::atomic::fence(Ordering::SeqCst);
        // Either this sees that the session is over, or `stop` writes the word after us.
        if self.is_over() {
            self.control.active.store(0);
            return false;
        }
        true
    }

    /// Whether somebody paused it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Whether it is being healed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The slots of the rules that are in force, by what is played.
    #[must_use]
    pub fn in_force(&self) -> u64 {
        self.control.in_force.load()
    }
}
