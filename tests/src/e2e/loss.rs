//! `drop`: seen at the far end, silent for the sender, exact where counts decide, unnoticed by bystanders.

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    pair::{Pair, untouched},
};
use crate::{
    driver::{Injection, victim},
    net_lab::{NetLab, PEER_V4, PEER_V4_OTHER, PEER_V6, TARGET_IFACE, TARGET_V4},
    process::Process,
    stats::binomial,
    victim::report::{Counted, Sent},
};

/// Datagrams per statistical test: 10 % is told from 11 % with room to spare.
const DATAGRAMS: u64 = 10_000;

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test {
        name: "loss::out_is_binomial_and_silent",
        on: Lane::tests_packets,
        run: out_is_binomial_and_silent,
    },
    Test { name: "loss::in_is_binomial", on: Lane::tests_packets, run: in_is_binomial },
    Test { name: "loss::over_ipv6", on: Lane::tests_packets_in_detail, run: over_ipv6 },
    Test { name: "loss::on_loopback", on: Lane::tests_packets, run: on_loopback },
    Test { name: "loss::nth_ping_is_the_nth", on: Lane::tests_packets_in_detail, run: nth_ping_is_the_nth },
    Test {
        name: "loss::times_and_every_are_exact",
        on: Lane::tests_packets_in_detail,
        run: times_and_every_are_exact,
    },
    Test { name: "loss::only_the_named_peer", on: Lane::tests_packets_in_detail, run: only_the_named_peer },
    Test { name: "loss::ports_and_protocols", on: Lane::tests_packets_in_detail, run: ports_and_protocols },
    Test { name: "loss::interface_filter", on: Lane::tests_packets_in_detail, run: interface_filter },
    Test {
        name: "loss::same_seed_same_losses",
        on: Lane::tests_packets_in_detail,
        run: same_seed_same_losses,
    },
    Test { name: "loss::tcp_retransmits", on: Lane::tests_packets, run: tcp_retransmits },
    Test {
        name: "loss::zero_percent_touches_nothing",
        on: Lane::tests_packets_in_detail,
        run: zero_percent_touches_nothing,
    },
];

fn out_is_binomial_and_silent(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("out")?;
    let victim = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let bystander = Pair::new(&lab, PEER_V4, 9001, DATAGRAMS)?;
    let injection = Injection::start(&["--pid", &victim.sender.pid(), "--net", "drop 10% out udp"])?;
    let (sent, counted) = victim.run()?;
    let (bystander_sent, bystander_counted) = bystander.run()?;
    let report = injection.heal()?;
    ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "the loss was not silent: {sent:?}");
    binomial("datagrams lost", DATAGRAMS - counted.received, DATAGRAMS, 0.1).map_err(anyhow::Error::msg)?;
    untouched("bystander", &bystander_sent, &bystander_counted, DATAGRAMS)?;
    // The report must agree with the far end exactly.
    ensure!(report.rule(0, "matched")? == DATAGRAMS, "matched: {}", report.json);
    ensure!(report.rule(0, "injected")? == DATAGRAMS - counted.received, "injected: {}", report.json);
    ensure!(report.status.success(), "exit status {}", report.status);
    Ok(())
}

fn in_is_binomial(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("in")?;
    let program = victim()?;
    let to = format!("{TARGET_V4}:9000");
    let other = format!("{TARGET_V4}:9001");
    // Here the target receives: the counters run in the target's namespace.
    let counter = Process::start_until(lab.in_target(&program).args(["udp-count", &to]), "ready")?;
    let bystander = Process::start_until(lab.in_target(&program).args(["udp-count", &other]), "ready")?;
    let injection = Injection::start(&["--pid", &counter.pid(), "--net", "drop 10% in udp"])?;
    let count = DATAGRAMS.to_string();
    for address in [&to, &other] {
        let sent: Sent =
            Process::start(lab.in_peer(&program).args(["udp-send", address, "--count", &count]))?.report()?;
        ensure!(sent.sent == DATAGRAMS, "{sent:?}");
    }
    let counted: Counted = counter.report()?;
    let untouched: Counted = bystander.report()?;
    let report = injection.wait().context("the session ends with its target")?;
    binomial("datagrams lost", DATAGRAMS - counted.received, DATAGRAMS, 0.1).map_err(anyhow::Error::msg)?;
    ensure!(untouched.received == DATAGRAMS, "bystander: {}", untouched.received);
    ensure!(report.rule(0, "injected")? == DATAGRAMS - counted.received, "injected: {}", report.json);
    Ok(())
}

fn over_ipv6(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("v6")?;
    let victim = Pair::new(&lab, PEER_V6, 9000, DATAGRAMS)?;
    let bystander = Pair::new(&lab, PEER_V6, 9001, DATAGRAMS)?;
    let spec = format!("drop 50% out to {PEER_V6}");
    let injection = Injection::start(&["--pid", &victim.sender.pid(), "--net", &spec])?;
    let (_, counted) = victim.run()?;
    let (sent, by) = bystander.run()?;
    injection.heal()?;
    binomial("datagrams lost", DATAGRAMS - counted.received, DATAGRAMS, 0.5).map_err(anyhow::Error::msg)?;
    untouched("bystander", &sent, &by, DATAGRAMS)
}

