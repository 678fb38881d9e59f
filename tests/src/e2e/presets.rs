//! The presets, each on a real program: what it sees is what their pages say.

use std::{
    fs,
    io::Write as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{Lane, Test};
use crate::{
    disk_lab::BARE,
    driver::{Injection, binary, fault, refused},
    net_lab::{NetLab, PEER_V4, PEER_V4_OTHER, TARGET_V4, Tap},
    process::{Ended, Process},
    stats::binomial,
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "presets::list_and_show", on: Lane::tests_the_controller, run: list_and_show },
    Test { name: "presets::dependency_out", on: Lane::tests_the_controller, run: dependency_out },
    Test {
        name: "presets::request_lost_reply_lost",
        on: Lane::tests_the_controller,
        run: request_lost_reply_lost,
    },
    Test { name: "presets::zone_split", on: Lane::tests_the_controller, run: zone_split },
    Test { name: "presets::accepts_then_nothing", on: Lane::tests_the_controller, run: accepts_then_nothing },
    Test { name: "presets::snapshot_stall", on: Lane::tests_the_controller, run: snapshot_stall },
    Test {
        name: "presets::partition_after_commit",
        on: Lane::tests_the_controller,
        run: partition_after_commit,
    },
    Test {
        name: "presets::reply_late_slow_dependency",
        on: Lane::tests_the_controller_with_delays,
        run: reply_late,
    },
    Test {
        name: "presets::limping_nic_replica_lag",
        on: Lane::tests_the_controller_with_delays,
        run: limping_nic,
    },
    Test { name: "presets::five_states", on: Lane::tests_the_controller_with_delays, run: five_states },
    Test { name: "presets::failing_disk", on: Lane::tests_disks_in_detail, run: failing_disk },
    Test { name: "presets::limping_disk_firmware_pause", on: Lane::tests_disks_in_detail, run: limping_disk },
];

/// Bytes of the small page and of the large one.
const SMALL: usize = 100;
const LARGE: usize = 50_000_000;

/// nginx on one or two addresses, with an access log.
struct Nginx {
    process: Process,
    directory: tempfile::TempDir,
}

