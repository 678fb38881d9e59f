//! The compiler for the eBPF programs: a rustc that has its library's source, under the name
//! `fault-bpf`, and bpf-linker in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::host::{self, CacheLock};
use crate::progress::Step;
use crate::{apt, exec};

/// The name under which rustup knows the compiler; fault-user/build.rs asks for it.
const TOOLCHAIN: &str = "fault-bpf";
/// The linker's version; it must know the LLVM of the compiler.
const LINKER_VERSION: &str = "0.13.0";
/// The LLVM bpf-linker is built with. A compiler of a later one writes bitcode it cannot read.
const LLVM: u32 = 22;
/// Crates compiled for bpf-linker; only the progress bar depends on it.
const LINKER_CRATES: u64 = 64;

/// Whether compiler and linker are there.
pub fn ready() -> Result<bool> {
    Ok(sysroot(TOOLCHAIN).is_some_and(|root| has_source(&root)) && linker()?.is_file())
}

/// Makes compiler and linker available. Their packages are installed by now.
pub fn make() -> Result<()> {
    let _lock = CacheLock::take("bpf-linker")?;
    if !sysroot(TOOLCHAIN).is_some_and(|root| has_source(&root)) {
        link_toolchain()?;
    }
    if !linker()?.is_file() {
        install_linker()?;
    }
    Ok(())
}

fn root() -> Result<PathBuf> {
    Ok(host::cache_dir()?.join(format!("bpf-linker-{LINKER_VERSION}")))
}

fn linker() -> Result<PathBuf> {
    Ok(root()?.join("bin/bpf-linker"))
}

/// The directory of toolchain `name`, if rustup has it.
fn sysroot(name: &str) -> Option<PathBuf> {
    let out = exec::capture(Command::new("rustup").args(["run", name, "rustc", "--print", "sysroot"]));
    Some(PathBuf::from(out.ok()?.trim()))
}

/// `-Z build-std=core` compiles the library from here.
fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
}

fn link_toolchain() -> Result<()> {
    if host::which("rustup").is_none() {
        bail!("rustup is missing; install it from https://rustup.rs and run the command again");
    }
    let compiler = nightly().or_else(distribution).with_context(|| {
        format!(
            "compiling eBPF needs a rustc with its library's source and LLVM {LLVM}: either \
             `rustup toolchain install nightly --component rust-src`, or Debian's packages \
             rustc-web and rust-web-src"
        )
    })?;
    eprintln!("rustup toolchain {TOOLCHAIN}: a link to {}", compiler.display());
    exec::capture(Command::new("rustup").args(["toolchain", "link", TOOLCHAIN]).arg(&compiler))?;
    Ok(())
}

/// rustup's nightly, if it has the source and an LLVM the linker knows.
fn nightly() -> Option<PathBuf> {
    let root = sysroot("nightly").filter(|root| has_source(root))?;
    usable(&root).then_some(root)
}

/// Debian's compiler, below /usr.
fn distribution() -> Option<PathBuf> {
    let root = PathBuf::from("/usr");
    (has_source(&root) && usable(&root)).then_some(root)
}

fn usable(sysroot: &Path) -> bool {
    exec::capture(Command::new(sysroot.join("bin/rustc")).arg("-vV"))
        .is_ok_and(|text| llvm_major(&text).is_some_and(|major| major <= LLVM))
}

/// The LLVM in the output of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

fn install_linker() -> Result<()> {
    let prefix = match std::env::var_os("LLVM_PREFIX") {
        Some(prefix) => PathBuf::from(prefix),
        None => PathBuf::from(format!("/usr/lib/llvm-{LLVM}")),
    };
    if !prefix.join("bin/llvm-config").is_file() {
        let hint = if apt::exists() {
            format!("install package llvm-{LLVM}-dev")
        } else {
            "set LLVM_PREFIX to where it is".to_owned()
        };
        bail!("building bpf-linker needs LLVM {LLVM} with its headers in {}: {hint}", prefix.display());
    }
    let mut step = Step::bar(format!("building bpf-linker {LINKER_VERSION}"), LINKER_CRATES);
    let mut cmd = Command::new("nice");
    cmd.args(["-n", "10", "cargo"])
        .args(install_args())
        .arg("--root")
        .arg(root()?)
        // In a directory of its own: a --target-dir of the caller's is not meant for this.
        .env_remove("CARGO_TARGET_DIR")
        .env("LLVM_PREFIX", &prefix)
        .env(format!("LLVM_SYS_{LLVM}1_PREFIX"), &prefix);
    exec::run_lines(&mut cmd, |line| {
        if let Some(name) = line.trim_start().strip_prefix("Compiling ") {
            step.tick(name);
        }
    })?;
    step.done();
    Ok(())
}

fn install_args() -> [&'static str; 7] {
    [
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        // Its default is to download an LLVM of its own.
        "--no-default-features",
        "--features",
        "llvm-22",
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_compiler() {
        let text = "rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.4\n";
        assert_eq!(llvm_major(text), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }

    #[test]
    fn the_linkers_feature_is_the_llvm_we_look_for() {
        assert!(install_args().contains(&format!("llvm-{LLVM}").as_str()));
    }
}
