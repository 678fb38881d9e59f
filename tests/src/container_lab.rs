//! Containers of real engines. Their image is made of the machine's own busybox; no registry is asked. Only in machines of our
//! own: the engines use their usual directories, because that is where they are looked for.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::Signal;

use crate::{
    net_lab::{NetLab, sh},
    process::{Ended, Process},
};

/// How long a daemon may take to answer, on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The image.
const IMAGE: &str = "localhost/e2e:latest";
/// What the image's busybox is called.
const APPLETS: [&str; 3] = ["sh", "ping", "sleep"];

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A daemon that is asked over its socket.
    Docker,
    /// No daemon.
    Podman,
}

/// A root file system with a shell in it.
///
/// # Errors
/// When a file cannot be copied.
pub fn root_file_system(at: &Path) -> anyhow::Result<()> {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "usr"] {
        fs::create_dir_all(at.join(directory))?;
    }
    fs::copy("/usr/bin/busybox", at.join("bin/busybox")).context("the package busybox-static")?;
    for applet in APPLETS {
        symlink("busybox", at.join("bin").join(applet))?;
    }
    Ok(fs::write(at.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?)
}

/// The shell command of a container that asks `to` for one echo after the other.
#[must_use]
pub fn pinging(to: &str) -> String {
    format!("while :; do ping -c 1 -W 1 {to}; sleep 0.05; done")
}

/// An engine with an image.
pub struct Engine {
    kind: Kind,
    directory: tempfile::TempDir,
    daemon: Option<Process>,
}

impl Engine {
    /// Starts the engine and gives it the image.
    ///
    /// # Errors
    /// When it does not answer within a minute.
    pub fn new(kind: Kind) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let root = directory.path().join("root");
        root_file_system(&root)?;
        let image = directory.path().join("image.tar");
        sh(&format!("tar -C {} -cf {} .", root.display(), image.display()))?;
        let mut engine = Self { kind, directory, daemon: None };
        if kind == Kind::Docker {
            engine.start_daemon()?;
        }
        engine.call(&["import", &image.to_string_lossy(), IMAGE])?;
        Ok(engine)
    }

    /// A daemon that leaves the machine's network alone.
    fn start_daemon(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new("dockerd");
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        command.args(["--storage-driver=vfs", "--exec-opt", "native.cgroupdriver=cgroupfs", "--data-root"]);
        let data = self.directory.path().join("docker");
        self.daemon = Some(Process::start_until(command.arg(data), "").context("dockerd")?);
        let deadline = Instant::now() + PATIENCE;
        while self.call(&["version"]).is_err() {
            ensure!(Instant::now() < deadline, "dockerd does not answer");
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    fn command(&self) -> Command {
        match self.kind {
            // Not another client that may lie on the way.
            Kind::Docker => Command::new("/usr/bin/docker"),
            Kind::Podman => {
                let mut command = Command::new("podman");
                command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
                command.args(["--events-backend", "none", "--log-level", "error"]);
                command
            }
        }
    }

    /// Has the engine do something; what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn call(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::null());
        // Files instead of pipes: what it leaves running would keep a pipe open.
        let (out, err) = (self.directory.path().join("out"), self.directory.path().join("err"));
        let status = command.stdout(fs::File::create(&out)?).stderr(fs::File::create(&err)?).status()?;
        if !status.success() {
            bail!("{command:?}: {status}: {}", fs::read_to_string(&err)?);
        }
        Ok(fs::read_to_string(&out)?.trim().to_owned())
    }

    /// Starts a container in a network namespace of its own, in which nothing is but `lo`; its id.
    ///
    /// # Errors
    /// When the engine does not.
    pub fn run(&self, name: &str, script: &str) -> anyhow::Result<String> {
        let options = ["--network", "none", "--cap-add", "NET_RAW"];
        self.call(&[&["run", "-d", "--name", name][..], &options, &[IMAGE, "/bin/sh", "-c", script]].concat())
    }

    /// The first process of a container.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn pid(&self, name: &str) -> anyhow::Result<String> {
        self.call(&["inspect", "-f", "{{.State.Pid}}", name])
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let remove = self
            .call(&["ps", "-a", "-q"])
            .and_then(|ids| ids.split_whitespace().try_for_each(|id| self.call(&["rm", "-f", id]).map(drop)));
        let stop = match self.daemon.take() {
            Some(daemon) => daemon.signal(Signal::SIGTERM).and_then(|()| daemon.ended().map(drop)),
            None => self.call(&["rmi", "-f", IMAGE]).map(drop),
        };
        if let Err(error) = remove.and(stop) {
            eprintln!("removing {:?}: {error:#}", self.kind);
        }
    }
}

/// A containerd, and containers in it as a kubelet would leave them.
pub struct Containerd {
    directory: tempfile::TempDir,
    daemon: Option<Process>,
    ids: Vec<String>,
    made: u32,
}

/// Where it listens.
const SOCKET: &str = "/run/containerd/e2e.sock";

impl Containerd {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not answer within a minute.
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("config.toml");
        fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")?;
        let mut command = Command::new("containerd");
        command.args(["--state", "/run/containerd", "--address", SOCKET, "--config"]).arg(config);
        command.arg("--root").arg(directory.path().join("data"));
        let daemon = Process::start_until(&mut command, "").context("containerd")?;
        let containerd = Self { directory, daemon: Some(daemon), ids: Vec::new(), made: 0 };
        let deadline = Instant::now() + PATIENCE;
        while containerd.call(&["version"]).is_err() {
            ensure!(Instant::now() < deadline, "containerd does not answer");
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(containerd)
    }

