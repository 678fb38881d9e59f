//! planned → armed: everything is in the kernel, nothing is injected yet.
//!
//! All or nothing: whatever was put in before a step fails is owned by values that are dropped on the way out.

use std::{sync::Arc, time::Duration};

use super::{
    audience::Audience,
    bell::{self, Bell},
    error::SessionError,
    events::Events,
    keeper::Keeper,
    lever::{Earlier, Lever},
    packets::{self, Namespace},
    pause::Pauser,
    plan::{Needs, Plan},
    rules::Rules,
    sockets::Sockets,
    switch::Switch,
    tasks::{self, Tasks},
};
use crate::{
    beacon::{self, BeaconError, Face, Registration, RuleFace, SharedFace, Told},
    block::{
        hooks::{BlockHooks, Choice, Wanted},
        parking::Parking,
    },
    file::{
        hooks::{FileHooks, Late},
        places::{self, Place},
    },
    kernel::{
        btf::Btf,
        control::{CounterBlock, monotonic_ns},
        globals,
        load::{LoadError, Loaded, Sizes, find, load},
        modify_return::Copies,
        patch::{CAST_TO_KERNEL, Constant},
    },
    net::lane::LaneStats,
    report::events::EventWriter,
    target::Target,
};

/// What a session is about, beyond its plan.
pub struct Request {
    /// The faults.
    pub plan: Plan,
    /// Who suffers.
    pub target: Target,
    /// `--block-backend`.
    pub backend: Choice,
    /// `--events`.
    pub events: Option<EventWriter>,
    /// Undoes what no descriptor owns, should we be killed.
    pub keeper: Arc<Keeper>,
    /// Whether it is the first for its target.
    pub origin: Origin,
}

impl Request {
    /// The first session for its target, with the backend that fits and without events.
    #[must_use]
    pub fn new(plan: Plan, target: Target, keeper: Arc<Keeper>) -> Self {
        Self { plan, target, backend: Choice::Auto, events: None, keeper, origin: Origin::First }
    }
}

/// What a session begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A target that nobody of ours has touched.
    First,
    /// One that [another session](super::Active::successor) is about to hand over.
    Successor,
}

/// Everything is in place and inactive.
///
/// Field order is the order of dropping: what sends tasks to the parking lot, the parking lot (it lets everybody go), then
/// packets, then maps.
pub struct Armed {
    pub(super) block: Option<BlockHooks>,
    pub(super) files: FileHooks,
    pub(super) parking: Parking,
    pub(super) pauser: Option<Pauser>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) sockets: Option<Sockets>,
    pub(super) tasks: Tasks,
    /// Of namespaces that were left.
    pub(super) lanes: Vec<LaneStats>,
    /// For namespaces that the target enters later.
    pub(super) copies: Copies,
    pub(super) btf: Btf,
    pub(super) rules: Rules,
    pub(super) loaded: Loaded,
    /// What is in place, whatever the rules in force need of it.
    pub(super) needs: Needs,
    /// Of all rules that were in force: packets may still be under way.
    pub(super) longest_delay: Duration,
    pub(super) request: Request,
    pub(super) switch: Arc<Switch>,
    /// Of rules that a scenario brought into force again: what they matched before.
    pub(super) earlier: Arc<Earlier>,
}

/// The bank the first rule set lies in.
const FIRST_BANK: u32 = 0;

