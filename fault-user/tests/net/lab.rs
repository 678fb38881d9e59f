//! A network namespace to break things in, and other people's tools to look at it.

use std::process::{Child, Command, Output, Stdio};

use fault_user::net::{attach::Method, netns::NetnsHandle};

/// An empty namespace with `lo` up; gone with the value.
pub struct Lab {
    pub netns: NetnsHandle,
}

impl Lab {
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces and load eBPF programs: run them as root"
        );
        let lab = Self { netns: NetnsHandle::private().unwrap() };
        lab.must("ip link set lo up");
        lab
    }

    /// Runs a command line of the shell inside.
    pub fn run(&self, line: &str) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        self.netns.run_in(|| Ok(command.output().unwrap_or_else(|error| panic!("{line}: {error}")))).unwrap()
    }

    /// As [`Lab::run`]; it must succeed. Returns its output.
    pub fn must(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether a command succeeds.
    pub fn can(&self, line: &str) -> bool {
        self.run(line).status.success()
    }

    /// A process that lives inside and does nothing.
    pub fn inhabitant(&self) -> Inhabitant {
        // Ends by itself when this process is gone.
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped());
        Inhabitant(self.netns.run_in(|| Ok(command.spawn().unwrap())).unwrap())
    }

    /// Whether an echo request to ourselves comes back within a second.
    pub fn pings_itself(&self) -> bool {
        self.can("ping -c 1 -W 1 127.0.0.1")
    }
}

/// A process; dies with this value.
pub struct Inhabitant(Child);

impl Inhabitant {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The methods of attaching that this kernel has, by its own list of functions.
pub fn methods() -> &'static [Method] {
    let functions = std::fs::read_to_string("/proc/kallsyms").unwrap();
    assert!(functions.contains(" __dev_queue_xmit"), "kallsyms is readable");
    match functions.contains(" tcx_link_attach") {
        true => &[Method::Tcx, Method::Clsact],
        false => &[Method::Clsact],
    }
}
