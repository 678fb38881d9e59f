//! `--events`.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use fault_common::{
    event::{Action, BioEvent, Event, FileEvent, PacketEvent},
    limits::EVENT_PATH_BYTES,
    rule::{Layer, block::op, file, net::Direction},
};
use proptest::prelude::*;
use serde_json::Value;

use crate::report::{
    events::{Clock, EventWriter, Names, NoEvent, SystemNames, parse},
    output::Destination,
};

use super::golden;

/// What was written, readable while the writer lives.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

struct TestNames;

impl Names for TestNames {
    fn path(&mut self, device: u32, inner: &[u8]) -> Option<Vec<u8>> {
        (device == 8 << 20 | 1).then(|| [b"/data", inner].concat())
    }

    fn device(&mut self, dev: u32) -> String {
        format!("disk{}p{}", dev >> 20, dev & 0xf_ffff)
    }

    fn process(&mut self, pid: u32) -> Option<String> {
        (pid == 4713).then(|| "nginx".to_owned())
    }

    fn cgroup(&mut self, id: u64) -> Option<String> {
        (id == 77).then(|| "/test.slice".to_owned())
    }
}

fn writer() -> (EventWriter, Shared) {
    let out = Shared::default();
    // 2026-11-20 08:54:31.000000000 UTC at 0.
    let clock = Clock { offset_ns: 1_795_164_871_000_000_000 };
    // Generation 1 holds the faults in the order 2, 0, 1.
    let rule_of =
        Box::new(|generation, slot: u32| [2, 0, 1].get(slot as usize).copied().filter(|_| generation == 1));
    let writer =
        EventWriter::new(Box::new(out.clone()), Destination::Stdout, clock, rule_of, Box::new(TestNames));
    (writer, out)
}

fn bytes(event: &Event) -> Vec<u8> {
    // SAFETY: an event has no implicit padding (`fault_common::event` asserts its size).
    unsafe { std::slice::from_raw_parts((&raw const *event).cast::<u8>(), size_of::<Event>()) }.to_vec()
}

fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

fn mapped(address: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets()
}

fn packet() -> Event {
    Event {
        time_ns: 1_500_000_001,
        hits: 0b010,
        generation: 1,
        layer: Layer::Net as u32,
        action: Action::Drop as u32,
        tgid: 4711,
        pid: 4712,
        cgroup: 77,
        bytes: 1514,
        comm: comm("curl"),
        packet: PacketEvent {
            local: mapped([10, 0, 0, 1]),
            remote: mapped([10, 0, 0, 7]),
            local_port: 40000,
            remote_port: 5432,
            direction: Direction::Out as u32,
            protocol: 6,
            ifindex: 3,
        },
        ..Event::default()
    }
}

fn bio() -> Event {
    Event {
        time_ns: 2_000_000_000,
        hits: 0b101,
        generation: 1,
        delay_ns: 30_000_000,
        layer: Layer::Disk as u32,
        action: Action::DelayThenError as u32,
        cgroup: 78,
        bytes: 4096,
        bio: BioEvent { sector: 2048, device: 254 << 20 | 16, ops: op::WRITE | op::FLUSH },
        ..Event::default()
    }
}

/// Of `/wal/1` in a file system that is mounted at `/data`, with a path of so many bytes.
fn on_file(length: u32) -> FileEvent {
    let mut path = [b'x'; EVENT_PATH_BYTES];
    path[..6].copy_from_slice(b"1/wal/");
    let event = Event {
        time_ns: 2_000_000_000,
        hits: 0b001,
        generation: 1,
        layer: Layer::File as u32,
        action: Action::Fail as u32,
        tgid: 4711,
        pid: 4711,
        comm: comm("dd"),
        ..Event::default()
    };
    FileEvent { event, ops: file::op::CREATE | file::op::OPEN, errno: 28, device: 8 << 20 | 1, length, path }
}

/// As an item of the ring.
fn bytes_of(event: &FileEvent) -> Vec<u8> {
    // SAFETY: integers and bytes without padding (its size is asserted).
    unsafe { std::slice::from_raw_parts((&raw const *event).cast(), size_of::<FileEvent>()) }.to_vec()
}

#[test]
fn operations_on_files_tell_the_path_as_far_as_it_is_known() {
    let (mut writer, out) = writer();
    let items = [on_file(6), on_file(300), on_file(0)].map(|event| bytes_of(&event));
    assert_eq!(writer.drain(items).unwrap(), 0);
    writer.flush().unwrap();
    golden("file-events.jsonl", &out.text());
}

#[test]
fn golden_lines() {
    let (mut writer, out) = writer();
    let mut ping = packet();
    ping.action = Action::Delay as u32;
    ping.hits = 0b110;
    ping.delay_ns = 100_000_000;
    ping.packet.protocol = 58;
    ping.packet.direction = Direction::In as u32;
    ping.packet.remote = std::net::Ipv6Addr::LOCALHOST.octets();
    (ping.pid, ping.tgid, ping.cgroup, ping.comm) = (0, 0, 0, [0; 16]);
    let mut six = packet();
    six.packet.local = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    six.packet.remote = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets();
    six.packet.protocol = 17;
    six.comm = *b"sixteen-bytes-ok";
    let unknown = Event { generation: 9, ..bio() };
    let nameless = Event { tgid: 4713, pid: 0, comm: [0; 16], ..packet() };
    for event in [packet(), bio(), ping, six, unknown, nameless] {
        writer.write(&event).unwrap();
    }
    assert_eq!(out.text(), "", "buffered");
    writer.flush().unwrap();
    assert_eq!(writer.written(), 6);
    golden("events.jsonl", &out.text());
}