fn on_loopback(_: Lane) -> anyhow::Result<()> {
    let program = victim()?;
    let mut pairs = Vec::new();
    for to in ["127.0.0.1:19000", "127.0.0.1:19001", "[::1]:19002"] {
        let counter =
            Process::start_until(std::process::Command::new(&program).args(["udp-count", to]), "ready")?;
        let sender = Process::start_until(
            std::process::Command::new(&program).args([
                "udp-send",
                to,
                "--wait",
                "--count",
                &DATAGRAMS.to_string(),
            ]),
            "ready",
        )?;
        pairs.push(Pair { sender, counter });
    }
    let (v4, v6) = (pairs[0].sender.pid(), pairs[2].sender.pid());
    let injection = Injection::start(&["--pid", &v4, "--pid", &v6, "--net", "drop 20% out"])?;
    let mut lost = Vec::new();
    for pair in pairs {
        let (sent, counted) = pair.run()?;
        ensure!(sent.errors.is_empty(), "the loss was not silent: {sent:?}");
        lost.push(DATAGRAMS - counted.received);
    }
    injection.heal()?;
    binomial("lost over 127.0.0.1", lost[0], DATAGRAMS, 0.2).map_err(anyhow::Error::msg)?;
    ensure!(lost[1] == 0, "bystander lost {}", lost[1]);
    binomial("lost over ::1", lost[2], DATAGRAMS, 0.2).map_err(anyhow::Error::msg)
}

/// Sequence numbers of the answers ping(8) printed.
fn answered(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|word| word.strip_prefix("icmp_seq=")?.parse().ok()).collect()
}

fn nth_ping_is_the_nth(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("ping")?;
    for (address, spec) in [
        (PEER_V4, "drop nth 3 out icmp"),
        (PEER_V4, "drop nth 3 in icmp"),
        (PEER_V6, "drop nth 3 out icmp"),
        (PEER_V6, "drop nth 3 in icmp"),
    ] {
        // A shell is the target; ping is its future descendant.
        let mut shell = Process::start(
            lab.in_target("sh")
                .args(["-c", &format!("read x; exec 2>&1; ping -c 6 -i 0.2 -W 1 {address}; true")]),
        )?;
        let injection = Injection::start(&["--pid", &shell.pid(), "--net", spec])?;
        let ping = ["-c", "6", "-i", "0.2", address];
        let bystander = Process::start(lab.in_target("ping").args(ping))?;
        shell.release()?;
        let (text, bystander) = (shell.text()?, bystander.text()?);
        let report = injection.wait()?;
        ensure!(answered(&text) == [1, 2, 4, 5, 6], "{spec} {address}: {text}");
        ensure!(answered(&bystander) == [1, 2, 3, 4, 5, 6], "bystander: {bystander}");
        ensure!(report.rule(0, "injected")? == 1, "{}", report.json);
    }
    Ok(())
}

fn times_and_every_are_exact(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("exact")?;
    for (spec, lost) in [
        ("drop times 7 out udp", (0..7).collect::<Vec<u64>>()),
        ("drop every 100 out udp", (0..10).map(|i| i * 100 + 99).collect()),
        ("drop every 2 first 10 out udp", vec![1, 3, 5, 7, 9]),
        ("drop nth 1000 out udp", vec![999]),
    ] {
        let pair = Pair::new(&lab, PEER_V4, 9000, 1000)?;
        let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", spec])?;
        let (sent, counted) = pair.run()?;
        injection.heal()?;
        ensure!(sent.sent == 1000, "{spec}: {sent:?}");
        // The last datagram is only known to be missing by its absence.
        let mut missing = counted.missing;
        if counted.distinct + missing.len() as u64 == 999 {
            missing.push(999);
        }
        ensure!(missing == lost, "{spec}: lost {missing:?}");
    }
    Ok(())
}

fn only_the_named_peer(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("peer")?;
    for (spec, hit) in [
        (format!("drop out to {PEER_V4}"), [true, false]),
        (format!("drop out to {PEER_V4_OTHER}:9001"), [false, true]),
        (format!("drop out to {PEER_V4_OTHER}:9002"), [false, false]),
        ("drop out to 10.77.0.0/24".to_owned(), [true, true]),
        (format!("drop out to 10.77.0.0/31 to {PEER_V4_OTHER}"), [false, true]),
    ] {
        let mut shell = Process::start(lab.in_target("sh").args([
            "-c",
            &format!(
                "read x; v={}; $v udp-send {PEER_V4}:9000 --count 100; $v udp-send {PEER_V4_OTHER}:9001 --count 100",
                victim()?
            ),
        ]))?;
        let counters = [format!("{PEER_V4}:9000"), format!("{PEER_V4_OTHER}:9001")]
            .map(|on| Process::start_until(lab.in_peer(&victim()?).args(["udp-count", &on]), "ready"));
        let injection = Injection::start(&["--pid", &shell.pid(), "--net", &spec])?;
        shell.release()?;
        shell.text()?;
        for (counter, hit) in counters.into_iter().zip(hit) {
            let counted: Counted = counter?.report()?;
            ensure!(counted.received == if hit { 0 } else { 100 }, "{spec}: {counted:?}");
        }
        injection.wait()?;
    }
    Ok(())
}

