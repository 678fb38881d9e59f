//! Whose is it: the task that runs, or the socket a packet leaves or reaches.

pub mod socket;
pub mod subflow;
pub mod task;