impl Armed {
    /// Puts everything into the kernel.
    ///
    /// # Errors
    /// When anything is refused; then nothing is left.
    pub fn arm(mut request: Request) -> Result<Self, SessionError> {
        let (needs, longest_delay) = (request.plan.needs(), request.plan.longest_delay());
        let btf = Btf::vmlinux()?;
        let sizes = Sizes {
            parking: needs.bio_delay || needs.late_files != 0,
            events: request.events.is_some(),
            globs: needs.globs,
            tables: needs.tables,
        };
        let mut loaded = load(&globals::resolve(&btf, needs)?, sizes)?;
        loaded.control.seed.store(request.plan.seed);
        loaded.control.only.store((!request.target.descendants).into());
        loaded.control.guarded.store(request.target.is_host().into());
        loaded.control.events_until_ns.store(if request.events.is_some() { u64::MAX } else { 0 });
        let mut copies = Copies::new(&loaded.ebpf)?;
        #[cfg(feature = "log")]
        crate::kernel::log::follow(&mut loaded.ebpf);

        // What sees the new before what counts the old.
        if request.target.has_processes() {
            tasks::follow_processes(&mut loaded, &request.target.names())?;
        }
        if needs.packets || needs.calls {
            tasks::follow_sockets(&mut loaded.ebpf)?;
            copies.tell(Constant::Mptcp, tasks::follow_subflows(&mut loaded.ebpf)?.into());
            // Before Linux 6.2 they may not look.
            if copies.find(&btf, CAST_TO_KERNEL)? {
                for (constant, value) in globals::packets(&btf)?.into_iter().flatten() {
                    copies.tell(constant, value);
                }
            }
        }
        if needs.calls {
            tasks::follow_calls(&mut loaded.ebpf, needs.binds)?;
        }
        // What was found by its name may have been restarted since.
        request.target.refresh();
        match request.origin {
            Origin::First => request.target.check_present()?,
            // Who has ended since may have left descendants, who are part of the target; if nobody is left, the session ends.
            Origin::Successor => {}
        }
        let tasks = Tasks::enter(&mut loaded, &request.target)?;
        let mut rules = Rules::new(places(needs, &request.target)?);
        rules.write(&mut loaded, &request.plan, FIRST_BANK)?;

        let mut namespaces = Vec::new();
        let mut sockets = None;
        if needs.packets || needs.calls {
            let snapshot = request.target.snapshot()?;
            let handles = if needs.packets { snapshot.netns.clone() } else { Vec::new() };
            packets::check_interfaces(&request.plan, &handles)?;
            sockets = Some(Sockets::adopt(&loaded, &snapshot)?);
            for numbered in packets::numbered(handles)? {
                let namespace = Namespace::attach(
                    &mut loaded.ebpf,
                    &copies,
                    &btf,
                    &request.plan,
                    needs,
                    numbered,
                    &request.keeper,
                )?;
                namespaces.push(namespace);
            }
        }
        let mut parking = Parking::default();
        let late = (needs.late_files != 0).then_some(Late {
            ops: needs.late_files,
            loaded: &loaded,
            parking: &mut parking,
        });
        // Before those of block I/O, one of which sits on the same function and has to be asked first.
        let files = FileHooks::arm(&copies, &btf, needs.files, late)?;
        let mut block = None;
        if needs.bios {
            let wanted =
                Wanted { choice: request.backend, delays: needs.bio_delay, device: request.plan.device() };
            let mut hooks = BlockHooks::arm(&mut loaded, &copies, &btf, &wanted, &mut parking)?;
            // What sees the new is there by now.
            if hooks.may_ask() {
                hooks.serve(&loaded, &copies, &btf, bell::in_use(&request.target)?)?;
            }
            block = Some(hooks);
        }
        let pauser = match needs.pauses {
            true => Some(Pauser::new(&loaded, &request)?),
            false => None,
        };
        let switch = Switch::new(&loaded)?;
        let earlier = Arc::default();
        Ok(Self {
            block,
            files,
            parking,
            pauser,
            namespaces,
            sockets,
            tasks,
            lanes: Vec::new(),
            copies,
            btf,
            rules,
            loaded,
            needs,
            longest_delay,
            request,
            switch,
            earlier,
        })
    }

    /// What goes from phase to phase of a scenario; for a thread of its own, if need be.
    ///
    /// # Errors
    /// When the maps cannot be mapped once more.
    pub fn lever(&self) -> Result<Lever, SessionError> {
        Lever::new(&self.loaded, Arc::clone(&self.earlier))
    }

    /// Makes the session known to the live view.
    fn register(&self, face: SharedFace, told: Told) -> Result<Registration, BeaconError> {
        let map = find(&self.loaded.ebpf, "RULE_COUNTERS")?;
        beacon::register(beacon::Subject {
            switch: Arc::clone(&self.switch),
            counters: CounterBlock::new(map).map_err(LoadError::from)?,
            earlier: Arc::clone(&self.earlier),
            told,
            seed: self.request.plan.seed,
            duration: self.request.plan.duration,
            face,
        })
    }

    /// What others see of the rules in force.
    pub(super) fn face(&self) -> Face {
        let Request { plan, target, .. } = &self.request;
        let bank = self.loaded.control.bank();
        Face { target: target.to_string(), bank, rules: plan.rules.iter().map(RuleFace::new).collect() }
    }

    /// What was planned.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.request.plan
    }

    /// One store, and faults happen.
    ///
    /// # Errors
    /// When events were asked for and cannot be had.
    pub fn activate(mut self) -> Result<super::Active, SessionError> {
        let writer = self.request.events.take();
        let face = SharedFace::new(self.face());
        let told = match &writer {
            Some(writer) => Told::Written(writer.recent()),
            None => Told::Watched(Box::new(Audience::new(&mut self.loaded, face.clone())?)),
        };
        let events = writer.map(|writer| Events::new(&mut self.loaded.ebpf, writer)).transpose()?;
        let bell = match &self.block {
            Some(block) if block.may_ask() => Some(Bell::new(&mut self.loaded.ebpf)?),
            _ => None,
        };
        // Whoever began while it was armed.
        self.serve()?;
        let now = monotonic_ns();
        let control = &self.loaded.control;
        control.heartbeat_ns.store(now);
        control.started_ns.store(now);
        control.deadline_ns.store(deadline(now, self.request.plan.duration));
        self.switch.on();
        let registered = self.register(face, told);
        Ok(super::Active::new(self, events, bell, registered))
    }
}

/// Where the target's paths lead, if a rule asks.
fn places(needs: Needs, target: &Target) -> Result<Vec<Place>, SessionError> {
    if !needs.globs {
        return Ok(Vec::new());
    }
    Ok(places::of(&target.snapshot()?.members)?)
}

/// When `--for` ends, in nanoseconds of the monotonic clock.
fn deadline(now: u64, duration: Option<Duration>) -> u64 {
    duration.map_or(u64::MAX, |duration| {
        now.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    })
}
