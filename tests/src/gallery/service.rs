//! The systems of the gallery: services in `tests/services`, nginx, Redis. Each is ended when dropped.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use crate::process::Process;

/// How long a service may take to be there, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Debian's, which knows Debian's modules.
const PYTHON: &str = "/usr/bin/python3";

/// A directory of this run with the services in it.
pub struct Services {
    directory: tempfile::TempDir,
}

impl Services {
    /// Writes them out: the program runs where the repository may not be.
    ///
    /// # Errors
    /// When there is no room.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::new()?;
        for (name, text) in [
            ("shop.py", include_str!("../../services/shop.py")),
            ("payment.py", include_str!("../../services/payment.py")),
            ("shopper.py", include_str!("../../services/shopper.py")),
            ("ledger.py", include_str!("../../services/ledger.py")),
            ("cached.py", include_str!("../../services/cached.py")),
            ("page.py", include_str!("../../services/page.py")),
            ("records.py", include_str!("../../services/records.py")),
            ("web.py", include_str!("../../services/web.py")),
            ("commits.py", include_str!("../../services/commits.py")),
            ("readers.py", include_str!("../../services/readers.py")),
            ("registers.py", include_str!("../../services/registers.py")),
            ("znodes.py", include_str!("../../services/znodes.py")),
        ] {
            fs::write(directory.path().join(name), text)?;
        }
        Ok(Self { directory })
    }

    /// `python3 NAME ARGUMENTS`.
    #[must_use]
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(PYTHON);
        command.arg(self.path(name)).args(arguments);
        command
    }

    /// Where a service's program is.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    /// The interpreter.
    #[must_use]
    pub const fn python() -> &'static str {
        PYTHON
    }

    /// Starts one that says when it is ready.
    ///
    /// # Errors
    /// When it ends instead.
    pub fn start(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        Process::start_until(&mut self.command(name, arguments), "ready")
    }

    /// Starts several side by side: an interpreter takes its time, most of all where it is emulated.
    ///
    /// # Errors
    /// When one of them ends instead.
    pub fn start_all(&self, all: &[(&str, Vec<String>)]) -> anyhow::Result<Vec<Process>> {
        thread::scope(|scope| {
            let starting: Vec<_> = all
                .iter()
                .map(|(name, arguments)| {
                    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                    scope.spawn(move || self.start(name, &arguments))
                })
                .collect();
            starting
                .into_iter()
                .map(|one| one.join().map_err(|_| anyhow::anyhow!("starting a service panicked"))?)
                .collect()
        })
    }
}

/// An address of loopback.
#[must_use]
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Waits until somebody takes connections there.
///
/// # Errors
/// When nobody does within a minute.
pub fn wait_for(address: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        ensure!(Instant::now() < deadline, "nobody listens on {address}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// nginx of Debian's package, with one worker.
pub struct Nginx {
    process: Process,
    _directory: tempfile::TempDir,
}

impl Nginx {
    /// Serves `port` with these lines inside of `server { }`; `page` is there to be had.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(port: u16, server: &str) -> anyhow::Result<Self> {
        let directory = tempfile::TempDir::new()?;
        let root = directory.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {root}/{name}; "))
            .concat();
        let configuration = format!(
            "daemon off; worker_processes 1; user root; pid {root}/pid; error_log {root}/error.log;
             events {{ worker_connections 512; }}
             http {{ access_log off; {temporary}
                     server {{ listen 127.0.0.1:{port}; root {root}/html; {server} }} }}"
        );
        fs::create_dir(directory.path().join("html"))?;
        fs::write(directory.path().join("html/page"), vec![b'x'; 10_000])?;
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = Command::new("nginx");
        command.args(["-p", &root.to_string(), "-c", &file.to_string_lossy()]);
        let nginx = Self { process: Process::start(&mut command)?, _directory: directory };
        wait_for(local(port)).context("nginx")?;
        Ok(nginx)
    }

    /// PID of the master.
    #[must_use]
    pub fn pid(&self) -> String {
        self.process.pid()
    }
}

/// Redis of Debian's package.
pub struct Redis {
    process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Redis {
    /// A server on `port`, its files in `directory`, with more options.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(port: u16, directory: &Path, options: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
            .arg(directory)
            .args(options);
        let redis = Self { process: Process::start(&mut command)?, address: local(port) };
        wait_for(redis.address).context("redis-server")?;
        Ok(redis)
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> String {
        self.process.pid()
    }
}
