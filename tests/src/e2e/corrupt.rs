//! `corrupt`: what the receiver's kernel finds wrong, and what it cannot.

use anyhow::{Context as _, ensure};

use super::{
    Lane, Test,
    pair::{Pair, endpoint, untouched},
};
use crate::{
    driver::{Injection, fault, victim},
    net_lab::{NetLab, PEER_V4, PEER_V6, TARGET_V4, sh},
    process::{Ended, Process},
    victim::report::{Counted, Sent, Streamed},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "corrupt::checksums_find_it", on: corrupts, run: found },
    Test { name: "corrupt::tcp_sends_it_again", on: in_detail, run: tcp },
    Test { name: "corrupt::what_arrives", on: in_detail, run: inwards },
    Test {
        name: "corrupt::programs_read_it_when_checksums_agree",
        on: Lane::tests_packets_in_detail,
        run: fixed,
    },
    Test { name: "corrupt::is_refused_without_vlan", on: lacks_vlan, run: refused },
];

fn corrupts(lane: Lane) -> bool {
    lane.has_vlan() && lane.tests_packets()
}

fn in_detail(lane: Lane) -> bool {
    lane.has_vlan() && (lane.tests_packets_in_detail() || lane.tests_devices_in_detail())
}

fn lacks_vlan(lane: Lane) -> bool {
    lane.tests_packets() && !lane.has_vlan()
}

