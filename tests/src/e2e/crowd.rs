//! The service: two hundred clients that make and delete sessions, most of whom are told to wait.

use std::{
    collections::BTreeSet,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Lane, Test};
use crate::{disk_lab::BARE, process::Process, service_lab::Service};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "crowd::two_hundred_clients_at_once", on: Lane::tests_the_controller, run: at_once },
    Test { name: "crowd::two_hundred_clients_of_every_layer", on: on_newest, run: of_every_layer },
];

/// Where every layer can be armed.
fn on_newest(lane: Lane) -> bool {
    matches!(lane, Lane::Fault)
}

const CLIENTS: usize = 200;
/// More clients than that wait.
const AT_ONCE: &str = "8";

/// When the clients stop.
#[derive(Clone, Copy)]
enum Until {
    /// So many sessions were made.
    Made(usize),
    /// It is that late.
    Time(Instant),
}

struct Crowd {
    service: Service,
    /// At whom all sessions aim.
    target: Process,
    /// A layer and a fault each.
    faults: Vec<(&'static str, String)>,
    made: AtomicUsize,
    told_to_wait: AtomicUsize,
}

impl Crowd {
    fn new(faults: Vec<(&'static str, String)>) -> anyhow::Result<Self> {
        let service = Service::start(&["--max-sessions", AT_ONCE])?;
        let target = Process::start(Command::new("sleep").arg("600"))?;
        Ok(Self { service, target, faults, made: AtomicUsize::new(0), told_to_wait: AtomicUsize::new(0) })
    }

    fn is_over(&self, until: Until) -> bool {
        match until {
            Until::Made(sessions) => self.made.load(Ordering::Relaxed) >= sessions,
            Until::Time(time) => Instant::now() >= time,
        }
    }

    /// The ids of the sessions it made.
    fn client(&self, number: usize, until: Until) -> anyhow::Result<Vec<String>> {
        let pid: u32 = self.target.pid().parse()?;
        let mut ids = Vec::new();
        while !self.is_over(until) {
            let number = number + ids.len();
            let (layer, fault) = &self.faults[number % self.faults.len()];
            let request = json!({"pid": [pid], *layer: [fault], "seed": number}).to_string();
            let (status, answer) = self.service.ask_quickly("POST", "/v1/sessions", &request)?;
            if status == 503 {
                let code = &answer["error"]["code"];
                ensure!(code == "too_many_sessions" || code == "busy", "{answer}");
                self.told_to_wait.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(500));
                continue;
            }
            ensure!(status == 201 && answer["seed"] == number, "{status} {answer}");
            self.made.fetch_add(1, Ordering::Relaxed);
            let id = answer["id"].as_str().context("no id")?.to_owned();
            let (status, report) = self.service.ask_quickly("DELETE", &format!("/v1/sessions/{id}"), "")?;
            ensure!(status == 200 && report["session"]["seed"] == number, "{status} {report}");
            ids.push(id);
        }
        Ok(ids)
    }

    /// All clients at once; the ids of all sessions they made.
    fn come(&self, until: Until) -> anyhow::Result<Vec<String>> {
        self.made.store(0, Ordering::Relaxed);
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|number| scope.spawn(move || self.client(number, until))).collect();
            let mut ids = Vec::new();
            for client in clients {
                ids.extend(client.join().map_err(|_| anyhow::anyhow!("a client"))??);
            }
            Ok(ids)
        })
    }

    /// Nobody got what another one asked for, everything has gone, and the service holds no more descriptors and hardly more
    /// memory than after the first of two such crowds: what it keeps for later is no leak.
    ///
    /// `most` is by how many bytes. What lies between what is kept and what is free cannot be given back, and how much that is
    /// depends on how the threads of a crowd fell together.
    fn twice(
        self,
        first: Until,
        second: impl FnOnce() -> Until,
        least: usize,
        most: u64,
    ) -> anyhow::Result<()> {
        let mut ids = self.come(first)?;
        let before = self.service.settled(0)?;
        let later = self.come(second())?;
        let after = self.service.settled(before.descriptors)?;
        eprintln!("  {} and {} sessions; {before:?}, then {after:?}", ids.len(), later.len());
        ensure!(later.len() >= least, "only {} sessions", later.len());
        ids.extend(later);
        let sum = ids.len();
        let different: BTreeSet<_> = ids.into_iter().collect();
        ensure!(different.len() == sum, "{sum} sessions, {} ids", different.len());
        let told = self.told_to_wait.load(Ordering::Relaxed);
        ensure!(told >= CLIENTS, "hardly anybody was told to wait: {told}");
        ensure!(after.descriptors == before.descriptors, "{before:?} before, {after:?} after");
        let grown = after.resident.saturating_sub(before.resident);
        ensure!(grown < most, "{before:?} before, {after:?} after");
        let left: Value = self.service.json("GET", "/v1/sessions", None, 200)?;
        ensure!(left == json!({"sessions": []}), "sessions are left: {left}");
        self.service.end()
    }
}

/// Of sessions that drop packets, six fit one network namespace: those have to wait for each other, too.
fn at_once(_: Lane) -> anyhow::Result<()> {
    const SESSIONS: usize = 48;
    let refuse = || ("net", "refuse port 1".to_owned());
    let crowd = Crowd::new(vec![("net", "drop port 1".to_owned()), refuse(), refuse(), refuse()])?;
    // One session holds more than a megabyte as long as it lives.
    crowd.twice(Until::Made(SESSIONS), || Until::Made(SESSIONS), SESSIONS, SESSIONS as u64 * 512 * 1024)
}

/// The same, by the clock, with every layer. Half a minute is enough for every day; a whole one was tried by hand.
fn of_every_layer(_: Lane) -> anyhow::Result<()> {
    let crowd = Crowd::new(vec![
        ("net", "drop port 1".to_owned()),
        ("disk", format!("error read on {BARE}")),
        ("net", "refuse port 1".to_owned()),
        ("file", "error EIO fsync".to_owned()),
        ("net", "delay 10ms out port 1".to_owned()),
        ("disk", format!("delay 10ms read on {BARE}")),
    ])?;
    let from_now = |seconds| Until::Time(Instant::now() + Duration::from_secs(seconds));
    crowd.twice(from_now(10), || from_now(30), 6, 64 << 20)
}
