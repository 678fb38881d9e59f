//! What surrounds a probe's answer and helps to explain it. None of this decides anything.

use std::fs;

use super::super::config::Config;

/// Capabilities of the process that arming uses, by bit number (capabilities(7)).
const NEEDED: [(&str, u32); 5] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// The kernel and this process, as far as they tell.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
    /// Major and minor version; `(0, 0)` when the release does not begin with one.
    pub version: (u32, u32),
    /// The chosen kernel lockdown mode, when the kernel has lockdown: `none`, `integrity`, `confidentiality`.
    pub lockdown: Option<String>,
    /// Yama's `ptrace_scope`.
    pub ptrace_scope: Option<u32>,
    /// Capabilities this process does not have.
    pub missing: Vec<&'static str>,
    /// Root here is nobody outside: the kernel wants the capabilities in its first user namespace.
    pub in_user_namespace: bool,
    /// The kernel's configuration, if it can be found.
    pub config: Option<Config>,
}

impl Environment {
    /// Of this process on this kernel.
    pub fn here() -> Self {
        let names = nix::sys::utsname::uname().ok();
        let text = |value: Option<&std::ffi::OsStr>| {
            value.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let release = text(names.as_ref().map(|names| names.release()));
        let read = |path: &str| fs::read_to_string(path).ok();
        Self {
            version: version(&release),
            machine: text(names.as_ref().map(|names| names.machine())),
            lockdown: read("/sys/kernel/security/lockdown").as_deref().and_then(chosen),
            ptrace_scope: read("/proc/sys/kernel/yama/ptrace_scope").and_then(|n| n.trim().parse().ok()),
            missing: read("/proc/self/status").as_deref().map(missing).unwrap_or_default(),
            in_user_namespace: read("/proc/self/uid_map").is_some_and(|map| !maps_everybody(&map)),
            config: Config::of_running_kernel(&release),
            release,
        }
    }
}

impl Environment {
    /// Whether an EPERM may be for want of privilege. A kernel says it to the mightiest, too, for what it was built or
    /// locked down not to do.
    #[must_use]
    pub fn lacks_privilege(&self) -> bool {
        !self.missing.is_empty() || self.in_user_namespace
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// `none [integrity] confidentiality` → `integrity`.
fn chosen(modes: &str) -> Option<String> {
    let (_, rest) = modes.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(name, _)| *name).collect()
}

/// The map of the first user namespace: everybody is who they are.
fn maps_everybody(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_have_a_version() {
        assert_eq!(version("6.12.48+deb13-amd64"), (6, 12));
        assert_eq!(version("5.14.0-570.el9.x86_64"), (5, 14));
        assert_eq!(version("6.18-rc1"), (6, 18));
        assert_eq!(version("unknown"), (0, 0));
    }

    #[test]
    fn lockdown_is_what_is_in_brackets() {
        assert_eq!(chosen("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(chosen("").as_deref(), None);
    }

    #[test]
    fn capabilities_are_read_from_the_mask() {
        assert!(missing("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(missing("CapEff:\t0000000000000000\n").len(), NEEDED.len());
        assert_eq!(missing("CapEff:\t000001ffffdfffff\n"), ["CAP_SYS_ADMIN"]);
    }

    #[test]
    fn user_namespaces_are_recognised() {
        assert!(maps_everybody("         0          0 4294967295\n"));
        assert!(!maps_everybody("         0       1000          1\n"));
    }
}