    fn call(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let err = self.directory.path().join("err");
        let mut command = Command::new("ctr");
        command.args(["-a", SOCKET, "-n", "k8s.io"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&err)?);
        let status = command.status()?;
        ensure!(status.success(), "{command:?}: {status}: {}", fs::read_to_string(&err)?);
        Ok(())
    }

    /// Runs `script` as `pod/namespace/container`, in the lab's target namespace.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run(
        &mut self,
        lab: &NetLab,
        [pod, namespace, container]: [&str; 3],
        script: &str,
    ) -> anyhow::Result<()> {
        self.made += 1;
        let id = format!("e2e-{pod}-{container}-{}", self.made);
        let root = self.directory.path().join(&id);
        root_file_system(&root)?;
        let annotations = [
            format!("io.kubernetes.cri.sandbox-name={pod}"),
            format!("io.kubernetes.cri.sandbox-namespace={namespace}"),
            format!("io.kubernetes.cri.container-name={container}"),
        ];
        let netns = format!("network:/run/netns/{}", lab.target);
        let mut arguments = vec!["run", "-d", "--null-io", "--with-ns", &netns, "--cap-add", "CAP_NET_RAW"];
        arguments.extend(annotations.iter().flat_map(|annotation| ["--annotation", annotation]));
        let root = root.to_string_lossy();
        arguments.extend(["--rootfs", &root, &id, "/bin/sh", "-c", script]);
        self.call(&arguments)?;
        self.ids.push(id);
        Ok(())
    }

    /// Ends the container that was started last.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&mut self) -> anyhow::Result<()> {
        let id = self.ids.pop().context("a container")?;
        self.call(&["task", "rm", "-f", &id])?;
        self.call(&["container", "rm", &id])
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        while !self.ids.is_empty() {
            if let Err(error) = self.end() {
                eprintln!("removing a container: {error:#}");
            }
        }
        let stopped = self
            .daemon
            .take()
            .map_or(Ok(()), |daemon| daemon.signal(Signal::SIGTERM).and_then(|()| daemon.ended().map(drop)));
        if let Err(error) = stopped {
            eprintln!("stopping containerd: {error:#}");
        }
    }
}

/// Joins the network namespace of process `pid` with the lab's peer: the container gets `10.88.NUMBER.2`, the peer
/// `10.88.NUMBER.1`. Waits until the cable of a former container is gone.
///
/// # Errors
/// When ip(8) does, or the former cable stays.
pub fn plug(lab: &NetLab, pid: &str, number: u32) -> anyhow::Result<()> {
    let (peer, ours) = (&lab.peer, format!("vq{number}"));
    let deadline = Instant::now() + PATIENCE;
    while sh(&format!("ip -n {peer} link show {ours}")).is_ok() {
        ensure!(
            Instant::now() < deadline,
            "{ours} stays: somebody keeps the namespace at its other end alive"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    sh(&format!("ip link add {ours} netns {peer} type veth peer name eth0 netns {pid}"))?;
    sh(&format!("ip -n {peer} addr add 10.88.{number}.1/24 dev {ours}"))?;
    sh(&format!("ip -n {peer} link set {ours} up"))?;
    for line in [format!("addr add 10.88.{number}.2/24 dev eth0"), "link set eth0 up".to_owned()] {
        sh(&format!("nsenter -t {pid} -n ip {line}"))?;
    }
    Ok(())
}

/// A container that is nobody's but a runtime's: a bundle written by hand.
pub struct Bundle {
    runtime: &'static str,
    id: String,
    _directory: tempfile::TempDir,
}

impl Bundle {
    /// Has `runtime` (crun, runc) run `script` in the lab's target namespace.
    ///
    /// # Errors
    /// When it does not.
    pub fn run(runtime: &'static str, id: &str, lab: &NetLab, script: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        root_file_system(&directory.path().join("rootfs"))?;
        let ended = Ended::of(Command::new(runtime).arg("spec").current_dir(&directory))?;
        ensure!(ended.status.success(), "{runtime} spec: {}", ended.stderr);
        let path = directory.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
        config["process"]["terminal"] = false.into();
        config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut().context("capabilities")?;
            set.push("CAP_NET_RAW".into());
        }
        config["linux"]["cgroupsPath"] = format!("/e2e-{id}").into();
        let namespaces = config["linux"]["namespaces"].as_array_mut().context("namespaces")?;
        for namespace in namespaces {
            if namespace["type"] == "network" {
                namespace["path"] = format!("/run/netns/{}", lab.target).into();
            }
        }
        fs::write(&path, serde_json::to_vec(&config)?)?;
        let log = directory.path().join("log");
        let status = Command::new(runtime)
            .args(["run", "-d", "-b"])
            .arg(directory.path())
            .arg(id)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .status()?;
        ensure!(status.success(), "{runtime} run: {}", fs::read_to_string(&log)?);
        Ok(Self { runtime, id: id.to_owned(), _directory: directory })
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("{} delete -f {}", self.runtime, self.id)) {
            eprintln!("removing {}: {error}", self.id);
        }
    }
}

/// Where the programs of these tests are missing.
///
/// # Errors
/// Names the first that is.
pub fn must_be_there(programs: &[&str]) -> anyhow::Result<()> {
    for program in programs {
        let found =
            ["/usr/bin", "/usr/sbin"].iter().any(|directory| PathBuf::from(directory).join(program).exists());
        ensure!(found, "{program} is missing: `cargo xtask setup` installs it");
    }
    Ok(())
}
