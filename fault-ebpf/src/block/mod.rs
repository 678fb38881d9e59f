//! Block I/O: programs on `should_fail_bio`, which every bio passes before it goes to its device.
//!
//! | program | kind | when it runs | does |
//! |---|---|---|---|
//! | [`decide`] | fmod_ret, or kprobe | first | everything but sleep: fails the bio, or leaves a deadline for its task |
//! | [`park`] | sleepable fmod_ret, several copies | next | the first copy that is free on this CPU claims the deadline and sleeps |
//! | [`tally`] | fmod_ret | last | counts a deadline that no copy was free to claim |
//!
//! [`weigh`] is the part of the decider that goes through the rules.
//! [`file`] finds out which file a bio is about, for rules that ask.
//! [`written`] remembers which sectors were written, for rules that ask.
//!
//! Asynchronous I/O keeps its depth: who submits many operations does not wait for each.
//!
//! | program | on | does |
//! |---|---|---|
//! | [`aio`] | `io_submit`, `io_getevents` | lets libaio submissions through, makes who reaps them wait |
//! | [`punt`] | `security_file_permission` | hands io_uring operations to the ring's workers, who park one by one |
//! | [`begin`] | `io_setup`, `io_uring_setup` | asks for those, when the target begins to need them |
//!
//! Why copies: while a sleeping program holds its per-CPU `active` count, the kernel skips that program for
//! everybody else on that CPU (`__bpf_prog_enter_sleepable_recur`). So one copy parks one task per CPU.
//!
//! fmod_ret programs run in reverse order of attachment: tally, parkers, decider are attached in this order.
//!
//! A bystander's bio should not pay for the parkers. The kernel's trampoline ends the chain when a program
//! returns anything but 0 *in 64 bits* and gives that to the caller, who looks at the 32 bits of an `int`. So the
//! decider ends the chain with [`decide::PASS_AT_ONCE`], unless programs of others come after it (the loader
//! knows, `decider_may_leave`).

mod aio;
mod batch;
mod begin;
mod bio;
mod decide;
mod fields;
mod file;
mod owner;
mod park;
mod punt;
mod state;
mod syscall;
mod tally;
mod weigh;
pub mod written;

pub use fields::{current, read, read_at};
pub use park::{sleep_somewhere_until, sleep_until};
pub use syscall::registers;
