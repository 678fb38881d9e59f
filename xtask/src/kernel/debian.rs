//! Stock kernels, from the packages of the configured apt sources: downloaded and unpacked into
//! the cache, never installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};

use super::Kernel;
use crate::host::{self, CacheLock};
use crate::lane::Lane;
use crate::progress::Step;
use crate::setup::{self, Need};
use crate::{apt, exec};

/// The newest stock kernel whose package name goes on with `series` after `linux-image-`.
pub fn ensure(lane: Lane, series: &str, update: bool) -> Result<Kernel> {
    let kernels = host::cache_dir()?.join("kernels");
    host::make_dir(&kernels)?;
    let prefix = format!("{lane}-");
    if !update && let Some(kernel) = cached(&kernels, &prefix)? {
        return Ok(kernel);
    }
    let _lock = CacheLock::take(&format!("kernel-{lane}"))?;

    setup::ensure(&[Need::StockKernel])?;
    let names = apt::names(&format!("linux-image-{series}"))?;
    let package = newest(&names, series).ok_or_else(|| {
        anyhow!(
            "lane {lane}: the apt sources have no linux-image-{series}* for amd64; it needs \
             Debian 12's (bookworm and bookworm-security)"
        )
    })?;
    let version = package.trim_start_matches("linux-image-");
    let dir = kernels.join(format!("{prefix}{version}"));
    if !dir.is_dir() {
        let step = Step::spinner(format!("{package} (unpacked into the cache, not installed)"));
        let fresh = kernels.join(format!(".{lane}.new"));
        super::remove_dir(&fresh)?;
        apt::download_and_extract(package, &apt::candidate(package)?, &fresh)?;
        // The package's own scripts would do this at installation.
        let depmod = host::which("depmod").ok_or_else(|| anyhow!("no depmod (package kmod)"))?;
        exec::capture(Command::new(depmod).arg("-b").arg(&fresh).arg(version))?;
        std::fs::rename(&fresh, &dir).with_context(|| format!("renaming to {}", dir.display()))?;
        step.done();
    }
    kernel_in(&dir, version)
}

/// The newest kernel of this lane that is unpacked already.
fn cached(kernels: &Path, prefix: &str) -> Result<Option<Kernel>> {
    let entries = std::fs::read_dir(kernels).with_context(|| format!("reading {}", kernels.display()))?;
    let newest = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix(prefix).map(str::to_owned)
        })
        .max_by_key(|version| numbers(version));
    newest.map(|version| kernel_in(&kernels.join(format!("{prefix}{version}")), &version)).transpose()
}

fn kernel_in(dir: &Path, version: &str) -> Result<Kernel> {
    let kernel = Kernel {
        image: dir.join(format!("boot/vmlinuz-{version}")),
        modules: Some(modules_in(dir, version)),
    };
    if !kernel.image.is_file() {
        bail!("{} is incomplete; remove it and try again", dir.display());
    }
    Ok(kernel)
}

/// Debian 12 puts modules below /lib, later releases below /usr/lib.
fn modules_in(dir: &Path, version: &str) -> PathBuf {
    let old = dir.join("lib/modules").join(version);
    if old.is_dir() { old } else { dir.join("usr/lib/modules").join(version) }
}

/// The newest generic kernel among package `names`. The cloud flavour has no 9p, rt is another
/// kernel altogether, unsigned and dbg are not what anybody boots.
fn newest<'a>(names: &'a [String], series: &str) -> Option<&'a str> {
    names
        .iter()
        .filter(|name| {
            let rest = name
                .strip_prefix("linux-image-")
                .and_then(|rest| rest.strip_prefix(series))
                .and_then(|rest| rest.strip_suffix("-amd64"));
            // `117+deb12` or `56`; flavours put letters and hyphens here.
            rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && !rest.contains('-'))
        })
        .max_by_key(|name| numbers(name))
        .map(String::as_str)
}

/// The numbers in a version, for comparing: `6.12.117+deb12` → `[6, 12, 117, 12]`.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_generic_kernel_wins() {
        let names = [
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.118+deb12-cloud-amd64",
            "linux-image-6.12.118+deb12-rt-amd64",
            "linux-image-6.12.118+deb12-amd64-unsigned",
            "linux-image-6.12.118+deb12-amd64-dbg",
            "linux-image-6.12-amd64",
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-57-rt-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&names, "6.12."), Some("linux-image-6.12.117+deb12-amd64"));
        assert_eq!(newest(&names, "6.1.0-"), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(newest(&names, "5.10."), None);
    }
}
