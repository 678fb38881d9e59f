//! The decision: is this operation hit, and by what.
//!
//! [`decide`] is the whole of it. The kernel and the tests call the same function; they differ only in the
//! [`World`] they hand it (maps there, [slices](simulation) here).

pub mod combine;
pub mod connections;
pub mod corruption;
pub mod delay;
pub mod past;
pub mod plain;
pub mod rate;
pub mod rng;
pub mod simulation;
pub mod slot;
pub mod trigger;

pub use combine::{Instance, Late, Moment, Outcome, Verdict, Walk, World, decide, round};
