//! `cargo xtask fuzz-api`: requests made from the service's own description (schemathesis), against a service that can hit nobody.
//!
//! Service, clients and the only process that can be a target live in a network namespace of their own, the document that is
//! fuzzed names that process and no other, and requests that break the document are made only where no target is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::setup::{self, Need};
use crate::workspace::{self, Profile};
use crate::{exec, host};

/// The version that is installed from PyPI.
const SCHEMATHESIS: &str = "4.32.5";
/// In the namespace, where nobody else is.
const PORT: u16 = 4711;
/// Sessions that are there from the beginning.
const SESSIONS: usize = 4;
/// How long the service may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(30);
/// What every answer is checked for.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";
/// This kernel cannot, and not now, are no errors of the service.
const SETTINGS: &str =
    "[checks]\nnot_a_server_error.expected-statuses = [\"2xx\", \"3xx\", \"4xx\", 501, 503]\n";

/// Ends a process when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// A network namespace, removed when dropped.
struct Namespace(String);

impl Namespace {
    fn new() -> Result<Self> {
        let namespace = Self(format!("fault-fuzz-{}", std::process::id()));
        exec::run(Command::new("ip").args(["netns", "add", &namespace.0]))?;
        exec::run(Command::new("ip").args(["-n", &namespace.0, "link", "set", "lo", "up"]))?;
        Ok(namespace)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // `ip netns exec` would give it a /sys of its own, without cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Whoever removed it first did no harm.
        _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}

/// Fuzzes for about `budget`, half of it without and half of it with requests that break the description. Whether every answer
/// was one that is described, and no error of the service's.
pub fn run(budget: Duration) -> Result<bool> {
    ensure!(host::is_root(), "fuzz-api needs root: it makes a network namespace and real sessions");
    setup::ensure(&[Need::Ebpf])?;
    let schemathesis = schemathesis()?;
    workspace::build(&["fault-user"], Profile::Debug)?;
    let fault = Profile::Debug.output_dir().join("fault");
    let directory = host::target_dir().join("fuzz-api");
    host::make_dir(&directory)?;
    fs::write(directory.join("schemathesis.toml"), SETTINGS)?;
    let token = token(&directory)?;

    let namespace = Namespace::new()?;
    let target = Running(namespace.command("sleep").arg("1d").spawn().context("starting sleep")?);
    let mut serve = namespace.command(&fault);
    serve.args(["serve", "--max-sessions", "8", "--listen", &format!("tcp:127.0.0.1:{PORT}")]);
    serve.arg("--token-file").arg(directory.join("token"));
    let mut service = Running(serve.spawn().context("starting the service")?);
    let client = Client { namespace: &namespace, authorization: format!("Authorization: Bearer {token}") };
    let ids = client.sessions(target.0.id())?;
    let document: Value =
        serde_json::from_str(&exec::capture(Command::new(&fault).args(["serve", "--openapi"]))?)?;
    let harmless = directory.join("openapi.json");
    fs::write(&harmless, harmless_document(document, target.0.id(), &ids)?.to_string())?;

    let mut passed = true;
    for arguments in [&["--mode", "positive"][..], &["--mode", "all", "--exclude-operation-id", "create"][..]]
    {
        let mut command = namespace.command(&schemathesis);
        command.current_dir(&directory).arg("run").arg(&harmless).args(arguments);
        command.args(["--url", &format!("http://127.0.0.1:{PORT}"), "--header", &client.authorization]);
        command.args(["--checks", CHECKS, "--request-timeout", "60", "--generation-deterministic"]);
        command.args(["--max-time", &(budget / 2).as_secs().max(1).to_string()]);
        command.env("NO_PROXY", "*");
        passed &= exec::status(&mut command)?.success();
        ensure!(service.0.try_wait()?.is_none(), "the service has ended");
    }
    end(&mut service.0)?;
    Ok(passed)
}

/// Installs it into the cache, once.
fn schemathesis() -> Result<PathBuf> {
    let directory = host::cache_dir()?.join(format!("schemathesis-{SCHEMATHESIS}"));
    let program = directory.join("bin/schemathesis");
    if !program.exists() {
        eprintln!("installing schemathesis {SCHEMATHESIS} into {}", directory.display());
        exec::run(Command::new("python3").args(["-m", "venv"]).arg(&directory))
            .context("Debian's package python3-venv makes this work")?;
        let mut install = Command::new(directory.join("bin/pip"));
        exec::run(install.args(["install", "--quiet", &format!("schemathesis=={SCHEMATHESIS}")]))?;
    }
    Ok(program)
}

fn token(directory: &Path) -> Result<String> {
    let token = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().replace('-', "");
    let path = directory.join("token");
    fs::write(&path, &token)?;
    exec::run(Command::new("chmod").arg("600").arg(&path))?;
    Ok(token)
}

struct Client<'a> {
    namespace: &'a Namespace,
    authorization: String,
}

