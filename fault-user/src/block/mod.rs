//! Block I/O faults: which device is meant, which programs get in front of a bio, and where delayed tasks sleep.

mod asynchronous;
pub mod device;
pub mod fields;
pub mod files;
pub mod hooks;
pub mod in_use;
pub mod parking;
pub mod parking_lot;
pub mod selftest;
