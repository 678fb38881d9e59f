//! A running `fault serve`, and clients of it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    driver::fault,
    process::{Ended, Process, proc_file},
};

/// How long something may take on an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running service and its socket.
pub struct Service {
    /// The service.
    pub process: Process,
    /// Where its socket lies.
    pub directory: tempfile::TempDir,
}

/// What a service holds.
#[derive(Debug)]
pub struct Held {
    /// How many files and sockets are open.
    pub descriptors: usize,
    /// Bytes of memory.
    pub resident: u64,
}

impl Service {
    /// Starts one, with these arguments beside the socket.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::new()?;
        let listen = format!("unix:{}", directory.path().join("socket").display());
        let arguments = [&["serve", "--listen", &listen], arguments].concat();
        let process = Process::start_until(&mut fault(&arguments), "fault: serving")?;
        Ok(Self { process, directory })
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// A question, by curl.
    #[must_use]
    pub fn curl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("curl");
        command.args(["-s", "-S", "-m", "60", "--unix-socket"]).arg(self.socket()).args(arguments);
        command
    }

    /// The status and body of an answer.
    ///
    /// # Errors
    /// When curl gets no answer.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> anyhow::Result<(u16, String)> {
        let url = format!("http://fault{path}");
        let mut command = self.curl(&["-w", "\n%{http_code}", "-X", method, &url]);
        if let Some(body) = body {
            command.args(["--data-binary", "@-"]);
            return Self::answer(Ended::with_input(&mut command, body.as_bytes())?);
        }
        Self::answer(Ended::of(&mut command)?)
    }

    fn answer(ended: Ended) -> anyhow::Result<(u16, String)> {
        ensure!(ended.status.success(), "curl: {}: {}", ended.status, ended.stderr);
        let (body, status) = ended.stdout.rsplit_once('\n').context("no status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    /// The JSON of an answer that must have this status.
    ///
    /// # Errors
    /// When it is another status, or no JSON.
    pub fn json(&self, method: &str, path: &str, body: Option<&Value>, status: u16) -> anyhow::Result<Value> {
        let text = body.map(Value::to_string);
        let (got, body) = self.ask(method, path, text.as_deref())?;
        ensure!(got == status, "{method} {path}: {got} instead of {status}: {body}");
        serde_json::from_str(&body).with_context(|| body)
    }

    /// A session that is active; its id.
    ///
    /// # Errors
    /// When it is refused.
    pub fn create(&self, request: &Value) -> anyhow::Result<String> {
        let view = self.json("POST", "/v1/sessions", Some(request), 201)?;
        ensure!(view["state"] == "active", "{view}");
        Ok(view["id"].as_str().context("no id")?.to_owned())
    }

    /// Waits until the session is healed, and returns its report.
    ///
    /// # Errors
    /// When it takes too long.
    pub fn healed(&self, id: &str) -> anyhow::Result<Value> {
        let start = Instant::now();
        loop {
            let view = self.json("GET", &format!("/v1/sessions/{id}"), None, 200)?;
            if view["state"] == "healed" {
                return Ok(view["report"].clone());
            }
            ensure!(start.elapsed() < PATIENCE, "not healed: {view}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The status and JSON of an answer, without a process for the question.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub fn ask_quickly(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
        let mut client = UnixStream::connect(self.socket())?;
        client.set_read_timeout(Some(2 * PATIENCE))?;
        let length = body.len();
        write!(
            client,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut text = String::new();
        client.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").with_context(|| text.clone())?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, serde_json::from_str(body).with_context(|| text.clone())?))
    }

    /// What the service holds, once it holds no more than so many descriptors, or as many for a second.
    ///
    /// # Errors
    /// When it has ended.
    pub fn settled(&self, descriptors: usize) -> anyhow::Result<Held> {
        let pid: u32 = self.process.pid().parse()?;
        let (start, mut last, mut same) = (Instant::now(), 0, 0);
        loop {
            let now = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            if (same >= 10 && (descriptors == 0 || now <= descriptors)) || start.elapsed() > PATIENCE {
                let status = proc_file(pid, "status")?;
                let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
                let kib: u64 = line.split_whitespace().next().context("no number")?.parse()?;
                return Ok(Held { descriptors: now, resident: kib * 1024 });
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// When it does not end well, or leaves its socket.
    pub fn end(self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        let ended = self.process.ended()?;
        ensure!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        ensure!(!self.directory.path().join("socket").exists(), "the socket is left");
        Ok(())
    }
}
