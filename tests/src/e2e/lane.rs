//! The kernels the tests run on, and what each must and must not be able to do.

use std::sync::LazyLock;

use crate::driver::fault;

/// Which kernel the tests run on; decides what must work and what must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lane {
    /// The machine's own kernel: packet loss must work, packet delay if `doctor` says so. Disks are left alone.
    Native,
    /// Class A: everything.
    Fault,
    /// Class B: no kprobe override.
    FmodOnly,
    /// Class C, tcx.
    #[value(name = "debian-6.12")]
    Debian612,
    /// Class C, clsact.
    #[value(name = "debian-6.1")]
    Debian61,
}

impl Lane {
    /// Whether block faults work here, and there are disks to try them on.
    #[must_use]
    pub const fn has_block(self) -> bool {
        matches!(self, Self::Fault | Self::FmodOnly)
    }

    /// Whether operations on files fail here: on every kernel whose functions can be hooked.
    #[must_use]
    pub const fn has_files(self) -> bool {
        !matches!(self, Self::Native)
    }

    /// Whether every operation on files and every kind of pattern is tried here: on a kernel of the older and one of the newer
    /// source, of which one can fail fsync.
    #[must_use]
    pub const fn tests_files_in_detail(self) -> bool {
        matches!(self, Self::FmodOnly | Self::Debian61)
    }

    /// Whether fsync must be refused here, although other operations on files fail.
    #[must_use]
    pub const fn refuses_fsync(self) -> bool {
        self.has_files() && !self.has_block()
    }

    /// Whether open(2) can be late here: where programs may sleep as a security module, and find the parking lot.
    #[must_use]
    pub const fn delays_opens(self) -> bool {
        matches!(self, Self::FmodOnly | Self::Debian612)
    }

    /// As [`Lane::delays_opens`], once: nothing of it depends on whose kernel it is.
    #[must_use]
    pub const fn tests_late_opens_in_detail(self) -> bool {
        matches!(self, Self::Debian612)
    }

    /// Whether open(2) must not be late here.
    #[must_use]
    pub fn refuses_late_opens(self) -> bool {
        match self {
            Self::Native => !NATIVE.file_open_delay,
            Self::Debian61 => true,
            Self::Fault | Self::FmodOnly | Self::Debian612 => false,
        }
    }

    /// Whether packets are tested here. The network of [`Lane::FmodOnly`] is that of [`Lane::Fault`], from the same
    /// source with the same options: the tests would run twice.
    #[must_use]
    pub const fn tests_packets(self) -> bool {
        !matches!(self, Self::FmodOnly)
    }

    /// Whether every filter, trigger and target is tried on packets here: once where programs hang on tcx, and once where
    /// they hang on clsact. The others only have to show that packets are found, lost and late there, too.
    #[must_use]
    pub const fn tests_packets_in_detail(self) -> bool {
        matches!(self, Self::Native | Self::Debian61)
    }

    /// As [`Lane::tests_packets_in_detail`], of what takes kinds of interfaces and qdiscs that this machine's own kernel may
    /// lack.
    #[must_use]
    pub const fn tests_devices_in_detail(self) -> bool {
        matches!(self, Self::Fault | Self::Debian61)
    }

    /// Whether operations on files are tested here. Those of [`Lane::Fault`] are those of [`Lane::FmodOnly`].
    #[must_use]
    pub const fn tests_files(self) -> bool {
        self.has_files() && !matches!(self, Self::Fault)
    }

    /// Whether this is a stock kernel of Debian's.
    #[must_use]
    pub fn is_debian(self) -> bool {
        matches!(self, Self::Debian612 | Self::Debian61)
    }

    /// Whether what the controller does by itself, whatever the kernel, is tested here.
    #[must_use]
    pub const fn tests_the_controller(self) -> bool {
        matches!(self, Self::Native)
    }

    /// The same of what takes delays of packets.
    #[must_use]
    pub fn tests_the_controller_with_delays(self) -> bool {
        matches!(self, Self::Debian612) || self.tests_the_controller() && self.has_packet_delay()
    }

    /// Whether the engines of containers and services run here.
    #[must_use]
    pub const fn has_engines(self) -> bool {
        matches!(self, Self::Debian612)
    }

    /// Whether the short scenarios of the gallery are played here: where packets are late and disks fail, once.
    #[must_use]
    pub const fn shows_the_gallery(self) -> bool {
        matches!(self, Self::Fault)
    }

    /// Whether every filter and verb is tried on disks here. The backends and the file systems of the other lane that has
    /// disks are the same, from the same source.
    #[must_use]
    pub const fn tests_disks_in_detail(self) -> bool {
        matches!(self, Self::FmodOnly)
    }

    /// Whether programs can speak MPTCP here. The kernels we build have none, and must do without.
    #[must_use]
    pub fn speaks_mptcp(self) -> bool {
        match self {
            Self::Native => std::path::Path::new("/proc/sys/net/mptcp").is_dir(),
            Self::Debian61 => true,
            // Packets are tested in detail elsewhere.
            Self::Fault | Self::FmodOnly | Self::Debian612 => false,
        }
    }

    /// Whether packets can be delayed here.
    #[must_use]
    pub fn has_packet_delay(self) -> bool {
        match self {
            Self::Native => NATIVE.packet_delay,
            Self::Fault | Self::FmodOnly | Self::Debian612 | Self::Debian61 => true,
        }
    }

    /// Whether there are VLAN devices, without which packets cannot be corrupted.
    #[must_use]
    pub fn has_vlan(self) -> bool {
        match self {
            Self::Native => NATIVE.vlan,
            Self::Fault | Self::FmodOnly | Self::Debian612 | Self::Debian61 => true,
        }
    }

    /// Whether block faults must be refused here.
    #[must_use]
    pub fn refuses_block(self) -> bool {
        match self {
            Self::Native => !NATIVE.disk_error,
            Self::Fault | Self::FmodOnly => false,
            Self::Debian612 | Self::Debian61 => true,
        }
    }

    /// Whether their delay is tested here.
    #[must_use]
    pub fn tests_packet_delay(self) -> bool {
        self.tests_packets() && self.has_packet_delay() && !matches!(self, Self::Debian612)
    }

    /// Whether the distributions of late packets are tested here: on the newest kernel and on the oldest.
    #[must_use]
    pub const fn tests_jitter(self) -> bool {
        matches!(self, Self::Fault | Self::Debian61)
    }

    /// Whether the distributions of late block I/O are tested here. The backend that delays is the same everywhere.
    #[must_use]
    pub const fn tests_block_jitter(self) -> bool {
        matches!(self, Self::Fault)
    }
}

/// What `doctor` says of the machine's own kernel.
struct Native {
    packet_delay: bool,
    disk_error: bool,
    file_open_delay: bool,
    vlan: bool,
}

static NATIVE: LazyLock<Native> = LazyLock::new(|| {
    // A doctor that does not answer has tests of its own; here it means that nothing more than packet loss is tried.
    let output = fault(&["doctor", "--json"]).output();
    let report = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
    let report: serde_json::Value = report.unwrap_or_default();
    let can = |feature: &str| report["features"][feature]["ok"] == true;
    Native {
        packet_delay: can("packet_delay"),
        disk_error: can("disk_error"),
        file_open_delay: can("file_open_delay"),
        vlan: can("packet_corruption"),
    }
});
