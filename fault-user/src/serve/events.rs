//! Injections for whoever listens, as lines of JSON; what a slow listener missed is counted.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use axum::body::Bytes;
use tokio::sync::broadcast;

use crate::{
    report::{
        events::{EventWriter, SharedLines},
        output::Destination,
    },
    session::plan::Plan,
};

/// Chunks kept for listeners; one holds what came at once.
const KEPT: usize = 256;

/// Whole lines, and the number of the first of them in the session.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) first: u64,
    pub(super) lines: u64,
    pub(super) text: Bytes,
}

/// Where the events of a session go.
struct Feed {
    sender: broadcast::Sender<Chunk>,
    begun: Vec<u8>,
    next: u64,
}

impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend(bytes);
        if let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.begun.split_off(end + 1);
            let text = Bytes::from(std::mem::replace(&mut self.begun, rest));
            let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
            // Nobody may be listening.
            let _ = self.sender.send(Chunk { first: self.next, lines, text });
            self.next += lines;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Which fault lies in a slot, of the rule sets of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers(Arc<Mutex<BTreeMap<u32, BTreeMap<u32, u32>>>>);

impl Numbers {
    /// Remembers those of `plan`, the rule set `generation`.
    pub(super) fn learn(&self, generation: u32, plan: &Plan) {
        /// Events of older ones have long been written.
        const KEPT: usize = 4;
        let ids = plan.rules.iter().map(|planned| (planned.slot, planned.id)).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(generation, ids);
        while known.len() > KEPT {
            known.pop_first();
        }
    }

    fn of(&self, generation: u32, slot: u32) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&generation)?.get(&slot).copied()
    }
}

/// Where the events of a session go, of all those that were armed for it one after the other.
pub(super) struct Writers(SharedLines);

impl Writers {
    /// And how to listen, as long as anybody may write.
    pub(super) fn new() -> (Self, broadcast::WeakSender<Chunk>) {
        let (sender, _) = broadcast::channel(KEPT);
        let listeners = sender.downgrade();
        (Self(SharedLines::new(Box::new(Feed { sender, begun: Vec::new(), next: 0 }))), listeners)
    }

    /// One more, of rule sets known by `numbers`.
    pub(super) fn writer(&self, numbers: Numbers) -> EventWriter {
        let rule_of = Box::new(move |generation, slot| numbers.of(generation, slot));
        EventWriter::sharing(self.0.clone(), &Destination::Stdout, rule_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_numbered() {
        let (sender, mut receiver) = broadcast::channel(2);
        let mut feed = Feed { sender, begun: Vec::new(), next: 0 };
        feed.write_all(b"1\n2").expect("written");
        feed.write_all(b"2\n3\n").expect("written");
        let first = receiver.try_recv().expect("a chunk");
        assert_eq!((first.first, first.lines, &first.text[..]), (0, 1, &b"1\n"[..]));
        let second = receiver.try_recv().expect("a chunk");
        assert_eq!((second.first, second.lines, &second.text[..]), (1, 2, &b"22\n3\n"[..]));
    }
}
