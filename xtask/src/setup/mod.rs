//! Installing what the other tasks need, and only what the one at hand needs.

mod ebpf;
mod packages;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::progress::Step;
use crate::{apt, exec, host};
use packages::Package;

/// What a task is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Compile the eBPF programs.
    Ebpf,
    /// Compile a kernel.
    Kernel,
    /// Unpack a stock kernel.
    StockKernel,
    /// Boot a VM.
    Vm,
    /// Run the real programs of the end-to-end tests.
    Tests,
    /// Measure against other programs.
    Bench,
    /// Link a static binary.
    Dist,
    /// Compile libFuzzer.
    Fuzz,
}

impl Need {
    /// Everything.
    pub const ALL: [Self; 8] = [
        Self::Ebpf,
        Self::Kernel,
        Self::StockKernel,
        Self::Vm,
        Self::Tests,
        Self::Bench,
        Self::Dist,
        Self::Fuzz,
    ];
}

/// Makes sure that `needs` can be done here. Says what it is about to install before it does;
/// where it cannot install, says exactly what is missing.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let have_toolchain = !needs.contains(&Need::Ebpf) || ebpf::ready()?;
    let mut wanted: Vec<&Package> = Vec::new();
    for need in needs {
        // The packages behind the eBPF toolchain only serve to make it.
        if *need == Need::Ebpf && have_toolchain {
            continue;
        }
        wanted.extend(packages::of(*need));
    }
    wanted.sort_by_key(|package| package.name);
    wanted.dedup_by_key(|package| package.name);
    install(&wanted)?;
    if !have_toolchain {
        ebpf::make()?;
    }
    if needs.contains(&Need::Dist) {
        add_musl_target()?;
    }
    Ok(())
}

fn install(wanted: &[&Package]) -> Result<()> {
    if !apt::exists() {
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|package| package.program.is_some_and(|name| host::which(name).is_none()))
            .map(|package| package.name)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        bail!(
            "this machine has no apt; install what your distribution calls these Debian \
             packages, then run the command again: {}",
            missing.join(" ")
        );
    }

    let names: Vec<&str> = wanted
        .iter()
        // A program from elsewhere does as well as the package's.
        .filter(|package| package.program.is_none_or(|name| host::which(name).is_none()))
        .map(|package| package.name)
        .collect();
    let missing = apt::missing(&names)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !host::is_root() {
        bail!(
            "packages are missing and only root can install them:\n    sudo apt-get install \
             --no-install-recommends {}",
            missing.join(" ")
        );
    }
    eprintln!("about to install with apt-get: {}", missing.join(" "));
    let unknown = |names: &[&str]| -> Vec<String> {
        names.iter().filter(|name| apt::candidate(name).is_err()).map(|name| (*name).to_owned()).collect()
    };
    if !unknown(&missing).is_empty() {
        let mut step = Step::spinner("apt-get update");
        exec::run_lines(apt::command().arg("update"), |line| step.tick(line))?;
        step.done();
        let unknown = unknown(&missing);
        if !unknown.is_empty() {
            bail!(
                "the apt sources do not have: {}; they are in Debian 12 with its security suite \
                 (bookworm-security)",
                unknown.join(" ")
            );
        }
    }
    let _services = NoServices::start()?;
    let mut step = Step::spinner(format!("installing {} packages", missing.len()));
    exec::run_lines(apt::command().args(apt::install_args(&missing)), |line| {
        step.tick(line);
    })
    .context("installing packages")?;
    step.done();
    Ok(())
}

/// While it lives, packages do not start the daemons they bring: a test needs nginx's program,
/// nobody asked for a web server.
struct NoServices {
    ours: bool,
}

impl NoServices {
    const PATH: &str = "/usr/sbin/policy-rc.d";

    fn start() -> Result<Self> {
        // Whoever has a policy knows why.
        let ours = !Path::new(Self::PATH).exists();
        if ours {
            std::fs::write(Self::PATH, "#!/bin/sh\nexit 101\n")
                .with_context(|| format!("writing {}", Self::PATH))?;
            exec::run(Command::new("chmod").args(["755", Self::PATH]))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_file(Self::PATH);
        }
    }
}

/// Target of the static build.
pub const MUSL: &str = "x86_64-unknown-linux-musl";

fn add_musl_target() -> Result<()> {
    let installed = exec::capture(Command::new("rustup").args(["target", "list", "--installed"]))?;
    if !installed.lines().any(|line| line == MUSL) {
        eprintln!("about to add the standard library of {MUSL} with rustup");
        exec::run(Command::new("rustup").args(["target", "add", MUSL]))?;
    }
    Ok(())
}
