//! What we ask of apt: versions, downloads, installs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{exec, host};

/// Whether this machine has apt at all.
pub fn exists() -> bool {
    host::which("apt-get").is_some() && host::which("dpkg-query").is_some()
}

/// The version apt would install of `package`.
pub fn candidate(package: &str) -> Result<String> {
    let policy = exec::capture(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
    match parse_candidate(&policy) {
        Some(version) => Ok(version.to_owned()),
        None => bail!(
            "apt knows no package {package}: run `apt-get update`, or add the distribution's \
             security suite to the apt sources"
        ),
    }
}

fn parse_candidate(policy: &str) -> Option<&str> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
}

/// Names of the packages that start with `prefix`.
pub fn names(prefix: &str) -> Result<Vec<String>> {
    let text = exec::capture(Command::new("apt-cache").args(["pkgnames", prefix]))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Those of `packages` that are not installed.
pub fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query exits 1 when it does not know one of them; what it prints is still right.
    let out = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\\n"])
        .args(packages)
        .output()
        .context("starting dpkg-query")?;
    Ok(not_installed(packages, &String::from_utf8_lossy(&out.stdout)))
}

fn not_installed<'a>(packages: &[&'a str], listing: &str) -> Vec<&'a str> {
    let installed: Vec<&str> = listing.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    packages.iter().filter(|package| !installed.contains(package)).copied().collect()
}

/// `apt-get` that asks nothing.
pub fn command() -> Command {
    let mut cmd = Command::new("apt-get");
    cmd.env("DEBIAN_FRONTEND", "noninteractive");
    cmd
}

/// The arguments of `apt-get` that install `packages` without questions and without extras.
pub fn install_args<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "install",
        "--yes",
        // The recommended packages of this list are several GB of documentation and desktops.
        "--no-install-recommends",
        // A full apt log is thousands of carriage returns when it is not a terminal.
        "--quiet",
        "-o",
        // Another apt may be running; wait for it instead of failing.
        "DPkg::Lock::Timeout=300",
    ];
    args.extend(packages);
    args
}

/// Fetches `package` at `version` and unpacks it into `into`, without installing anything.
pub fn download_and_extract(package: &str, version: &str, into: &Path) -> Result<()> {
    host::make_dir(into)?;
    let debs = into.join("debs");
    host::make_dir(&debs)?;
    // Directory of root's home: apt complains that its own user cannot write there, and then
    // downloads all the same; capture keeps that quiet unless it fails.
    exec::capture(
        Command::new("apt-get").arg("download").arg(format!("{package}={version}")).current_dir(&debs),
    )?;
    let entries = std::fs::read_dir(&debs).with_context(|| format!("reading {}", debs.display()))?;
    for entry in entries {
        let deb = entry.with_context(|| format!("reading {}", debs.display()))?.path();
        exec::capture(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into))?;
    }
    std::fs::remove_dir_all(&debs).with_context(|| format!("removing {}", debs.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidate_of_a_policy_listing() {
        let policy = "bash:\n  Installed: 5.1\n  Candidate: 5.2-1\n  Version table:\n";
        assert_eq!(parse_candidate(policy), Some("5.2-1"));
        assert_eq!(parse_candidate("x:\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn half_installed_counts_as_missing() {
        let listing = "bash installed\nfio config-files\n";
        assert_eq!(not_installed(&["bash", "fio", "nft"], listing), ["fio", "nft"]);
    }

    #[test]
    fn installs_only_what_was_named() {
        let args = install_args(&["fio"]);
        assert_eq!(args.first(), Some(&"install"));
        assert_eq!(args.last(), Some(&"fio"));
        assert!(args.contains(&"--no-install-recommends"));
    }
}
