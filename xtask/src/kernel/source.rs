//! The kernels we build: Debian's source package, our fragment, one tree for all lanes so that a
//! lane that differs in one option costs seconds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::{Kernel, config, remove_dir};
use crate::host::{self, CacheLock};
use crate::lane::Lane;
use crate::progress::Step;
use crate::setup::{self, Need};
use crate::{apt, exec};

/// The package the source comes from, also the directory its archive unpacks to.
const PACKAGE: &str = "linux-source-6.12";
/// Lines of `make` output of a full build of the fragment; only the progress bar depends on it.
const EXPECTED_LINES: u64 = 2640;
/// Holds the package version the tree was unpacked from.
const VERSION_FILE: &str = ".fault-source-version";

/// The kernel of a built lane; compiles it if the cache lacks it.
pub fn ensure(lane: Lane, overrides: &[(&str, &str)], update: bool) -> Result<Kernel> {
    let fragment = config::with_overrides(config::FRAGMENT, overrides);
    let source = host::cache_dir()?.join("kernel-src");
    let tree = source.join(PACKAGE);
    // Without the lock: a VM must not wait for the minutes another lane's build takes.
    if !update
        && let Some(version) = version_of(&tree)
        && let Some(kernel) = cached(lane, &version, &fragment)?
    {
        return Ok(kernel);
    }

    let _lock = CacheLock::take("kernel-src")?;
    setup::ensure(&[Need::Kernel])?;
    let version = match version_of(&tree) {
        Some(version) if !update => version,
        unpacked => {
            let newest = apt::candidate(PACKAGE)?;
            if unpacked.as_ref() != Some(&newest) {
                unpack(&source, &tree, &newest)?;
            }
            newest
        }
    };
    if let Some(kernel) = cached(lane, &version, &fragment)? {
        return Ok(kernel);
    }
    configure(&tree, &fragment)?;
    compile(lane, &tree)?;
    publish(&tree, &fragment, &directory(lane, &version, &fragment)?)?;
    cached(lane, &version, &fragment)?
        .with_context(|| format!("the kernel built for lane {lane} is not in the cache"))
}

fn directory(lane: Lane, version: &str, fragment: &str) -> Result<PathBuf> {
    Ok(host::cache_dir()?.join("kernels").join(format!("{lane}-{}", key(version, fragment))))
}

fn cached(lane: Lane, version: &str, fragment: &str) -> Result<Option<Kernel>> {
    let kernel = Kernel { image: directory(lane, version, fragment)?.join("bzImage"), modules: None };
    Ok(kernel.image.is_file().then_some(kernel))
}

/// Identifies a build: what it was made from.
fn key(version: &str, fragment: &str) -> String {
    // Comments may change without a rebuild.
    let options = fragment.lines().filter(|line| line.starts_with("CONFIG_")).collect::<Vec<_>>().join("\n");
    let digest = Sha256::new().chain_update(version).chain_update("\n").chain_update(options).finalize();
    digest.iter().take(6).map(|b| format!("{b:02x}")).collect()
}

fn version_of(tree: &Path) -> Option<String> {
    let text = std::fs::read_to_string(tree.join(VERSION_FILE)).ok()?;
    Some(text.trim().to_owned())
}

/// Unpacks the source package into `tree`, replacing what is there.
fn unpack(source: &Path, tree: &Path, version: &str) -> Result<()> {
    let step = Step::spinner(format!("kernel source {version}"));
    host::make_dir(source)?;
    let scratch = source.join("unpacking");
    remove_dir(&scratch)?;
    let package = scratch.join("package");
    apt::download_and_extract(PACKAGE, version, &package)?;
    let archive = package.join("usr/src").join(format!("{PACKAGE}.tar.xz"));
    exec::run(Command::new("tar").arg("-C").arg(&scratch).arg("-xf").arg(&archive))?;
    let fresh = scratch.join(PACKAGE);
    hide_option_in_comment(&fresh)?;
    std::fs::write(fresh.join(VERSION_FILE), version)
        .with_context(|| format!("writing {VERSION_FILE} in {}", fresh.display()))?;
    remove_dir(tree)?;
    std::fs::rename(&fresh, tree)
        .with_context(|| format!("moving the kernel source to {}", tree.display()))?;
    remove_dir(&scratch)?;
    step.done();
    Ok(())
}

