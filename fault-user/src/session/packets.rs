//! Packet faults, armed: one [`Namespace`] for each network namespace the target lives in.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    thread,
    time::Instant,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap},
};
use fault_common::{
    limits::{BANKS, MAX_INTERFACES_PER_NETNS, MAX_NETNS},
    rule::net::Direction,
    who::{Interface as InterfaceEntry, LaneExit, exit_key, interface_key},
};

use super::{
    error::SessionError,
    keeper::Keeper,
    plan::{Needs, Plan},
    residue::Leftover,
    rules,
};
use crate::{
    kernel::{
        btf::Btf,
        modify_return::{Copies, Kind},
        patch::Constant,
        plain::Plain,
    },
    net::{
        self,
        attach::{self, Hook, Request},
        cutter::{Cutter, Kind as Cut},
        error::NetError,
        interfaces::{self, Change, Interface, LinkLayer, Watcher},
        lane::{Lane, LaneStats},
        netns::NetnsHandle,
        session_bit::SessionBit,
    },
    spec::{Fault, NetFault, NetFilter},
};

/// One network namespace the session is attached to.
///
/// Field order is the order of dropping: hooks first, the lane last, so that nothing is sent into devices that
/// are gone.
pub(super) struct Namespace {
    /// By interface index.
    hooks: BTreeMap<u32, Vec<Hook>>,
    /// Names of the interfaces, by index.
    names: BTreeMap<u32, String>,
    egress: OwnedFd,
    /// Nothing when no rule concerns what comes in: each hook more is a grace period more at arming and at healing.
    ingress: Option<OwnedFd>,
    /// Changes of interfaces while the session lives.
    pub(super) watcher: Watcher,
    cutter: Option<Cutter>,
    lane: Option<Lane>,
    bit: SessionBit,
    pub(super) netns: NetnsHandle,
    /// Since when nobody of the target has lived here.
    pub(super) vacant: Option<Instant>,
    number: u32,
    /// Slots of the packet tag given out so far.
    slots: u32,
}

impl Namespace {
    /// Loads copies of the net programs for namespace `number`, makes its lane if the session `needs` one, and
    /// attaches to every interface.
    pub(super) fn attach(
        ebpf: &mut Ebpf,
        copies: &Copies,
        btf: &Btf,
        plan: &Plan,
        needs: Needs,
        (number, netns): (u32, NetnsHandle),
        keeper: &Keeper,
    ) -> Result<Self, SessionError> {
        let bit = SessionBit::claim(&netns)?;
        // The watcher before the list: nothing that appears in between is missed.
        let watcher = Watcher::new(&netns)?;
        let mut lane = if needs.packet_delay { Some(Lane::new(&netns)?) } else { None };
        let mut cutter = cutter(&netns, needs)?;
        let constants = [
            (Constant::NetnsNumber, number),
            (Constant::SessionBit, bit.bit()),
            (Constant::LaneEntry, lane.as_ref().map_or(0, Lane::entry)),
            (Constant::CutterEntry, cutter.as_ref().map_or(0, Cutter::entry)),
            (Constant::CutterTags, cutter.as_ref().is_some_and(Cutter::tags).into()),
        ];
        let load = |name| copies.load(btf, name, Kind::Classifier, &constants);
        let outwards = if copies.are_told(Constant::SocketStorage) { "net_egress" } else { "net_egress_any" };
        let found = interfaces::list(&netns)?;
        let load_and_hook = |name, direction| -> Result<(OwnedFd, Vec<Hook>), SessionError> {
            let program = load(name)?;
            let hooks = hook(&netns, &bit, &found, &[(direction, program.as_fd())], keeper)?;
            Ok((program, hooks))
        };
        // The verifier takes tens of milliseconds for each program, and does not make one wait for the other; attaching
        // waits for a grace period each, and uses no processor meanwhile. Nothing is injected before all is in place.
        let (egress, ingress, opened) = thread::scope(|scope| {
            let egress = scope.spawn(|| load_and_hook(outwards, Direction::Out));
            let opened = scope.spawn(|| -> Result<(), SessionError> {
                match &mut cutter {
                    Some(cutter) => Ok(cutter.open(bit.bit(), load("net_segment")?.as_fd())?),
                    None => Ok(()),
                }
            });
            let ingress = needs.packets_in.then(|| load_and_hook("net_ingress", Direction::In)).transpose();
            (joined(egress), ingress, joined(opened))
        });
        let (egress, ingress) = (egress?, ingress?);
        opened?;
        if let Some(lane) = &mut lane {
            lane.open(bit.bit(), load("lane_exit")?.as_fd())?;
        }
        let (ingress, inwards) = ingress.unzip();
        let mut namespace = Self {
            hooks: BTreeMap::new(),
            names: BTreeMap::new(),
            egress: egress.0,
            ingress,
            watcher,
            cutter,
            lane,
            bit,
            netns,
            vacant: None,
            number,
            slots: 0,
        };
        for interface in &found {
            namespace.describe(ebpf, plan, interface)?;
        }
        namespace.keep(egress.1.into_iter().chain(inwards.unwrap_or_default()));
        Ok(namespace)
    }

