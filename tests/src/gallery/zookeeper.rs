//! A ZooKeeper ensemble of Debian's package: three servers, each on a host of its own, which is a network namespace on a
//! switch, and their clients on a fourth.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    net_lab::{in_namespace, sh},
    process::Ended,
};

/// How long the servers may take to agree, three virtual machines of Java on an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Which servers there are.
const IDS: [u8; 3] = [1, 2, 3];
/// Where the followers connect to the leader, for the stream of changes.
const STREAM_PORT: u16 = 2888;
/// Where the clients are.
const CLIENTS: &str = "ft-zk-clients";
/// The server and a logger for it, as Debian has them.
const CLASSES: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";

fn namespace(id: u8) -> String {
    format!("ft-zk-{id}")
}

/// A server's address.
#[must_use]
pub fn address(id: u8) -> String {
    format!("10.78.0.{id}")
}

/// The hosts and the switch between them.
struct Hosts;

impl Hosts {
    fn new() -> anyhow::Result<Self> {
        for name in IDS.map(namespace).iter().map(String::as_str).chain([CLIENTS]) {
            // Of a run that was killed.
            if Path::new("/run/netns").join(name).exists() {
                sh(&format!("ip netns del {name}"))?;
            }
        }
        let hosts = Self;
        for line in [
            format!("ip netns add {CLIENTS}"),
            format!("ip -n {CLIENTS} link add switch type bridge"),
            format!("ip -n {CLIENTS} addr add 10.78.0.254/24 dev switch"),
            format!("ip -n {CLIENTS} link set switch up"),
        ] {
            sh(&line)?;
        }
        for id in IDS {
            let (host, address) = (namespace(id), address(id));
            for line in [
                format!("ip netns add {host}"),
                format!("ip -n {CLIENTS} link add port{id} type veth peer name eth0 netns {host}"),
                format!("ip -n {CLIENTS} link set port{id} master switch up"),
                format!("ip -n {host} addr add {address}/24 dev eth0"),
                format!("ip -n {host} link set eth0 up"),
                format!("ip -n {host} link set lo up"),
            ] {
                sh(&line)?;
            }
        }
        Ok(hosts)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in IDS.map(namespace).iter().map(String::as_str).chain([CLIENTS]) {
            if let Err(error) = sh(&format!("ip netns del {name}")) {
                eprintln!("removing a host: {error}");
            }
        }
    }
}

/// One of them, ended when dropped.
struct Server {
    process: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts server `id` with its files in `directory`. The settings are those of Debian's example, but for the
    /// four-letter words, which are not allowed there, and the web server of the administrators, which is not needed.
    fn start(id: u8, directory: &Path) -> anyhow::Result<Self> {
        let data = directory.join("data");
        fs::create_dir_all(&data)?;
        fs::write(data.join("myid"), id.to_string())?;
        let servers: String =
            IDS.map(|id| format!("server.{id}={}:{STREAM_PORT}:3888\n", address(id))).concat();
        let configuration = format!(
            "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort=2181\n\
             4lw.commands.whitelist=ruok,srvr,mntr\nadmin.enableServer=false\n{servers}",
            data.display()
        );
        let file = directory.join("zoo.cfg");
        fs::write(&file, configuration)?;
        let log = fs::OpenOptions::new().append(true).create(true).open(directory.join("log"))?;
        let mut command = in_namespace(&namespace(id), "java");
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", CLASSES]);
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(&file);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Self { process, directory: directory.to_owned() })
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(self.process.id() as i32), signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All three. What the scenario calls them is settled when they have elected a leader.
pub struct Ensemble {
    // Ended before their hosts go.
    servers: [Server; 3],
    /// The id of the leader.
    pub leader: u8,
    /// The id of a follower.
    pub follower: u8,
    /// The id of the other one.
    pub learner: u8,
    _hosts: Hosts,
}

impl Ensemble {
    /// Starts them with their files in `place`, and waits until all of them serve.
    ///
    /// # Errors
    /// When they do not.
    pub fn start(place: &Path) -> anyhow::Result<Self> {
        let hosts = Hosts::new()?;
        let server = |id: u8| Server::start(id, &place.join(id.to_string()));
        let servers = [server(1)?, server(2)?, server(3)?];
        let mut ensemble = Self { servers, leader: 0, follower: 0, learner: 0, _hosts: hosts };
        for id in IDS {
            ensemble.serves(id)?;
        }
        let modes = IDS.map(|id| (id, mode(id)));
        let leads = |(_, mode): &&(u8, Option<String>)| mode.as_deref() == Some("leader");
        ensemble.leader = modes.iter().find(leads).with_context(|| format!("no leader: {modes:?}"))?.0;
        let mut others = IDS.into_iter().filter(|id| *id != ensemble.leader);
        (ensemble.learner, ensemble.follower) =
            (others.next().context("three")?, others.next().context("three")?);
        Ok(ensemble)
    }

