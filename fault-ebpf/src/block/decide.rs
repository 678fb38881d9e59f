//! The decider: the only program that looks at rules. It never sleeps. Most bios are let go here; the others go through the rules
//! ([`weigh`](super::weigh)).

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_ktime_get_ns, generated::bpf_override_return},
    macros::kprobe,
    programs::ProbeContext,
};
use fault_common::{control::Control, counters::Counter, limits::MAX_RULES, rule::block::BioFacts};

use super::{
    bio,
    fields::{Asked, Look, Typed},
    file, owner, state,
    weigh::{Fate, asked, weigh},
    written,
};
use crate::{
    decision, emit,
    kernel::decider_may_leave,
    maps::{CONTROL, RULES},
    net::coarse_now,
    who::task::{self, Suspect},
};

/// What the function returns for a bio that fails. The kernel ends it with EIO whatever the number is.
pub const FAIL: u64 = -5i64 as u64;
/// Ends the chain of programs, and is 0 to the caller of the function: not a 64-bit zero, but a 32-bit one.
pub const PASS_AT_ONCE: u64 = 1 << 32;

/// Slots whose filters are asked before anything else: the verifier walks all of them, and most sessions have one rule.
const ASKED_FIRST: u32 = 4;

/// fmod_ret: the bio fails if this returns anything but 0 in 32 bits.
#[unsafe(no_mangle)]
#[unsafe(link_section = "fentry/should_fail_bio")]
pub extern "C" fn decide_bio(context: *mut c_void) -> u64 {
    // SAFETY: the context of a tracing program is its arguments, 8 bytes each; the first is the bio.
    let bio = unsafe { *context.cast::<u64>() };
    match fate::<Typed>(bio, true) {
        Fate::Fail => FAIL,
        Fate::Park | Fate::ParkThenFail => 0,
        Fate::Pass if decider_may_leave() != 0 => PASS_AT_ONCE,
        Fate::Pass => 0,
    }
}

/// kprobe, for kernels where that is the only way to fail a bio. It cannot delay: the session refuses that.
#[kprobe]
pub fn decide_bio_kprobe(context: ProbeContext) -> u32 {
    if let Some(bio) = context.arg::<u64>(0)
        && matches!(fate::<Asked>(bio, false), Fate::Fail)
    {
        // SAFETY: the context of this probe.
        unsafe { bpf_override_return(context.as_ptr().cast(), FAIL) };
    }
    0
}

#[inline(always)]
fn fate<L: Look>(bio: u64, can_park: bool) -> Fate {
    let Some(control) = CONTROL.get(0) else { return Fate::Pass };
    let tgid = task::current_tgid();
    let suspect = Suspect::of(tgid);
    let are_everybodys = control.everybodys_bios.load() != 0;
    // Most bios are a bystander's: nothing else is asked for them.
    if !suspect.is_target_process && !are_everybodys {
        return Fate::Pass;
    }
    let fate = judge::<L>(control, suspect, bio, can_park);
    if are_everybodys {
        let bank = control.bank();
        let rules = control.banks[bank as usize & 1].disk_until_written;
        if rules != 0 && control.active.load() != 0 && matches!(fate, Fate::Pass | Fate::Park) {
            written::note(bank, rules, bio);
        }
    }
    fate
}

#[inline(always)]
fn judge<L: Look>(control: &Control, suspect: Suspect, bio: u64, can_park: bool) -> Fate {
    if suspect.tgid == control.selftest_tgid.load() {
        emit::count(Counter::SelfTest);
        return Fate::Pass;
    }
    let bank = control.bank();
    let masks = &control.banks[bank as usize & 1];
    let mut candidates = masks.disk & control.in_force.load();
    if control.active.load() == 0 || candidates == 0 {
        return Fate::Pass;
    }
    if !owner::may_be(control, suspect) {
        return Fate::Pass;
    }
    let is_located = candidates & masks.disk_located != 0;
    let sole = decision::sole(bank, candidates);
    let is_taken = match sole {
        Some((_, rule)) if is_located => rule.block.matches(&bio::facts::<L>(bio)),
        Some((_, rule)) => rule.block.takes(bio::ops::<L>(bio)),
        None => {
            let facts = asked::<L>(bio, is_located);
            candidates = interested(&raw const facts, bank, candidates);
            true
        }
    };
    if !is_taken || candidates == 0 {
        return Fate::Pass;
    }
    let Some(owner) = owner::of(control, suspect, bio) else { return Fate::Pass };
    // What is let go in the end need not know the time any better.
    let is_timed = candidates & masks.disk_timed != 0;
    // SAFETY: a helper without arguments or effects.
    let now_ns = if is_timed { unsafe { bpf_ktime_get_ns() } } else { coarse_now(control) };
    if !control.is_live(now_ns) {
        return Fate::Pass;
    }
    let globbed = candidates & masks.disk_globbed;
    if globbed != 0 {
        candidates &= !globbed | file::matching(bio, bank);
        if candidates == 0 {
            return Fate::Pass;
        }
    }
    let Some(state) = state::numbered(control) else { return Fate::Pass };
    if let Some(sole) = sole
        && candidates & masks.plain != 0
        && decision::lets_go(bank, sole, &mut state.stream)
    {
        return Fate::Pass;
    }
    weigh(bio, bank, candidates, now_ns, (owner, can_park))
}

/// Those of `candidates` whose filter the bio passes, as far as they are among the first: what no rule is interested in is let go
/// before anything is done that costs. The others are asked in the walk.
///
/// A global function: the verifier looks at it once, and the mask is one number to it afterwards.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn interested(facts: *const BioFacts, bank: u32, candidates: u64) -> u64 {
    if facts.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked the size.
    let facts = unsafe { &*facts };
    let mut interested = candidates;
    let mut slot = 0;
    while slot < ASKED_FIRST && candidates >> slot != 0 {
        if candidates >> slot & 1 != 0
            && let Some(rule) = RULES.get((bank & 1) * MAX_RULES as u32 + slot)
            && !rule.block.matches(facts)
        {
            interested &= !(1 << slot);
        }
        slot += 1;
    }
    interested
}
