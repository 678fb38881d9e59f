//! Where a pattern of paths leads: for each file system it may mean, a pattern of paths within that.
//!
//! The programs see no mount points, and need not: they know the file system of a file and its path in there. So a pattern
//! is taken apart along the mounts that the target sees when the session is armed.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::ffi::{OsStrExt as _, OsStringExt as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use fault_common::{glob::Glob, limits::MAX_GLOBS};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::FileError;
use crate::spec::{Component, FileGlob, automaton};

/// One line of `/proc/PID/mountinfo`, proc_pid_mountinfo(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `super_block.s_dev`: major << 20 | minor.
    pub device: u32,
    /// What of the file system is mounted.
    pub root: Vec<u8>,
    /// Where.
    pub point: Vec<u8>,
    /// The type of the file system.
    pub kind: Vec<u8>,
}

/// A pattern of a rule.
#[derive(Debug, Clone, Copy)]
pub struct Pattern<'a> {
    /// The rule's slot.
    pub slot: u32,
    /// As written.
    pub glob: &'a FileGlob,
    /// Only where the file system lies on a disk.
    pub on_disk: bool,
}

/// What one mount namespace looks like to one of its processes.
#[derive(Debug)]
pub struct Place {
    /// Its root directory; `None` is that of a test.
    root: Option<File>,
    mounts: Vec<Mount>,
    /// Types of file systems that lie on no disk.
    diskless: BTreeSet<Vec<u8>>,
}

/// The places of `processes`, one for each mount namespace; ours when nobody lives yet.
///
/// # Errors
/// When ours cannot be read. A process that has ended meanwhile has none.
pub fn of(processes: &BTreeSet<u32>) -> Result<Vec<Place>, FileError> {
    let mut seen = BTreeSet::new();
    let mut places = Vec::new();
    for process in processes {
        let Ok(namespace) = fs::metadata(format!("/proc/{process}/ns/mnt")) else { continue };
        if seen.insert(namespace.ino())
            && let Ok(place) = Place::of(&process.to_string())
        {
            places.push(place);
        }
    }
    if places.is_empty() {
        let process = "self".to_owned();
        places.push(Place::of(&process).map_err(|source| FileError::Mounts { process, source })?);
    }
    Ok(places)
}

/// Every pattern, for every file system it may mean.
///
/// # Errors
/// When they are too many, or one is too long.
pub fn globs<'a>(
    places: &[Place],
    patterns: impl Iterator<Item = Pattern<'a>>,
) -> Result<Vec<Glob>, FileError> {
    let mut found: Vec<Glob> = Vec::new();
    for Pattern { slot, glob: pattern, on_disk } in patterns {
        for place in places {
            let components = place.canonical(pattern.components());
            if on_disk {
                place.check_disk(pattern, &components)?;
            }
            for mount in place.visible() {
                for rest in mount.rests(&components) {
                    let automaton = automaton(&rest).map_err(|_| FileError::TooLong {
                        glob: pattern.text().to_owned(),
                        mount: String::from_utf8_lossy(&mount.point).into_owned(),
                    })?;
                    let glob = Glob { device: mount.device, slot, automaton };
                    if !found.contains(&glob) {
                        found.push(glob);
                    }
                }
            }
        }
    }
    if found.len() > MAX_GLOBS { Err(FileError::TooMany(found.len())) } else { Ok(found) }
}

