//! The service: what clients may ask, who may, and what is refused.

use std::{
    fs::Permissions,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Lane, Test};
use crate::{
    driver::{fault, refused},
    process::{Ended, Process},
    service_lab::{PATIENCE, Service},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "serve::wrong_requests_are_refused", on: Lane::tests_the_controller, run: refusals },
    Test { name: "serve::other_users_are_refused", on: Lane::tests_the_controller, run: other_users },
    Test { name: "serve::slow_requests_are_closed", on: Lane::tests_the_controller, run: slow_requests },
    Test { name: "serve::over_tcp_with_a_token_only", on: Lane::tests_the_controller, run: over_tcp },
    Test { name: "serve::the_description_is_complete", on: Lane::tests_the_controller, run: description },
    Test { name: "serve::python_client", on: Lane::tests_the_controller, run: python_client },
];

fn refusals(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&["--max-sessions", "1"])?;
    let target = Process::start(Command::new("sleep").arg("60"))?;
    let pid: u32 = target.pid().parse()?;
    let cases = [
        ("POST", "/v1/sessions", r#"{"pid": [1], "nte": ["drop"]}"#.to_owned(), 400, "nte"),
        ("POST", "/v1/sessions", r#"{"pid": ["x"]}"#.to_owned(), 400, "pid[0]"),
        ("POST", "/v1/sessions", "not json".to_owned(), 400, "expected"),
        ("POST", "/v1/sessions", r#"{"net": ["drop"]}"#.to_owned(), 400, "no target"),
        ("POST", "/v1/sessions", format!(r#"{{"pid": [{pid}]}}"#), 400, "no fault"),
        ("POST", "/v1/sessions", r#"{"pid": [4194303], "net": ["drop"]}"#.to_owned(), 422, "4194303"),
        ("POST", "/v1/sessions", r#"{"cgroup": ["/no/such"], "net": ["drop"]}"#.to_owned(), 422, "no/such"),
        ("POST", "/v1/sessions", r#"{"host": true, "net": ["drop"]}"#.to_owned(), 422, "yes"),
        ("POST", "/v1/sessions", format!(r#"{{"pid": [{pid}], "net": ["drop"], "for": "0s"}}"#), 400, "for"),
        ("POST", "/v1/sessions", format!(r#"{{"pid": [{pid}], "net": ["drop iface none9"]}}"#), 422, "none9"),
        ("POST", "/v1/explain", r#"{"spec": "dorp"}"#.to_owned(), 422, "dorp"),
        ("POST", "/v1/explain", r#"{"spec": "drop", "layer": "x"}"#.to_owned(), 400, "layer"),
        ("GET", "/v1/sessions/1", String::new(), 404, "no session"),
        ("GET", "/v2", String::new(), 404, "/v2"),
        ("PATCH", "/v1/sessions", String::new(), 405, "PATCH"),
    ];
    for (method, path, body, status, word) in cases {
        let (got, answer) = service.ask(method, path, Some(&body))?;
        let error: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        let said = error["error"]["message"].as_str().unwrap_or_default();
        ensure!(got == status && said.contains(word), "{method} {path} {body}: {got} {answer}");
        ensure!(error["error"]["next"].as_str().is_some_and(|next| !next.is_empty()), "{answer}");
    }
    let large = json!({"net": ["x".repeat(70_000)]}).to_string();
    ensure!(service.ask("POST", "/v1/sessions", Some(&large))?.0 == 413, "a large body was taken");
    let id = service.create(&json!({"pid": [pid], "net": ["drop"]}))?;
    let error = service.json("POST", "/v1/sessions", Some(&json!({"pid": [pid], "net": ["drop"]})), 503)?;
    ensure!(error["error"]["code"] == "too_many_sessions", "{error}");
    service.json("DELETE", &format!("/v1/sessions/{id}"), None, 200)?;
    let doctor = service.json("GET", "/v1/doctor", None, 200)?;
    ensure!(doctor["features"]["packet_drop"]["ok"] == true, "{doctor}");
    let explained = service.json("POST", "/v1/explain", Some(&json!({"spec": "drop 5%"})), 200)?;
    ensure!(explained[0]["layer"] == "net", "{explained}");
    service.end()
}

fn other_users(_: Lane) -> anyhow::Result<()> {
    const NOBODY: &str = "65534";
    for (allowed, status) in [("12345", "403"), (NOBODY, "200")] {
        let service = Service::start(&["--allow-uid", allowed])?;
        // Everybody may look into it, so that it is the service that refuses.
        std::fs::set_permissions(service.directory.path(), Permissions::from_mode(0o755))?;
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            NOBODY,
            "--clear-groups",
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ]);
        command.arg("--unix-socket").arg(service.socket()).arg("http://fault/v1/sessions");
        let ended = Ended::of(&mut command)?;
        ensure!(ended.stdout == status, "{}: {}{}", ended.status, ended.stdout, ended.stderr);
        service.end()?;
    }
    let service = Service::start(&[])?;
    let mode = std::fs::metadata(service.socket())?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    service.end()
}

fn slow_requests(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&[])?;
    let body = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    for (begun, answer) in [("GET /v1/sessions HTTP/1.1\r\nHost: x\r\nX-", ""), (body, "HTTP/1.1 408 ")] {
        let mut client = UnixStream::connect(service.socket())?;
        client.write_all(begun.as_bytes())?;
        client.set_read_timeout(Some(PATIENCE))?;
        let start = Instant::now();
        let mut got = String::new();
        client.read_to_string(&mut got).with_context(|| format!("still open after {:?}", start.elapsed()))?;
        ensure!(got.starts_with(answer) && (answer.is_empty() == got.is_empty()), "{got}");
        ensure!(start.elapsed() > Duration::from_secs(5), "closed at once");
    }
    service.end()
}

fn over_tcp(_: Lane) -> anyhow::Result<()> {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let directory = tempfile::TempDir::new()?;
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n"))?;
    let file = file.to_str().context("no text")?;
    let tcp = ["serve", "--listen", "tcp:127.0.0.1:0"];
    std::fs::set_permissions(file, Permissions::from_mode(0o644))?;
    for (arguments, word) in [
        (&["serve", "--listen", "tcp:0.0.0.0:0", "--token-file", file][..], "loopback"),
        (&tcp[..], "--token-file"),
        (&[&tcp[..], &["--token-file", "/no/such"]].concat(), "/no/such"),
        (&[&tcp[..], &["--token-file", file]].concat(), "chmod 600"),
    ] {
        let said = refused(arguments, 2)?;
        ensure!(said.contains(word), "{arguments:?}: {said}");
    }
    std::fs::set_permissions(file, Permissions::from_mode(0o600))?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let service = Service::start(&["--listen", &format!("tcp:127.0.0.1:{port}"), "--token-file", file])?;
    let url = format!("http://127.0.0.1:{port}/v1/sessions");
    for (header, status) in [
        (format!("Authorization: Bearer {TOKEN}"), "200"),
        (format!("Authorization: Bearer {TOKEN}0"), "401"),
        (format!("Authorization: Basic {TOKEN}"), "401"),
        ("X-Token: none".to_owned(), "401"),
    ] {
        let mut command = Command::new("curl");
        command.args(["-s", "-S", "-m", "60", "--noproxy", "*", "-w", "\n%{http_code}", "-H", &header, &url]);
        let ended = Ended::of(&mut command)?;
        let (body, got) = ended.stdout.rsplit_once('\n').with_context(|| ended.stderr.clone())?;
        let body: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
        ensure!(
            got == status && (status == "200" || body["error"]["code"] == "no_token"),
            "{header}: {got} {body}"
        );
    }
    // The socket of the file system needs none.
    ensure!(service.json("GET", "/v1/sessions", None, 200)? == json!({"sessions": []}), "sessions");
    service.end()
}

/// Each path answers the methods that are described, and no others.
fn description(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&[])?;
    let document = service.json("GET", "/openapi.json", None, 200)?;
    let mut printed = Command::new("setpriv");
    printed.args(["--reuid", "65534", "--clear-groups"]).arg(fault(&[]).get_program());
    let printed = Ended::of(printed.args(["serve", "--openapi"]))?;
    ensure!(serde_json::from_str::<Value>(&printed.stdout)? == document, "{}", printed.stderr);
    let paths = document["paths"].as_object().context("no paths")?;
    ensure!(paths.len() >= 8, "{paths:?}");
    for (path, methods) in paths {
        // Nothing that is asked here does anything: there is no such session, and no body.
        let asked = path.replace("{id}", "none");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let (status, body) = service.ask(method, &asked, None)?;
            let described = &methods[method.to_lowercase()];
            ensure!((status == 405) == described.is_null(), "{method} {path}: {status} {body}");
            let error = serde_json::from_str::<Value>(&body).unwrap_or_default()["error"]["code"].clone();
            ensure!(error != "no_such_path", "{method} {path} is described and does not exist");
            ensure!(
                described.is_null() || !described["responses"][status.to_string()].is_null(),
                "{method} {path}: {status} is not described"
            );
        }
    }
    let codes = document["components"]["schemas"]["Code"].to_string();
    for code in ["bad_spec", "no_such_session", "too_many_sessions", "no_token"] {
        ensure!(codes.contains(code), "{codes}");
    }
    service.end()
}

fn python_client(_: Lane) -> anyhow::Result<()> {
    let service = Service::start(&[])?;
    let target = Process::start(Command::new("sleep").arg("60"))?;
    let directory = tempfile::TempDir::new()?;
    std::fs::write(
        directory.path().join("fault_service.py"),
        include_str!("../../../clients/python/fault_service.py"),
    )?;
    let script = format!(
        "import fault_service as fault\n\
         with fault.inject(pid={pid}, net='drop 10%', seed=3) as session:\n\
         \x20   assert session.get()['state'] == 'active'\n\
         \x20   assert session.change(net=['drop 20%'])['rules'][0]['spec'] == 'drop 20%'\n\
         assert session.report['session']['exit']['reason'] == 'deleted', session.report\n\
         try:\n\
         \x20   fault.inject(pid=4194303, net='drop')\n\
         except fault.FaultError as error:\n\
         \x20   assert (error.status, error.code) == (422, 'bad_target'), error\n\
         else:\n\
         \x20   raise SystemExit('no error')\n\
         fault.inject(pid={pid}, net='drop')\n",
        pid = target.pid()
    );
    let mut python = Command::new("python3");
    python.args(["-B", "-c", &script]).current_dir(directory.path()).env("FAULT_SOCKET", service.socket());
    let ended = Ended::of(&mut python)?;
    ensure!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    // The last session was never healed; its client is gone.
    let sessions = service.json("GET", "/v1/sessions", None, 200)?;
    let id = sessions["sessions"][0]["id"].as_str().context("no session")?;
    let report = service.healed(id)?;
    ensure!(report["session"]["exit"]["reason"] == "lease_expired", "{report}");
    service.end()
}
