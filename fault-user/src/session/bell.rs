//! The programs ask for other programs: what the target does not use is not attached, until it does.

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use fault_common::control::asynchronous;
use tokio::io::{Interest, unix::AsyncFd};

use super::{arm::Armed, error::SessionError};
use crate::{block::in_use, target::Target};

/// Rings when there is something new in [`fault_common::control::Control::asked`].
pub(super) struct Bell(AsyncFd<RingBuf<MapData>>);

impl Bell {
    /// Takes the ring buffer out of the object. Needs a tokio runtime with I/O enabled.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, SessionError> {
        let ring = ebpf.take_map("BELL").ok_or(SessionError::NoMap("BELL"))?;
        let ring = RingBuf::try_from(ring).map_err(SessionError::map("BELL"))?;
        // SAFETY: the descriptor belongs to the ring buffer, which the AsyncFd owns and never replaces.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| SessionError::Bell(error.into()))?;
        Ok(Self(ring))
    }

    /// Waits until it rings. Cancel safe: what was asked is in the control block.
    pub(super) async fn rung(&mut self) -> Result<(), SessionError> {
        let mut guard = self.0.readable_mut().await.map_err(SessionError::Bell)?;
        while guard.get_inner_mut().next().is_some() {}
        guard.clear_ready();
        Ok(())
    }
}

impl Armed {
    /// Attaches what the programs have asked for and is not there yet.
    pub(super) fn serve(&mut self) -> Result<(), SessionError> {
        let Self { block, loaded, copies, btf, .. } = self;
        if let Some(block) = block {
            block.serve(loaded, copies, btf, loaded.control.asked.load())?;
        }
        Ok(())
    }
}

/// The interfaces of asynchronous I/O that somebody of `target` has; if that is the whole machine, somebody has.
pub(super) fn in_use(target: &Target) -> Result<u64, SessionError> {
    if target.is_host() {
        return Ok(asynchronous::ALL);
    }
    Ok(in_use::by(&target.snapshot()?.members))
}
