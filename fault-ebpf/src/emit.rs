//! Telling userspace: counters and events.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use fault_common::{
    counters::Counter,
    event::{BioEvent, COMM_LEN, Event, PacketEvent},
    rule::Layer,
};

use crate::maps::{CONTROL, COUNTERS, EVENTS};

/// Counts on this CPU.
#[inline(always)]
pub fn count(what: Counter) {
    count_by(what, 1);
}

/// Counts `number` on this CPU.
#[inline(always)]
pub fn count_by(what: Counter, number: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(what as u32) {
        // SAFETY: a value of this CPU; a program that interrupts this one may cost a count, nothing else.
        unsafe { *counter = (*counter).wrapping_add(number) };
    }
}

/// There was no room for an event. Whoever only looks on does without.
#[inline(always)]
pub fn lost() {
    if let Some(control) = CONTROL.get(0)
        && control.tells_all()
    {
        count(Counter::EventsLost);
    }
}

/// What packets and bios have in common.
pub struct What {
    pub time_ns: u64,
    pub hits: u64,
    pub delay_ns: u64,
    pub cgroup: u64,
    pub generation: u32,
    pub action: u32,
    pub tgid: u32,
    pub bytes: u32,
}

/// Puts a packet's event into the ring. Whoever runs while it passes need not be its sender.
#[inline(always)]
pub fn packet(what: &What, packet: &PacketEvent) {
    submit(what, Layer::Net, 0, [0; COMM_LEN], packet, &BioEvent { sector: 0, device: 0, ops: 0 });
}

/// Puts the event of a bio into the ring; the running task submits it.
#[inline(always)]
pub fn bio(what: &What, bio: &BioEvent) {
    let packet = PacketEvent {
        local: [0; 16],
        remote: [0; 16],
        local_port: 0,
        remote_port: 0,
        direction: 0,
        protocol: 0,
        ifindex: 0,
    };
    let comm = bpf_get_current_comm().unwrap_or_default();
    submit(what, Layer::Disk, bpf_get_current_pid_tgid() as u32, comm, &packet, bio);
}

#[inline(always)]
fn submit(what: &What, layer: Layer, pid: u32, comm: [u8; COMM_LEN], packet: &PacketEvent, bio: &BioEvent) {
    let Some(mut entry) = EVENTS.reserve_untyped::<Event>(0) else {
        lost();
        return;
    };
    entry.write(Event {
        time_ns: what.time_ns,
        hits: what.hits,
        delay_ns: what.delay_ns,
        cgroup: what.cgroup,
        generation: what.generation,
        layer: layer as u32,
        action: what.action,
        tgid: what.tgid,
        pid,
        bytes: what.bytes,
        comm,
        packet: *packet,
        bio: *bio,
    });
    entry.submit(0);
}