impl Client<'_> {
    /// Makes sessions, as soon as the service can be asked.
    fn sessions(&self, pid: u32) -> Result<Vec<String>> {
        let start = Instant::now();
        let body = json!({"pid": [pid], "net": ["refuse port 1"], "lease": "1d"}).to_string();
        let mut ids = Vec::new();
        while ids.len() < SESSIONS {
            let mut curl = self.namespace.command("curl");
            curl.args(["-s", "--noproxy", "*", "-H", &self.authorization, "--json", &body]);
            curl.arg(format!("http://127.0.0.1:{PORT}/v1/sessions"));
            match exec::capture(&mut curl) {
                Ok(answer) => {
                    let answer: Value = serde_json::from_str(&answer)?;
                    ids.push(answer["id"].as_str().with_context(|| answer.to_string())?.to_owned());
                }
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => sleep(Duration::from_millis(100)),
            }
        }
        Ok(ids)
    }
}

/// The description of the service, cut down to targets that may be hit and sessions that exist.
fn harmless_document(mut document: Value, pid: u32, ids: &[String]) -> Result<Value> {
    let schemas = &mut document["components"]["schemas"];
    let create = schemas["Create"]["properties"].as_object_mut().context("no properties of Create")?;
    for everybody in ["host", "yes"] {
        create.remove(everybody).with_context(|| format!("no {everybody} in Create"))?;
    }
    let lists = [
        ("pid", json!({"enum": [pid, 0, 4_194_303]})),
        ("cgroup", json!({"enum": ["/no/such"]})),
        ("container", json!({"enum": ["no-such"]})),
        ("unit", json!({"enum": ["no-such.service"]})),
        ("comm", json!({"enum": ["no-such-name"]})),
    ];
    for (name, items) in lists {
        create.insert(name.to_owned(), json!({"type": "array", "items": items}));
    }
    for name in ["for", "lease"] {
        create.insert(
            name.to_owned(),
            json!({"anyOf": [{"enum": ["1s", "1m", "connection"]}, {"type": "string"}]}),
        );
    }
    let specs = [
        (
            "net",
            json!([
                "drop 5% out",
                "drop in",
                "refuse port 1",
                "delay 10ms",
                "drop iface lo",
                "drop to 192.0.2.1"
            ]),
        ),
        ("disk", json!(["error 1% read", "delay 1ms"])),
        ("file", json!(["error EIO read file /no/such/**"])),
        ("except", json!(["tcp", "to 192.0.2.0/24:80"])),
    ];
    for schema in ["Create", "Faults"] {
        for (name, specs) in &specs {
            let items = json!({"anyOf": [{"enum": specs}, {"type": "string"}]});
            schemas[schema]["properties"][name] = json!({"type": "array", "items": items});
        }
        schemas[schema]["example"] = json!({"net": ["drop 5% out"]});
    }
    schemas["Create"]["example"]["pid"] = json!([pid]);
    let paths = document["paths"].as_object_mut().context("no paths")?;
    // It answers as long as the session lives.
    paths.remove("/v1/sessions/{id}/events").context("no path of events")?;
    // One is there to be deleted; the others stay.
    let (last, staying) = ids.split_last().context("no sessions")?;
    for (method, operation) in
        paths.values_mut().filter_map(Value::as_object_mut).flat_map(|path| path.iter_mut())
    {
        let known = if method == "delete" { std::slice::from_ref(last) } else { staying };
        let known: Vec<&str> = known.iter().map(String::as_str).chain(["none"]).collect();
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            parameter["schema"] = json!({"type": "string", "enum": known});
        }
    }
    Ok(document)
}

/// Ends the service as a user would; it must heal everything and say nothing.
fn end(service: &mut Child) -> Result<()> {
    exec::run(Command::new("kill").arg(service.id().to_string()))?;
    let start = Instant::now();
    loop {
        match service.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("the service ended with {status}"),
            None if start.elapsed() > PATIENCE => bail!("the service does not end"),
            None => sleep(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_can_be_named() {
        let create = json!({"properties": {"host": {}, "yes": {}, "pid": {}}});
        let document = json!({
            "components": {"schemas": {"Create": create, "Faults": {"properties": {}}}},
            "paths": {
                "/v1/sessions/{id}/events": {},
                "/v1/sessions/{id}": {"get": {"parameters": [{"name": "id", "schema": {"type": "string"}}]}, "delete": {}},
            },
        });
        let harmless = harmless_document(document, 7, &["a-1".to_owned(), "a-2".to_owned()]).unwrap();
        let create = &harmless["components"]["schemas"]["Create"]["properties"];
        assert!(create["host"].is_null() && create["yes"].is_null());
        assert_eq!(create["pid"]["items"], json!({"enum": [7, 0, 4_194_303]}));
        let parameter = &harmless["paths"]["/v1/sessions/{id}"]["get"]["parameters"][0];
        assert_eq!(parameter["schema"]["enum"], json!(["a-1", "none"]));
        assert!(harmless["paths"]["/v1/sessions/{id}/events"].is_null());
    }
}
