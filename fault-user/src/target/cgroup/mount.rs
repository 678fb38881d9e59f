//! Where the cgroup v2 hierarchy is mounted.
//!
//! | machine | mount point |
//! |---|---|
//! | unified (systemd ≥ 243 by default, most containers) | `/sys/fs/cgroup` |
//! | hybrid v1/v2 | `/sys/fs/cgroup/unified` |
//! | made by hand | anywhere: `/proc/self/mountinfo` knows |

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

use super::CgroupError;

/// What kind of file system a path lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// cgroup v2.
    Unified,
    /// cgroup v1.
    Legacy,
    /// Something else.
    NotACgroup,
}

impl Version {
    pub(super) fn of(path: &Path) -> nix::Result<Self> {
        Ok(match statfs(path)?.filesystem_type() {
            CGROUP2_SUPER_MAGIC => Self::Unified,
            CGROUP_SUPER_MAGIC => Self::Legacy,
            _ => Self::NotACgroup,
        })
    }
}

/// One mount of the cgroup v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Directory it is mounted on.
    pub point: PathBuf,
    /// Which cgroup is seen there, relative to the root of our cgroup namespace: usually `/`.
    pub root: PathBuf,
}

/// Every mount of the cgroup v2 hierarchy that we can see, the best one first.
#[derive(Clone, Debug)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads `/proc/self/mountinfo`.
    ///
    /// # Errors
    /// When there is no cgroup v2 mount, or the file cannot be read.
    pub fn read() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read(path).map_err(|source| CgroupError::Read { path: path.into(), source })?;
        let mut mounts = parse_mountinfo(&text);
        // What another mount covers cannot be reached by its path.
        mounts.retain(|mount| matches!(Version::of(&mount.point), Ok(Version::Unified)));
        mounts.sort_by_key(|mount| (depth(&mount.root).unsigned_abs(), mount.point.as_os_str().len()));
        if mounts.is_empty() { Err(CgroupError::NoHierarchy) } else { Ok(Self(mounts)) }
    }

    /// The mount that shows the most of the hierarchy.
    #[must_use]
    pub fn best(&self) -> &Mount {
        &self.0[0]
    }

    /// The mount `path` (absolute, canonical) lies on.
    #[must_use]
    pub fn holding(&self, path: &Path) -> Option<&Mount> {
        self.0
            .iter()
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.as_os_str().len())
    }
}

/// The cgroup v2 mounts of a mountinfo file, in its order (proc_pid_mountinfo(5)).
fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|&byte| byte == b' ');
            let root = fields.nth(3)?;
            let point = fields.next()?;
            // Optional fields end with a lone hyphen.
            fields.find(|field| *field == b"-")?;
            (fields.next()? == b"cgroup2").then(|| Mount { point: unescape(point), root: unescape(root) })
        })
        .collect()
}

/// Space, tab, newline and backslash are octal in mountinfo.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match (byte, octal) {
            (b'\\', Some(digits)) => {
                out.push(digits.iter().fold(0u8, |sum, d| sum.wrapping_mul(8).wrapping_add(d - b'0')));
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out).into()
}

/// How deep a cgroup path is below where it starts; `..` goes up, so the answer may be negative.
pub(super) fn depth(path: &Path) -> i32 {
    path.components().fold(0, |depth, component| match component {
        Component::Normal(_) => depth + 1,
        Component::ParentDir => depth - 1,
        _ => depth,
    })
}

/// The cgroup v2 path of a process, relative to the root of our cgroup namespace, as in `/proc/PID/cgroup`.
///
/// # Errors
/// When the process is gone or in no v2 cgroup.
pub(super) fn path_of_process(pid: &str) -> Result<PathBuf, CgroupError> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = fs::read(&path).map_err(|source| CgroupError::Read { path: path.clone(), source })?;
    parse_proc_cgroup(&text).ok_or(CgroupError::Read { path, source: io::ErrorKind::NotFound.into() })
}

fn parse_proc_cgroup(text: &[u8]) -> Option<PathBuf> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    // The kernel adds this when the directory was removed under the process.
    let line = line.strip_suffix(b" (deleted)").unwrap_or(line);
    Some(std::ffi::OsStr::from_bytes(line).into())
}

/// Whether a path names something in the hierarchy that our namespace does not show.
pub(super) fn is_above_namespace(path: &Path) -> bool {
    path.starts_with("/..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_of_unified_hybrid_and_odd_machines() {
        let text = b"\
22 1 0:21 / /proc rw,nosuid shared:5 - proc proc rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 /../.. /mnt/a\\040b rw shared:1 master:2 - cgroup2 none rw
43 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
broken line
";
        let mounts = parse_mountinfo(text);
        let points: Vec<_> =
            mounts.iter().map(|m| (m.point.to_str().unwrap(), m.root.to_str().unwrap())).collect();
        assert_eq!(
            points,
            [("/sys/fs/cgroup", "/"), ("/sys/fs/cgroup/unified", "/"), ("/mnt/a b", "/../..")]
        );
    }

    #[test]
    fn depth_counts_both_ways() {
        assert_eq!(depth(Path::new("/")), 0);
        assert_eq!(depth(Path::new("/system.slice/x.service")), 2);
        assert_eq!(depth(Path::new("/../../x")), -1);
    }

    #[test]
    fn proc_cgroup_of_hybrid_machines_and_removed_directories() {
        assert_eq!(parse_proc_cgroup(b"8:pids:/a\n0::/b/c\n"), Some("/b/c".into()));
        assert_eq!(parse_proc_cgroup(b"0::/gone (deleted)\n"), Some("/gone".into()));
        assert_eq!(parse_proc_cgroup(b"8:pids:/a\n"), None);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(b"a\\040b\\134c\\"), PathBuf::from("a b\\c\\"));
    }
}
