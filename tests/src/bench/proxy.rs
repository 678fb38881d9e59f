//! HTTP requests a second past a rule that spares them, and through proxies that spare them: mitmproxy, whose scripts can drop,
//! delay and answer requests as a fault injector does, and haproxy, which only passes bytes on, as fast as a proxy can.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{
    Setting,
    figure::{Figure, Target, median},
};
use crate::{
    driver::Injection,
    net_lab::{NetLab, PEER_V4},
    process::{Ended, Process},
};

const ROUNDS: usize = 7;
const SECONDS: &str = "3";
const CONNECTIONS: &str = "32";
const SERVER_PORT: u16 = 8080;
const HAPROXY_PORT: u16 = 8081;
const MITMPROXY_PORT: u16 = 8082;
/// Decides about every packet and hits none of those that can be sent here.
const SPARES: &str = "drop nth 1000000000000 tcp";

/// What lies between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Nothing,
    Fault,
    Haproxy,
    Mitmproxy,
}

impl By {
    const ALL: [Self; 4] = [Self::Nothing, Self::Fault, Self::Haproxy, Self::Mitmproxy];
}

pub(super) fn run(_: &Setting) -> anyhow::Result<Vec<Figure>> {
    let lab = NetLab::new("bench-proxy")?;
    let directory = tempfile::TempDir::new()?;
    let _server = server(&lab, &directory)?;
    let _haproxy = haproxy(&lab, &directory)?;
    let _mitmproxy = mitmproxy(&lab, &directory)?;
    let mut samples: [Vec<f64>; 4] = Default::default();
    for round in 0..ROUNDS {
        // Each round starts with another, so that a drift favours nobody.
        for step in 0..By::ALL.len() {
            let index = (round + step) % By::ALL.len();
            let rate = requests_a_second(&lab, By::ALL[index])?;
            eprintln!("  {:?}: {rate:.0} requests/s", By::ALL[index]);
            samples[index].push(rate);
        }
    }
    let [nothing, fault, haproxy, mitmproxy] = samples.each_ref().map(|rates| median(rates));
    let added = |rate: f64| 1e6 / rate - 1e6 / nothing;
    Ok(vec![
        Figure::median("requests a second, past `fault` / through mitmproxy", "×", &[fault / mitmproxy])
            .target(Target::AtLeast(10.0)),
        Figure::median("  past `fault` / through haproxy", "×", &[fault / haproxy]),
        Figure::median("  past `fault` / without anything", "×", &[fault / nothing]),
        Figure::median("  through haproxy / without anything", "×", &[haproxy / nothing]),
        Figure::median("  a request takes longer, past `fault`", "µs", &[added(fault)]),
        Figure::median("  a request takes longer, through haproxy", "µs", &[added(haproxy)]),
        Figure::median("  a request takes longer, through mitmproxy", "µs", &[added(mitmproxy)]),
        Figure::median("  without anything", "requests/s", &samples[0]),
        Figure::median("  past `fault`", "requests/s", &samples[1]),
        Figure::median("  through haproxy", "requests/s", &samples[2]),
        Figure::median("  through mitmproxy", "requests/s", &samples[3]),
    ])
}

/// nginx at the peer: one process, an answer from memory, connections that stay.
fn server(lab: &NetLab, directory: &tempfile::TempDir) -> anyhow::Result<Process> {
    let root = directory.path().display();
    let configuration = format!(
        "daemon off; master_process off; user root; pid {root}/pid; error_log {root}/error.log;
         events {{ worker_connections 1024; }}
         http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {root}/b;
                 proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
                 scgi_temp_path {root}/s;
                 server {{ listen {PEER_V4}:{SERVER_PORT}; location / {{ return 200 'ok\\n'; }} }} }}"
    );
    let file = directory.path().join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = lab.in_peer("nginx");
    command.args(["-p", &root.to_string(), "-c", &file.to_string_lossy()]);
    let server = Process::start(&mut command)?;
    answers(lab, &url(By::Nothing)).context("nginx")?;
    Ok(server)
}

/// haproxy beside the client, which looks at nothing: mode tcp.
fn haproxy(lab: &NetLab, directory: &tempfile::TempDir) -> anyhow::Result<Process> {
    let configuration = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         listen nothing\n bind 127.0.0.1:{HAPROXY_PORT}\n server peer {PEER_V4}:{SERVER_PORT}\n"
    );
    let file = directory.path().join("haproxy.cfg");
    fs::write(&file, configuration)?;
    let proxy = Process::start(lab.in_target("haproxy").args(["-db", "-f", &file.to_string_lossy()]))?;
    answers(lab, &url(By::Haproxy)).context("haproxy")?;
    Ok(proxy)
}

/// mitmproxy beside the client, without a script.
fn mitmproxy(lab: &NetLab, directory: &tempfile::TempDir) -> anyhow::Result<Process> {
    let mode = format!("reverse:http://{PEER_V4}:{SERVER_PORT}");
    let configuration = format!("confdir={}", directory.path().display());
    let mut command = lab.in_target("mitmdump");
    command.args(["--quiet", "--set", &configuration, "--mode", &mode, "--listen-host", "127.0.0.1"]);
    let proxy = Process::start(command.args(["--listen-port", &MITMPROXY_PORT.to_string()]))?;
    answers(lab, &url(By::Mitmproxy)).context("mitmproxy")?;
    Ok(proxy)
}

fn url(by: By) -> String {
    match by {
        By::Nothing | By::Fault => format!("http://{PEER_V4}:{SERVER_PORT}/"),
        By::Haproxy => format!("http://127.0.0.1:{HAPROXY_PORT}/"),
        By::Mitmproxy => format!("http://127.0.0.1:{MITMPROXY_PORT}/"),
    }
}

/// Waits until somebody answers there.
fn answers(lab: &NetLab, url: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let ended = Ended::of(lab.in_target("curl").args(["-sS", "--max-time", "2", url]))?;
        if ended.stdout == "ok\n" {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no answer from {url}: {}{}", ended.stdout, ended.stderr);
        thread::sleep(Duration::from_millis(50));
    }
}

/// wrk's: one thread, so many connections that stay.
fn requests_a_second(lab: &NetLab, by: By) -> anyhow::Result<f64> {
    let line = format!("read go; exec wrk -t 1 -c {CONNECTIONS} -d {SECONDS}s {}", url(by));
    let mut client: Command = lab.in_target("sh");
    let mut client = Process::start(client.args(["-c", &line]))?;
    let injection = match by {
        By::Fault => Some(Injection::start(&["--pid", &client.pid(), "--net", SPARES])?),
        By::Nothing | By::Haproxy | By::Mitmproxy => None,
    };
    client.release()?;
    let said = client.text()?;
    if let Some(injection) = injection {
        let report = injection.wait()?;
        let decided = report.rule(0, "matched")?;
        ensure!(decided > 10_000 && report.rule(0, "injected")? == 0, "{}", report.json);
    }
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let rate = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    rate.with_context(|| format!("wrk said {said}"))?.trim().parse().context("wrk's rate")
}