fn ports_and_protocols(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("ports")?;
    for (spec, arrives) in [
        ("drop out port 9000", false),
        ("drop out port 8990-9010", false),
        ("drop out port 9001-9010", true),
        ("drop out local-port 7000", false),
        ("drop out local-port 7001", true),
        ("drop out tcp", true),
        ("drop out udp", false),
        ("drop out icmp", true),
        ("drop in udp", true),
    ] {
        let to = format!("{PEER_V4}:9000");
        let program = victim()?;
        let counter = Process::start_until(lab.in_peer(&program).args(["udp-count", &to]), "ready")?;
        let mut sender = Process::start_until(
            lab.in_target(&program).args([
                "udp-send",
                &to,
                "--wait",
                "--count",
                "50",
                "--local-port",
                "7000",
            ]),
            "ready",
        )?;
        let injection = Injection::start(&["--pid", &sender.pid(), "--net", spec])?;
        sender.release()?;
        let sent: Sent = sender.report()?;
        let counted: Counted = counter.report()?;
        injection.wait()?;
        ensure!(sent.sent == 50, "{spec}: {sent:?}");
        ensure!(counted.received == if arrives { 50 } else { 0 }, "{spec}: {} arrived", counted.received);
    }
    Ok(())
}

fn interface_filter(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("iface")?;
    for (iface, arrives) in [(TARGET_IFACE, 0), ("lo", 100)] {
        let pair = Pair::new(&lab, PEER_V4, 9000, 100)?;
        let spec = format!("drop out iface {iface}");
        let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", &spec])?;
        let Pair { mut sender, counter } = pair;
        sender.release()?;
        let _: Sent = sender.report()?;
        injection.wait()?;
        if arrives == 0 {
            drop(counter);
            continue;
        }
        let counted: Counted = counter.report()?;
        ensure!(counted.received == arrives, "{spec}: {} arrived", counted.received);
    }
    Ok(())
}

fn same_seed_same_losses(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("seed")?;
    let mut lost = Vec::new();
    for seed in ["7", "7", "8"] {
        let pair = Pair::new(&lab, PEER_V4, 9000, 2000)?;
        let injection =
            Injection::start(&["--pid", &pair.sender.pid(), "--seed", seed, "--net", "drop 5% out udp"])?;
        let (_, counted) = pair.run()?;
        let report = injection.wait()?;
        ensure!(report.json["session"]["seed"] == seed.parse::<u64>()?, "{}", report.json);
        lost.push(counted.missing);
    }
    ensure!(lost[0] == lost[1], "the same seed lost different datagrams");
    ensure!(lost[0] != lost[2], "another seed lost the same datagrams");
    Ok(())
}

fn tcp_retransmits(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("tcp")?;
    let _servers =
        ["5201", "5202"].map(|port| Process::start(lab.in_peer("iperf3").args(["-s", "-1", "-p", port])));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut clients = ["5201", "5202"].map(|port| {
        Process::start(
            lab.in_target("sh")
                .args(["-c", &format!("read x; exec iperf3 -c {PEER_V4} -p {port} -b 50M -n 16M -J")]),
        )
    });
    let pid = clients[0].as_ref().map_err(|error| anyhow::anyhow!("{error}"))?.pid();
    let injection = Injection::start(&["--pid", &pid, "--net", "drop 5% out tcp"])?;
    for client in clients.iter_mut().flatten() {
        client.release()?;
    }
    let mut retransmits = Vec::new();
    for client in clients {
        let json: serde_json::Value = client?.report()?;
        let sum = &json["end"]["sum_sent"];
        ensure!(sum["bytes"].as_u64() > Some(1_000_000), "the flow starved: {sum}");
        retransmits.push(sum["retransmits"].as_u64().context("iperf3 reports retransmits")?);
    }
    injection.wait()?;
    // At least 250 packets of at most 64 KB: the chance that none of them is hit is 3e-6.
    ensure!(retransmits[0] > 0, "no retransmission at 5 % loss");
    // A machine that is busy with other things makes TCP retransmit a few that were not lost, with or without us.
    ensure!(
        retransmits[1] * 4 < retransmits[0],
        "retransmitted: {}, by the bystander {}",
        retransmits[0],
        retransmits[1]
    );
    Ok(())
}

fn zero_percent_touches_nothing(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("zero")?;
    let pair = Pair::new(&lab, PEER_V4, 9000, DATAGRAMS)?;
    let injection = Injection::start(&["--pid", &pair.sender.pid(), "--net", "drop 0%"])?;
    let (sent, counted) = pair.run()?;
    let report = injection.wait()?;
    untouched("target at 0 %", &sent, &counted, DATAGRAMS)?;
    ensure!(report.rule(0, "injected")? == 0, "{}", report.json);
    Ok(())
}