    /// Remembers hooks by interface.
    fn keep(&mut self, hooks: impl IntoIterator<Item = Hook>) {
        for hook in hooks {
            self.hooks.entry(hook.interface()).or_default().push(hook);
        }
    }

    /// Attaches to interfaces that are not attached yet.
    fn add(
        &mut self,
        ebpf: &mut Ebpf,
        plan: &Plan,
        found: &[Interface],
        keeper: &Keeper,
    ) -> Result<(), SessionError> {
        let new: Vec<&Interface> =
            found.iter().filter(|interface| !self.hooks.contains_key(&interface.index)).collect();
        for interface in &new {
            self.describe(ebpf, plan, interface)?;
        }
        let programs: Vec<_> = std::iter::once((Direction::Out, self.egress.as_fd()))
            .chain(self.ingress.iter().map(|program| (Direction::In, program.as_fd())))
            .collect();
        let hooks = hook(&self.netns, &self.bit, new, &programs, keeper)?;
        self.keep(hooks);
        Ok(())
    }

    /// Tells the programs about an interface: its slot in the tag, which rules name it, where the lane ends.
    fn describe(&mut self, ebpf: &mut Ebpf, plan: &Plan, interface: &Interface) -> Result<(), SessionError> {
        if self.slots >= MAX_INTERFACES_PER_NETNS {
            return Err(NetError::TooManyInterfaces {
                interfaces: MAX_INTERFACES_PER_NETNS,
                netns: self.netns.inode(),
            }
            .into());
        }
        let slot = self.slots;
        self.slots += 1;
        self.names.insert(interface.index, interface.name.clone());
        let named = rules::naming(plan, &interface.name);
        // Our devices speak Ethernet: a packet without that header cannot take them.
        let (has_lane, has_cutter) = match interface.layer {
            LinkLayer::Ethernet => (self.lane.is_some(), self.cutter.is_some()),
            LinkLayer::Other(_) => (false, false),
        };
        let entry = InterfaceEntry {
            slot,
            loopback: interface.loopback.into(),
            has_lane: has_lane.into(),
            has_cutter: has_cutter.into(),
            rules: [named; BANKS],
        };
        let map = ebpf.map_mut("INTERFACES").ok_or(SessionError::NoMap("INTERFACES"))?;
        let mut map: HashMap<_, u64, Plain<InterfaceEntry>> =
            HashMap::try_from(map).map_err(SessionError::map("INTERFACES"))?;
        map.insert(interface_key(self.number, interface.index), Plain(entry), 0)
            .map_err(SessionError::map("INTERFACES"))?;
        let map = ebpf.map_mut("LANE_EXITS").ok_or(SessionError::NoMap("LANE_EXITS"))?;
        let mut map: Array<_, Plain<LaneExit>> =
            Array::try_from(map).map_err(SessionError::map("LANE_EXITS"))?;
        let exit = LaneExit { ifindex: interface.index, loopback: interface.loopback.into() };
        map.set(exit_key(self.number, slot), Plain(exit), 0).map_err(SessionError::map("LANE_EXITS"))
    }

    /// Follows a change of the namespace's interfaces.
    pub(super) fn follow(
        &mut self,
        ebpf: &mut Ebpf,
        plan: &Plan,
        change: Change,
        keeper: &Keeper,
    ) -> Result<(), SessionError> {
        match change {
            Change::Present(interface) => self.add_each(ebpf, plan, &[interface], keeper),
            Change::Gone(index) => {
                self.hooks.remove(&index);
                Ok(())
            }
            Change::Lost => {
                let found = interfaces::list(&self.netns)?;
                self.hooks.retain(|index, _| found.iter().any(|interface| interface.index == *index));
                self.add_each(ebpf, plan, &found, keeper)
            }
        }
    }

