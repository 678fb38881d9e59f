//! What holds for every text whatsoever. `cargo test` asks it of the corpus, `cargo xtask fuzz` of texts that libFuzzer makes.

pub mod glob;
pub mod scenario;
pub mod spec;

use std::time::Duration;

use fault_user::spec::Span;
use nix::time::{ClockId, clock_gettime};

/// What a text may cost, and each of its bytes. Far more than it does cost, even without optimisation and with the counters
/// of a fuzzer in it; far less than what grows with the square of the length costs at 64 KiB.
const BASE: Duration = Duration::from_millis(500);
const PER_BYTE: Duration = Duration::from_micros(40);

/// Runs `work` on a text of `bytes`.
///
/// # Panics
/// When it takes more than its length allows. Counted is this thread's own time on a processor, which is no longer on a busy
/// machine.
fn in_linear_time(bytes: usize, work: impl FnOnce()) {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the thread's clock"));
    let began = now();
    work();
    let (took, allowed) = (now() - began, BASE + PER_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX));
    assert!(took <= allowed, "{bytes} bytes took {took:?}");
}

/// Set by `cargo xtask fuzz`.
const IS_FUZZING: bool = option_env!("FAULT_FUZZING").is_some();

/// Whether the reports about `text` are drawn, which takes longer than everything else: of all texts of the corpus, of one in
/// sixteen that a fuzzer makes.
fn is_shown(text: &str) -> bool {
    !IS_FUZZING || text.len().is_multiple_of(16)
}

/// Whether `span` can be shown in `text`; an empty one is shown as one space.
fn is_within(text: &str, span: Span) -> bool {
    let end = text.len().max(1);
    let is_boundary = |at: usize| text.is_char_boundary(at) || at == end;
    span.start <= span.end && span.end <= end && is_boundary(span.start) && is_boundary(span.end)
}
