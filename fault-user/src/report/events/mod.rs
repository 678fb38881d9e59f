//! `--events`: one JSON object per injection, one per line.

mod line;
mod names;
mod recent;
mod shared;

use std::{
    io::{self, BufWriter, Write},
    sync::Arc,
};

use fault_common::event::{Event, FileEvent};
use nix::time::{ClockId, clock_gettime};

use super::output::{Destination, OutputError};
pub use names::{Names, SystemNames};
pub use recent::{DELAY_STEPS_NS, Recent};
pub use shared::SharedLines;

/// An item of the ring buffer `EVENTS` is no event of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an item of {0} bytes in the ring buffer EVENTS; an event has {size}", size = size_of::<Event>())]
pub struct NoEvent(
    /// Its length in bytes.
    pub usize,
);

/// The event in an item of the ring buffer.
///
/// # Errors
/// When the item has another length than an event.
pub fn parse(item: &[u8]) -> Result<Event, NoEvent> {
    if item.len() != size_of::<Event>() {
        return Err(NoEvent(item.len()));
    }
    // SAFETY: the item is as long as an event, whose fields are integers and arrays of bytes: every bit
    // pattern is one. Nothing is assumed about its alignment.
    Ok(unsafe { item.as_ptr().cast::<Event>().read_unaligned() })
}

/// As [`parse`], of an operation on a file.
fn parse_file(item: &[u8]) -> Option<FileEvent> {
    if item.len() != size_of::<FileEvent>() {
        return None;
    }
    // SAFETY: as in `parse`.
    Some(unsafe { item.as_ptr().cast::<FileEvent>().read_unaligned() })
}

/// From `CLOCK_MONOTONIC`, in which the kernel stamps events, to the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, in nanoseconds.
    pub offset_ns: i128,
}

impl Clock {
    /// The offset now. Kept for the whole session, so that a step of the time of day reorders no events.
    #[must_use]
    pub fn now() -> Self {
        let read = |clock| {
            clock_gettime(clock)
                .map_or(0, |time| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
        };
        // The reading of the two clocks that lay closest together, should one be interrupted.
        let readings = (0..5).map(|_| {
            let before = read(ClockId::CLOCK_MONOTONIC);
            let time = read(ClockId::CLOCK_REALTIME);
            let after = read(ClockId::CLOCK_MONOTONIC);
            (after - before, time - (before + after) / 2)
        });
        Self { offset_ns: readings.min().map_or(0, |(_, offset)| offset) }
    }

    /// RFC 3339 in UTC with nanoseconds.
    fn text(self, monotonic_ns: u64) -> String {
        jiff::Timestamp::from_nanosecond(self.offset_ns + i128::from(monotonic_ns))
            .map_or_else(|_| String::new(), |time| format!("{time:.9}"))
    }
}

/// Which rule lies in a slot of a generation of the rule set.
pub type RuleOf = Box<dyn Fn(u32, u32) -> Option<u32> + Send>;

/// Writes events, buffered; the owner flushes when the ring buffer is empty, and at the end.
pub struct EventWriter {
    out: BufWriter<Box<dyn Write + Send>>,
    destination: Destination,
    clock: Clock,
    rule_of: RuleOf,
    names: Box<dyn Names + Send>,
    written: u64,
    /// The line being written.
    line: Vec<u8>,
    recent: Arc<Recent>,
}

impl EventWriter {
    /// Opens `destination`. `rule_of(generation, slot)` is the number of the fault.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(destination: &Destination, rule_of: RuleOf) -> Result<Self, OutputError> {
        let out = destination.open(WHAT)?;
        Ok(Self::new(out, destination.clone(), Clock::now(), rule_of, Box::new(SystemNames::default())))
    }

    /// One of several that write to `destination`, by way of `lines`.
    #[must_use]
    pub fn sharing(lines: SharedLines, destination: &Destination, rule_of: RuleOf) -> Self {
        Self::new(
            Box::new(lines),
            destination.clone(),
            Clock::now(),
            rule_of,
            Box::new(SystemNames::default()),
        )
    }

    /// Writes nothing, but remembers in `recent`.
    pub(crate) fn keeping(recent: Arc<Recent>, rule_of: RuleOf) -> Self {
        let names = Box::new(SystemNames::default());
        let writer = Self::new(Box::new(io::sink()), Destination::Stdout, Clock::now(), rule_of, names);
        Self { recent, ..writer }
    }

    /// From its parts.
    #[must_use]
    pub fn new(
        out: Box<dyn Write + Send>,
        destination: Destination,
        clock: Clock,
        rule_of: RuleOf,
        names: Box<dyn Names + Send>,
    ) -> Self {
        Self {
            out: BufWriter::with_capacity(1 << 16, out),
            destination,
            clock,
            rule_of,
            names,
            written: 0,
            line: Vec::new(),
            recent: Arc::default(),
        }
    }

    /// Writes every item; returns how many were no events. aya's ring buffer lends one item at a time:
    ///
    /// ```text
    /// while let Some(item) = ring.next() {
    ///     writer.drain(Some(item))?;
    /// }
    /// ```
    /// Whoever has something else to do (a heartbeat) bounds that loop: events may come faster than they can
    /// be written.
    ///
    /// # Errors
    /// When the destination cannot be written.
    pub fn drain<I>(&mut self, items: I) -> Result<u64, OutputError>
    where
        I: IntoIterator,
        I::Item: std::ops::Deref<Target = [u8]>,
    {
        let mut refused = 0;
        for item in items {
            if let Some(event) = parse_file(&item) {
                self.write_file(&event)?;
                continue;
            }
            match parse(&item) {
                Ok(event) => self.write(&event)?,
                Err(NoEvent(_)) => refused += 1,
            }
        }
        Ok(refused)
    }

    /// Writes one event.
    ///
    /// # Errors
    /// When the destination cannot be written.
    pub fn write(&mut self, event: &Event) -> Result<(), OutputError> {
        self.line(event, None)
    }

    /// As [`EventWriter::write`], of an operation on a file.
    ///
    /// # Errors
    /// When the destination cannot be written.
    pub fn write_file(&mut self, event: &FileEvent) -> Result<(), OutputError> {
        self.line(&event.event, Some(event))
    }

    fn line(&mut self, event: &Event, file: Option<&FileEvent>) -> Result<(), OutputError> {
        let line = line::Line::new((event, file), self.clock, &self.rule_of, self.names.as_mut());
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, &line).map_err(io::Error::from).and_then(|()| {
            self.recent.add(line.rule, event.delay_ns, &self.line);
            self.line.push(b'\n');
            self.out.write_all(&self.line)
        });
        self.written += 1;
        self.result(written)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// When the destination cannot be written.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        let flushed = self.out.flush();
        self.result(flushed)
    }

    /// The last of what was written, for whoever looks on.
    #[must_use]
    pub fn recent(&self) -> Arc<Recent> {
        Arc::clone(&self.recent)
    }

    /// Events written so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    fn result(&self, result: io::Result<()>) -> Result<(), OutputError> {
        result.map_err(|source| self.destination.error(WHAT, source))
    }
}

/// What is written, in errors.
pub const WHAT: &str = "the events";