/// kbuild finds out which options a file depends on by looking for their names in it and in what
/// it includes, comments too. One comment in bpf.h names the option in which our lanes differ,
/// and with it a second lane would recompile some 900 files instead of one.
fn hide_option_in_comment(tree: &Path) -> Result<()> {
    let path = tree.join("include/uapi/linux/bpf.h");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}", path.display()))?
        .replace("CONFIG_BPF_KPROBE_OVERRIDE", "BPF_KPROBE_OVERRIDE");
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// Writes `.config`: the smallest kernel there is, with the fragment merged over it.
fn configure(tree: &Path, fragment: &str) -> Result<()> {
    let path = tree.join("fault-fragment.config");
    std::fs::write(&path, fragment).with_context(|| format!("writing {}", path.display()))?;
    exec::capture(make(tree).arg("tinyconfig"))?;
    exec::capture(
        Command::new("scripts/kconfig/merge_config.sh").current_dir(tree).args(["-m", ".config"]).arg(&path),
    )?;
    exec::capture(make(tree).arg("olddefconfig"))?;
    let actual = std::fs::read_to_string(tree.join(".config"))
        .with_context(|| format!("reading .config in {}", tree.display()))?;
    let lost = config::lost(fragment, &actual);
    if !lost.is_empty() {
        bail!(
            "the kernel's configuration dropped options of xtask/kernel/fragment.config \
             (a dependency is missing there): {}",
            lost.join(" ")
        );
    }
    Ok(())
}

fn compile(lane: Lane, tree: &Path) -> Result<()> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut step = Step::bar(format!("kernel for lane {lane}"), EXPECTED_LINES);
    exec::run_lines(make(tree).arg(format!("-j{jobs}")).arg("bzImage"), |line| step.tick(line.trim_start()))?;
    step.done();
    Ok(())
}

/// `make` in the tree, out of the way of everything else on the machine.
fn make(tree: &Path) -> Command {
    let mut cmd = Command::new("nice");
    cmd.args(["-n", "10", "make", "-C"]).arg(tree);
    // A reproducible banner, so that a rebuild of the same thing is the same thing.
    cmd.env("KBUILD_BUILD_USER", "fault").env("KBUILD_BUILD_HOST", "fault");
    cmd
}

/// Copies what a VM needs out of the tree; the rename makes it whole or absent.
fn publish(tree: &Path, fragment: &str, dir: &Path) -> Result<()> {
    let fresh = dir.with_extension("new");
    remove_dir(&fresh)?;
    host::make_dir(&fresh)?;
    let files: [(PathBuf, &str); 2] =
        [(tree.join("arch/x86/boot/bzImage"), "bzImage"), (tree.join(".config"), "config")];
    for (from, to) in files {
        std::fs::copy(&from, fresh.join(to))
            .with_context(|| format!("copying {} to the cache", from.display()))?;
    }
    std::fs::write(fresh.join("fragment.config"), fragment)
        .with_context(|| format!("writing to {}", fresh.display()))?;
    remove_dir(dir)?;
    std::fs::rename(&fresh, dir).with_context(|| format!("renaming to {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_follows_version_and_options_but_not_comments() {
        let key_1 = key("6.12.1", "# a\nCONFIG_A=y\n");
        assert_eq!(key_1, key("6.12.1", "# b\nCONFIG_A=y\n"));
        assert_ne!(key_1, key("6.12.2", "# a\nCONFIG_A=y\n"));
        assert_ne!(key_1, key("6.12.1", "# a\nCONFIG_A=n\n"));
        assert_eq!(key_1.len(), 12);
    }
}
