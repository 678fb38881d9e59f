//! `--events` under a flood: every injection is in the file or counted as lost, and the session goes on.
//!
//! Starts this very program again as COMMAND. Needs root and tc hooks.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    env, fs,
    net::UdpSocket,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use fault_common::limits::HEARTBEAT_TIMEOUT_NS;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some("flood") {
        flood();
        return ExitCode::SUCCESS;
    }
    let tests = vec![Trial::test("a_flood_of_events_does_not_stop_the_session", survives)];
    libtest_mimic::run(&Arguments::from_args(), tests).exit_code()
}

/// Sends for longer than a heartbeat may be silent; prints how many datagrams.
fn flood() {
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_addr().unwrap();
    let end = Instant::now() + Duration::from_nanos(HEARTBEAT_TIMEOUT_NS) + Duration::from_secs(2);
    let mut sent = 0u64;
    while Instant::now() < end {
        for _ in 0..100 {
            sender.send_to(&[0; 20], address).unwrap();
            sent += 1;
        }
    }
    print!("{sent}");
}

fn survives() -> Result<(), Failed> {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let directory = tempfile::tempdir()?;
    let (events, report) = (directory.path().join("events.jsonl"), directory.path().join("report.json"));
    let output = Command::new(env!("CARGO_BIN_EXE_fault"))
        .args(["run", "--quiet", "--seed", "7", "--net", "drop 90% out udp to 127.0.0.1"])
        .args(["--events".as_ref(), events.as_os_str(), "--json".as_ref(), report.as_os_str(), "--".as_ref()])
        .args([env::current_exe()?.as_os_str(), "flood".as_ref()])
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let sent: u64 =
        String::from_utf8(output.stdout)?.parse().map_err(|error| format!("{error}: {errors}"))?;
    let report: Value = serde_json::from_slice(&fs::read(report)?)?;
    assert_eq!(report["session"]["exit"]["reason"], "command_exited", "{report}");
    assert_eq!(report["rules"][0]["matched"], sent, "until the end: {report}");
    let written = fs::read_to_string(events)?.lines().count() as u64;
    let lost = report["counters"]["events_lost"].as_u64();
    assert_eq!(lost.map(|lost| written + lost), report["rules"][0]["injected"].as_u64(), "{report}");
    assert!(written > 0);
    Ok(())
}