#[test]
fn only_items_of_the_right_length_are_events() {
    let (mut writer, out) = writer();
    let whole = bytes(&packet());
    assert_eq!(parse(&whole), Ok(packet()));
    assert_eq!(parse(&whole[1..]), Err(NoEvent(whole.len() - 1)));
    assert_eq!(parse(&[]), Err(NoEvent(0)));
    // At an odd address.
    let shifted: Vec<u8> = std::iter::once(0).chain(whole.iter().copied()).collect();
    assert_eq!(parse(&shifted[1..]), Ok(packet()));
    let items = vec![whole.clone(), whole[..100].to_vec(), vec![0; 1000], whole];
    assert_eq!(writer.drain(items).unwrap(), 2);
    writer.flush().unwrap();
    assert_eq!(out.text().lines().count(), 2);
}

#[test]
fn a_destination_that_fails_is_named() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut writer = EventWriter::new(
        Box::new(Full),
        Destination::File("/tmp/events".into()),
        Clock { offset_ns: 0 },
        Box::new(|_, _| None),
        Box::new(TestNames),
    );
    writer.write(&packet()).unwrap();
    let error = writer.flush().unwrap_err();
    assert!(error.to_string().starts_with("cannot write the events to /tmp/events: "), "{error}");
}

#[test]
fn names_of_this_machine() {
    let mut names = SystemNames::default();
    // No device has major 4095.
    assert_eq!(names.device(4095 << 20 | 7), "4095:7");
    assert_eq!(names.cgroup(u64::MAX), None);
    let own = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(names.process(std::process::id()).as_deref(), Some(own.trim_end()));
    // Above PID_MAX_LIMIT.
    assert_eq!(names.process(1 << 23), None);
    // Whatever block devices there are: /sys/class/block/NAME/dev says major:minor.
    for entry in std::fs::read_dir("/sys/class/block").unwrap() {
        let path = entry.unwrap().path();
        let numbers = std::fs::read_to_string(path.join("dev")).unwrap();
        let (major, minor) = numbers.trim().split_once(':').unwrap();
        let dev = major.parse::<u32>().unwrap() << 20 | minor.parse::<u32>().unwrap();
        assert_eq!(names.device(dev), path.file_name().unwrap().to_str().unwrap());
    }
}

#[test]
fn cgroups_are_found_by_their_id() {
    use std::os::unix::fs::MetadataExt;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let Some(mount) = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")) else {
        // Without a v2 hierarchy no event carries a cgroup.
        assert_eq!(SystemNames::default().cgroup(1), None);
        return;
    };
    let mount = mount.split(' ').nth(1).unwrap();
    let mut names = SystemNames::default();
    assert_eq!(names.cgroup(std::fs::metadata(mount).unwrap().ino()).as_deref(), Some("/"));
    for entry in std::fs::read_dir(mount).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            let expected = format!("/{}", entry.file_name().to_str().unwrap());
            assert_eq!(names.cgroup(entry.metadata().unwrap().ino()), Some(expected));
        }
    }
}

#[test]
fn the_clock_is_the_machines() {
    let before = jiff::Timestamp::now().as_nanosecond();
    let now = Clock::now().offset_ns + i128::from(crate::kernel::control::monotonic_ns());
    assert!((now - before).abs() < 60_000_000_000, "within a minute even on a busy machine");
}

proptest! {
    #[test]
    fn whatever_the_kernel_sends_is_one_line_of_json(item in prop::collection::vec(any::<u8>(), size_of::<Event>())) {
        let (mut writer, out) = writer();
        prop_assert_eq!(writer.drain([item.clone()]).unwrap(), 0);
        writer.flush().unwrap();
        let text = out.text();
        prop_assert_eq!(text.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        let event = parse(&item).unwrap();
        prop_assert_eq!(value["monotonic_ns"].as_u64(), Some(event.time_ns));
        prop_assert_eq!(value["delay_ns"].as_u64(), Some(event.delay_ns));
    }

    #[test]
    fn packets_and_bios_keep_their_numbers(port: u16, sector: u64, delay_ns: u64, hits in 1..8u64) {
        let (mut writer, out) = writer();
        let mut event = packet();
        event.packet.remote_port = port;
        event.hits = hits;
        writer.write(&event).unwrap();
        let mut event = bio();
        event.bio.sector = sector;
        event.delay_ns = delay_ns;
        writer.write(&event).unwrap();
        writer.flush().unwrap();
        let lines: Vec<Value> = out.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        prop_assert_eq!(lines[0]["remote"].as_str().unwrap(), format!("10.0.0.7:{port}"));
        prop_assert_eq!(lines[0]["rules"].as_array().unwrap().len() as u32, hits.count_ones());
        prop_assert_eq!(lines[1]["sector"].as_u64(), Some(sector));
        prop_assert_eq!(lines[1]["delay_ns"].as_u64(), Some(delay_ns));
    }
}