/// A counter of the kernel of `namespace`: `Udp` and `InErrors`, say (/proc/net/snmp), or `Udp6InErrors` alone.
fn counter(namespace: &str, group: &str, name: &str) -> anyhow::Result<u64> {
    if group.is_empty() {
        let text = sh(&format!("nsenter --net=/run/netns/{namespace} cat /proc/net/snmp6"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(char::is_whitespace));
        return Ok(value.with_context(|| name.to_owned())?.trim().parse()?);
    }
    let text = sh(&format!("nsenter --net=/run/netns/{namespace} cat /proc/net/snmp"))?;
    let prefix = format!("{group}: ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let column = names.split(' ').position(|column| column == name).with_context(|| name.to_owned())?;
    Ok(values.split(' ').nth(column).context("a value")?.parse()?)
}

fn found(_: Lane) -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 400;
    let lab = NetLab::new("corrupt")?;
    for (address, port, group, name, spec) in [
        (PEER_V4, 9000, "Udp", "InErrors", "corrupt every 4 out udp"),
        (PEER_V6, 9002, "", "Udp6InErrors", "corrupt every 4 out udp"),
    ] {
        let before = counter(&lab.peer, group, name)?;
        let (pair, bystander) =
            (Pair::new(&lab, address, port, DATAGRAMS)?, Pair::new(&lab, address, port + 1, DATAGRAMS)?);
        let pid = pair.sender.pid();
        let injection = Injection::start(&["--pid", &pid, "--net", spec])?;
        let (sent, counted) = pair.run()?;
        let (by_sent, by) = bystander.run()?;
        let report = injection.wait()?;
        ensure!(sent.sent == DATAGRAMS && sent.errors.is_empty(), "{sent:?}");
        ensure!(
            counted.received == DATAGRAMS * 3 / 4,
            "{address}: {} arrived: {}",
            counted.received,
            report.json
        );
        let rejected = counter(&lab.peer, group, name)? - before;
        ensure!(rejected == DATAGRAMS / 4, "{address}: {rejected} were rejected: {}", report.json);
        ensure!(report.rule(0, "injected")? == DATAGRAMS / 4, "{}", report.json);
        ensure!(report.json["counters"]["unchanged"] == 0, "{}", report.json);
        untouched(address, &by_sent, &by, DATAGRAMS)?;
    }
    let ping = |count: &str| -> anyhow::Result<String> {
        let script = format!("read x; exec ping -c {count} -i 0.2 -W 1 {PEER_V4}");
        let mut ping = Process::start(lab.in_target("sh").args(["-c", &script]))?;
        let injection = Injection::start(&["--pid", &ping.pid(), "--net", "corrupt nth 3 out icmp"])?;
        ping.release()?;
        let Ended { stdout, .. } = ping.ended()?;
        injection.wait()?;
        Ok(stdout)
    };
    let text = ping("5")?;
    ensure!(text.contains("4 received") && !text.contains("icmp_seq=3 "), "{text}");
    Ok(())
}

/// A stream from the target to its peer under `specs`; what was sent and taken, and the report.
fn stream(
    lab: &NetLab,
    port: u16,
    bytes: u64,
    specs: &[&str],
) -> anyhow::Result<(Streamed, Streamed, crate::driver::Report)> {
    let (program, to) = (victim()?, endpoint(PEER_V4, port));
    let take = Process::start_until(lab.in_peer(&program).args(["stream-take", &to]), "ready")?;
    let mut send = Process::start_until(
        lab.in_target(&program).args(["stream-send", &to, "--bytes", &bytes.to_string(), "--wait"]),
        "connected",
    )?;
    let pid = send.pid();
    let mut arguments = vec!["--pid", &pid];
    arguments.extend(specs.iter().flat_map(|spec| ["--net", spec]));
    let injection = Injection::start(&arguments)?;
    send.release()?;
    let (sent, taken) = (send.report()?, take.report()?);
    Ok((sent, taken, injection.wait()?))
}

fn tcp(_: Lane) -> anyhow::Result<()> {
    const BYTES: u64 = 8_000_000;
    let lab = NetLab::new("corrupttcp")?;
    let before = counter(&lab.peer, "Tcp", "InErrs")?;
    let (sent, taken, report) = stream(&lab, 9500, BYTES, &["corrupt every 100 out tcp"])?;
    ensure!(sent.error.is_none() && taken.error.is_none(), "{sent:?} {taken:?}");
    ensure!(taken.bytes == BYTES && taken.wrong == 0, "TCP handed over what was wrong: {taken:?}");
    let rejected = counter(&lab.peer, "Tcp", "InErrs")? - before;
    let injected = report.rule(0, "injected")?;
    ensure!(rejected == injected && injected >= BYTES / 1448 / 100, "{rejected}: {}", report.json);
    ensure!(sent.sent_again >= injected / 2, "{sent:?}: {}", report.json);
    ensure!(report.json["counters"]["cut_in"] == report.json["counters"]["cut_out"], "{}", report.json);
    // Nobody else's.
    let before = counter(&lab.peer, "Tcp", "InErrs")?;
    let (sent, taken, _) = stream(&lab, 9501, BYTES, &["corrupt out tcp port 1"])?;
    ensure!(sent.error.is_none() && taken.bytes == BYTES && taken.wrong == 0, "{sent:?} {taken:?}");
    ensure!(counter(&lab.peer, "Tcp", "InErrs")? == before, "a bystander's packets were rejected");
    Ok(())
}

fn inwards(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("corruptin")?;
    let program = victim()?;
    let on = endpoint(TARGET_V4, 9100);
    let before = counter(&lab.target, "Udp", "InErrors")?;
    let counting = Process::start_until(lab.in_target(&program).args(["udp-count", &on]), "ready")?;
    let injection = Injection::start(&["--pid", &counting.pid(), "--net", "corrupt 2 bits in udp every 5"])?;
    let sent: Sent =
        Process::start(lab.in_peer(&program).args(["udp-send", &on, "--count", "500"]))?.report()?;
    let counted: Counted = counting.report()?;
    let report = injection.wait()?;
    let rejected = counter(&lab.target, "Udp", "InErrors")? - before;
    // Two flipped bits can hide each other from a sum of 16-bit words: one time in 32 (RFC 1071).
    ensure!(sent.sent == 500 && report.rule(0, "injected")? == 100, "{}", report.json);
    // Among those that nobody rejects may be one for another port.
    let seen = counted.received + rejected;
    ensure!((497..=500).contains(&seen), "{} arrived, {rejected} rejected", counted.received);
    ensure!((80..=100).contains(&rejected), "{rejected} of 100 were rejected");
    // On loopback.
    let on = "127.0.0.1:19100";
    let counting =
        Process::start_until(std::process::Command::new(&program).args(["udp-count", on]), "ready")?;
    let mut sender = Process::start_until(
        std::process::Command::new(&program).args(["udp-send", on, "--wait", "--count", "100"]),
        "ready",
    )?;
    let injection = Injection::start(&["--pid", &sender.pid(), "--net", "corrupt every 2 out udp"])?;
    sender.release()?;
    let sent: Sent = sender.report()?;
    let counted: Counted = counting.report()?;
    injection.wait()?;
    ensure!(sent.sent == 100 && counted.received == 50, "loopback: {} arrived", counted.received);
    Ok(())
}

fn fixed(lane: Lane) -> anyhow::Result<()> {
    const BYTES: u64 = 4_000_000;
    let lab = NetLab::new("fixed")?;
    let before = counter(&lab.peer, "Tcp", "InErrs")?;
    let (sent, taken, report) =
        stream(&lab, 9500, BYTES, &["corrupt 3 bits fix-checksum every 100 out tcp"])?;
    let injected = report.rule(0, "injected")?;
    ensure!(sent.error.is_none() && taken.bytes == BYTES, "{sent:?} {taken:?}");
    ensure!(injected >= BYTES / 1448 / 100, "{}", report.json);
    // Each of the three bits is in a byte of its own; what was sent again may have replaced what had come.
    ensure!(
        taken.wrong <= injected * 3 && taken.wrong + 3 * sent.sent_again >= injected * 3 && taken.wrong > 0,
        "{} bytes wrong, {} sent again: {}",
        taken.wrong,
        sent.sent_again,
        report.json
    );
    ensure!(counter(&lab.peer, "Tcp", "InErrs")? == before, "the receiver's checksum found it");
    if lane.has_vlan() {
        // The same where the checksum is in the packet already: behind a rule that needs it there.
        let specs = ["corrupt 3 bits fix-checksum every 100 out tcp", "corrupt out udp"];
        let (_, taken, report) = stream(&lab, 9501, BYTES, &specs)?;
        ensure!(taken.bytes == BYTES && taken.wrong > 0, "{taken:?}: {}", report.json);
        ensure!(counter(&lab.peer, "Tcp", "InErrs")? == before, "the receiver's checksum found it");
    }
    Ok(())
}

fn refused(_: Lane) -> anyhow::Result<()> {
    let lab = NetLab::new("novlan")?;
    let sleeper = Process::start(lab.in_target("cat").args(["-"]))?;
    let ended =
        Ended::of(&mut fault(&["inject", "--pid", &sleeper.pid(), "--net", "corrupt", "--for", "1s"]))?;
    ensure!(ended.status.code() == Some(69), "{:?}", ended);
    ensure!(ended.stderr.contains("8021Q"), "{}", ended.stderr);
    Ok(())
}