impl Place {
    /// That of `process`: a number, or `self`.
    fn of(process: &str) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{process}/mountinfo"))?;
        let root = File::open(format!("/proc/{process}/root"))?;
        Ok(Self {
            root: Some(root),
            mounts: text.split(|byte| *byte == b'\n').filter_map(Mount::read).collect(),
            diskless: diskless()?,
        })
    }

    /// Its root directory.
    pub(super) const fn root(&self) -> Option<&File> {
        self.root.as_ref()
    }

    /// The mounts, but those that another one lies upon at the same place.
    fn visible(&self) -> impl Iterator<Item = &Mount> {
        let is_covered = |(number, mount): (usize, &Mount)| {
            self.mounts[number + 1..].iter().any(|later| later.point == mount.point)
        };
        self.mounts.iter().enumerate().filter(move |each| !is_covered(*each)).map(|(_, mount)| mount)
    }

    /// Whether there is a disk where a pattern leads: below the mount in which all that it may match lies.
    fn check_disk(&self, pattern: &FileGlob, components: &[Component]) -> Result<(), FileError> {
        let mut names = Vec::new();
        for name in components.iter().map_while(Component::as_literal) {
            names.extend(b"/".iter().copied().chain(name));
        }
        let path = Path::new(OsStr::from_bytes(&names));
        let point = |mount: &Mount| Path::new(OsStr::from_bytes(&mount.point)).to_owned();
        let around = self.visible().filter(|mount| path.starts_with(point(mount)));
        let Some(home) = around.max_by_key(|mount| mount.point.len()) else { return Ok(()) };
        let mut below = self.visible().filter(|mount| point(mount).starts_with(point(home)));
        if below.any(|mount| self.has_disk(mount) && !mount.rests(components).is_empty()) {
            return Ok(());
        }
        Err(FileError::NoDisk {
            glob: pattern.text().to_owned(),
            mount: String::from_utf8_lossy(&home.point).into_owned(),
            kind: String::from_utf8_lossy(&home.kind).into_owned(),
        })
    }

    fn has_disk(&self, mount: &Mount) -> bool {
        !self.diskless.contains(&mount.kind)
    }

    /// `components`, with the symbolic links among those directories at its beginning that are there resolved.
    pub(super) fn canonical(&self, components: &[Component]) -> Vec<Component> {
        let names: Vec<_> = components.iter().map_while(Component::as_literal).collect();
        // Of the file itself a link is not followed: what is removed or renamed is the link.
        for count in (1..=names.len().min(components.len().saturating_sub(1))).rev() {
            let path: Vec<u8> =
                names[..count].iter().flat_map(|name| [b"/", name.as_slice()].concat()).collect();
            let Some(path) = self.real_path(Path::new(OsStr::from_bytes(&path))) else { continue };
            let real = path.into_os_string().into_vec();
            return split(&real).map(Component::literal).chain(components[count..].iter().cloned()).collect();
        }
        components.to_vec()
    }

    /// The path without symbolic links, if it leads anywhere.
    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
        fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()
    }
}

impl Mount {
    fn read(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let numbers = std::str::from_utf8(fields.next()?).ok()?;
        let (major, minor) = numbers.split_once(':')?;
        let device = major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?;
        let root = unescaped(fields.next()?);
        let point = unescaped(fields.next()?);
        // Optional fields end with a hyphen.
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?.to_vec();
        Some(Self { device, root, point, kind })
    }

    /// What of a pattern is left for paths within this mount's file system: nothing if it leads elsewhere.
    fn rests(&self, components: &[Component]) -> Vec<Vec<Component>> {
        // Places in the pattern: before which of its components the way to the mount point may end.
        let mut places = BTreeSet::from([0]);
        for name in split(&self.point) {
            let mut next = BTreeSet::new();
            let mut open: Vec<usize> = places.into_iter().collect();
            while let Some(place) = open.pop() {
                match components.get(place) {
                    Some(Component::Directories) => {
                        next.insert(place);
                        open.push(place + 1);
                    }
                    Some(component) if is_name(component, name) => {
                        next.insert(place + 1);
                    }
                    Some(_) | None => {}
                }
            }
            places = next;
        }
        let rest = |place: usize| -> Vec<Component> {
            let root = split(&self.root).map(Component::literal);
            root.chain(components[place..].iter().cloned()).collect()
        };
        places.into_iter().filter(|place| *place < components.len()).map(rest).collect()
    }

    /// The path of what lies at `inner`, a path within the file system, if it is part of what is mounted.
    #[must_use]
    pub fn outer(&self, inner: &[u8]) -> Option<Vec<u8>> {
        let root = self.root.strip_suffix(b"/").unwrap_or(&self.root);
        let rest = inner.strip_prefix(root).filter(|rest| rest.first() == Some(&b'/'))?;
        let point = self.point.strip_suffix(b"/").unwrap_or(&self.point);
        Some([point, rest].concat())
    }
}

/// Types of file systems that lie on no disk, as the running kernel says: proc_filesystems(5).
fn diskless() -> io::Result<BTreeSet<Vec<u8>>> {
    let text = fs::read("/proc/filesystems")?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| line.strip_prefix(b"nodev\t")).map(<[u8]>::to_vec).collect())
}

/// The mounts that this process sees.
#[must_use]
pub fn our_mounts() -> Vec<Mount> {
    Place::of("self").map_or_else(|_| Vec::new(), |place| place.visible().cloned().collect())
}

