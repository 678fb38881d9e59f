//! The way through the rules, for a bio that is not let go before: the part of the decider that few bios need.
//!
//! What is in global functions here is not kept in registers by the bios that never come here, the verifier looks at it once, and its
//! stack is not that of the walk. It reads a bio by calls: what a number points to the verifier does not know.

use core::ptr;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_get_current_cgroup_id};
use fault_common::{
    control::Control,
    counters::Counter,
    decide::Verdict,
    event::{Action, BioEvent},
    limits::MAX_PARK_NS,
    rule::block::BioFacts,
    who::{PendingPark, TaskState},
};

use super::{
    aio, batch, begin, bio,
    fields::{Asked, Look, number_of},
    owner::Owner,
    state,
};
use crate::{
    decision::{self, Memory, YES},
    emit,
    maps::CONTROL,
    who::task,
};

/// What becomes of a bio.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Pass = 0,
    /// It fails now.
    Fail = 1,
    /// Its task finds a deadline in its state.
    Park = 2,
    /// The same, and then it fails.
    ParkThenFail = 3,
}

impl Fate {
    /// The fate with this number.
    #[inline(always)]
    const fn from_u32(number: u32) -> Self {
        match number {
            1 => Self::Fail,
            2 => Self::Park,
            3 => Self::ParkThenFail,
            _ => Self::Pass,
        }
    }
}

/// For [`weigh_bio`]: the bank in force is the second one.
const SECOND_BANK: u32 = 1;
/// For [`weigh_bio`]: the hook can park.
const CAN_PARK: u32 = 2;
/// For [`weigh_bio`]: the bio is the target's by its own cgroup.
const BY_CGROUP: u32 = 4;

/// Decides about `bio`, of a task whose state is numbered: `candidates` are the rules of `bank` whose filters it has passed, as far as
/// they were asked. It came at `now_ns`, and is the target's by `owner`.
#[inline(always)]
pub fn weigh(bio: u64, bank: u32, candidates: u64, now_ns: u64, (owner, can_park): (Owner, bool)) -> Fate {
    let by_cgroup = match owner {
        Owner::Submitter => 0,
        Owner::Cgroup => BY_CGROUP,
    };
    let how = bank & SECOND_BANK | if can_park { CAN_PARK } else { 0 } | by_cgroup;
    Fate::from_u32(weigh_bio(number_of(bio), candidates, how, now_ns))
}

/// [`weigh`]: `how` is the rest in bits, what is returned a [`Fate`] as a number.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn weigh_bio(bio: u64, candidates: u64, how: u32, now_ns: u64) -> u32 {
    let (Some(control), Some(state)) = (CONTROL.get(0), state::existing()) else { return Fate::Pass as u32 };
    walk(control, state, bio, (candidates, how, now_ns)) as u32
}

#[inline(always)]
fn walk(
    control: &Control,
    state: &mut TaskState,
    bio: u64,
    (candidates, how, mut now_ns): (u64, u32, u64),
) -> Fate {
    let (bank, can_park) = (how & SECOND_BANK, how & CAN_PARK != 0);
    let masks = &control.banks[bank as usize & 1];
    let moment = &mut state.walk.moment;
    moment.seed = control.seed.load();
    moment.stream = state.stream.number;
    moment.elapsed_ns = control.elapsed_ns(now_ns);
    // The bytes of a rest were counted with the whole.
    moment.bytes = if bio::is_rest::<Asked>(bio) { 0 } else { u64::from(bio::bytes::<Asked>(bio)) };
    let is_located = candidates & masks.disk_located != 0;
    describe_bio(bio, &raw mut state.walk.facts, u32::from(is_located));
    let memory = Memory { stream: &raw mut state.stream, connection: ptr::null_mut() };
    decision::decide(&mut state.walk, bank, candidates, memory);
    if state.walk.outcome.hits == 0 {
        return Fate::Pass;
    }
    if candidates & masks.disk_timed == 0 {
        // SAFETY: a helper without arguments or effects.
        now_ns = unsafe { bpf_ktime_get_ns() };
    }
    let tgid = task::current_tgid();
    if control.tells(now_ns) {
        report_bio(bio, now_ns);
    }
    let outcome = &state.walk.outcome;
    let (verdict, delay_ns, link_ns) = (outcome.verdict, outcome.delay_ns, outcome.link_ns);
    let end = if matches!(verdict, Verdict::Error) { Fate::Fail } else { Fate::Pass };
    if delay_ns == 0 || !can_park {
        return end;
    }
    let owner = if how & BY_CGROUP != 0 { Owner::Cgroup } else { Owner::Submitter };
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

/// What the filters of rules look at, of which some name a device or a range if `is_located`.
#[inline(always)]
pub fn asked<L: Look>(bio: u64, is_located: bool) -> BioFacts {
    if is_located {
        bio::facts::<L>(bio)
    } else {
        BioFacts { ops: bio::ops::<L>(bio), ..BioFacts::default() }
    }
}

/// [`asked`] of a bio that is only a number; `is_located` is 0 or 1.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn describe_bio(bio: u64, facts: *mut BioFacts, is_located: u32) -> u32 {
    if facts.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier has checked the size.
    unsafe { *facts = asked::<Asked>(bio, is_located != 0) };
    YES
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

/// Tells what was decided about `bio` at `now_ns`, which the state of its task still says.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_bio(bio: u64, now_ns: u64) -> u32 {
    let (Some(control), Some(state)) = (CONTROL.get(0), state::existing()) else { return 0 };
    let outcome = &state.walk.outcome;
    let action = match (outcome.verdict, outcome.delay_ns) {
        (Verdict::Error, 0) => Action::Error,
        (Verdict::Error, _) => Action::DelayThenError,
        _ => Action::Delay,
    };
    let facts = bio::facts::<Asked>(bio);
    emit::bio(
        &emit::What {
            time_ns: now_ns,
            hits: outcome.hits,
            delay_ns: outcome.delay_ns,
            // SAFETY: a helper without arguments or effects.
            cgroup: unsafe { bpf_get_current_cgroup_id() },
            generation: control.generation.load(),
            action: action as u32,
            tgid: task::current_tgid(),
            bytes: facts.sectors << 9,
        },
        &BioEvent { sector: facts.sector, device: facts.device, ops: facts.ops },
    );
    YES
}
