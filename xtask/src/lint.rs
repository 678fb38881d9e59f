//! `cargo xtask lint`: what a change must pass before anything of it is run.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{exec, host};

/// Workspaces of their own, which `cargo fmt --all` does not see: what is compiled for the kernel,
const EBPF: &str = "fault-ebpf/Cargo.toml";
/// and the fuzzers, whose dependencies change with those of what they fuzz.
const FUZZERS: &str = "fuzz/Cargo.toml";

/// Formatting of all workspaces, the fuzzers' lock file, and the lints of this one.
pub fn run() -> Result<()> {
    let root = &host::workspace();
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(root, &["fmt", "--check", "--manifest-path", EBPF])?;
    cargo(root, &["fmt", "--check", "--manifest-path", FUZZERS])?;
    let locked = ["metadata", "--locked", "--format-version", "1", "--manifest-path", FUZZERS];
    exec::capture(Command::new("cargo").current_dir(root).args(locked))?;
    // Without the eBPF toolchain the lints would look at a build without its programs.
    setup::ensure(&[Need::Ebpf])?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    exec::run(Command::new("cargo").current_dir(root).args(arguments))
}