/// The names in a path.
fn split(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// Whether `component` stands for `name`, among others.
pub(super) fn is_name(component: &Component, name: &[u8]) -> bool {
    if let Some(literal) = component.as_literal() {
        return literal == name;
    }
    let automaton = automaton(std::slice::from_ref(component));
    automaton.is_ok_and(|automaton| automaton.matches(name.iter().copied().chain([b'/'])))
}

/// `\040` is a space, proc_pid_mountinfo(5).
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 8:2 / /data rw - ext4 /dev/sda2 rw
24 23 8:3 /sub/vol /data/my\\040wal rw - btrfs /dev/sda3 rw
25 22 0:21 / /data/hidden rw - tmpfs tmpfs rw
26 22 8:1 /srv/a /data/hidden rw - ext4 /dev/sda1 rw";

    fn place() -> Place {
        Place {
            root: None,
            diskless: BTreeSet::from([b"tmpfs".to_vec(), b"overlay".to_vec()]),
            mounts: MOUNTS.as_bytes().split(|byte| *byte == b'\n').filter_map(Mount::read).collect(),
        }
    }

    /// Whether `pattern` matches the path `inner` of the file system `device`.
    fn matches(pattern: &str, device: u32, inner: &str) -> bool {
        let pattern = FileGlob::read(pattern).unwrap();
        let pattern = Pattern { slot: 0, glob: &pattern, on_disk: false };
        let globs = globs(&[place()], [pattern].into_iter()).unwrap();
        let names: Vec<_> = split(inner.as_bytes()).collect();
        globs.iter().filter(|glob| glob.device == device).any(|glob| {
            glob.automaton.matches(names.iter().rev().flat_map(|name| name.iter().copied().chain([b'/'])))
        })
    }

    const fn disk(partition: u32) -> u32 {
        8 << 20 | partition
    }

    #[test]
    fn a_pattern_goes_on_within_the_file_systems_it_leads_to() {
        assert!(matches("/data/x/*", disk(2), "/x/1"));
        assert!(!matches("/data/x/*", disk(2), "/data/x/1"));
        assert!(matches("/var/*", disk(1), "/var/1"));
        assert!(matches("/data/**", disk(2), "/x"));
        assert!(matches("/data/**", disk(3), "/sub/vol/x"), "a mount below");
        assert!(!matches("/data/**", disk(3), "/sub/other/x"), "another part of it");
        assert!(matches("/**/1", disk(3), "/sub/vol/1"));
        assert!(matches("/d*/my wal/?", disk(3), "/sub/vol/1"));
        assert!(!matches("/e*/my wal/?", disk(3), "/sub/vol/1"));
    }

    #[test]
    fn what_lies_under_a_mount_is_not_meant() {
        assert!(matches("/data/hidden/*", disk(1), "/srv/a/1"));
        assert!(!matches("/data/hidden/*", 21, "/1"));
    }

    #[test]
    fn paths_within_a_file_system_are_found_under_its_mount_point() {
        let mounts = place().mounts;
        assert_eq!(mounts[0].outer(b"/etc/x").as_deref(), Some(&b"/etc/x"[..]));
        assert_eq!(mounts[2].outer(b"/sub/vol/x").as_deref(), Some(&b"/data/my wal/x"[..]));
        assert_eq!(mounts[2].outer(b"/sub/volume"), None);
    }

    #[test]
    fn links_at_the_beginning_of_a_pattern_are_followed() {
        let directory = tempfile::TempDir::new().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink("real", base.join("link")).unwrap();
        let place = Place::of("self").unwrap();
        let of = |name: &str| {
            let pattern = FileGlob::read(&format!("{}/{name}", base.display())).unwrap();
            place.canonical(pattern.components())
        };
        assert_eq!(of("link/new/*"), of("real/new/*"));
        assert_ne!(of("link"), of("real"));
    }

    #[test]
    fn a_pattern_that_leads_to_too_many_file_systems_is_refused() {
        let mounts = (0..=MAX_GLOBS as u32).map(|number| Mount {
            device: number,
            root: b"/".to_vec(),
            point: format!("/m/{number}").into_bytes(),
            kind: b"ext4".to_vec(),
        });
        let place = Place { root: None, mounts: mounts.collect(), diskless: BTreeSet::new() };
        let pattern = FileGlob::read("/m/**").unwrap();
        let pattern = Pattern { slot: 0, glob: &pattern, on_disk: false };
        assert!(matches!(globs(&[place], [pattern].into_iter()), Err(FileError::TooMany(65))));
    }

    #[test]
    fn patterns_of_block_operations_need_a_disk() {
        let place = || Place {
            mounts: [
                MOUNTS,
                "\n27 22 0:30 / /tmp rw - tmpfs tmpfs rw\n28 27 8:4 / /tmp/disk rw - ext4 /dev/sda4 rw",
            ]
            .concat()
            .as_bytes()
            .split(|byte| *byte == b'\n')
            .filter_map(Mount::read)
            .collect(),
            ..place()
        };
        let of = |text: &str| {
            let glob = FileGlob::read(text).unwrap();
            globs(&[place()], [Pattern { slot: 0, glob: &glob, on_disk: true }].into_iter()).map(drop)
        };
        for good in ["/data/x/*", "/**", "/tmp/**", "/tmp/disk/*", "/tmp/d*/1", "/data/hidden/*"] {
            of(good).unwrap();
        }
        for bad in ["/tmp/x", "/tmp/e*/**", "/tmp/*"] {
            let Err(FileError::NoDisk { mount, kind, .. }) = of(bad) else { panic!("{bad}") };
            assert_eq!((mount.as_str(), kind.as_str()), ("/tmp", "tmpfs"));
        }
    }
}