    /// As [`Namespace::add`], one by one: an interface that is gone again by now is no reason to end the session, nor to
    /// leave out the others.
    fn add_each(
        &mut self,
        ebpf: &mut Ebpf,
        plan: &Plan,
        found: &[Interface],
        keeper: &Keeper,
    ) -> Result<(), SessionError> {
        for interface in found {
            match self.add(ebpf, plan, std::slice::from_ref(interface), keeper) {
                Err(error) if error.is_vanished_device() => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// The namespace.
    pub(super) const fn netns(&self) -> &NetnsHandle {
        &self.netns
    }

    /// Its number in this session.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Makes the kernel forget its interfaces: the number will be another namespace's.
    pub(super) fn forget(&self, ebpf: &mut Ebpf) -> Result<(), SessionError> {
        let map = ebpf.map_mut("INTERFACES").ok_or(SessionError::NoMap("INTERFACES"))?;
        let mut map: HashMap<_, u64, Plain<InterfaceEntry>> =
            HashMap::try_from(map).map_err(SessionError::map("INTERFACES"))?;
        for index in self.names.keys() {
            SessionError::removed("INTERFACES", map.remove(&interface_key(self.number, *index)))?;
        }
        Ok(())
    }

    /// Writes which rules of `plan` name which interface into `bank`.
    pub(super) fn rename(&self, ebpf: &mut Ebpf, plan: &Plan, bank: u32) -> Result<(), SessionError> {
        for (index, name) in &self.names {
            rules::rename(ebpf, interface_key(self.number, *index), bank, rules::naming(plan, name))?;
        }
        Ok(())
    }

    /// Counters of the lane, if there is one.
    pub(super) fn lane_stats(&mut self) -> Result<Option<LaneStats>, NetError> {
        self.lane.as_mut().map(Lane::stats).transpose()
    }

    /// Takes the hooks off, says what could not be, and then removes the lane.
    pub(super) fn detach(mut self, keeper: &Keeper) -> Result<(), SessionError> {
        let mut result = Ok(());
        for hook in std::mem::take(&mut self.hooks).into_values().flatten() {
            let leftover = hook.leftover();
            let detached = hook.detach().map_err(SessionError::from);
            if let (Ok(()), Some(leftover)) = (&detached, leftover) {
                keeper.withdraw(&Leftover::Net(leftover))?;
            }
            result = result.and(detached);
        }
        result
    }
}

/// The cutter, if the plan needs one.
fn cutter(netns: &NetnsHandle, needs: Needs) -> Result<Option<Cutter>, SessionError> {
    if needs.checksum {
        return Ok(Some(Cutter::new(netns, Cut::Checksums)?));
    }
    if !needs.cut {
        return Ok(None);
    }
    match Cutter::new(netns, Cut::Segments) {
        Ok(cutter) => Ok(Some(cutter)),
        // Then a super-packet is one packet to the decision, and the report says so.
        Err(NetError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Attaches each of `programs` to each of `interfaces`.
fn hook<'a>(
    netns: &NetnsHandle,
    bit: &SessionBit,
    interfaces: impl IntoIterator<Item = &'a Interface>,
    programs: &[(Direction, BorrowedFd<'a>)],
    keeper: &Keeper,
) -> Result<Vec<Hook>, SessionError> {
    let requests: Vec<_> = interfaces
        .into_iter()
        .flat_map(|interface| {
            programs.iter().map(move |&(direction, program)| Request { interface, direction, program })
        })
        .collect();
    let announce = |leftover: &net::leftover::Leftover| -> Result<(), SessionError> {
        Ok(keeper.announce(&Leftover::Net(leftover.clone()))?)
    };
    attach::attach(netns, bit.bit(), &requests, announce)
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Refuses an `iface NAME` that none of the target's namespaces has, or that cannot do what its fault asks for.
///
/// # Errors
/// Names the interface and those there are.
pub fn check_interfaces<'a>(
    plan: &Plan,
    namespaces: impl IntoIterator<Item = &'a NetnsHandle>,
) -> Result<(), SessionError> {
    if plan.net_filters().all(|(_, filter)| filter.iface.is_none()) {
        return Ok(());
    }
    let lists: Result<Vec<_>, _> = namespaces.into_iter().map(interfaces::list).collect();
    let lists = lists?;
    for (_, filter) in plan.net_filters() {
        if let Some(name) = &filter.iface {
            interfaces::named(&name.value, &lists)?;
        }
    }
    for planned in &plan.rules {
        let Fault::Net(NetFault { filter: NetFilter { iface: Some(name), .. }, .. }) = &planned.fault else {
            continue;
        };
        let what = match (planned.waits(), planned.is_checksummed()) {
            (true, _) => "delayed",
            (false, true) => "corrupted",
            (false, false) => continue,
        };
        let found = interfaces::named(&name.value, &lists)?;
        if found.iter().all(|(_, interface)| matches!(interface.layer, LinkLayer::Other(_))) {
            return Err(NetError::NoEthernet { name: name.value.clone(), what }.into());
        }
    }
    Ok(())
}

/// Numbers the namespaces of the target.
pub(super) fn numbered(namespaces: Vec<NetnsHandle>) -> Result<Vec<(u32, NetnsHandle)>, NetError> {
    if namespaces.len() > MAX_NETNS as usize {
        return Err(NetError::TooManyNamespaces { namespaces: namespaces.len(), limit: MAX_NETNS });
    }
    Ok((0u32..).zip(namespaces).collect())
}
