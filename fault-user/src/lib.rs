//! `fault` as a library: sessions, targets, specs, and the rooms of the kernel they act in.
//!
//! | room | concern |
//! |---|---|
//! | `spec` | text → typed fault |
//! | `target` | who suffers |
//! | `kernel` | probing, BTF, loading |
//! | `net` | hooks, lane, sockets |
//! | `block` | devices, parking lot, self-test |
//! | `file` | hooks on operations on files, patterns of paths |
//! | `session` | plan → arm → heal, heartbeat, residue |
//! | `scenario` | phases in time, several targets, expectations |
//! | `serve` | sessions for other programs, over HTTP |
//! | `beacon` | what the sessions of this machine say of themselves, and how they are paused |
//! | `top` | the live view |
//! | `report` | table, JSON, events |
//! | `cli` | the command line |
//! | `client` | faults from test code |
//!
//! Programs that only want faults need [`client`] and nothing else.

pub mod beacon;
pub mod block;
pub mod cli;
pub mod client;
pub mod exit;
pub mod explained;
pub mod file;
pub mod kernel;
pub mod net;
pub mod report;
pub mod scenario;
pub mod sentence;
pub mod serve;
pub mod session;
pub mod spec;
pub mod target;
pub mod top;