    fn server(&self, id: u8) -> &Server {
        &self.servers[usize::from(id) - 1]
    }

    /// The PID of a server.
    #[must_use]
    pub fn pid(&self, id: u8) -> String {
        self.server(id).process.id().to_string()
    }

    /// Sends a signal to a server.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, id: u8, signal: Signal) -> anyhow::Result<()> {
        self.server(id).signal(signal)
    }

    /// Ends a server and takes away all it knew: a machine that lost its disk.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn lose(&mut self, id: u8) -> anyhow::Result<()> {
        let server = &mut self.servers[usize::from(id) - 1];
        server.process.kill()?;
        server.process.wait()?;
        Ok(fs::remove_dir_all(server.directory.join("data"))?)
    }

    /// Starts such a server again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn rejoin(&mut self, id: u8) -> anyhow::Result<()> {
        let server = &mut self.servers[usize::from(id) - 1];
        *server = Server::start(id, &server.directory)?;
        Ok(())
    }

    /// Waits until a server serves; how long that took.
    ///
    /// # Errors
    /// When it does not; with the end of its log.
    pub fn serves(&self, id: u8) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        while mode(id).is_none() {
            if begin.elapsed() > PATIENCE {
                let log = self.log(id)?;
                let end: Vec<&str> = log.lines().rev().take(30).collect();
                anyhow::bail!("server {id} does not serve; its log, from the end: {end:#?}");
            }
            thread::sleep(Duration::from_millis(300));
        }
        Ok(begin.elapsed())
    }

    /// How many followers serve.
    #[must_use]
    pub fn followers(&self) -> usize {
        IDS.into_iter().filter(|&id| mode(id).as_deref() == Some("follower")).count()
    }

    /// What a server said, also about its threads.
    fn log(&self, id: u8) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.server(id).directory.join("log"))?)
    }

    /// The stacks of a server's threads whose names begin with `name`, with the locks they hold.
    ///
    /// # Errors
    /// When it does not tell.
    pub fn stacks(&self, id: u8, name: &str) -> anyhow::Result<Vec<String>> {
        let before = self.log(id)?.len();
        self.signal(id, Signal::SIGQUIT)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let log = self.log(id)?;
            // The end of what it tells.
            if log[before..].contains("Metaspace") {
                let name = format!("\"{name}");
                let all = log[before..].split("\n\n");
                return Ok(all.filter(|stack| stack.starts_with(&name)).map(str::to_owned).collect());
            }
            ensure!(Instant::now() < deadline, "server {id} does not tell its threads");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The answer of a server to one of the four-letter words, empty if there is none.
fn word(id: u8, word: &str) -> anyhow::Result<String> {
    let mut nc = clients("nc");
    nc.args(["-w", "5", &address(id), "2181"]);
    Ok(Ended::with_input(&mut nc, word.as_bytes())?.stdout)
}

/// `leader`, `follower`, or nothing from a server that does not serve.
fn mode(id: u8) -> Option<String> {
    let answer = word(id, "srvr").ok()?;
    Some(answer.lines().find_map(|line| line.strip_prefix("Mode: "))?.to_owned())
}

/// A number that a server has for those who watch it.
///
/// # Errors
/// When it does not have it.
pub fn monitored(id: u8, name: &str) -> anyhow::Result<u64> {
    let answer = word(id, "mntr")?;
    let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    value.with_context(|| format!("no {name}: {answer}"))?.trim().parse().context("a number")
}

/// Bytes that wait in the leader's sockets to a learner, the one for each attempt of the learner.
///
/// # Errors
/// When ss(8) does not tell.
pub fn unsent(leader: u8, learner: u8) -> anyhow::Result<Vec<u64>> {
    let mut ss = in_namespace(&namespace(leader), "ss");
    ss.args(["-Htn", "sport", "=", &format!(":{STREAM_PORT}"), "and", "dst", &address(learner)]);
    let ended = Ended::of(&mut ss)?;
    ensure!(ended.status.success(), "{ended:?}");
    let third = |line: &str| line.split_whitespace().nth(2)?.parse().ok();
    ended.stdout.lines().map(|line| third(line).with_context(|| line.to_owned())).collect()
}

/// `program` where the clients are.
#[must_use]
pub fn clients(program: &str) -> Command {
    in_namespace(CLIENTS, program)
}
