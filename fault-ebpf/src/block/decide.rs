//! The decider: the only program that looks at rules. It never sleeps.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_current_cgroup_id, bpf_override_return},
    },
    macros::kprobe,
    programs::ProbeContext,
};
use fault_common::{
    control::Control,
    counters::Counter,
    decide::{Outcome, Verdict},
    event::{Action, BioEvent},
    limits::{MAX_PARK_NS, MAX_RULES},
    rule::block::BioFacts,
    who::{PendingPark, TaskState},
};

use super::{
    aio, batch, begin, bio,
    fields::{Asked, Look, Typed},
    file, owner, state, written,
};
use crate::{
    decision::{self, Memory},
    emit,
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

/// What becomes of a bio.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing.
    Pass,
    /// It fails now.
    Fail,
    /// Its task finds a deadline in its state.
    Park,
    /// The same, and then it fails.
    ParkThenFail,
}

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
    let tgid = suspect.tgid;
    if tgid == control.selftest_tgid.load() {
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
    let facts = if is_located {
        bio::facts::<L>(bio)
    } else {
        BioFacts { ops: bio::ops::<L>(bio), ..BioFacts::default() }
    };
    let sole = decision::sole(bank, candidates);
    match sole {
        Some((_, rule)) if !rule.block.matches(&facts) => return Fate::Pass,
        Some(_) => {}
        None => {
            // A copy: what a pointer leads to lies on the stack, and the others need not.
            let facts = facts;
            candidates = interested(&raw const facts, bank, candidates);
        }
    }
    if candidates == 0 {
        return Fate::Pass;
    }
    let Some(owner) = owner::of(control, suspect, bio) else { return Fate::Pass };
    // What is let go in the end need not know the time any better.
    let is_timed = candidates & masks.disk_timed != 0;
    // SAFETY: a helper without arguments or effects.
    let mut now_ns = if is_timed { unsafe { bpf_ktime_get_ns() } } else { coarse_now(control) };
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
    let moment = &mut state.walk.moment;
    moment.seed = control.seed.load();
    moment.stream = state.stream.number;
    moment.elapsed_ns = control.elapsed_ns(now_ns);
    // The bytes of a rest were counted with the whole.
    moment.bytes = if bio::is_rest::<L>(bio) { 0 } else { u64::from(bio::bytes::<L>(bio)) };
    state.walk.facts = facts;
    let memory = Memory { stream: &raw mut state.stream, connection: ptr::null_mut() };
    decision::decide(&mut state.walk, bank, candidates, memory);
    let outcome = &state.walk.outcome;
    if outcome.hits == 0 {
        return Fate::Pass;
    }
    if !is_timed {
        // SAFETY: a helper without arguments or effects.
        now_ns = unsafe { bpf_ktime_get_ns() };
    }
    if control.tells(now_ns) {
        report(control, now_ns, tgid, &bio::facts::<L>(bio), outcome);
    }
    let (verdict, delay_ns, link_ns) = (outcome.verdict, outcome.delay_ns, outcome.link_ns);
    let end = if matches!(verdict, Verdict::Error) { Fate::Fail } else { Fate::Pass };
    if delay_ns == 0 || !can_park {
        return end;
    }
    if !owner.may_park(bio) {
        emit::count(Counter::ParkForbidden);
        return end;
    }
    if begin::is_reaped(control, state) {
        let delay_ns = if delay_ns < MAX_PARK_NS { delay_ns } else { MAX_PARK_NS };
        let begins_ns = aio::begins_ns(state, now_ns);
        if aio::push(state, tgid, bio, begins_ns.wrapping_add(delay_ns)) {
            return if begins_ns > now_ns { park_until(state, begins_ns, end) } else { end };
        }
    }
    leave_deadline(control, state, now_ns, (delay_ns, link_ns), end)
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

/// Leaves a deadline for the parkers, unless it has passed already: `delay_ns` of which `link_ns` is the wait for a link.
#[inline(always)]
fn leave_deadline(
    control: &Control,
    state: &mut TaskState,
    now_ns: u64,
    (delay_ns, link_ns): (u64, u64),
    end: Fate,
) -> Fate {
    // The bios of one operation are late together, but each has its own time on the link.
    let mut deadline_ns = batch::began_ns(state, now_ns).wrapping_add(delay_ns.wrapping_sub(link_ns));
    if deadline_ns < now_ns {
        deadline_ns = now_ns;
    }
    deadline_ns = deadline_ns.wrapping_add(link_ns);
    if deadline_ns > now_ns.wrapping_add(MAX_PARK_NS) {
        deadline_ns = now_ns.wrapping_add(MAX_PARK_NS);
    }
    if deadline_ns > control.deadline_ns.load() {
        deadline_ns = control.deadline_ns.load();
    }
    if deadline_ns <= now_ns {
        return end;
    }
    park_until(state, deadline_ns, end)
}

#[inline(always)]
fn park_until(state: &mut TaskState, deadline_ns: u64, end: Fate) -> Fate {
    let fails = matches!(end, Fate::Fail);
    state.pending = PendingPark { deadline_ns, then_error: fails as u32, _pad: 0 };
    if fails { Fate::ParkThenFail } else { Fate::Park }
}

#[inline(always)]
fn report(control: &Control, now_ns: u64, tgid: u32, bio: &BioFacts, outcome: &Outcome) {
    let action = match (outcome.verdict, outcome.delay_ns) {
        (Verdict::Error, 0) => Action::Error,
        (Verdict::Error, _) => Action::DelayThenError,
        _ => Action::Delay,
    };
    emit::bio(
        &emit::What {
            time_ns: now_ns,
            hits: outcome.hits,
            delay_ns: outcome.delay_ns,
            // SAFETY: a helper without arguments or effects.
            cgroup: unsafe { bpf_get_current_cgroup_id() },
            generation: control.generation.load(),
            action: action as u32,
            tgid,
            bytes: bio.sectors << 9,
        },
        &BioEvent { sector: bio.sector, device: bio.device, ops: bio.ops },
    );
}
