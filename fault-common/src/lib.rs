//! What the kernel half and the user half of `fault` share: the layout of a rule **and the decision itself**.
//!
//! Everything here is pure: no maps, no helpers, no clock, no allocation. `fault-ebpf` compiles it into
//! the kernel; userspace runs the very same code under property and statistics tests and for `--dry-run`.
//!
//! | module | what it answers |
//! |---|---|
//! | [`rule`] | what a fault looks like in a kernel map, and which operations it looks at |
//! | [`decide`] | whether this operation is hit, and what happens to it when several rules hit it |
//! | [`control`] | whether the session is alive at all (heartbeat, deadline, generation) |
//! | [`who`] | what is remembered about a target's socket and a target's task |
//! | [`glob`] | which paths a pattern matches |
//! | [`tag`] | how a packet carries through the network stack what was already decided about it |
//! | [`shared`] | numbers both sides touch at the same time |
//! | [`event`], [`counters`] | what is told to the user afterwards |
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "BPF has no stable read-modify-write, see `shared`")
)]

pub mod control;
pub mod counters;
pub mod decide;
pub mod event;
pub mod glob;
pub mod limits;
pub mod rule;
pub mod shared;
pub mod tag;
pub mod who;
