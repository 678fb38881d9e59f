//! Programs everybody knows: nginx with its workers, curl.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};

use super::{Lane, Test};
use crate::{
    driver::{Injection, binary},
    net_lab::{NetLab, TARGET_V4, sh},
    process::{Ended, Process, descendants},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "programs::nginx_and_its_workers",
        on: Lane::tests_packets_in_detail,
        run: nginx_and_its_workers,
    },
    Test {
        name: "programs::curl_under_fault_run",
        on: Lane::tests_packets_in_detail,
        run: curl_under_fault_run,
    },
    Test {
        name: "programs::downloads_survive_loss",
        on: Lane::tests_packets_in_detail,
        run: downloads_survive_loss,
    },
];

/// nginx with two workers on loopback, its files in a directory of its own.
struct Nginx {
    process: Process,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Nginx {
    fn start(lab: &NetLab, port: u16) -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::new()?;
        let root = directory.path().display();
        let configuration = format!(
            "daemon off; worker_processes 2; user root; pid {root}/pid; error_log {root}/error.log;
             events {{ worker_connections 64; }}
             http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p;
                     fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                     server {{ listen {port}; listen {TARGET_V4}:{port}; root {root}/html; }} }}"
        )
        .replace(&format!("listen {port}; "), &format!("listen 127.0.0.1:{port}; "));
        fs::create_dir(directory.path().join("html"))?;
        fs::write(directory.path().join("html/index.html"), vec![b'x'; 100_000])?;
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = lab.in_target("nginx");
        command.args(["-p", &root.to_string(), "-c", &file.to_string_lossy()]);
        let nginx = Self { process: Process::start(&mut command)?, port, _directory: directory };
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while curl(lab, nginx.port, 1).is_err() {
            ensure!(std::time::Instant::now() < deadline, "nginx does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(nginx)
    }
}

/// Downloads the page over loopback.
fn curl(lab: &NetLab, port: u16, seconds: u32) -> anyhow::Result<()> {
    let url = format!("http://127.0.0.1:{port}/");
    let mut command = lab.in_target("curl");
    command.args([
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        "--max-time",
        &seconds.to_string(),
        &url,
    ]);
    let ended = Ended::of(&mut command)?;
    ensure!(ended.stdout == "100000", "curl: {}: {}{}", ended.status, ended.stdout, ended.stderr);
    Ok(())
}

fn nginx_and_its_workers(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("nginx")?;
    let (nginx, bystander) = (Nginx::start(&lab, 8080)?, Nginx::start(&lab, 8081)?);
    let master = nginx.process.pid();
    ensure!(descendants(master.parse()?).len() == 2, "nginx has no two workers");
    let injection = Injection::start(&["--pid", &master, "--net", "drop out tcp"])?;
    // The handshake's answer belongs to the master's listener, everything else to a worker.
    let hit = curl(&lab, nginx.port, 2);
    curl(&lab, bystander.port, 30).context("bystander")?;
    let report = injection.heal()?;
    ensure!(hit.is_err(), "all packets of nginx are lost, but curl had its page");
    ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
    curl(&lab, nginx.port, 30).context("after healing")
}

fn curl_under_fault_run(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("curl")?;
    let nginx = Nginx::start(&lab, 8080)?;
    let url = format!("http://127.0.0.1:{}/", nginx.port);
    let get = |spec: &str| {
        let mut command = lab.in_target(&binary().to_string_lossy());
        command.args(["run", "--quiet", "--net", spec, "--", "curl", "-sS", "-o", "/dev/null"]);
        command.args(["-w", "%{size_download}", "--max-time", "3", &url]);
        Ended::of(&mut command)
    };
    let ended = get("drop in tcp")?;
    curl(&lab, nginx.port, 30).context("bystander")?;
    ensure!(ended.status.code() == Some(28), "curl did not time out: {ended:?}");
    let ended = get(&format!("drop in tcp port {}", nginx.port + 1))?;
    ensure!(ended.status.success() && ended.stdout == "100000", "{ended:?}");
    Ok(())
}

fn downloads_survive_loss(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("nginx10")?;
    let nginx = Nginx::start(&lab, 8080)?;
    let master = nginx.process.pid();
    let retransmitted = || -> anyhow::Result<u64> {
        let text = sh(&format!("ip netns exec {} nstat -a -s -z TcpRetransSegs", lab.target))?;
        let word = text.split_whitespace().skip_while(|word| *word != "TcpRetransSegs").nth(1);
        word.context("nstat")?.parse().context("nstat")
    };
    for _ in 0..10 {
        curl(&lab, nginx.port, 30)?;
    }
    let before = retransmitted()?;
    let injection = Injection::start(&["--pid", &master, "--net", "drop 20% out tcp", "--seed", "1"])?;
    // Ten pages of two super-packets and more each: the chance that none is lost is below 1e-3.
    for _ in 0..10 {
        curl(&lab, nginx.port, 30)?;
    }
    let report = injection.heal()?;
    ensure!(retransmitted()? > before, "TCP repaired nothing: {}", report.json);
    Ok(())
}
