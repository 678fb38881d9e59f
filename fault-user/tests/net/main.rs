//! The network room against a real kernel: real namespaces, devices, programs and sockets.
//!
//! Observers are `ip`, `tc`, `ping` and the kernel's own tables, never the room itself. Needs root, and says so.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod adoption;
mod death;
mod hooks;
mod interfaces;
mod lab;
mod lane;
mod namespaces;
mod programs;