impl Nginx {
    /// Serves port 8080 of `addresses`; `run` makes its command.
    fn start(run: impl Fn(&str) -> Command, addresses: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::new()?;
        let root = directory.path().display();
        let listen: String = addresses.iter().map(|address| format!("listen {address}:8080; ")).collect();
        let configuration = format!(
            "daemon off; worker_processes 1; user root; pid {root}/pid; error_log {root}/error.log;
             events {{ worker_connections 256; }}
             http {{ access_log {root}/access.log; client_body_temp_path {root}/b; proxy_temp_path {root}/p;
                     fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
                     server {{ {listen} root {root}/html; }} }}"
        );
        fs::create_dir(directory.path().join("html"))?;
        fs::write(directory.path().join("html/small"), vec![b'x'; SMALL])?;
        fs::write(directory.path().join("html/page"), vec![b'x'; 100_000])?;
        fs::File::create(directory.path().join("html/large"))?.set_len(LARGE as u64)?;
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = run("nginx");
        command.args(["-p", &root.to_string(), "-c", &file.to_string_lossy()]);
        let nginx = Self { process: Process::start(&mut command)?, directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        let url = format!("http://{}:8080/small", addresses[0]);
        while !Ended::of(run("curl").args(["-sS", "-o", "/dev/null", "--max-time", "1", &url]))?
            .status
            .success()
        {
            ensure!(Instant::now() < deadline, "nginx does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(nginx)
    }

    /// At the peer, for targets that ask it.
    fn at_peer(lab: &NetLab) -> anyhow::Result<Self> {
        Self::start(|program| lab.in_peer(program), &[PEER_V4, PEER_V4_OTHER])
    }

    fn log(&self) -> String {
        self.directory.path().join("access.log").to_string_lossy().into_owned()
    }
}

/// `fault preset ARGUMENTS -- sh -c SCRIPT` in the target's namespace; what the script printed.
fn preset(lab: &NetLab, arguments: &[&str], script: &str) -> anyhow::Result<Ended> {
    let mut command = lab.in_target(&binary().to_string_lossy());
    command.arg("preset").args(arguments).args(["--", "bash", "-c", script]);
    Ended::of(&mut command)
}

/// A shell word that downloads `page` from `address` and prints curl's status and what `write` asks for.
fn curl(address: &str, page: &str, seconds: &str, write: &str) -> String {
    let url = format!("http://{address}:8080/{page}");
    // One line, written at once: several may run side by side.
    format!(
        "w=$(curl -sS -o /dev/null --max-time {seconds} -w '{write}' {url} 2>/dev/null); r=$?; echo \"$w $r\";"
    )
}

fn list_and_show(_: Lane) -> anyhow::Result<()> {
    let list = Ended::of(&mut fault(&["preset"]))?;
    let names: Vec<&str> = list
        .stdout
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .collect();
    ensure!(names.len() == 15, "{names:?}");
    for name in &names {
        let shown = Ended::of(&mut fault(&["preset", name, "--show"]))?;
        ensure!(shown.status.success() && shown.stdout.contains("[[phase]]"), "{name}: {shown:?}");
        // What is shown can be played as it is.
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
        file.write_all(shown.stdout.as_bytes())?;
        let wants_values = shown.stdout.lines().any(|line| line.contains("= { about"));
        let path = file.path().to_string_lossy().into_owned();
        let played = Ended::of(&mut fault(&["play", &path, "--dry-run", "--", "true"]))?;
        ensure!(played.status.code() == Some(if wants_values { 2 } else { 0 }), "{name}: {played:?}");
    }
    let said = refused(&["preset", "zone-spilt", "--", "true"], 2)?;
    ensure!(said.contains("did you mean `zone-split`?"), "{said}");
    let said = refused(&["preset", "zone-split", "--", "true"], 2)?;
    ensure!(said.contains("give it one: zone=VALUE"), "{said}");
    refused(&["preset", "zone-split", "zone", "--", "true"], 2)?;
    refused(&["preset", "zone-split", "zone=10.0.0.0/8", "way=up", "--", "true"], 2)?;
    refused(&["preset", "zone-split", "zone=10.0.0.0/8"], 2)?;
    Ok(())
}

fn dependency_out(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("preset-out")?;
    let _nginx = Nginx::at_peer(&lab)?;
    let script = curl(PEER_V4, "small", "2", "%{time_connect}") + &curl(PEER_V4_OTHER, "small", "20", "ok");
    let ended = preset(&lab, &["dependency-out", &format!("peer={PEER_V4}")], &script)?;
    // Not even connected.
    ensure!(ended.stdout == "0.000000 28\nok 0\n", "{ended:?}");
    Ok(())
}

/// The caller sees the same; the server's log tells them apart.
fn request_lost_reply_lost(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("preset-lost")?;
    let nginx = Nginx::at_peer(&lab)?;
    for (name, served) in [("request-lost", 0), ("reply-lost", 1)] {
        // Asked for under its own name: what was lost may still come when all is healed.
        let script = curl(PEER_V4, &format!("small?{name}"), "2", "%{time_connect}")
            + &format!("grep -c '{name}.* 200 ' {}", nginx.log());
        let ended = preset(&lab, &[name, &format!("peer={PEER_V4}:8080")], &script)?;
        let lines: Vec<&str> = ended.stdout.lines().collect();
        let [first, log] = lines.as_slice() else { anyhow::bail!("{name}: {ended:?}") };
        ensure!(first.ends_with(" 28") && !first.starts_with("0.000000"), "{name}: {ended:?}");
        ensure!(*log == served.to_string(), "{name}: {log} lines in nginx's log: {ended:?}");
    }
    Ok(())
}

fn zone_split(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("preset-zone")?;
    let ping = |address: &str| format!("ping -q -c 10 -i 0.05 -W 1 {address} | grep -o '[0-9]* received';");
    for (way, asked) in [("in out", 0), ("in", 10), ("out", 0)] {
        let tap = Tap::new(&lab.peer, "vp0", &format!("icmp[icmptype] == icmp-echo and dst {PEER_V4}"))?;
        let script = ping(PEER_V4) + &ping(PEER_V4_OTHER);
        let ended =
            preset(&lab, &["zone-split", &format!("zone={PEER_V4}/32"), &format!("way={way}")], &script)?;
        let seen = tap.stop()?.len();
        ensure!(ended.stdout == "0 received\n10 received\n", "way={way}: {ended:?}");
        ensure!(seen == asked, "way={way}: {seen} requests reached the zone");
    }
    Ok(())
}

fn accepts_then_nothing(_: Lane) -> anyhow::Result<()> {
    const CALLS: u64 = 40;
    let lab = NetLab::new("preset-pool")?;
    let nginx = Nginx::start(|program| lab.in_target(program), &[TARGET_V4])?;
    let pid = nginx.process.pid();
    let arguments = ["preset", "accepts-then-nothing", "--pid", &pid, "port=8080", "--seed", "1"];
    let playing = Injection::start_verb(Command::new(binary()), &arguments)?;
    let mut one = tempfile::NamedTempFile::new()?;
    one.write_all(curl(TARGET_V4, "small", "3", "%{time_connect}").as_bytes())?;
    let mut command = lab.in_peer("bash");
    command.args(["-c", &format!("seq {CALLS} | xargs -P 20 -I @ bash {}", one.path().display())]);
    let ended = Ended::of(&mut command)?;
    let report = playing.heal()?;
    let lines: Vec<&str> = ended.stdout.lines().collect();
    ensure!(lines.len() as u64 == CALLS, "{ended:?}");
    ensure!(lines.iter().all(|line| !line.starts_with("0.000000")), "not all connected: {lines:?}");
    let (answered, stuck) = (
        lines.iter().filter(|line| line.ends_with(" 0")).count(),
        lines.iter().filter(|line| line.ends_with(" 28")).count(),
    );
    ensure!((answered + stuck) as u64 == CALLS, "{lines:?}");
    binomial("connections stuck", stuck as u64, CALLS, 0.5).map_err(anyhow::Error::msg)?;
    ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
    Ok(())
}

fn snapshot_stall(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("preset-stall")?;
    let nginx = Nginx::start(|program| lab.in_target(program), &[TARGET_V4])?;
    let pid = nginx.process.pid();
    let peer = format!("peer={PEER_V4}");
    let arguments = ["preset", "snapshot-stall", "--pid", &pid, &peer, "for=4s"];
    let playing = Injection::start_verb(Command::new(binary()), &arguments)?;
    let began = Instant::now();
    let url = format!("http://{TARGET_V4}:8080/large");
    let get = |from: &str| {
        let mut command = lab.in_peer("curl");
        command.args([
            "-sS",
            "-o",
            "/dev/null",
            "--interface",
            from,
            "-w",
            "%{size_download}",
            "--max-time",
            "60",
            &url,
        ]);
        command
    };
    let stalled = Process::start(&mut get(PEER_V4))?;
    let other = Ended::of(&mut get(PEER_V4_OTHER))?;
    let other_took = began.elapsed();
    ensure!(other.stdout == LARGE.to_string(), "the other learner: {other:?}");
    ensure!(other_took < Duration::from_secs(4), "the other learner took {other_took:?}, the stall was over");
    let report = playing.wait()?;
    let text = stalled.text()?;
    let took = began.elapsed();
    ensure!(text == LARGE.to_string(), "after healing: {text}: {}", report.json);
    ensure!(took > Duration::from_millis(3900), "it was not stuck: {took:?}");
    ensure!(report.rule(0, "injected")? > 0, "{}", report.json);
    Ok(())
}

fn partition_after_commit(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("preset-cut")?;
    let _nginx = Nginx::at_peer(&lab)?;
    let script = format!(
        "end=$((SECONDS + 9)); while [ $SECONDS -lt $end ]; do {} {} sleep 0.1; done",
        curl(PEER_V4, "small", "0.5", "inventory"),
        curl(PEER_V4_OTHER, "small", "20", "billing")
    );
    let peer = format!("peer={PEER_V4}");
    let ended = preset(&lab, &["partition-after-commit", &peer, "after=3s", "for=3s", "then=2s"], &script)?;
    let seen = |who: &str| {
        let lines = ended.stdout.lines().filter_map(|line| line.strip_prefix(who));
        let mut states: Vec<bool> = lines.map(|status| status.trim() == "0").collect();
        states.dedup();
        states
    };
    ensure!(seen("inventory") == [true, false, true], "{ended:?}");
    ensure!(seen("billing") == [true], "{ended:?}");
    Ok(())
}

/// Seconds in front of a line.
fn seconds(line: &str) -> anyhow::Result<f64> {
    line.split(' ').next().unwrap_or_default().parse().with_context(|| line.to_owned())
}

fn reply_late(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("preset-late")?;
    let nginx = Nginx::at_peer(&lab)?;
    fs::write(nginx.log(), "")?;
    let script = curl(PEER_V4, "small?once", "1.5", "%{time_connect}")
        + &format!("grep -c 'once.* 200 ' {};", nginx.log())
        + &curl(PEER_V4, "small", "30", "%{time_total}");
    let ended = preset(&lab, &["reply-late", &format!("peer={PEER_V4}"), "late=3s"], &script)?;
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [given_up, log, waited] = lines.as_slice() else { anyhow::bail!("{ended:?}") };
    ensure!(given_up.ends_with(" 28") && !given_up.starts_with("0.000000"), "{ended:?}");
    ensure!(*log == "1", "the request was not served: {ended:?}");
    ensure!(waited.ends_with(" 0") && seconds(waited)? >= 3.0, "{ended:?}");

    let script =
        curl(PEER_V4, "small", "30", "%{time_total}") + &curl(PEER_V4_OTHER, "small", "30", "%{time_total}");
    let ended = preset(
        &lab,
        &["slow-dependency", &format!("peer={PEER_V4}"), "late=700ms", "jitter=100ms"],
        &script,
    )?;
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [slow, other] = lines.as_slice() else { anyhow::bail!("{ended:?}") };
    // The handshake and the answer, each four standard deviations below its mean.
    ensure!(slow.ends_with(" 0") && seconds(slow)? >= 2.0 * 0.3, "{ended:?}");
    ensure!(other.ends_with(" 0") && seconds(other)? < seconds(slow)? / 2.0, "{ended:?}");
    Ok(())
}

fn limping_nic(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("preset-limp")?;
    let _nginx = Nginx::at_peer(&lab)?;
    // 100 kB are 0.8 Mbit, and some headers.
    let ask = |address| curl(address, "page", "60", "%{time_total}");
    let limping = preset(&lab, &["limping-nic", "rate=400kbit"], &ask(PEER_V4))?;
    let primary = format!("primary={PEER_V4}");
    let lagging =
        preset(&lab, &["replica-lag", &primary, "rate=400kbit"], &(ask(PEER_V4) + &ask(PEER_V4_OTHER)))?;
    for line in [limping.stdout.lines().next(), lagging.stdout.lines().next()] {
        let line = line.with_context(|| format!("{limping:?} {lagging:?}"))?;
        // As fast as the link, not faster; how much slower is TCP's business.
        ensure!(line.ends_with(" 0") && (1.9..20.0).contains(&seconds(line)?), "{line}");
    }
    let other = lagging.stdout.lines().nth(1).context("two lines")?;
    ensure!(other.ends_with(" 0") && seconds(other)? < 1.0, "another peer: {lagging:?}");
    Ok(())
}

fn five_states(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("preset-five")?;
    let _nginx = Nginx::at_peer(&lab)?;
    let script = format!(
        "end=$((SECONDS + 21)); while [ $SECONDS -lt $end ]; do {} sleep 0.1; done",
        curl(PEER_V4, "small", "0.9", "%{time_total}")
    );
    let ended =
        preset(&lab, &["five-states", &format!("peer={PEER_V4}:8080"), "each=4s", "--seed", "3"], &script)?;
    let mut seen: Vec<&str> = Vec::new();
    for line in ended.stdout.lines() {
        let state = match line.rsplit(' ').next() {
            Some("0") if seconds(line)? < 0.06 => "healthy",
            Some("0") => "late",
            Some("28") => "no answer",
            Some("7" | "56") => "at once",
            _ => anyhow::bail!("{line}: {ended:?}"),
        };
        if seen.last() != Some(&state) {
            seen.push(state);
        }
    }
    // Overloaded is now late and now without an answer: between the first answer that is late and the first refusal anything
    // goes, but these four come in this order.
    let first = |state: &str| seen.iter().position(|seen| *seen == state);
    let order = [first("healthy"), first("late"), first("no answer"), first("at once")];
    ensure!(order.iter().all(Option::is_some) && order.is_sorted(), "{seen:?}: {ended:?}");
    let refused = first("at once").unwrap_or_default();
    ensure!(seen[refused - 1] == "no answer", "{seen:?}");
    Ok(())
}

/// A shell word that reads one block and prints how it ended and the milliseconds it took.
fn dd(skip: u32) -> String {
    format!(
        "s=$(date +%s%N); dd if={BARE} of=/dev/null bs=4k count=1 skip={skip} iflag=direct 2>/dev/null; r=$?; \
         e=$(date +%s%N); echo $r $(((e - s) / 1000000));"
    )
}

/// `fault preset ARGUMENTS -- bash -c SCRIPT`: status and milliseconds of each line.
fn disk(arguments: &[&str], script: &str) -> anyhow::Result<Vec<(String, u64)>> {
    let ended = Ended::of(&mut fault(&[&["preset"], arguments, &["--", "bash", "-c", script]].concat()))?;
    let lines = ended.stdout.lines().map(|line| {
        let (status, took) = line.split_once(' ').with_context(|| line.to_owned())?;
        Ok((status.to_owned(), took.parse()?))
    });
    lines.collect::<anyhow::Result<Vec<_>>>().with_context(|| format!("{ended:?}"))
}

fn failing_disk(_: Lane) -> anyhow::Result<()> {
    // Sectors 2048..4096 are blocks 256 to 511 of 4 KiB.
    let write = format!(
        "dd if=/dev/zero of={BARE} bs=4k count=1 seek=300 oflag=direct conv=notrunc 2>/dev/null; echo $? 0;"
    );
    let script = dd(255) + &dd(256) + &dd(511) + &dd(512) + &write;
    let device = format!("device={BARE}");
    let seen = disk(&["failing-disk", &device, "sectors=2048..4096", "stall=1s"], &script)?;
    let statuses: Vec<&str> = seen.iter().map(|(status, _)| status.as_str()).collect();
    ensure!(statuses == ["0", "1", "1", "0", "0"], "{seen:?}");
    ensure!(seen[1].1 >= 1000 && seen[2].1 >= 1000 && seen[0].1 < 900 && seen[3].1 < 900, "{seen:?}");
    Ok(())
}

fn limping_disk(_: Lane) -> anyhow::Result<()> {
    let device = format!("device={BARE}");
    let long = dd(0).replace("bs=4k count=1", "bs=512k count=4");
    let seen = disk(&["limping-disk", &device, "rate=1MB/s"], &long)?;
    // What 20 ms allow is done at once after a rest.
    ensure!(seen.len() == 1 && seen[0].0 == "0" && seen[0].1 >= 2000, "{seen:?}");
    let script = format!("end=$((SECONDS + 8)); while [ $SECONDS -lt $end ]; do {} sleep 0.1; done", dd(0));
    let seen = disk(&["firmware-pause", &device, "pause=1s", "every=3s", "times=2"], &script)?;
    let paused = seen.iter().filter(|(_, took)| *took >= 1000).count();
    ensure!(seen.iter().all(|(status, _)| status == "0"), "{seen:?}");
    // One that begins in a pause is over with it or soon after; there is no time for a third.
    ensure!((2..=4).contains(&paused), "{paused} reads were paused: {seen:?}");
    ensure!(seen.len() - paused > 4, "{seen:?}");
    Ok(())
}
