//! `cargo xtask dist`: one static binary that needs nothing of the machine it runs on, packed with
//! its checksum.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::setup::{self, MUSL, Need};
use crate::{exec, host};

/// Files of the repository that go into the archive beside the binary, where they exist.
const BESIDE: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// Builds, proves that the result is static, packs. Returns the archive.
pub fn run() -> Result<PathBuf> {
    setup::ensure(&[Need::Ebpf, Need::Dist])?;
    exec::run(Command::new("cargo").current_dir(host::workspace()).args(build_args()))?;
    let binary = host::target_dir().join(MUSL).join("release/fault");
    prove_static(&binary)?;

    let name = format!("fault-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let out = host::workspace().join("dist");
    let staged = out.join(&name);
    crate::kernel::remove_dir(&staged)?;
    host::make_dir(&staged)?;
    copy(&binary, &staged.join("fault"))?;
    for file in BESIDE {
        let from = host::workspace().join(file);
        if from.is_file() {
            copy(&from, &staged.join(file))?;
        }
    }
    let archive = out.join(format!("{name}.tar.gz"));
    exec::capture(Command::new("tar").args(tar_args(&archive, &out, &name)))?;
    crate::kernel::remove_dir(&staged)?;

    let bytes = std::fs::read(&archive).with_context(|| format!("reading {}", archive.display()))?;
    let sum = out.join(format!("{name}.tar.gz.sha256"));
    std::fs::write(&sum, checksum_line(&bytes, &format!("{name}.tar.gz")))
        .with_context(|| format!("writing {}", sum.display()))?;
    Ok(archive)
}

fn build_args() -> [&'static str; 10] {
    [
        "build",
        "--release",
        "--package",
        "fault-user",
        "--bin",
        "fault",
        "--target",
        MUSL,
        "--config",
        // Symbols stay for readable backtraces; line tables are most of the size.
        "profile.release.strip=\"debuginfo\"",
    ]
}

/// Runs the binary where there is nothing else: no loader, no library, no /proc.
fn prove_static(binary: &Path) -> Result<()> {
    let root = host::target_dir().join("empty-root");
    crate::kernel::remove_dir(&root)?;
    host::make_dir(&root)?;
    copy(binary, &root.join("fault"))?;
    let mut cmd = if host::is_root() {
        Command::new("chroot")
    } else {
        let mut cmd = Command::new("unshare");
        cmd.args(["--map-root-user", "chroot"]);
        cmd
    };
    let said = exec::capture(cmd.arg(&root).args(["/fault", "--version"]))
        .context("the binary does not run in an empty root, so it is not static")?;
    crate::kernel::remove_dir(&root)?;
    if !said.contains(env!("CARGO_PKG_VERSION")) {
        bail!("`fault --version` in an empty root said {said:?}");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

/// The same input gives the same archive: nothing of the machine or the moment goes into it.
fn tar_args(archive: &Path, dir: &Path, name: &str) -> Vec<String> {
    vec![
        "--sort=name".into(),
        "--mtime=@0".into(),
        "--owner=0".into(),
        "--group=0".into(),
        "--numeric-owner".into(),
        "--use-compress-program=gzip -9n".into(),
        "-C".into(),
        dir.display().to_string(),
        "-cf".into(),
        archive.display().to_string(),
        name.into(),
    ]
}

/// A line `sha256sum --check` reads.
fn checksum_line(bytes: &[u8], name: &str) -> String {
    let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("{digest}  {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_in_the_format_of_sha256sum() {
        assert_eq!(
            checksum_line(b"abc", "x"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  x\n"
        );
    }

    #[test]
    fn the_archive_says_nothing_about_who_made_it_when() {
        let args = tar_args(Path::new("/d/a.tar.gz"), Path::new("/d"), "a").join(" ");
        for part in ["--sort=name", "--mtime=@0", "--owner=0", "gzip -9n"] {
            assert!(args.contains(part), "{part}");
        }
    }
}
