//! Building this workspace with cargo.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{exec, host};

/// Cargo's profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Debug,
    /// What ships and what is measured.
    Release,
}

impl Profile {
    /// From a `--release` flag.
    pub fn from_release(release: bool) -> Self {
        if release { Self::Release } else { Self::Debug }
    }

    /// Where its programs end up.
    pub fn output_dir(self) -> PathBuf {
        host::target_dir().join(match self {
            Self::Debug => "debug",
            Self::Release => "release",
        })
    }
}

/// Builds library and programs of `packages`, eBPF included.
pub fn build(packages: &[&str], profile: Profile) -> Result<()> {
    exec::run(Command::new("cargo").current_dir(host::workspace()).args(build_args(packages, profile)))
}

fn build_args<'a>(packages: &[&'a str], profile: Profile) -> Vec<&'a str> {
    let mut args = vec!["build", "--lib", "--bins"];
    if profile == Profile::Release {
        args.push("--release");
    }
    for package in packages {
        args.extend(["--package", package]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_what_was_asked() {
        assert_eq!(
            build_args(&["a", "b"], Profile::Release).join(" "),
            "build --lib --bins --release --package a --package b"
        );
    }
}
