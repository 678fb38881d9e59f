//! A tap device that lives exactly as long as a descriptor of the controller.

use std::{
    fs::{File, OpenOptions},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::{
    fs::{FileType, Mode, OFlags, makedev, mknodat, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use super::{
    super::{
        error::{NetError, Result},
        netns::NetnsHandle,
    },
    Purpose,
};

const DEVICE: &str = "/dev/net/tun";
/// `MISC_MAJOR` and `TUN_MINOR`, the numbers of [`DEVICE`].
const MAJOR: u32 = 10;
const MINOR: u32 = 200;

nix::ioctl_write_ptr_bad!(
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);
nix::ioctl_write_int!(tun_set_offload, b'T', 208);

/// `TUN_F_USO4 | TUN_F_USO6`: super-packets of UDP (Linux 6.2).
const UDP_SEGMENTATION: libc::c_uint = 0x20 | 0x40;
/// `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN`.
const TCP_SEGMENTATION: libc::c_uint = 0x01 | 0x02 | 0x04 | 0x08;

/// Makes a tap device called `name` in `netns`; none when the name is taken.
///
/// Closing the descriptor deletes the device before `close` returns, also when the closing is done by SIGKILL.
pub(super) fn create(netns: &NetnsHandle, name: &str, purpose: Purpose) -> Result<Option<OwnedFd>> {
    // The namespace of a tap is the one its descriptor was opened in.
    let file = netns.run_in(|| {
        open().map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => missing(purpose, error),
            _ => NetError::os("open", DEVICE, error),
        })
    })?;
    match name_it(&file, name) {
        Ok(()) => {}
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => return Ok(None),
        Err(error) => return Err(NetError::os("make", format!("a tap device in {netns}"), error)),
    }
    match purpose {
        Purpose::Lane | Purpose::Cut => {
            accept_super_packets(&file).map_err(|error| NetError::os("set the offloads of", name, error))?
        }
        // It has none until somebody asks.
        Purpose::Checksum => {}
    }
    Ok(Some(file.into()))
}

/// Opens the device; without its node (nobody made it, and the module is not loaded) through a node of our own, on
/// a file system that is mounted nowhere. Opening either loads the module.
///
/// # Errors
/// When the kernel has no tun (ENOENT, ENODEV, ENXIO), or without CAP_MKNOD and CAP_SYS_ADMIN.
pub fn open() -> io::Result<File> {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let nowhere = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(nowhere.as_fd())?;
            let flags = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NOSUID;
            let nowhere = fsmount(nowhere.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
            mknodat(
                &nowhere,
                c"tun",
                FileType::CharacterDevice,
                Mode::RUSR | Mode::WUSR,
                makedev(MAJOR, MINOR),
            )?;
            Ok(openat(&nowhere, c"tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?.into())
        }
        result => result,
    }
}

fn name_it(file: &File, name: &str) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    // One byte less: the name ends with NUL.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as libc::c_short;
    // SAFETY: TUNSETIFF reads (and writes back) one `ifreq`, and keeps no reference to it.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Super-packets and unfinished checksums may pass as they are: nothing is ever read from this device, so nobody
/// has to understand them, and cutting them up would cost the target's throughput.
fn accept_super_packets(file: &File) -> io::Result<()> {
    let set = |offloads: libc::c_uint| {
        // SAFETY: TUNSETOFFLOAD takes a number.
        unsafe { tun_set_offload(file.as_raw_fd(), offloads.into()) }
    };
    set(TCP_SEGMENTATION | UDP_SEGMENTATION).or_else(|_| set(TCP_SEGMENTATION))?;
    Ok(())
}

fn missing(purpose: Purpose, source: io::Error) -> NetError {
    NetError::Missing {
        what: "tap device",
        module: "tun",
        config: "CONFIG_TUN",
        remedy: format!(
            "{}: `modprobe tun` (which also makes {DEVICE}), or use a kernel that has it",
            purpose.need()
        ),
        source,
    }
}
