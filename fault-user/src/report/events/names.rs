//! Names for what the kernel only numbers.

use std::{
    collections::HashMap,
    ffi::CStr,
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use crate::file::places::{Mount, our_mounts};

/// Names for numbers.
pub trait Names {
    /// `vda1` for a `dev_t` of the kernel (major << 20 | minor).
    fn device(&mut self, dev: u32) -> String;
    /// Name of a process, should it still run: `curl`. The kernel half knows it only of the task it runs in.
    fn process(&mut self, pid: u32) -> Option<String>;
    /// Path of a cgroup below the root of the v2 hierarchy: `/system.slice/ssh.service`.
    fn cgroup(&mut self, id: u64) -> Option<String>;
    /// The path here of what lies at `inner` in a file system with this `s_dev`; nothing if it is not mounted here.
    fn path(&mut self, device: u32, inner: &[u8]) -> Option<Vec<u8>>;
}

/// As below, of mounts.
const MOUNTS_LAST: Duration = Duration::from_secs(1);
/// How long the name of a process is taken to be the same: it changes with execve(2), and pids are used again.
const PROCESS_NAMES_LAST: Duration = Duration::from_secs(1);

/// The names of this machine, each looked up once, those of processes once a second.
#[derive(Debug, Default)]
pub struct SystemNames {
    devices: HashMap<u32, String>,
    processes: HashMap<u32, Option<String>>,
    processes_since: Option<Instant>,
    cgroups: HashMap<u64, Option<String>>,
    mounts: Option<(Instant, Vec<Mount>)>,
    /// Root of the v2 hierarchy, opened when first needed; `None` inside when there is none.
    root: Option<Option<(OwnedFd, String)>>,
}

/// `major:minor`, as `/sys/dev/block` has it.
pub(super) fn numbers(dev: u32) -> String {
    format!("{}:{}", dev >> 20, dev & 0xf_ffff)
}

impl Names for SystemNames {
    fn device(&mut self, dev: u32) -> String {
        let find = || {
            let numbers = numbers(dev);
            // A link to the device's directory, whose name is the device's.
            let link = fs::read_link(Path::new("/sys/dev/block").join(&numbers));
            let name = link.ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
            name.unwrap_or(numbers)
        };
        self.devices.entry(dev).or_insert_with(find).clone()
    }

    fn process(&mut self, pid: u32) -> Option<String> {
        if self.processes_since.is_none_or(|since| since.elapsed() >= PROCESS_NAMES_LAST) {
            self.processes.clear();
            self.processes_since = Some(Instant::now());
        }
        let find = || comm(fs::read(format!("/proc/{pid}/comm")).ok()?.trim_ascii_end());
        self.processes.entry(pid).or_insert_with(find).clone()
    }

    fn cgroup(&mut self, id: u64) -> Option<String> {
        if let Some(known) = self.cgroups.get(&id) {
            return known.clone();
        }
        let root = self.root.get_or_insert_with(open_root);
        let path = root.as_ref().and_then(|(root, mount)| {
            let path = path_of(root, id).ok()?;
            Some(path.strip_prefix(mount.as_str()).filter(|path| !path.is_empty()).unwrap_or("/").to_owned())
        });
        self.cgroups.insert(id, path.clone());
        path
    }

    fn path(&mut self, device: u32, inner: &[u8]) -> Option<Vec<u8>> {
        self.mounts.take_if(|(since, _)| since.elapsed() >= MOUNTS_LAST);
        let (_, mounts) = self.mounts.get_or_insert_with(|| (Instant::now(), our_mounts()));
        mounts.iter().filter(|mount| mount.device == device).find_map(|mount| mount.outer(inner))
    }
}

fn open_root() -> Option<(OwnedFd, String)> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| path.to_owned())
    })?;
    let root = fs::File::open(&mount).ok()?;
    Some((root.into(), mount))
}

/// A cgroup's id is its file handle (`kernfs_encode_fh`, `FILEID_KERNFS` in include/linux/exportfs.h, Linux 5.5).
fn path_of(root: &OwnedFd, id: u64) -> io::Result<String> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: [u8; 8],
    }
    const FILEID_KERNFS: i32 = 0xfe;
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
    // SAFETY: `handle` is a `struct file_handle` with its 8 bytes behind it; the descriptor is open.
    let fd = unsafe {
        libc::open_by_handle_at(root.as_raw_fd(), (&raw mut handle).cast(), libc::O_PATH | libc::O_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let cgroup = unsafe { OwnedFd::from_raw_fd(fd) };
    let path = fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd()))?;
    Ok(path.to_string_lossy().into_owned())
}

/// A task's name, without what follows its end.
pub(super) fn comm(bytes: &[u8]) -> Option<String> {
    let text = CStr::from_bytes_until_nul(bytes).map_or(bytes, CStr::to_bytes);
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}
