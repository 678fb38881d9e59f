//! nginx and curl across a veth pair.

use std::{fs, process::Command};

use anyhow::{Context as _, ensure};

use super::{Scene, shell::Shell};
use crate::{
    e2e::Lane,
    net_lab::{NetLab, PEER_V4},
    process::Process,
};

/// Requests per measurement.
const REQUESTS: usize = 20;

/// nginx in the peer's namespace, one small page and one of a megabyte.
struct Nginx {
    _process: Process,
    _directory: tempfile::TempDir,
}

impl Nginx {
    fn start(lab: &NetLab) -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::new()?;
        let root = directory.path().display();
        let html = directory.path().join("html");
        fs::create_dir(&html)?;
        fs::write(html.join("page"), "hello\n")?;
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {root}/{name}; "))
            .concat();
        let configuration = format!(
            "daemon off; user root; pid {root}/pid; error_log {root}/error.log; events {{ }}
             http {{ access_log off; {temporary} server {{ listen {PEER_V4}:80; root {root}/html; }} }}"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = lab.in_peer("nginx");
        command.args(["-p", &root.to_string(), "-c", &file.to_string_lossy()]);
        Ok(Self { _process: Process::start(&mut command)?, _directory: directory })
    }
}

/// Loss on this machine's kernel, delay where there is fq.
pub(super) fn scenes(lane: Lane) -> anyhow::Result<Vec<Scene>> {
    let lab = NetLab::new("demo")?;
    let _nginx = Nginx::start(&lab)?;
    let shell = || Shell::start(lab.in_target("sh"));
    let mut sides = [shell()?, shell()?];
    wait_for_nginx(&mut sides[1])?;
    let mut scenes = Vec::new();
    if lane == Lane::Native {
        let (title, measured) = ("10 % of the packets lost", "echo requests answered");
        scenes.push(Scene::play(title, measured, "--net", "drop 10%", &mut sides, ping)?);
        let (title, measured) = ("10 % of the packets lost, seen by curl", "20 requests: median, slowest");
        scenes.push(Scene::play(title, measured, "--net", "drop 10%", &mut sides, curl)?);
    }
    if lane.has_packet_delay() {
        scenes.push(Scene::play(
            "packets 100 ms ± 20 ms late on their way out",
            "20 requests: median, slowest",
            "--net",
            "delay 100ms jitter 20ms out",
            &mut sides,
            curl,
        )?);
    } else {
        println!(
            "  (packet delay needs the fq queueing discipline, which this kernel lacks: see the VM below)"
        );
    }
    Ok(scenes)
}

fn wait_for_nginx(shell: &mut Shell) -> anyhow::Result<()> {
    let text = shell.run(&format!(
        "for i in $(seq 100); do curl -s -m 1 http://{PEER_V4}/page && break; sleep 0.1; done"
    ))?;
    ensure!(text.contains("hello"), "nginx does not answer: {text}");
    Ok(())
}

fn ping(shell: &mut Shell) -> anyhow::Result<String> {
    let text = shell.run(&format!("ping -q -i 0.01 -c 200 -W 1 {PEER_V4}"))?;
    let line = text.lines().find(|line| line.contains("packets transmitted")).context("ping's summary")?;
    let words: Vec<_> = line.split_whitespace().collect();
    Ok(format!("{} of {}", words.get(3).unwrap_or(&"?"), words.first().unwrap_or(&"?")))
}

fn curl(shell: &mut Shell) -> anyhow::Result<String> {
    let url = format!("http://{PEER_V4}/page");
    let text = shell.run(&format!(
        "for i in $(seq {REQUESTS}); do curl -s -m 20 -o /dev/null -w '%{{time_total}}\\n' {url}; done"
    ))?;
    let mut seconds: Vec<f64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    ensure!(seconds.len() == REQUESTS, "curl printed {text}");
    seconds.sort_by(f64::total_cmp);
    Ok(format!("{:.1} ms, {:.1} ms", seconds[REQUESTS / 2] * 1e3, seconds[REQUESTS - 1] * 1e3))
}

/// A shell in no namespace of its own.
pub(super) fn plain_shell() -> anyhow::Result<Shell> {
    Shell::start(Command::new("sh"))
}
