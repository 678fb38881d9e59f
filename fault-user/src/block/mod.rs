//! Block I/O faults: which device, which backend, and where delayed tasks sleep.

pub mod parking_lot;
