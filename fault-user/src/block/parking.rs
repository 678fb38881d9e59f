//! The parking lot of a session: opened once, by whoever is the first to delay.

use std::{io, os::fd::AsFd as _};

use fault_common::limits::PARKING_PLACES_PER_CPU;

use super::parking_lot::{Heartbeat, ParkingLot, ParkingLotError, ParkingLotStats, Slots};
use crate::kernel::load::{LoadError, Loaded, find};

/// There is no parking lot.
#[derive(Debug, thiserror::Error)]
pub enum ParkingError {
    /// It could not be opened.
    #[error(transparent)]
    Lot(#[from] ParkingLotError),
    /// The object and this binary are of different builds.
    #[error(transparent)]
    Object(#[from] LoadError),
    /// The deadlines could not be mapped.
    #[error("mapping the deadlines of the parking lot failed")]
    Slots(#[source] io::Error),
}

/// Where tasks wait, if somebody delays block I/O or fsync. Outlives the programs that send them there.
#[derive(Debug, Default)]
pub struct Parking(Option<ParkingLot>);

impl Parking {
    /// Opens it, and tells the programs; once.
    ///
    /// # Errors
    /// See [`ParkingError`].
    pub fn open(&mut self, loaded: &Loaded) -> Result<(), ParkingError> {
        if self.0.is_some() {
            return Ok(());
        }
        let map = find(&loaded.ebpf, "PARKING")?;
        let slots = Slots::of_map(map.fd().as_fd(), places(loaded)?).map_err(ParkingError::Slots)?;
        let control = &*loaded.control;
        // SAFETY: the control block is mapped shared and outlives this call.
        let heartbeat = unsafe { Heartbeat::new(&raw const control.heartbeat_ns) };
        let lot = ParkingLot::start(slots, Some(heartbeat))?;
        let [helper, answerer] = lot.pids();
        control.helper_pid.store(helper);
        control.answerer_tgid.store(answerer);
        control.helper_base.store(lot.base_address());
        self.0 = Some(lot);
        Ok(())
    }

    /// Wakes everybody, now and from now on.
    ///
    /// # Errors
    /// When it does not answer; dropping it wakes everybody all the same.
    pub fn release_all(&self) -> Result<(), ParkingError> {
        Ok(self.0.as_ref().map_or(Ok(()), ParkingLot::release_all)?)
    }

    /// What it has done, if it was opened.
    #[must_use]
    pub fn stats(&self) -> Option<ParkingLotStats> {
        self.0.as_ref().map(ParkingLot::stats)
    }
}

/// CPUs that there are places for.
///
/// # Errors
/// When the kernel does not tell the size of its map.
pub fn cpus(loaded: &Loaded) -> Result<u32, ParkingError> {
    Ok(places(loaded)? / PARKING_PLACES_PER_CPU)
}

fn places(loaded: &Loaded) -> Result<u32, ParkingError> {
    let map = find(&loaded.ebpf, "PARKING")?;
    map.info().map(|info| info.max_entries()).map_err(|error| ParkingError::Slots(io::Error::other(error)))
}
