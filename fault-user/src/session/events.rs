//! `--events`: from the ring buffer to the file while the session lives.

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::error::SessionError;
use crate::report::events::EventWriter;

/// Events written before the session looks at its heartbeat again: some milliseconds of work.
const BATCH: usize = 1024;

/// The ring buffer and who writes it down.
pub(super) struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    writer: EventWriter,
}

/// Takes the ring buffer out of the object.
pub(super) fn ring(ebpf: &mut Ebpf) -> Result<RingBuf<MapData>, SessionError> {
    let map = ebpf.take_map("EVENTS").ok_or(SessionError::NoMap("EVENTS"))?;
    RingBuf::try_from(map).map_err(SessionError::map("EVENTS"))
}

impl Events {
    /// Takes the ring buffer out of the object. Needs a tokio runtime with I/O enabled.
    pub(super) fn new(ebpf: &mut Ebpf, writer: EventWriter) -> Result<Self, SessionError> {
        let ring = ring(ebpf)?;
        // SAFETY: the descriptor belongs to the ring buffer, which the AsyncFd owns and never replaces.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| SessionError::Ring(error.into()))?;
        Ok(Self { ring, writer })
    }

    /// Waits until there is something and writes it, or the first of it. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<(), SessionError> {
        let mut guard = self.ring.readable_mut().await.map_err(SessionError::Ring)?;
        for _ in 0..BATCH {
            let Some(item) = guard.get_inner_mut().next() else {
                guard.clear_ready();
                break;
            };
            self.writer.drain(Some(item))?;
        }
        // Readers of the file see what happened until now.
        self.writer.flush()?;
        // Timers fire when a task gives way, and an AsyncFd that is always ready never does: without this a
        // flood of events stops the heartbeat.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn drain(&mut self) -> Result<(), SessionError> {
        let ring = self.ring.get_mut();
        while let Some(item) = ring.next() {
            self.writer.drain(Some(item))?;
        }
        Ok(self.writer.flush()?)
    }
}
